//! [`Platform`]: the kind of machine that an image is for.

use std::fmt;

use serde::{Deserialize, Serialize};

/// An operating system and an architecture, in the names of the image specification (`linux`, `amd64`).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Platform {
    /// The operating system, such as `linux`.
    #[serde(default)]
    pub os: String,
    /// The architecture, such as `amd64` or `arm64`.
    #[serde(default)]
    pub architecture: String,
}

impl Platform {
    /// Returns the platform whose programs run on this machine.
    #[must_use]
    pub fn host() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        Self { os: "linux".to_owned(), architecture: architecture.to_owned() }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)
    }
}
