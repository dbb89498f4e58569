//! OpenAI Responses and Chat Completions clients
