//! What the launcher tells the host: how far the set-up came, and how the sandbox ended.
//!
//! ```text
//! u8 kind | u8 code | i32 number | u16 length | detail
//! ```

/// The length of the fixed part of a report, in bytes.
pub(crate) const HEADER_LENGTH: usize = 8;

/// A set-up step failed: code is the [`Step`], number the error number, detail the object it was done to.
pub(crate) const FAILED: u8 = 1;
/// The set-up is done and the guest is being started: number is the Landlock ABI, 0 for none.
pub(crate) const READY: u8 = 2;
/// The sandbox has ended: code is an [`EndCause`], number the exit code or signal, detail what the guest said last.
pub(crate) const ENDED: u8 = 3;

/// How it stands with a sandbox that lingers, told to whoever connects to its supervisor: code is 1 if a host is attached, else
/// 0, detail the milliseconds that it has left, in decimal digits.
pub(crate) const STATUS: u8 = 5;

/// What a host says to the supervisor of a sandbox that lingers: it is attached to it, which its closing ends.
pub(crate) const ATTACH: u8 = b'a';
/// It wants the end.
pub(crate) const END: u8 = b'e';

/// The directory of the workspace comes with this report, as a descriptor: code 1 if it is the whole workspace, 2 if it is
/// what lies above its base.
pub(crate) const WORKSPACE: u8 = 4;
/// [`WORKSPACE`]: all of it.
pub(crate) const WHOLE: u8 = 1;
/// [`WORKSPACE`]: what lies above the base.
pub(crate) const UPPER: u8 = 2;

/// Declares the steps once, for both programs.
macro_rules! steps {
    ($($step:ident),* $(,)?) => {
        /// A step of the set-up, in order.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub(crate) enum Step {
            $($step),*
        }

        impl Step {
            /// All steps.
            pub(crate) const ALL: &[Self] = &[$(Self::$step),*];
        }
    };
}

steps! {
    ReadPlan,
    DropGroups,
    OpenBase,
    MapBase,
    CreateNamespaces,
    PrivateMounts,
    StackLayers,
    OpenTree,
    MountRoot,
    MakeEntry,
    AttachTree,
    MountProc,
    SealRoot,
    PivotRoot,
    EnterRoot,
    JoinCgroup,
    StartKeeper,
    MakePlaces,
    MapUser,
    CgroupNamespace,
    SetHostname,
    Loopback,
    BecomeUser,
    MountScratch,
    MountWorkspace,
    MountTerminals,
    MaskPath,
    ResourceLimit,
    DropCapabilities,
    NoNewPrivileges,
    Landlock,
    Descriptors,
    Seccomp,
    StartGuest,
}

impl Step {
    /// Returns the number of the step on the wire; 0 is no step.
    pub(crate) fn code(self) -> u8 {
        self as u8 + 1
    }

    /// Returns the step of a number.
    pub(crate) fn from_code(code: u8) -> Option<Self> {
        Self::ALL.iter().copied().find(|step| step.code() == code)
    }
}

/// Why a sandbox ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum EndCause {
    /// The guest returned.
    Exited = 1,
    /// The guest was killed by a signal that the launcher did not send.
    Signalled = 2,
    /// The launcher killed it because the wall time was over.
    WallTime = 3,
    /// The launcher killed it because the host closed its end or died.
    HostClosed = 4,
    /// The kernel killed the guest for memory.
    OutOfMemory = 5,
    /// The supervisor killed it because no host was attached for its linger time.
    Left = 6,
}
