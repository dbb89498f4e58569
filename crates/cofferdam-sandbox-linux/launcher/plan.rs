//! The plan: everything that the launcher does for one sandbox, computed by the host as plain data.
//!
//! The host encodes it (`src/encode.rs`), the launcher decodes it (`decode.rs`). Both are always of the same build, so
//! the form has no version.

use std::ffi::CString;

use crate::report::Step;

/// What the launcher builds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plan {
    /// For tests: fail this step with this error number instead of doing it.
    pub(crate) fault: Option<(Step, i32)>,
    /// The host name inside.
    pub(crate) hostname: Vec<u8>,
    /// Whether the sandbox has a network namespace of its own.
    pub(crate) own_network: bool,
    /// Whether the sandbox has a user namespace of its own. Without, it is the host's `outer_user` inside too.
    pub(crate) own_users: bool,
    /// How its user is mapped.
    pub(crate) identity: Identity,
    /// The directory of cgroup version 2 in which the sandbox's first process is made.
    pub(crate) cgroup_into: Option<Vec<u8>>,
    /// The files of other cgroups to which the sandbox's first process writes itself.
    pub(crate) cgroup_joins: Vec<Vec<u8>>,
    /// The cgroup directories to remove at the end, innermost first.
    pub(crate) cgroup_directories: Vec<Vec<u8>>,
    /// The file that stops the sandbox's processes, and what lets them go on.
    pub(crate) cgroup_thaw: Option<(Vec<u8>, Vec<u8>)>,
    /// The file whose `oom_kill` line counts the kills for memory.
    pub(crate) oom_counter: Option<Vec<u8>>,
    /// Milliseconds after which the sandbox is killed.
    pub(crate) wall_time_ms: u64,
    /// How it is built where it has no namespaces.
    pub(crate) confined: Option<Confined>,
    /// How it outlives its host, if it does.
    pub(crate) linger: Option<Linger>,
    /// What is read-only, built once for all sandboxes with the same.
    pub(crate) root: Root,
    /// What is writable.
    pub(crate) scratch: Scratch,
    /// What the workspace begins with, if it is not empty.
    pub(crate) base: Option<Base>,
    /// Paths below the root that are hidden: a directory, whose path ends with `/`, by an empty one, a file by the null
    /// device. What is not there needs no hiding.
    pub(crate) masks: Vec<CString>,
    /// Resource numbers and limits, both soft and hard.
    pub(crate) resource_limits: Vec<(u32, u64)>,
    /// What Landlock allows.
    pub(crate) landlock: Vec<LandlockRule>,
    /// seccomp programs in the order in which they are installed; each instruction is 8 bytes.
    pub(crate) filters: Vec<Vec<u8>>,
}

/// A sandbox without namespaces: among the host's own files, processes and networks, behind Landlock and a stricter filter.
/// Of its root nothing is built; its places are directories of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Confined {
    /// Absolute path of a directory that is the sandbox's alone, in which the places are made.
    pub(crate) directory: CString,
    /// Whether the sandbox is a user of the host that nothing else uses, rather than the user of the launcher.
    pub(crate) own_user: bool,
}

/// How a sandbox outlives its host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Linger {
    /// Milliseconds that it goes on while no host is attached.
    pub(crate) time_ms: u64,
    /// The directory of the host with [`LINGER_FILES`], removed at its end.
    pub(crate) directory: Vec<u8>,
    /// The file in which it is written why it has ended, if no host is attached then.
    pub(crate) ended: Vec<u8>,
}

/// What is in the directory of a sandbox that lingers: the socket of the guest, that of the supervisor, and the state.
pub(crate) const LINGER_FILES: [&str; 3] = ["door", "supervisor", "state.json"];

/// The read-only part of a root: trees of the host, and an in-memory file system with the entries around them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Root {
    /// A directory of the host, over which the new root is mounted before it becomes the root.
    pub(crate) staging: CString,
    /// Layers of an image that are stacked to one tree, absolute paths on the host, the first one uppermost; none, or two
    /// or more.
    pub(crate) layers: Vec<CString>,
    /// Directories and files of the host that appear inside, read-only.
    pub(crate) trees: Vec<HostTree>,
    /// What else is in the new root.
    pub(crate) entries: Vec<Entry>,
    /// Whether there is a `/proc`, of the sandbox's own processes.
    pub(crate) own_proc: bool,
}

/// How the one user of the sandbox is mapped to one of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    /// User and group inside.
    pub(crate) inner: u32,
    /// User of the host.
    pub(crate) outer_user: u32,
    /// Group of the host.
    pub(crate) outer_group: u32,
    /// Whether to give up the host's supplementary groups first; needs `CAP_SETGID`.
    pub(crate) drop_groups: bool,
}

/// A directory or file of the host, cloned read-only with all that is mounted below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HostTree {
    /// Absolute path on the host; or a relative one, in the stack of layers.
    pub(crate) source: CString,
    /// Path below the new root; made by an [`Entry`].
    pub(crate) target: CString,
    /// Whether device nodes work below it. Only for the few nodes of `/dev`.
    pub(crate) devices: bool,
}

/// Something that is made in the new root before it becomes read-only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Entry {
    /// A directory.
    Directory(CString),
    /// A symbolic link: path, then target.
    Link(CString, CString),
    /// A file: path, then content.
    File(CString, Vec<u8>),
}

/// The in-memory file system of all writable places, whose size bounds them together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Scratch {
    /// Bytes.
    pub(crate) bytes: u64,
    /// Files and directories, those of the places included.
    pub(crate) inodes: u64,
    /// The writable directories, below the root; made by an [`Entry`]. The first one is the workspace. The file system is
    /// mounted over the last one.
    pub(crate) directories: Vec<CString>,
}

/// A directory of the host under the workspace, read-only; what is written lies above it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Base {
    /// Absolute path on the host.
    pub(crate) directory: CString,
    /// User and group of the host whose files appear as the sandbox's. `None` where the sandbox is that user already.
    pub(crate) owner: Option<(u32, u32)>,
}

/// One grant of Landlock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LandlockRule {
    /// Absolute path inside.
    pub(crate) path: CString,
    /// What is granted at and below it.
    pub(crate) access: LandlockAccess,
}

/// What a Landlock rule grants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum LandlockAccess {
    /// Read and execute.
    Read = 0,
    /// Everything that makes, changes and removes files, but device nodes.
    Write = 1,
    /// Read, write and control a device.
    Device = 2,
    /// Read and execute a file, which is no directory.
    ReadFile = 3,
}
