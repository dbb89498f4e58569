//! Shell, terminal-session, file and image tools over any sandbox
