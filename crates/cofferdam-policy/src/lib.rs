//! Pure decisions on tool calls: allow, deny, ask, with reasons
