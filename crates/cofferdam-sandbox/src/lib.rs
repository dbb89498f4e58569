//! The SandboxBackend and Sandbox seams, the guest client, and the public conformance suite
