//! What every backend refuses of a specification, because it makes no sense anywhere.

use std::collections::BTreeMap;

use crate::{SandboxError, SandboxSpec};

impl SandboxSpec {
    /// Refuses what no sandbox can be: limits that nothing runs with, and variables that no environment can hold.
    ///
    /// # Errors
    ///
    /// [`SandboxError::InvalidRequest`] that names the field.
    ///
    /// ```
    /// use cofferdam_sandbox::SandboxSpec;
    ///
    /// let mut spec = SandboxSpec::default();
    /// assert!(spec.check().is_ok());
    /// spec.limits.memory_bytes = 0;
    /// let error = spec.check().unwrap_err().to_string();
    /// assert!(error.contains("memory_bytes is 0"), "{error}");
    /// ```
    pub fn check(&self) -> Result<(), SandboxError> {
        let limits = &self.limits;
        for (name, value) in [
            ("memory_bytes", limits.memory_bytes),
            ("processes", limits.processes.into()),
            ("disk_bytes", limits.disk_bytes),
            ("disk_inodes", limits.disk_inodes),
            ("open_files", limits.open_files.into()),
            ("cpu_millis", limits.cpu_millis.unwrap_or(1).into()),
        ] {
            if value == 0 {
                return Err(invalid(format!(
                    "the limit {name} is 0, which no sandbox can run with"
                )));
            }
        }
        if limits.idle_time.is_some_and(|time| time.is_zero()) {
            return Err(invalid("the limit idle_time is 0, which no sandbox can be used with"));
        }
        if limits.cpu_weight.is_some_and(|weight| !(1..=10_000).contains(&weight)) {
            return Err(invalid("the limit cpu_weight is not between 1 and 10000"));
        }
        if let Some(base) = &self.base
            && !base.directory.is_absolute()
        {
            return Err(invalid(format!(
                "the base {} is not an absolute path",
                base.directory.display()
            )));
        }
        check_variables(&self.environment)
    }
}

/// Refuses variables that no environment can hold, which the kernel would take and programs would read as others.
pub(crate) fn check_variables(environment: &BTreeMap<String, String>) -> Result<(), SandboxError> {
    for (name, value) in environment {
        if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
            return Err(invalid(format!("no environment can hold the variable {name:?}")));
        }
    }
    Ok(())
}

fn invalid(reason: impl Into<String>) -> SandboxError {
    SandboxError::InvalidRequest { reason: reason.into() }
}
