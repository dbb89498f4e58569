//! The greeting: the first frame of each side, on channel 0, and the choice of the version.

use crate::{
    MAX_PATH, ProtocolError, SessionGrant, SessionRequest,
    wire::{Reader, Writer},
};

/// The newest version of the protocol that this build speaks.
pub const PROTOCOL_VERSION: u16 = 1;

/// The oldest version of the protocol that this build speaks.
pub const OLDEST_VERSION: u16 = 1;

/// `b"CDAM"`: tells a greeting from anything else.
const MAGIC: u32 = u32::from_le_bytes(*b"CDAM");

const MAX_BUILD: usize = 256;

/// A range of protocol versions, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Versions {
    /// The oldest.
    pub oldest: u16,
    /// The newest.
    pub newest: u16,
}

impl Versions {
    /// The versions that this build speaks.
    pub const SPOKEN: Self = Self { oldest: OLDEST_VERSION, newest: PROTOCOL_VERSION };

    /// Returns the newest version that both sides speak.
    ///
    /// # Errors
    ///
    /// [`ProtocolError::Version`] when there is none.
    pub fn common(self, theirs: Self) -> Result<u16, ProtocolError> {
        let newest = self.newest.min(theirs.newest);
        if newest >= self.oldest.max(theirs.oldest) {
            Ok(newest)
        } else {
            Err(ProtocolError::Version {
                ours: (self.oldest, self.newest),
                theirs: (theirs.oldest, theirs.newest),
            })
        }
    }
}

/// What the host says first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostHello {
    /// The versions that the host speaks.
    pub versions: Versions,
    /// The workspace: an absolute path in the box.
    pub workspace: Vec<u8>,
    /// The greatest number of open channels.
    pub max_channels: u32,
    /// The greatest number of live commands.
    pub max_execs: u32,
    /// Asks that commands outlive the connection; otherwise everything ends with it.
    pub session: Option<SessionRequest>,
}

/// What the guest answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestHello {
    /// The version that both use from now on.
    pub version: u16,
    /// The guest's release, for people.
    pub build: String,
    /// The guest's own process id in the box; 1 when it is the first process.
    pub pid: u32,
    /// The user that the guest and all commands run as.
    pub uid: u32,
    /// What was granted of the session that was asked for; a guest that knows no sessions grants none.
    pub session: Option<SessionGrant>,
}

/// What the guest answers when it cannot serve; it ends then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The versions that the guest speaks.
    pub versions: Versions,
    /// The error number of the workspace that could not be opened; 0 when the versions are the reason.
    pub errno: i32,
}

// The magic and the version range keep their place in every version. Fields may only be added at the end, so what
// follows the known fields is not an error here.
impl HostHello {
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        out.u32(MAGIC);
        self.versions.write(out);
        out.bytes(&self.workspace);
        out.u32(self.max_channels);
        out.u32(self.max_execs);
        if let Some(session) = &self.session {
            session.write(out);
        }
    }

    pub(crate) fn read(payload: &[u8]) -> Result<Self, ProtocolError> {
        let mut reader = greeting(payload)?;
        let versions = Versions::read(&mut reader)?;
        Ok(Self {
            versions,
            workspace: reader.bytes("workspace", MAX_PATH)?,
            max_channels: reader.u32()?,
            max_execs: reader.u32()?,
            session: SessionRequest::read(&mut reader)?,
        })
    }
}

impl GuestHello {
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        out.u32(MAGIC);
        out.u16(self.version);
        out.bytes(self.build.as_bytes());
        out.u32(self.pid);
        out.u32(self.uid);
        if let Some(session) = self.session {
            session.write(out);
        }
    }

    pub(crate) fn read(payload: &[u8]) -> Result<Self, ProtocolError> {
        let mut reader = greeting(payload)?;
        Ok(Self {
            version: reader.u16()?,
            build: reader.text("build", MAX_BUILD)?,
            pid: reader.u32()?,
            uid: reader.u32()?,
            session: SessionGrant::read(&mut reader)?,
        })
    }
}

impl Refusal {
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        out.u32(MAGIC);
        self.versions.write(out);
        out.i32(self.errno);
    }

    pub(crate) fn read(payload: &[u8]) -> Result<Self, ProtocolError> {
        let mut reader = greeting(payload)?;
        Ok(Self { versions: Versions::read(&mut reader)?, errno: reader.i32()? })
    }
}

impl Versions {
    fn write(self, out: &mut Vec<u8>) {
        out.u16(self.oldest);
        out.u16(self.newest);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, ProtocolError> {
        Ok(Self { oldest: reader.u16()?, newest: reader.u16()? })
    }
}

fn greeting(payload: &[u8]) -> Result<Reader<'_>, ProtocolError> {
    let mut reader = Reader::new("greeting", payload);
    match reader.u32() {
        Ok(MAGIC) => Ok(reader),
        _ => Err(ProtocolError::NotAGreeting),
    }
}
