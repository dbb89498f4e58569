//! Materialises a manifest into a sandbox: local trees, git, inline files; collects outputs
