//! One command in a sealed sandbox, and no agent at all.
//!
//! ```sh
//! cargo run -p cofferdam-examples --example sandbox_only
//! ```
#![expect(clippy::print_stdout, reason = "a program for the terminal")]

use cofferdam::{
    sandbox::{ExecRequest, SandboxBackend as _, SandboxExt as _, SandboxSpec, WriteOptions},
    sandbox_linux::LinuxBackend,
};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let sandbox = LinuxBackend::default().create(&SandboxSpec::default()).await?;
    sandbox
        .files()
        .write(&"numbers.txt".parse()?, "3\n1\n2\n".into(), &WriteOptions::default())
        .await?;
    let output =
        sandbox.run(ExecRequest::shell("sort numbers.txt; id -u; ls /home"), 1 << 20).await?;
    println!("{}", output.stdout.to_text());
    println!("{}", output.stderr.to_text());
    sandbox.close().await?;
    Ok(())
}
