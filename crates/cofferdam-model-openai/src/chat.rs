//! Chat Completions.

/// The field of `extra` under which this client keeps a server's further fields, apart from those of other providers.
pub(crate) const CHAT_FIELDS: &str = "openai_chat";
