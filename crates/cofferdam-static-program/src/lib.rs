//! For build scripts: compiles a program of the package to one static executable for the target, in `OUT_DIR`, so that a
//! library can embed it with `include_bytes!`.
//!
//! Cargo cannot yet build a program for another linkage and embed it in a library (`-Z bindeps`), so this calls the same
//! `rustc`. The program may use the standard library, and libraries that were compiled the same way, such as the package's
//! own.
//!
//! ```no_run
//! // build.rs
//! fn main() -> Result<(), String> {
//!     cofferdam_static_program::Program::new("the probe program", "program/main.rs", "cofferdam_probe")
//!         .compile("cofferdam-probe")
//!         .map(drop)
//! }
//! ```
#![forbid(unsafe_code)]
#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a build script is told by its environment what to build, runs the compiler, and talks to cargo"
)]

use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
    process::Command,
};

/// A program, or a library for one, to be compiled.
#[derive(Debug)]
#[must_use]
pub struct Program<'a> {
    what: &'a str,
    source: &'a Path,
    crate_name: &'a str,
    library: Option<(&'a str, &'a Path)>,
}

impl<'a> Program<'a> {
    /// Describes a program: what it is in messages, its main file in the package, and the name of its crate.
    pub fn new(
        what: &'a str,
        source: &'a (impl AsRef<Path> + ?Sized),
        crate_name: &'a str,
    ) -> Self {
        Self { what, source: source.as_ref(), crate_name, library: None }
    }

    /// Links a library that [`Program::compile_library`] made.
    pub fn library(mut self, crate_name: &'a str, file: &'a Path) -> Self {
        self.library = Some((crate_name, file));
        self
    }

    /// Compiles the program to a file of this name in `OUT_DIR`, and returns its path.
    ///
    /// # Errors
    ///
    /// A text for whoever builds: what cargo did not say, or what the compiler said and what to install.
    pub fn compile(self, file: &str) -> Result<PathBuf, String> {
        // Static and at a fixed place: no loader, no relocation, no library to be found. The addresses need not be random,
        // since the memory of such a program is no secret.
        self.run(file, &["--crate-type=bin", "-Clto=fat"])
    }

    /// Compiles a library for a program to a file of this name in `OUT_DIR`, and returns its path.
    ///
    /// # Errors
    ///
    /// As [`Program::compile`].
    pub fn compile_library(self, file: &str) -> Result<PathBuf, String> {
        self.run(file, &["--crate-type=rlib"])
    }

    fn run(self, file: &str, options: &[&str]) -> Result<PathBuf, String> {
        let output = PathBuf::from(variable("OUT_DIR")?).join(file);
        let target = variable("TARGET")?;
        let mut command = Command::new(variable("RUSTC")?);
        command
            .arg(self.source)
            .arg("-o")
            .arg(&output)
            .arg(format!("--target={target}"))
            .arg(format!("--crate-name={}", self.crate_name))
            // Lints are the business of cargo's own build of the same sources.
            .args(["--edition=2024", "--cap-lints=allow"])
            .args(["-Copt-level=2", "-Cpanic=abort", "-Ccodegen-units=1", "-Cstrip=symbols"])
            .args(["-Ctarget-feature=+crt-static", "-Crelocation-model=static"])
            .args(options);
        if let Some((name, library)) = self.library {
            let mut option = OsString::from(format!("--extern={name}="));
            option.push(library);
            command.arg(option);
        }
        let linker =
            format!("CARGO_TARGET_{}_LINKER", target.to_uppercase().replace(['-', '.'], "_"));
        println!("cargo::rerun-if-env-changed={linker}");
        if let Some(linker) = env::var_os(&linker) {
            let mut option = OsString::from("-Clinker=");
            option.push(linker);
            command.arg(option);
        }
        let done = command.output().map_err(|error| format!("cannot run {command:?}: {error}"))?;
        if done.status.success() {
            return Ok(output);
        }
        Err(format!(
            "cannot compile {} for {target}.\n\
             If the linker did not find `-lc`, install the static C library (Debian and Ubuntu: libc6-dev; \
             Fedora: glibc-static).\n{command:?}\n{}",
            self.what,
            String::from_utf8_lossy(&done.stderr)
        ))
    }
}

/// Tells cargo which files of the package the build depends on.
pub fn rerun_if_changed(paths: &[&str]) {
    for path in paths {
        println!("cargo::rerun-if-changed={path}");
    }
}

/// Returns whether the build is for Linux, the only system that the programs are for.
///
/// # Errors
///
/// If cargo did not say.
pub fn is_for_linux() -> Result<bool, String> {
    Ok(variable("CARGO_CFG_TARGET_OS")? == "linux")
}

/// Returns whether a feature of the package, in lower case, is switched on.
#[must_use]
pub fn has_feature(feature: &str) -> bool {
    env::var_os(format!("CARGO_FEATURE_{}", feature.to_uppercase().replace('-', "_"))).is_some()
}

fn variable(name: &str) -> Result<String, String> {
    env::var(name).map_err(|_| format!("cargo did not set {name}"))
}
