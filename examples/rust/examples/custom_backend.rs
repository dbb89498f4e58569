//! A backend from outside: it wraps another and logs what is made. A backend of a new kind builds its own box instead,
//! and hands the guest's stream to `GuestClient`.
//!
//! ```sh
//! cargo run -p cofferdam-examples --example custom_backend
//! ```
#![expect(clippy::print_stdout, reason = "a program for the terminal")]

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use async_trait::async_trait;
use cofferdam::{
    Agent,
    core::SandboxId,
    model::ScriptedModel,
    sandbox::{
        Guarantees, ListedSandbox, Sandbox, SandboxBackend, SandboxError, SandboxSpec, SandboxState,
    },
    sandbox_linux::LinuxBackend,
};

/// Counts the sandboxes that another backend makes, and gives each less memory.
#[derive(Debug)]
struct Counting {
    inner: LinuxBackend,
    made: AtomicU32,
}

#[async_trait]
impl SandboxBackend for Counting {
    fn name(&self) -> &str {
        "counting"
    }

    async fn guarantees(&self) -> Result<Guarantees, SandboxError> {
        self.inner.guarantees().await
    }

    async fn create(&self, spec: &SandboxSpec) -> Result<Arc<dyn Sandbox>, SandboxError> {
        self.made.fetch_add(1, Ordering::Relaxed);
        let mut spec = spec.clone();
        spec.limits.memory_bytes = spec.limits.memory_bytes.min(256 << 20);
        self.inner.create(&spec).await
    }

    async fn attach(&self, state: &SandboxState) -> Result<Arc<dyn Sandbox>, SandboxError> {
        self.inner.attach(state).await
    }

    async fn list(&self) -> Result<Vec<ListedSandbox>, SandboxError> {
        self.inner.list().await
    }

    async fn remove(&self, id: &SandboxId) -> Result<(), SandboxError> {
        self.inner.remove(id).await
    }
}

const SCRIPT: &str = "
name: demo
turns:
  - items: [{call: exec_command, arguments: {cmd: 'echo hello'}}]
  - items: [{message: done}]
";

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let backend = Arc::new(Counting { inner: LinuxBackend::default(), made: AtomicU32::new(0) });
    let agent = Agent::builder("demo")
        .model(ScriptedModel::from_yaml(SCRIPT)?)
        .backend(backend.clone())
        .build()?;
    for _ in 0..2 {
        agent.run("say hello").await?;
    }
    println!("{} sandboxes made", backend.made.load(Ordering::Relaxed));
    Ok(())
}
