//! What a sandbox without namespaces is refused besides: calls that are harmless in namespaces of its own, and reach the host
//! without them. Landlock knows of none of these.

use seccompiler::{BackendError, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompRule};

use super::{Rules, all, argument, groups::COMMUNICATION, none_of, word};

/// What a sandbox without namespaces shares with the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Confinement {
    /// Whether it is a user of the host of its own; else what that user may do to the host's processes and files by number or
    /// by path is refused.
    pub(crate) own_user: bool,
    /// Whether the host's network was asked for.
    pub(crate) host_network: bool,
}

/// Calls that are refused whoever the sandbox is.
const SHARED: [&[libc::c_long]; 2] = [
    // What others of the host have.
    COMMUNICATION,
    // Watching directories, also those that may not be read.
    &[libc::SYS_inotify_init1, libc::SYS_inotify_add_watch],
];

/// Calls without which there is no socket but connected pairs: also no local one, since Landlock lets everybody connect to a
/// path.
const NETWORK: &[libc::c_long] =
    &[libc::SYS_socket, libc::SYS_bind, libc::SYS_listen, libc::SYS_connect];

/// Calls that change by path what belongs to the user, wherever it is. Those by descriptor stay: what was opened may be changed.
const BY_PATH: &[libc::c_long] = &[
    libc::SYS_fchmodat,
    libc::SYS_fchownat,
    libc::SYS_setxattr,
    libc::SYS_lsetxattr,
    libc::SYS_removexattr,
    libc::SYS_lremovexattr,
];

/// The older forms of those above.
#[cfg(target_arch = "x86_64")]
const OLDER: [&[libc::c_long]; 2] = [
    &[libc::SYS_inotify_init],
    &[
        libc::SYS_chmod,
        libc::SYS_chown,
        libc::SYS_lchown,
        libc::SYS_utime,
        libc::SYS_utimes,
        libc::SYS_futimesat,
    ],
];
#[cfg(not(target_arch = "x86_64"))]
const OLDER: [&[libc::c_long]; 2] = [&[], &[]];

impl Confinement {
    /// Returns the calls that are refused.
    pub(super) fn refused(self) -> impl Iterator<Item = libc::c_long> {
        let [older, older_by_path] = OLDER;
        let network = if self.host_network { &[][..] } else { NETWORK };
        let by_path = if self.own_user { [&[][..]; 2] } else { [BY_PATH, older_by_path] };
        SHARED.into_iter().chain([older, network]).chain(by_path).flatten().copied()
    }

    /// Adds the calls that are refused for some arguments.
    pub(super) fn refuse_arguments(self, rules: &mut Rules) -> Result<(), BackendError> {
        // A datagram socket of a pair sends to any path.
        let streams = [libc::SOCK_STREAM, libc::SOCK_SEQPACKET].map(word);
        let pairs = rules.entry(libc::SYS_socketpair).or_default();
        for kind in (0..=SOCKET_TYPE).filter(|kind| !streams.contains(kind)) {
            pairs.push(all(vec![argument(1, SeccompCmpOp::MaskedEq(SOCKET_TYPE), kind)])?);
        }
        if self.host_network {
            let local = argument(0, SeccompCmpOp::Eq, word(libc::AF_UNIX));
            rules.entry(libc::SYS_socket).or_default().push(all(vec![local])?);
        } else {
            // Refused as a whole.
            rules.remove(&libc::SYS_socket);
        }
        if self.own_user {
            return Ok(());
        }
        // Others of the same user, by number: 0 is the process itself.
        for call in [
            libc::SYS_prlimit64,
            libc::SYS_sched_setaffinity,
            libc::SYS_sched_setscheduler,
            libc::SYS_sched_setparam,
            libc::SYS_sched_setattr,
        ] {
            rules.entry(call).or_default().push(none_of(0, &[0])?);
        }
        for (call, process) in [
            (libc::SYS_setpriority, word(libc::PRIO_PROCESS.cast_signed())),
            (libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS),
        ] {
            let of_call = rules.entry(call).or_default();
            of_call.push(none_of(0, &[process])?);
            of_call.push(none_of(1, &[0])?);
        }
        // The times of a path; without one they are those of an open file.
        let a_path = SeccompCondition::new(1, SeccompCmpArgLen::Qword, SeccompCmpOp::Ne, 0)?;
        rules.entry(libc::SYS_utimensat).or_default().push(SeccompRule::new(vec![a_path])?);
        Ok(())
    }
}

const IOPRIO_WHO_PROCESS: u64 = 1;

/// The bits of a socket's type that are beside no flags.
const SOCKET_TYPE: u64 = 0xf;
