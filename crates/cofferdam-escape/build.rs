//! Compiles `program/` to one static executable for the target and leaves it in `OUT_DIR`, where `src/lib.rs` embeds
//! it.
//!
//! Cargo cannot yet build a program for another linkage and embed it in a library (`-Z bindeps`), so this calls the same
//! `rustc`. The program has no dependencies.

#![expect(
    clippy::disallowed_methods,
    reason = "a build script is told by its environment what to build, and runs the compiler"
)]

use std::{env, ffi::OsString, path::PathBuf, process::Command};

type Result<T> = std::result::Result<T, String>;

fn main() -> Result<()> {
    emit("rerun-if-changed=program");
    emit("rerun-if-changed=build.rs");
    if variable("CARGO_CFG_TARGET_OS")? != "linux" {
        // The crate is empty there.
        return Ok(());
    }
    let target = variable("TARGET")?;
    let mut command = Command::new(variable("RUSTC")?);
    command
        .arg("program/main.rs")
        .arg("-o")
        .arg(PathBuf::from(variable("OUT_DIR")?).join("cofferdam-probe"))
        .arg(format!("--target={target}"))
        // Lints are the business of cargo's own build of the same sources.
        .args(["--edition=2024", "--crate-name=cofferdam_probe", "--cap-lints=allow"])
        .args([
            "-Copt-level=2",
            "-Cpanic=abort",
            "-Ccodegen-units=1",
            "-Clto=fat",
            "-Cstrip=symbols",
        ])
        // Static and at a fixed place: no loader, no relocation, no library to be found.
        .args(["-Ctarget-feature=+crt-static", "-Crelocation-model=static"]);
    let name = format!("CARGO_TARGET_{}_LINKER", target.to_uppercase().replace(['-', '.'], "_"));
    emit(&format!("rerun-if-env-changed={name}"));
    if let Some(linker) = env::var_os(&name) {
        let mut option = OsString::from("-Clinker=");
        option.push(linker);
        command.arg(option);
    }
    let output = command.output().map_err(|error| format!("cannot run {command:?}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!(
        "cannot compile the static probe program for {target}.\n\
         If the linker did not find `-lc`, install the static C library (Debian and Ubuntu: libc6-dev; \
         Fedora: glibc-static).\n{command:?}\n{}",
        String::from_utf8_lossy(&output.stderr)
    ))
}

fn variable(name: &str) -> Result<String> {
    env::var(name).map_err(|_| format!("cargo did not set {name}"))
}

fn emit(instruction: &str) {
    println!("cargo::{instruction}");
}
