//! What cases are written with: comparisons that say what was expected, and commands run to their end.

use std::{fmt::Debug, time::Duration};

use bytes::Bytes;
use cofferdam_core::WorkspacePath;
use futures::StreamExt as _;

use super::{CaseFailure, trial::Stop};
use crate::{
    ExecEvent, ExecRequest, ExitStatus, ListOptions, Listing, LossReason, Process, Sandbox,
    SandboxError, TerminalSize, WriteOptions,
};

pub(super) type CaseResult = Result<(), Stop>;

/// Numbers of errors, as on Linux.
pub(super) mod errno {
    pub(crate) const ENOENT: i32 = 2;
    pub(crate) const E2BIG: i32 = 7;
    pub(crate) const ENOEXEC: i32 = 8;
    pub(crate) const EACCES: i32 = 13;
    pub(crate) const EEXIST: i32 = 17;
    pub(crate) const ENOTDIR: i32 = 20;
    pub(crate) const EISDIR: i32 = 21;
    pub(crate) const EINVAL: i32 = 22;
    pub(crate) const ENOSPC: i32 = 28;
    pub(crate) const ENOTEMPTY: i32 = 39;
    pub(crate) const ELOOP: i32 = 40;
}

/// Longest text of a value in a failure, in characters.
const SHOWN: usize = 400;

fn shown(value: &impl Debug) -> String {
    let text = format!("{value:?}");
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}… ({} bytes)", &text[..end], text.len()),
        None => text,
    }
}

pub(super) fn mismatch(what: &str, expected: &str, found: &impl Debug) -> Stop {
    let (what, expected) = (what.to_owned(), expected.to_owned());
    CaseFailure::Mismatch { what, expected, found: shown(found) }.into()
}

/// Demands that what was found is what was expected.
pub(super) fn equal<T: PartialEq<E> + Debug, E: Debug>(
    what: &str,
    found: T,
    expected: E,
) -> CaseResult {
    if found == expected { Ok(()) } else { Err(mismatch(what, &shown(&expected), &found)) }
}

/// Demands that a condition on what was found holds.
pub(super) fn holds(what: &str, condition: bool, expected: &str, found: &impl Debug) -> CaseResult {
    if condition { Ok(()) } else { Err(mismatch(what, expected, found)) }
}

/// Demands [`SandboxError::File`], with this number if there is one.
pub(super) fn refused<T: Debug>(
    what: &str,
    result: Result<T, SandboxError>,
    number: Option<i32>,
) -> CaseResult {
    match &result {
        Err(SandboxError::File { errno, .. }) if number.is_none_or(|number| number == *errno) => {
            Ok(())
        }
        _ => {
            let number = number.map(|number| format!(" with errno {number}")).unwrap_or_default();
            Err(mismatch(what, &format!("SandboxError::File{number}"), &result))
        }
    }
}

/// Demands [`SandboxError::NotStarted`], with one of these numbers if there are any.
pub(super) fn not_started<T: Debug>(
    what: &str,
    result: Result<T, SandboxError>,
    numbers: &[i32],
) -> CaseResult {
    match &result {
        Err(SandboxError::NotStarted { errno, .. })
            if numbers.is_empty() || numbers.contains(errno) =>
        {
            Ok(())
        }
        _ => Err(mismatch(
            what,
            &format!("SandboxError::NotStarted with one of {numbers:?}"),
            &result,
        )),
    }
}

/// Demands that a request was refused as one that makes no sense, or by what would have carried it out.
pub(super) fn senseless<T: Debug>(what: &str, result: Result<T, SandboxError>) -> CaseResult {
    let expected = matches!(
        result,
        Err(SandboxError::InvalidRequest { .. }
            | SandboxError::NotStarted { .. }
            | SandboxError::File { .. })
    );
    holds(what, expected, "a refusal of the request", &result)
}

/// Demands [`SandboxError::Lost`] because the sandbox was closed.
pub(super) fn closed<T: Debug>(what: &str, result: Result<T, SandboxError>) -> CaseResult {
    match result {
        Err(SandboxError::Lost { reason: LossReason::Closed }) => Ok(()),
        other => Err(mismatch(what, "SandboxError::Lost with LossReason::Closed", &other)),
    }
}

pub(super) fn with_stdin(request: ExecRequest) -> ExecRequest {
    ExecRequest { stdin: true, ..request }
}

pub(super) fn on_terminal(script: &str, rows: u16, columns: u16) -> ExecRequest {
    ExecRequest { terminal: Some(TerminalSize { rows, columns }), ..ExecRequest::shell(script) }
}

/// Everything that a command said until its stream ended.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) stdout: Vec<u8>,
    pub(super) stderr: Vec<u8>,
    pub(super) status: Option<ExitStatus>,
}

impl Told {
    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }
}

/// Reads a command to the end of its stream.
pub(super) async fn collect(mut process: Process) -> Result<Told, Stop> {
    let mut told = Told::default();
    while let Some(event) = process.next().await {
        match event? {
            ExecEvent::Started { .. } | ExecEvent::OutputLost { .. } => {}
            ExecEvent::Stdout(bytes) => told.stdout.extend(bytes),
            ExecEvent::Stderr(bytes) => told.stderr.extend(bytes),
            ExecEvent::Exited(status) => told.status = Some(status),
        }
    }
    Ok(told)
}

