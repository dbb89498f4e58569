//! The guest protocol and the static program that serves it inside every sandbox
