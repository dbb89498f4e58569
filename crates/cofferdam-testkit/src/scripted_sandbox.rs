//! [`ScriptedSandbox`]: a sandbox without processes, for tests of what uses one.
//!
//! It is stricter than a real one. Commands must come in the order of the script, with the arguments and settings that
//! the script says; each writes what the script says, when it says so, on the runtime's clock, which tests pause. Files
//! are in memory. [`ScriptedSandbox::finish`] fails the test on anything that came unexpected or did not come, and
//! dropping a sandbox that was not finished fails it too.
//!
//! - [`command`]: [`ScriptedCommand`], what one command is to be and to do.
//! - [`memory_files`]: [`MemoryFiles`], the workspace, with faults on demand.
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