/// Reads standard output of a command until it contains a text, and returns all of it so far.
pub(super) async fn read_until(process: &mut Process, text: &str) -> Result<String, Stop> {
    let mut seen = String::new();
    while !seen.contains(text) {
        match process.next().await {
            Some(Ok(ExecEvent::Stdout(bytes))) => seen.push_str(&String::from_utf8_lossy(&bytes)),
            Some(Ok(ExecEvent::Started { .. })) => {}
            Some(Err(error)) => return Err(error.into()),
            other => {
                let what = format!("output up to {text:?} after {seen:?}");
                return Err(mismatch(&what, "more standard output", &other));
            }
        }
    }
    Ok(seen)
}

pub(super) async fn run(sandbox: &dyn Sandbox, request: ExecRequest) -> Result<Told, Stop> {
    collect(sandbox.exec(request).await?).await
}

/// Runs a script that must succeed in silence or with output, and returns its standard output.
pub(super) async fn shell(sandbox: &dyn Sandbox, script: &str) -> Result<String, Stop> {
    let told = run(sandbox, ExecRequest::shell(script)).await?;
    equal(
        &format!("the status of {script:?}, which said {told:?}"),
        told.status,
        Some(ExitStatus::Code(0)),
    )?;
    Ok(told.text())
}

/// Demands that a sandbox still works.
pub(super) async fn alive(sandbox: &dyn Sandbox) -> CaseResult {
    let told = run(sandbox, ExecRequest::program(["echo", "alive"])).await?;
    equal("a later command", told.text(), "alive\n")
}

/// Waits until a condition holds that commands of the sandbox bring about, with a script that says `yes` once it does.
pub(super) async fn becomes(sandbox: &dyn Sandbox, what: &str, script: &str) -> CaseResult {
    let mut said = String::new();
    for _ in 0..400 {
        said = shell(sandbox, script).await?;
        if said.trim_end() == "yes" {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    Err(mismatch(what, "yes within 10 s", &said))
}

/// Demands that soon no process of the sandbox has this name.
pub(super) async fn none_named(sandbox: &dyn Sandbox, name: &str) -> CaseResult {
    let script = format!("cat /proc/[0-9]*/comm 2>&- | grep -q '^{name}$' || echo yes; :");
    becomes(sandbox, &format!("no process named {name}"), &script).await
}

/// Demands that a process of the sandbox ends soon.
pub(super) async fn gone(sandbox: &dyn Sandbox, what: &str, pid: &str) -> CaseResult {
    let script = format!(
        "i=0; while kill -0 {} 2>&-; do i=$((i+1)); [ $i -gt 100 ] && exit 1; sleep 0.05; done",
        pid.trim()
    );
    let told = run(sandbox, ExecRequest::shell(script)).await?;
    holds(what, told.status == Some(ExitStatus::Code(0)), "dead within 5 s", &"alive")
}

/// Waits for a file to be written by a command, and returns its content.
pub(super) async fn content_of(sandbox: &dyn Sandbox, name: &str) -> Result<String, Stop> {
    loop {
        match sandbox.files().read(&path(name)?, 0, 1 << 20).await {
            Ok(content) if content.ends_with(b"\n") => {
                return Ok(String::from_utf8_lossy(&content).into_owned());
            }
            Ok(_) | Err(SandboxError::File { .. }) => {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

pub(super) async fn write(
    sandbox: &dyn Sandbox,
    name: &str,
    content: impl Into<Bytes>,
) -> CaseResult {
    Ok(sandbox.files().write(&path(name)?, content.into(), &WriteOptions::default()).await?)
}

/// Reads a whole file.
pub(super) async fn read(sandbox: &dyn Sandbox, name: &str) -> Result<Bytes, Stop> {
    Ok(sandbox.files().read(&path(name)?, 0, 128 << 20).await?)
}

/// Lists the names in a directory.
pub(super) async fn names(sandbox: &dyn Sandbox, name: &str) -> Result<Vec<String>, Stop> {
    let listing = sandbox.files().list(&path(name)?, &ListOptions::default()).await?;
    Ok(shown_names(&listing))
}

pub(super) fn shown_names(listing: &Listing) -> Vec<String> {
    listing.entries.iter().map(|e| String::from_utf8_lossy(&e.path).into_owned()).collect()
}

pub(super) fn path(text: &str) -> Result<WorkspacePath, SandboxError> {
    WorkspacePath::new(text)
        .map_err(|error| SandboxError::InvalidRequest { reason: error.to_string() })
}

/// Bytes without a short period, so that a piece lost, doubled or moved shows.
pub(super) fn pattern(length: usize) -> Vec<u8> {
    Random::new(0x9e37_79b9_7f4a_7c15).bytes(length)
}

/// Numbers that look random and are the same for the same seed.
#[derive(Debug)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn next_u32(&mut self) -> u32 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        u32::try_from(self.0 >> 32).unwrap_or_default()
    }

    /// Returns a number below a bound, which is not 0.
    pub(super) fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next_u32()).unwrap_or_default() % bound
    }

    pub(super) fn bytes(&mut self, length: usize) -> Vec<u8> {
        std::iter::repeat_with(|| self.next_u32().to_be_bytes()[0]).take(length).collect()
    }
}
