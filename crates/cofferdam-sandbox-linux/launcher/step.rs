//! Steps that can fail: every action of the set-up runs through [`Steps`], so that each failure has a name.

use std::{
    fs::File,
    io::{self, Write},
};

use crate::report::{self, Step};

/// Runs steps, and fails the one that a test asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Steps {
    fault: Option<(Step, i32)>,
}

impl Steps {
    pub(crate) fn new(fault: Option<(Step, i32)>) -> Self {
        Self { fault }
    }

    /// Returns whether a test wants a step to fail.
    pub(crate) fn has_fault(&self) -> bool {
        self.fault.is_some()
    }

    /// Runs one action of a step; `object` is what it is done to.
    pub(crate) fn run<T>(
        &self,
        step: Step,
        object: &[u8],
        action: impl FnOnce() -> io::Result<T>,
    ) -> Result<T, Failure> {
        let result = match self.fault {
            Some((failing, errno)) if failing == step => Err(io::Error::from_raw_os_error(errno)),
            _ => action(),
        };
        result.map_err(|error| Failure::new(step, &error, object))
    }
}

/// A step that failed.
#[derive(Debug)]
pub(crate) struct Failure {
    step: Step,
    errno: i32,
    object: Vec<u8>,
}

/// For the few errors that the standard library makes itself, such as an early end of a file.
const EIO: i32 = 5;

impl Failure {
    pub(crate) fn new(step: Step, error: &io::Error, object: &[u8]) -> Self {
        Self { step, errno: error.raw_os_error().unwrap_or(EIO), object: object.to_vec() }
    }

    /// Tells the host. If it is gone, there is nobody to tell.
    pub(crate) fn send(&self, report: &File) {
        send(report, report::FAILED, self.step.code(), self.errno, &self.object);
    }
}

/// Writes one report in one piece. A host that is gone is noticed elsewhere.
pub(crate) fn send(mut report: &File, kind: u8, code: u8, number: i32, detail: &[u8]) {
    let length = u16::try_from(detail.len()).unwrap_or(u16::MAX);
    let mut message = Vec::with_capacity(report::HEADER_LENGTH + usize::from(length));
    message.extend_from_slice(&[kind, code]);
    message.extend_from_slice(&number.to_le_bytes());
    message.extend_from_slice(&length.to_le_bytes());
    message.extend_from_slice(&detail[..usize::from(length)]);
    // The only failure is a closed peer, and then the monitor ends the sandbox anyhow.
    let _ = report.write_all(&message);
}
