//! Sealed Linux sandboxes from namespaces, Landlock, seccomp and cgroups; no daemon, as root or as an ordinary user.
//!
//! ```no_run
//! use cofferdam_sandbox::{ExecRequest, SandboxBackend, SandboxExt, SandboxSpec};
//! use cofferdam_sandbox_linux::LinuxBackend;
//!
//! # async fn example() -> Result<(), cofferdam_sandbox::SandboxError> {
//! let backend = LinuxBackend::new();
//! for weakness in backend.guarantees().await?.weaknesses() {
//!     println!("{}: {:?}", weakness.wall, weakness.enforcement);
//! }
//! let sandbox = backend.create(&SandboxSpec::default()).await?;
//! let output = sandbox.run(ExecRequest::shell("id -un; ls -A"), 64 * 1024).await?;
//! assert_eq!(output.stdout.to_text(), "sandbox\n");
//! sandbox.close().await?;
//! # Ok(())
//! # }
//! ```
//!
//! # What a command finds
//!
//! | Place | What it is |
//! |---|---|
//! | `/usr`, `/bin`, `/sbin`, `/lib*` | the host's, read-only; or all of a given root directory, archive or image, see below |
//! | `/etc` | made: users, hosts, resolver; of the host only the loader's cache, alternatives, certificates, time zone, tables and the like |
//! | `/workspace`, `/home/sandbox`, `/tmp`, `/dev/shm` | writable, in memory; one bound on bytes and files for all four |
//! | `/proc` | of its own processes only, read-only, with parts that tell of the host masked |
//! | `/dev` | `null zero full random urandom tty`, terminals of its own, links to the standard streams |
//! | `/sys`, `/root`, `/boot`, other homes, services below `/var` and `/run` | not there |
//! | environment | `PATH`, `HOME`, `LANG`, `TERM`, and what the spec names |
//! | network | loopback of its own; the host's only if [`NetworkAccess::Host`] opened it |
//!
//! # Roots from images
//!
//! With [`LinuxBackend::with_image_cache`], programs come from a container image or a tar file of a root file system
//! ([`RootFilesystem`](cofferdam_sandbox::RootFilesystem)), unpacked once by `cofferdam-image`. All of it is seen
//! read-only but `/boot`, `/dev`, `/home`, `/mnt`, `/proc`, `/root`, `/run`, `/sys`, `/tmp`, `/workspace`, and `/var`
//! without `/var/lib`: of these, a sandbox has its own or none. `/etc` is the image's, also its users; with the host's
//! network its `/etc/resolv.conf`, if there is one, is the host's. The image's `PATH` is the default for commands; its
//! other variables, user, directory, entry point and ports say nothing here. A shell is not needed, since the guest is static.
//!
//! Several layers are stacked by an overlay file system; where the host does not stack them, they are merged into one
//! tree in the cache, and the walls are the same.
//!
//! # What stands in the way
//!
//! | Wall | Mechanism | What it denies |
//! |---|---|---|
//! | files | mount namespace, `pivot_root`, `nosuid,nodev` everywhere | files, devices and set-id programs of the host |
//! | files again | Landlock | paths outside of the sandbox's own root, however they were found |
//! | processes | pid and ipc namespaces, fresh `/proc` | seeing, signalling, tracing, sharing memory with the host |
//! | network | network namespace, Landlock scope | addresses, abstract sockets, loopback of the host |
//! | privileges | user namespace without a user 0, empty capability sets, locked secure bits, `no_new_privs` | becoming anybody else |
//! | system calls | seccomp allow-list in three profiles, see below | mounts, namespaces, tracing, key rings, BPF, io_uring, modules, clocks, odd sockets |
//! | memory, processes, processor | cgroup v2, v1 or both; otherwise `RLIMIT_AS` and `RLIMIT_NPROC` | exhausting the host |
//! | disk | size and inode limit of one in-memory file system, `RLIMIT_FSIZE` | filling the host's disk |
//! | descriptors | `close_range`, close-on-exec, one stream | what the host forgot to close |
//! | wall time, idle time | clocks of the launcher and of the host | staying for ever |
//! | end | pid namespace, launcher or supervisor, parent death signal; the next start's sweep | outliving the sandbox |
//!
//! [`SandboxBackend::guarantees`] says which of them stand on a host, found by building a sandbox, and in words what is
//! weaker. A limit that was asked for and cannot be enforced is refused by name; `strict` refuses any weakness.
//!
//! # How it is built
//!
//! The host process only computes a *plan* (`plan`, `layout`, `identity`, `filter`, `cgroups`) and hands it to the *launcher*,
//! a small static program of this crate, which a backend starts once from a sealed memory file. For each root that is asked for,
//! the launcher builds a *template*: a mount namespace in which this root, read-only, is all there is. For each sandbox it clones
//! a child from inside the template into new namespaces; the child mounts what is its own (writable places, `/proc`, terminals),
//! drops everything and becomes the guest ([`cofferdam_guest::PROGRAM`]). The launcher stays outside and ends the child when the
//! host closes, dies, or the wall time is over; if the launcher dies, its children die. Nothing of it is on a file system, and
//! no code runs between `fork` and `exec` in the host process, which has threads.
//!
//! # Sandboxes that linger
//!
//! A sandbox with [`SandboxSpec::linger`] outlives the process that made it, in whatever way that ends. It has a launcher to
//! itself, its *supervisor*, which no process of the host's is needed for: it keeps the wall time, counts who is attached, and
//! ends the sandbox when nobody was for the linger time. In the directory of [`LinuxBackend::with_state_directory`] it is found:
//! a socket of the supervisor, a socket of the guest, and a versioned file with what an attaching process has to know, the token
//! that the guest demands among it. Commands with an [`ExecRequest::id`] go on meanwhile, and are found by
//! [`Sandbox::sessions`] with their output and their real status.
//!
//! - Who attaches while another process is attached takes its place: the other's connection is lost, the commands go on.
//! - [`Sandbox::close`] and [`SandboxBackend::remove`] end it whoever is attached; dropping the handle leaves it.
//! - A connection that is idle for the idle time ends it, as does a guest that breaks the protocol.
//! - If the supervisor is killed, its sandbox dies at once, and the next start sweeps what it could not remove.
//! - Why it ended while nobody was attached is known for a day: [`SandboxBackend::attach`] says it.
//! - What a dead process had frozen goes on.
//!
//! Nothing of this is within reach from inside, and a [`SandboxState`] holds no secret: whoever may use a sandbox is decided by the
//! file system, since directory and files are for one user alone.
//!
//! # The user
//!
//! Inside, everything is user 1000. Started by root, this is a user of a high range of the host that nothing else uses, another
//! one for each sandbox; started by an ordinary user, it is that user, and its supplementary groups stay, as the kernel wants
//! it. It is never user 0 of the host.
//!
//! # Why an allow-list of system calls?
//!
//! A list of bad calls is out of date with each kernel, and must name each call once for every ABI. Here, what is not known
//! fails with `ENOSYS`, as on an older kernel, and programs fall back. What is known and bad fails with `EPERM`.
//!
//! [`SystemCallProfile`] chooses one of three lists, whose tables give a reason for each group of calls: `default`; `debugger`,
//! with which a command may trace and change other commands of the sandbox, but never the guest; `strict`, without System V
//! communication, locked memory, odd sockets and the like, in which shells, file programs and interpreters still run.
//!
//! # Why a file system in memory for the disk?
//!
//! Its size and its number of files are bounded exactly, for all writable places together, as root and as an ordinary
//! user, at the cost of one mount; it is gone with the sandbox, whatever happens, and counts as memory of the sandbox. A
//! file system in a loop device bounds the same and needs root, a device and a file that can be left behind; project
//! quotas need a host file system that was made for them, and root.
//!
//! # Workspaces on a base
//!
//! With [`SandboxSpec::base`] the workspace is an overlay file system over a directory of the host, which any number of sandboxes
//! share and none changes; what is written lies on the file system in memory, and it alone counts. As root, the files of the
//! base appear as the sandbox's through an idmapped mount (Linux 5.19; on ext4, xfs, btrfs or, from 6.3 on, tmpfs); they must belong to the
//! user of this process. The file system in memory needs attributes of users (Linux 6.6).
//! [`SandboxBackend::capabilities`] says whether this host can do it, and what to change.
//!
//! [`Sandbox::host_workspace`] is a descriptor of what was written, which the set-up opens before it drops anything; nobody
//! inside has it. [`Sandbox::freezer`] stops a sandbox by its cgroup while that is read, where it has one.
//!
//! # Without namespaces
//!
//! Where this host lets nobody make namespaces, or [`LinuxBackend::without_namespaces`] asks for it, a sandbox is among the host's
//! own files and processes, behind Landlock (version 6, Linux 6.12), a stricter filter and limits:
//!
//! | Place | What it is |
//! |---|---|
//! | `/usr` and the like, parts of `/etc` | the host's, to be read |
//! | workspace, `HOME`, `TMPDIR` | in a directory of the host that is made for it, mode 0700, and removed at its end |
//! | all else | cannot be opened; whether it is there can be found out |
//! | `/proc` | a few files on the size of the machine; no processes |
//! | network | no socket but connected pairs; the host's internet sockets only if [`NetworkAccess::Host`] opened them |
//!
//! Roots of its own, bases, lingering, ports, watching and, for an ordinary user, terminals are refused by name or not there.
//! There an ordinary user's commands also change no mode, owner, time or attribute by path: these are open files only. A
//! *keeper* outside of the sandbox's Landlock domain ends all processes in it. [`SandboxBackend::guarantees`] says what is
//! weaker, which is most of it, and names what to change on the host.
//!
//! # What it does not do
//!
//! - It shares the host's kernel: a hole in a system call that is allowed is a hole in the sandbox.
//! - Memory cgroups aside, the workspace is lost with the sandbox; snapshots are another crate's.
//! - A supervisor is in the cgroup, and in the container, of the process that started it; who ends these as a whole, such as a
//!   service manager at the end of a service, ends it too. No sandbox outlives a boot.
//! - Linux 5.14 or later on x86-64 or arm64; on other systems the crate is empty.
//!
//! [`SystemCallProfile`]: cofferdam_sandbox::SystemCallProfile
//! [`NetworkAccess::Host`]: cofferdam_core::NetworkAccess::Host
//! [`SandboxSpec::base`]: cofferdam_sandbox::SandboxSpec::base
//! [`Sandbox::host_workspace`]: cofferdam_sandbox::Sandbox::host_workspace
//! [`Sandbox::freezer`]: cofferdam_sandbox::Sandbox::freezer
//! [`SandboxBackend::capabilities`]: cofferdam_sandbox::SandboxBackend::capabilities
//! [`SandboxBackend::guarantees`]: cofferdam_sandbox::SandboxBackend::guarantees
//! [`SandboxBackend::attach`]: cofferdam_sandbox::SandboxBackend::attach
//! [`SandboxBackend::remove`]: cofferdam_sandbox::SandboxBackend::remove
//! [`SandboxSpec::linger`]: cofferdam_sandbox::SandboxSpec::linger
//! [`SandboxState`]: cofferdam_sandbox::SandboxState
//! [`Sandbox::close`]: cofferdam_sandbox::Sandbox::close
//! [`Sandbox::sessions`]: cofferdam_sandbox::Sandbox::sessions
//! [`ExecRequest::id`]: cofferdam_sandbox::ExecRequest::id
#![cfg(target_os = "linux")]
#![forbid(unsafe_code)]

mod allow_list;
mod backend;
mod cgroups;
mod confined;
mod encode;
mod filter;
mod freeze;
mod identity;
mod idle;
mod launch;
mod launcher;
mod layout;
mod linger;
mod mode;
mod private_directory;
mod programs;
mod report_stream;
mod rootfs;
mod sandbox;
mod setup;
mod state_directory;
mod walls;
mod workspace;

// The contract with the launcher, which is a program of its own and compiles the same files.
#[path = "../launcher/plan.rs"]
mod plan;
#[path = "../launcher/report.rs"]
mod report;

#[cfg(test)]
#[path = "../launcher/decode.rs"]
mod decode;
#[cfg(test)]
#[path = "../launcher/numbers.rs"]
mod numbers;

pub use backend::LinuxBackend;
pub use cofferdam_image::{ImageCacheOptions, ImageLimits, Platform};
