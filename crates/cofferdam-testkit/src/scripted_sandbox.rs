//! [`ScriptedSandbox`]: a sandbox without processes, for tests of what uses one.
//!
//! It is stricter than a real one. Commands must come in the order of the script, with the arguments and settings that
//! the script says; each writes what the script says, when it says so, on the runtime's clock, which tests pause. Files
//! are in memory. [`ScriptedSandbox::finish`] fails the test on anything that came unexpected or did not come, and
//! dropping a sandbox that was not finished fails it too.
//!
//! - `command`: [`ScriptedCommand`], what one command is to be and to do.
//! - `memory_files`: [`MemoryFiles`], the workspace, with faults on demand.
//!
//! ```
//! use cofferdam_sandbox::{ExecRequest, ExitStatus, Sandbox, SandboxExt};
//! use cofferdam_testkit::scripted_sandbox::{ScriptedCommand, ScriptedSandbox};
//!
//! # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
//! let sandbox = ScriptedSandbox::new([ScriptedCommand::new(["echo", "hi"]).stdout("hi\n").exit(0)]);
//! let output = sandbox.run(ExecRequest::program(["echo", "hi"]), 100).await.unwrap();
//! assert_eq!(output.status, Some(ExitStatus::Code(0)));
//! sandbox.finish();
//! # });
//! ```

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use async_trait::async_trait;
use cofferdam_core::SandboxId;
use cofferdam_sandbox::{
    ExecRequest, Files, LossReason, Process, Sandbox, SandboxError, SandboxState, Tree,
};
use serde_json::Value;
use tokio::sync::Notify;

mod command;
mod memory_files;
mod memory_tree;

pub use command::ScriptedCommand;
pub use memory_files::MemoryFiles;

use command::Running;

/// A sandbox that does what a script says.
#[derive(Debug)]
pub struct ScriptedSandbox {
    id: SandboxId,
    files: MemoryFiles,
    script: Mutex<VecDeque<ScriptedCommand>>,
    log: Arc<Log>,
    closed: AtomicBool,
    closing: Notify,
    finished: AtomicBool,
}

/// What happened, shared with the commands that run.
#[derive(Debug, Default)]
struct Log {
    state: Mutex<LogState>,
}

#[derive(Debug, Default)]
struct LogState {
    faults: Vec<String>,
    killed: Vec<u32>,
    started: u32,
}

impl Log {
    fn lock(&self) -> MutexGuard<'_, LogState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fault(&self, fault: String) {
        self.lock().faults.push(fault);
    }
}

impl ScriptedSandbox {
    /// Makes a sandbox with an empty workspace that expects these commands, in this order.
    pub fn new(script: impl IntoIterator<Item = ScriptedCommand>) -> Arc<Self> {
        Self::with_files(MemoryFiles::default(), script)
    }

    /// Makes a sandbox with this workspace.
    pub fn with_files(
        files: MemoryFiles,
        script: impl IntoIterator<Item = ScriptedCommand>,
    ) -> Arc<Self> {
        Arc::new(Self {
            id: SandboxId::new("scripted"),
            files,
            script: Mutex::new(script.into_iter().collect()),
            log: Arc::default(),
            closed: AtomicBool::new(false),
            closing: Notify::new(),
            finished: AtomicBool::new(false),
        })
    }

    /// Returns the workspace.
    #[must_use]
    pub fn memory(&self) -> &MemoryFiles {
        &self.files
    }

    /// Returns the process ids of the commands whose trees were killed, in order. Ids count from 1.
    #[must_use]
    pub fn killed(&self) -> Vec<u32> {
        self.log.lock().killed.clone()
    }

    /// Checks that all commands came and nothing else did.
    ///
    /// # Panics
    ///
    /// Lists what came unexpected or did not come.
    pub fn finish(&self) {
        self.finished.store(true, Ordering::Relaxed);
        let mut faults = self.log.lock().faults.clone();
        faults.extend(self.files.faults());
        let script = self.script.lock().unwrap_or_else(PoisonError::into_inner);
        faults.extend(script.iter().map(|command| format!("not started: {command}")));
        assert!(faults.is_empty(), "the sandbox was not used as scripted:\n{}", faults.join("\n"));
    }

    fn alive(&self) -> Result<(), SandboxError> {
        if self.closed.load(Ordering::Relaxed) {
            return Err(SandboxError::Lost { reason: LossReason::Closed });
        }
        Ok(())
    }
}

impl Drop for ScriptedSandbox {
    fn drop(&mut self) {
        assert!(
            self.finished.load(Ordering::Relaxed) || std::thread::panicking(),
            "a scripted sandbox was dropped without `finish`"
        );
    }
}

#[async_trait]
impl Sandbox for ScriptedSandbox {
    fn id(&self) -> &SandboxId {
        &self.id
    }

    fn state(&self) -> SandboxState {
        SandboxState {
            version: 1,
            backend: "scripted".into(),
            id: self.id.clone(),
            data: Value::Null,
        }
    }

