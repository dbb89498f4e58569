//! Compiles the guest program to one static executable for the target and leaves it in `OUT_DIR` for `PROGRAM`.
//!
//! Cargo cannot yet build a program for another linkage and embed it in a library (`-Z bindeps`), so this calls the same
//! `rustc`: first for this package's library, then for `program/main.rs` with it. Neither has dependencies.

#![expect(
    clippy::disallowed_methods,
    reason = "a build script is told by its environment what to build, and runs the compiler"
)]

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

type Result<T> = std::result::Result<T, String>;

#[expect(clippy::print_stderr, reason = "cargo shows what a failed build script wrote")]
fn main() -> ExitCode {
    match build() {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

fn build() -> Result<()> {
    for path in ["src", "program", "build.rs"] {
        emit(&format!("rerun-if-changed={path}"));
    }
    if env::var_os("CARGO_FEATURE_PROGRAM").is_none() || variable("CARGO_CFG_TARGET_OS")? != "linux"
    {
        return Ok(());
    }
    let out = PathBuf::from(variable("OUT_DIR")?);
    let library = out.join("libcofferdam_guest.rlib");
    compile(
        Path::new("src/lib.rs"),
        &library,
        &["--crate-name=cofferdam_guest", "--crate-type=rlib"],
    )?;
    let program = out.join("cofferdam-guest");
    let dependency = format!("--extern=cofferdam_guest={}", library.display());
    compile(
        Path::new("program/main.rs"),
        &program,
        &["--crate-name=cofferdam_guest_program", "--crate-type=bin", "-Clto=fat", &dependency],
    )
}

fn compile(source: &Path, output: &Path, arguments: &[&str]) -> Result<()> {
    let target = variable("TARGET")?;
    let mut command = Command::new(variable("RUSTC")?);
    command
        .arg(source)
        .arg("-o")
        .arg(output)
        .arg(format!("--target={target}"))
        // Lints are the business of cargo's own build of the same sources.
        .args(["--edition=2024", "--cap-lints=allow"])
        .args(["-Copt-level=2", "-Cpanic=abort", "-Ccodegen-units=1", "-Cstrip=symbols"])
        // One file that runs in any root file system; its addresses need not be random, its memory is no secret.
        .args(["-Ctarget-feature=+crt-static", "-Crelocation-model=static"])
        .args(arguments);
    let name = format!("CARGO_TARGET_{}_LINKER", target.to_uppercase().replace(['-', '.'], "_"));
    emit(&format!("rerun-if-env-changed={name}"));
    if let Some(linker) = env::var_os(&name) {
        let mut option = std::ffi::OsString::from("-Clinker=");
        option.push(linker);
        command.arg(option);
    }
    let output = command.output().map_err(|error| format!("cannot run {command:?}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!(
        "cannot compile the static guest program for {target}.\n\
         If the linker did not find `-lc`, install the static C library (Debian and Ubuntu: libc6-dev; \
         Fedora: glibc-static).\n\
         To build without the program, switch off the feature `program` of cofferdam-guest.\n{command:?}\n{}",
        String::from_utf8_lossy(&output.stderr)
    ))
}

fn variable(name: &str) -> Result<String> {
    env::var(name).map_err(|_| format!("cargo did not set {name}"))
}

fn emit(instruction: &str) {
    println!("cargo::{instruction}");
}
