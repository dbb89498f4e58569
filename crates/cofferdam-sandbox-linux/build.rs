//! Compiles `launcher/` with the same `rustc` to a small static program, which `src/programs.rs` embeds.

use std::{env, error::Error, path::PathBuf, process::Command};

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=launcher");
    if env::var("CARGO_CFG_TARGET_OS")? != "linux" {
        // The crate is empty there.
        return Ok(());
    }
    let output = PathBuf::from(env::var_os("OUT_DIR").ok_or("no OUT_DIR")?).join("cofferdam-launcher");
    let mut rustc = Command::new(env::var_os("RUSTC").ok_or("no RUSTC")?);
    rustc
        .args(["--edition=2024", "--crate-type=bin", "--crate-name=cofferdam_launcher"])
        .arg(format!("--target={}", env::var("TARGET")?))
        // Static and at a fixed place: no loader, no relocation, no library to be found inside.
        .args(["-Ctarget-feature=+crt-static", "-Crelocation-model=static"])
        .args(["-Copt-level=2", "-Ccodegen-units=1", "-Cpanic=abort", "-Cstrip=symbols"])
        .arg("-o")
        .arg(&output)
        .arg("launcher/main.rs");
    if let Some(linker) = env::var_os("RUSTC_LINKER") {
        let mut argument = std::ffi::OsString::from("-Clinker=");
        argument.push(linker);
        rustc.arg(argument);
    }
    let status = rustc.status()?;
    if !status.success() {
        return Err(format!(
            "rustc could not make the static launcher ({status}); a static C library (libc.a) is needed"
        )
        .into());
    }
    Ok(())
}
