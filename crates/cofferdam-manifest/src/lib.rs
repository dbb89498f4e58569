//! The declared workspace and agent file: parse, validate, render; pure
