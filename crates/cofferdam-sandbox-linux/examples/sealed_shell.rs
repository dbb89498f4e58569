//! Runs a command in a fresh sandbox with small limits: `sealed_shell [--] PROGRAM ARGUMENT...`, by default `sh -s`.
//!
//! Standard input goes in, standard output and error come out, and the exit code is the command's.

use std::{env, error::Error, io::Write, os::unix::ffi::OsStringExt, process::ExitCode};

use bytes::Bytes;
use cofferdam_core::SandboxLimits;
use cofferdam_sandbox::{ExecEvent, ExecRequest, SandboxBackend, SandboxSpec};
use cofferdam_sandbox_linux::LinuxBackend;
use futures::StreamExt;
use tokio::io::AsyncReadExt;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<ExitCode, Box<dyn Error>> {
    let mut argv: Vec<Vec<u8>> =
        env::args_os().skip(1).map(OsStringExt::into_vec).skip_while(|a| a == b"--").collect();
    if argv.is_empty() {
        argv = vec![b"sh".to_vec(), b"-s".to_vec()];
    }
    let spec = SandboxSpec {
        limits: SandboxLimits {
            memory_bytes: 512 << 20,
            disk_bytes: 64 << 20,
            ..SandboxLimits::default()
        },
        ..SandboxSpec::default()
    };
    let sandbox = LinuxBackend::new().create(&spec).await?;
    let mut process =
        sandbox.exec(ExecRequest { stdin: true, ..ExecRequest::program(argv) }).await?;

    let control = process.control();
    tokio::spawn(async move {
        let mut input = tokio::io::stdin();
        let mut piece = vec![0; 64 * 1024];
        while let Ok(length @ 1..) = input.read(&mut piece).await {
            control.write_stdin(Bytes::copy_from_slice(&piece[..length])).await?;
        }
        control.close_stdin().await
    });
    let mut code = 1;
    while let Some(event) = process.next().await {
        match event? {
            ExecEvent::Stdout(bytes) => std::io::stdout().write_all(&bytes)?,
            ExecEvent::Stderr(bytes) => std::io::stderr().write_all(&bytes)?,
            ExecEvent::Exited(status) => {
                code = status.shell_code();
                break;
            }
            _ => {}
        }
    }
    sandbox.close().await?;
    // A read of a terminal cannot be cancelled, so this does not wait for it.
    std::process::exit(code);
}
