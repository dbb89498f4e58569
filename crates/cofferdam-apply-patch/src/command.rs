//! The `apply-patch` command: a patch as argument or on standard input, the peers' output and exit codes.
//!
//! Exit code 0: applied. 1: the patch is wrong or does not apply. 2: wrong usage. Standard output has only the success
//! report. Standard error has the peers' message first and then, except with `--compat`, what helps to correct the patch,
//! and warnings about fuzz and ambiguity.

use std::ffi::OsString;
use std::hash::{BuildHasher as _, RandomState};
use std::io::{self, Read, Write};
use std::path::Path;

use crate::host::HostDirectory;
use crate::options::Options;
use crate::parse::{MAX_PATCH_BYTES, parse_with};
use crate::path::PathRules;
use crate::plan::{PlanError, PlanFault, plan};
use crate::transaction::commit;

mod peer;

const USAGE: &str = "Usage: apply_patch 'PATCH'\n       echo 'PATCH' | apply_patch";
const SUCCESS: u8 = 0;
const FAILURE: u8 = 1;
const WRONG_USAGE: u8 = 2;

/// Runs the command and returns its exit code.
///
/// `args` are the arguments after the command's name: nothing, or the patch; `--compat` before it chooses
/// [`Options::peer_compatible`] and the peers' messages alone. Paths are relative to `cwd`, or absolute inside it.
/// Standard input is read only when the patch is not an argument.
pub fn run(
    args: &[OsString],
    stdin: &mut dyn Read,
    cwd: &Path,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> u8 {
    let (is_compat, args) = match args {
        [first, rest @ ..] if first == "--compat" => (true, rest),
        _ => (false, args),
    };
    let text = match patch_text(args, stdin) {
        Ok(text) => text,
        Err((code, message)) => return report(err, &message, code),
    };
    let mut session = Session { cwd, is_compat, err };
    match session.apply(&text) {
        // A report that nobody can read does not make the patch fail.
        Ok(summary) => {
            let _ = out.write_all(summary.as_bytes());
            SUCCESS
        }
        Err(message) => report(session.err, &message, FAILURE),
    }
}

/// Writes a message. When standard error is closed there is nobody left to tell.
fn report(err: &mut dyn Write, message: &str, code: u8) -> u8 {
    let _ = writeln!(err, "{message}");
    code
}

fn patch_text(args: &[OsString], stdin: &mut dyn Read) -> Result<String, (u8, String)> {
    match args {
        [patch] => patch.to_str().map(str::to_owned).ok_or_else(|| {
            (FAILURE, "Error: apply_patch requires a UTF-8 PATCH argument.".to_owned())
        }),
        [] => {
            let mut text = String::new();
            let limit = MAX_PATCH_BYTES as u64 + 1;
            match stdin.take(limit).read_to_string(&mut text) {
                Ok(0) => Err((WRONG_USAGE, USAGE.to_owned())),
                Ok(_) => Ok(text),
                Err(error) => {
                    Err((FAILURE, format!("Error: Failed to read PATCH from stdin.\n{error}")))
                }
            }
        }
        _ => Err((WRONG_USAGE, "Error: apply_patch accepts exactly one argument.".to_owned())),
    }
}

struct Session<'a> {
    cwd: &'a Path,
    is_compat: bool,
    err: &'a mut dyn Write,
}

impl Session<'_> {
    /// Applies a patch and returns what goes to standard output, or what goes to standard error.
    fn apply(&mut self, text: &str) -> Result<String, String> {
        let options = if self.is_compat { Options::peer_compatible() } else { Options::default() };
        let rules = self.cwd.to_str().map(PathRules::inside_root).unwrap_or_default();
        let patch = parse_with(text, &rules)
            .map_err(|error| self.with_help(peer::parse_message(&error), || error.to_string()))?;
        let mut directory = HostDirectory::open(self.cwd)
            .map_err(|error| format!("Failed to open directory {}: {error}", self.cwd.display()))?;
        let plan =
            plan(&patch, &options, &mut |path| Ok(directory.read(path)?)).map_err(|error| {
                self.with_help(peer::plan_message(&error, self.cwd), || plan_help(&error))
            })?;
        commit(&plan, &token(), &mut directory).map_err(|error| {
            self.with_help(peer::commit_message(&error, self.cwd), || {
                format!("{error}: {}", error.cause)
            })
        })?;
        if let Some(error) = &plan.failure {
            return Err(self.with_help(peer::plan_message(error, self.cwd), || plan_help(error)));
        }
        if !self.is_compat {
            for warning in plan.warnings() {
                report(self.err, &format!("warning: {warning}"), SUCCESS);
            }
        }
        Ok(plan.summary())
    }

    /// Adds our own words to the peers' message, unless only theirs are wanted.
    fn with_help(&self, peer_message: String, help: impl FnOnce() -> String) -> String {
        if self.is_compat { peer_message } else { format!("{peer_message}\n{}", help()) }
    }
}

fn plan_help(error: &PlanError) -> String {
    let why = match &error.fault {
        // The peers' message already quotes the expected lines.
        PlanFault::Hunk(fault) => format!("{fault}{}", fault.nearest()),
        fault => fault.to_string(),
    };
    format!("{why}\noperation {} failed, so nothing was changed", error.operation)
}

/// A name that differs between processes and calls: the standard library seeds its hashers at random.
fn token() -> String {
    format!("{:016x}", RandomState::new().hash_one(std::process::id()))
}

/// Joins a path of a patch to the directory, for messages.
fn absolute(cwd: &Path, path: &crate::path::PatchPath) -> String {
    cwd.join(path.as_str()).display().to_string()
}

/// The words of the system for a file that is not there.
fn not_found() -> io::Error {
    rustix::io::Errno::NOENT.into()
}
