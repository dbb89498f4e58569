//! [`SandboxHandle`]: what a run's records say of its sandbox.

use cofferdam_sandbox::SandboxState;
use cofferdam_snapshot::SnapshotId;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::WorkspaceError;

/// The version of handles that this release writes.
pub const HANDLE_VERSION: u32 = 1;

/// Enough to find a sandbox again, and to take snapshots of its workspace as before.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SandboxHandle {
    /// [`HANDLE_VERSION`] of the release that wrote it.
    pub version: u32,
    /// What the backend finds it with.
    pub sandbox: SandboxState,
    /// The snapshot whose tree is the directory that the workspace begins with, if it begins with one.
    pub base: Option<SnapshotId>,
    /// The snapshot that the workspace was at the beginning, if one was taken.
    pub start: Option<SnapshotId>,
}

impl SandboxHandle {
    /// Returns the form that is recorded.
    #[must_use]
    pub fn to_value(&self) -> Value {
        // It is made of strings, numbers and JSON values, none of which can fail to be JSON.
        serde_json::to_value(self).unwrap_or_default()
    }

    /// Reads the form that is recorded.
    ///
    /// # Errors
    ///
    /// [`WorkspaceError::Handle`] if it is none, or of a newer release.
    pub fn from_value(value: &Value) -> Result<Self, WorkspaceError> {
        #[derive(Deserialize)]
        struct Version {
            version: u32,
        }
        let unreadable = |reason: String| WorkspaceError::Handle { reason };
        let Version { version } =
            Version::deserialize(value).map_err(|error| unreadable(error.to_string()))?;
        if version > HANDLE_VERSION {
            let reason = format!("it has version {version}; this release reads {HANDLE_VERSION}");
            return Err(unreadable(reason));
        }
        Self::deserialize(value).map_err(|error| unreadable(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use cofferdam_core::SandboxId;
    use serde_json::json;

    use super::*;

    #[test]
    fn version_1_stays_readable() {
        let recorded = json!({
            "version": 1,
            "sandbox": {"version": 1, "backend": "linux", "id": "s", "data": {"pid": 7}},
            "base": "run@1",
            "start": null,
        });
        let handle = SandboxHandle::from_value(&recorded).unwrap();
        assert_eq!(handle.sandbox.id, SandboxId::new("s"));
        assert_eq!(handle.base.as_ref().map(ToString::to_string), Some("run@1".to_owned()));
        assert_eq!(handle.to_value(), recorded);
    }

    #[test]
    fn what_is_no_handle_is_refused() {
        let check = |value: Value, expect: &str| {
            let error = SandboxHandle::from_value(&value).unwrap_err().to_string();
            assert!(error.contains(expect), "{error}");
        };
        check(Value::Null, "invalid type: null");
        check(json!({}), "missing field `version`");
        check(json!({"version": 2}), "it has version 2; this release reads 1");
        check(json!({"version": 1}), "missing field `sandbox`");
    }
}
