//! Vocabulary without I/O: ids, items, tool calls, usage, workspace paths, secrets, clock, retry