    async fn exec(&self, request: ExecRequest) -> Result<Process, SandboxError> {
        self.alive()?;
        let next = self.script.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        let Some(command) = next else {
            let came = command::describe(&request);
            self.log.fault(format!("unexpected command: {came}"));
            return Err(SandboxError::InvalidRequest {
                reason: format!("not in the script: {came}"),
            });
        };
        if let Some(difference) = command.difference(&request) {
            self.log.fault(difference);
        }
        if let Some(error) = command.refusal(&request) {
            return Err(error);
        }
        let pid = {
            let mut log = self.log.lock();
            log.started += 1;
            log.started
        };
        Ok(Running::start(command, pid, Arc::clone(&self.log)))
    }

    fn files(&self) -> &dyn Files {
        &self.files
    }

    fn tree(&self) -> &dyn Tree {
        &self.files
    }

    async fn lost(&self) -> SandboxError {
        while !self.closed.load(Ordering::Relaxed) {
            let closing = self.closing.notified();
            if !self.closed.load(Ordering::Relaxed) {
                closing.await;
            }
        }
        SandboxError::Lost { reason: LossReason::Closed }
    }

    async fn close(&self) -> Result<(), SandboxError> {
        self.closed.store(true, Ordering::Relaxed);
        self.closing.notify_waiters();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use cofferdam_core::WorkspacePath;
    use cofferdam_sandbox::{ExitStatus, SandboxExt};

    use super::*;

    /// Runs a command against a script, and returns what `finish` says.
    async fn check(script: Vec<ScriptedCommand>, argv: &[&str], expect: &str) {
        let sandbox = ScriptedSandbox::new(script);
        // Its outcome is not the matter here.
        let _ = sandbox.run(ExecRequest::program(argv.iter().copied()), 100).await;
        let said = match catch_unwind(AssertUnwindSafe(|| sandbox.finish())) {
            Ok(()) => String::new(),
            Err(panic) => panic.downcast_ref::<String>().cloned().unwrap_or_default(),
        };
        assert!(said.contains(expect) && said.is_empty() == expect.is_empty(), "{said:?}");
    }

    #[tokio::test]
    async fn what_is_not_in_the_script_fails_the_test() {
        let echo = || ScriptedCommand::new(["echo", "a"]).exit(0);
        check(vec![echo()], &["echo", "a"], "").await;
        check(vec![], &["ls"], r#"unexpected command: ["ls"] in "." with {}"#).await;
        check(vec![echo(), echo()], &["echo", "a"], r#"not started: ["echo", "a"] in ".""#).await;
        check(vec![echo()], &["echo", "b"], r#"but ["echo", "b"] in "." with {} came"#).await;
        check(vec![echo().terminal()], &["echo", "a"], "on a terminal, but").await;
    }

    #[tokio::test]
    async fn a_fault_that_is_not_met_fails_the_test() {
        let sandbox = ScriptedSandbox::with_files(MemoryFiles::default().file("a", "text"), []);
        let path = WorkspacePath::new("a").unwrap();
        sandbox.memory().fail("read", "a", 5);
        let error = sandbox.files().read(&path, 0, 9).await.unwrap_err();
        assert!(matches!(error, SandboxError::File { errno: 5, .. }), "{error:?}");
        assert_eq!(sandbox.files().read(&path, 1, 2).await.unwrap(), "ex");
        sandbox.memory().fail("write", "a", 28);
        catch_unwind(AssertUnwindSafe(|| sandbox.finish())).unwrap_err();
    }

    #[tokio::test]
    async fn dropping_a_process_kills_it_once() {
        let sandbox = ScriptedSandbox::new([ScriptedCommand::new(["sleep"])]);
        let process = sandbox.exec(ExecRequest::program(["sleep"])).await.unwrap();
        let control = process.control();
        drop(process);
        control.kill_tree().await.unwrap();
        assert_eq!(sandbox.killed(), [1]);
        sandbox.close().await.unwrap();
        assert!(sandbox.lost().await.is_loss());
        assert!(sandbox.exec(ExecRequest::program(["x"])).await.unwrap_err().is_loss());
        sandbox.finish();
    }

    #[tokio::test]
    async fn trees_round_trip() {
        let files =
            MemoryFiles::default().executable("a/run", "x").file("a/b/c", "").link("l", "a");
        let from = ScriptedSandbox::with_files(files, []);
        let to = ScriptedSandbox::new([ScriptedCommand::new(["true"]).exit(0)]);
        let root = WorkspacePath::root();
        let entries = from.tree().download(&root, &Default::default()).await.unwrap();
        to.tree().upload(&root, entries).await.unwrap();
        assert_eq!(from.memory().render(), to.memory().render());
        let output = to.run(ExecRequest::program(["true"]), 10).await.unwrap();
        assert_eq!(output.status, Some(ExitStatus::Code(0)));
        from.finish();
        to.finish();
    }
}
