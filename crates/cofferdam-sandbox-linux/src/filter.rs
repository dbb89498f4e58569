//! The seccomp filter: which system calls a command may make, as tables with a reason per group.
//!
//! Two programs are installed one after the other, and the kernel takes the stricter answer:
//!
//! 1. [`KNOWN`] is an allow-list. What is not on it fails with `ENOSYS`, as on an older kernel, so programs fall back
//!    and a call that a future kernel adds is closed until somebody has looked at it. Calls of another
//!    architecture (`int 0x80`, the x32 ABI) kill the process or are unknown: an allow-list compares whole numbers,
//!    while a deny-list would have to name each number of each ABI.
//! 2. [`REFUSED`] and [`refused_arguments`] fail with `EPERM`, for what people know and look for: the message
//!    `Operation not permitted` says that a wall is there.
//!
//! Most of the refused calls would fail anyhow, for want of a capability. They are refused here as well since they
//! are where kernels have had holes that need none.

use std::collections::{BTreeMap, BTreeSet};

use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch, sock_filter,
};

use crate::allow_list;

/// Some system calls and why they are treated alike.
struct Group {
    #[cfg_attr(not(test), expect(dead_code, reason = "the reasons are for readers and tests"))]
    reason: &'static str,
    calls: &'static [libc::c_long],
}

/// Returns the programs in the order in which they are installed; each instruction is 8 bytes.
pub(crate) fn programs() -> Result<Vec<Vec<u8>>, BackendError> {
    let known: BTreeSet<u32> =
        groups(KNOWN).chain(groups(REFUSED)).filter_map(|call| u32::try_from(call).ok()).collect();
    let allowed = allow_list::program(&known, ENOSYS, TARGET)
        .ok_or(BackendError::FilterTooLarge(known.len()))?;
    let mut refused = refused_arguments()?;
    refused.extend(groups(REFUSED).map(|call| (call, Vec::new())));
    let refusal = SeccompAction::Errno(libc::EPERM.cast_unsigned());
    let filter = SeccompFilter::new(refused, SeccompAction::Allow, refusal, TARGET)?;
    Ok(vec![bytes(&allowed), bytes(&BpfProgram::try_from(filter)?)])
}

/// As an older kernel answers a call that it does not have.
const ENOSYS: u16 = 38;

#[cfg(target_arch = "x86_64")]
const TARGET: TargetArch = TargetArch::x86_64;
#[cfg(target_arch = "aarch64")]
const TARGET: TargetArch = TargetArch::aarch64;

fn groups(groups: &'static [Group]) -> impl Iterator<Item = libc::c_long> {
    groups.iter().flat_map(|group| group.calls.iter().copied())
}

fn bytes(program: &[sock_filter]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(program.len() * 8);
    for instruction in program {
        bytes.extend_from_slice(&instruction.code.to_ne_bytes());
        bytes.extend_from_slice(&[instruction.jt, instruction.jf]);
        bytes.extend_from_slice(&instruction.k.to_ne_bytes());
    }
    bytes
}

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// Calls that are refused for some arguments only.
///
/// All of these arguments are 32 bits wide in the kernel: comparing 64 would let a set upper half slip by.
fn refused_arguments() -> Result<Rules, BackendError> {
    use SeccompCmpOp::{Eq, MaskedEq, Ne};
    let argument = |index, operator, value: u64| {
        SeccompCondition::new(index, SeccompCmpArgLen::Dword, operator, value)
    };
    // Refused if all conditions hold.
    let all = |conditions: Vec<Result<SeccompCondition, BackendError>>| {
        SeccompRule::new(conditions.into_iter().collect::<Result<_, _>>()?)
    };
    let mut rules = Rules::new();

    // New namespaces give back capabilities, over a kernel surface that is full of past holes. `clone3` hides its flags
    // behind a pointer, so it is unknown, and the C library falls back to `clone`.
    for flag in NAMESPACE_FLAGS {
        let flag = u64::from(flag.cast_unsigned());
        for call in [libc::SYS_clone, libc::SYS_unshare] {
            rules.entry(call).or_default().push(all(vec![argument(0, MaskedEq(flag), flag)])?);
        }
    }

    // Local, internet and routing sockets. All other families (packet, vsock, which no namespace divides, netfilter, alg,
    // bluetooth, can, ...) are attack surface that commands do not need.
    let families = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];
    let other_family = families.map(|family| argument(0, Ne, u64::from(family.cast_unsigned())));
    let netlink_other_than_routing = vec![
        argument(0, Eq, u64::from(libc::AF_NETLINK.cast_unsigned())),
        argument(2, Ne, u64::from(libc::NETLINK_ROUTE.cast_unsigned())),
    ];
    rules.insert(
        libc::SYS_socket,
        vec![all(other_family.into())?, all(netlink_other_than_routing)?],
    );

    // Typing into, and taking over the selection of, a terminal that somebody else reads from.
    rules.insert(
        libc::SYS_ioctl,
        vec![all(vec![argument(1, Eq, TIOCSTI)])?, all(vec![argument(1, Eq, TIOCLINUX)])?],
    );

    // Only the harmless personalities: Linux, 32-bit, `uname` as 2.6, both, and asking. Others weaken address space layout
    // randomisation.
    let harmless = [0, 0x0008, 0x0002_0000, 0x0002_0008, 0xffff_ffff];
    rules.insert(
        libc::SYS_personality,
        vec![all(harmless.map(|value| argument(0, Ne, value)).into())?],
    );
    Ok(rules)
}

const TIOCSTI: u64 = 0x5412;
const TIOCLINUX: u64 = 0x541c;

const NAMESPACE_FLAGS: [libc::c_int; 7] = [
    libc::CLONE_NEWNS,
    libc::CLONE_NEWCGROUP,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
];

const REFUSED: &[Group] = &[
    Group {
        reason: "mounts: what is mounted is the first wall",
        calls: &[
            libc::SYS_mount,
            libc::SYS_umount2,
            libc::SYS_pivot_root,
            libc::SYS_chroot,
            libc::SYS_open_tree,
            libc::SYS_move_mount,
            libc::SYS_fsopen,
            libc::SYS_fsconfig,
            libc::SYS_fsmount,
            libc::SYS_fspick,
            libc::SYS_mount_setattr,
        ],
    },
    Group { reason: "entering other namespaces", calls: &[libc::SYS_setns] },
    Group {
        reason: "other processes' memory and descriptors: one command may not take over another, or the guest",
        calls: &[
            libc::SYS_ptrace,
            libc::SYS_process_vm_readv,
            libc::SYS_process_vm_writev,
            libc::SYS_process_madvise,
            libc::SYS_pidfd_getfd,
            libc::SYS_kcmp,
            libc::SYS_migrate_pages,
            libc::SYS_move_pages,
        ],
    },
    Group {
        reason: "key rings: no namespace divides them wholly, and they hold secrets",
        calls: &[libc::SYS_add_key, libc::SYS_request_key, libc::SYS_keyctl],
    },
    Group {
        reason: "programs in the kernel and views of it",
        calls: &[libc::SYS_bpf, libc::SYS_perf_event_open, libc::SYS_syslog],
    },
    Group {
        reason: "asynchronous rings: they do system calls that no filter sees",
        calls: &[libc::SYS_io_uring_setup, libc::SYS_io_uring_enter, libc::SYS_io_uring_register],
    },
    Group {
        reason: "pausing the kernel in the middle of a page fault, the helper of many exploits",
        calls: &[libc::SYS_userfaultfd],
    },
    Group {
        reason: "files by number instead of by path: walks around every mount",
        calls: &[libc::SYS_open_by_handle_at, libc::SYS_name_to_handle_at],
    },
    Group {
        reason: "watching all files of a file system",
        calls: &[libc::SYS_fanotify_init, libc::SYS_fanotify_mark],
    },
    Group {
        reason: "the machine: kernel, modules, power, swap, quotas, accounting",
        calls: &[
            libc::SYS_kexec_load,
            libc::SYS_kexec_file_load,
            libc::SYS_init_module,
            libc::SYS_finit_module,
            libc::SYS_delete_module,
            libc::SYS_reboot,
            libc::SYS_swapon,
            libc::SYS_swapoff,
            libc::SYS_quotactl,
            libc::SYS_quotactl_fd,
            libc::SYS_acct,
            libc::SYS_nfsservctl,
            libc::SYS_vhangup,
            libc::SYS_lookup_dcookie,
        ],
    },
    Group {
        reason: "the clock and the names of the machine",
        calls: &[
            libc::SYS_settimeofday,
            libc::SYS_clock_settime,
            libc::SYS_adjtimex,
            libc::SYS_clock_adjtime,
            libc::SYS_sethostname,
            libc::SYS_setdomainname,
        ],
    },
    #[cfg(target_arch = "x86_64")]
    Group {
        reason: "hardware ports and segment tables",
        calls: &[libc::SYS_iopl, libc::SYS_ioperm, libc::SYS_modify_ldt],
    },
];

const KNOWN: &[Group] = &[
    Group {
        reason: "reading and writing",
        calls: &[
            libc::SYS_read,
            libc::SYS_write,
            libc::SYS_readv,
            libc::SYS_writev,
            libc::SYS_pread64,
            libc::SYS_pwrite64,
            libc::SYS_preadv,
            libc::SYS_pwritev,
            libc::SYS_preadv2,
            libc::SYS_pwritev2,
            libc::SYS_lseek,
            libc::SYS_sendfile,
            libc::SYS_splice,
            libc::SYS_tee,
            libc::SYS_vmsplice,
            libc::SYS_copy_file_range,
            libc::SYS_readahead,
            libc::SYS_fadvise64,
            libc::SYS_sync,
            libc::SYS_syncfs,
            libc::SYS_fsync,
            libc::SYS_fdatasync,
            libc::SYS_sync_file_range,
        ],
    },
    Group {
        reason: "opening and closing",
        calls: &[
            libc::SYS_openat,
            libc::SYS_openat2,
            libc::SYS_close,
            libc::SYS_close_range,
            libc::SYS_dup,
            libc::SYS_dup3,
            libc::SYS_fcntl,
            libc::SYS_ioctl,
            libc::SYS_flock,
            libc::SYS_pipe2,
            libc::SYS_memfd_create,
            libc::SYS_memfd_secret,
        ],
    },
    Group {
        reason: "the tree of files",
        calls: &[
            libc::SYS_getcwd,
            libc::SYS_chdir,
            libc::SYS_fchdir,
            libc::SYS_mkdirat,
            libc::SYS_mknodat,
            libc::SYS_unlinkat,
            libc::SYS_symlinkat,
            libc::SYS_linkat,
            libc::SYS_renameat2,
            libc::SYS_readlinkat,
            libc::SYS_getdents64,
            libc::SYS_truncate,
            libc::SYS_ftruncate,
            libc::SYS_fallocate,
            libc::SYS_faccessat,
            libc::SYS_faccessat2,
            libc::SYS_newfstatat,
            libc::SYS_fstat,
            libc::SYS_statx,
            libc::SYS_statfs,
            libc::SYS_fstatfs,
            libc::SYS_fchmod,
            libc::SYS_fchmodat,
            libc::SYS_fchown,
            libc::SYS_fchownat,
            libc::SYS_umask,
            libc::SYS_utimensat,
            libc::SYS_setxattr,
            libc::SYS_lsetxattr,
            libc::SYS_fsetxattr,
            libc::SYS_getxattr,
            libc::SYS_lgetxattr,
            libc::SYS_fgetxattr,
            libc::SYS_listxattr,
            libc::SYS_llistxattr,
            libc::SYS_flistxattr,
            libc::SYS_removexattr,
            libc::SYS_lremovexattr,
            libc::SYS_fremovexattr,
            libc::SYS_inotify_init1,
            libc::SYS_inotify_add_watch,
            libc::SYS_inotify_rm_watch,
        ],
    },
    Group {
        reason: "memory of the process itself",
        calls: &[
            libc::SYS_brk,
            libc::SYS_mmap,
            libc::SYS_munmap,
            libc::SYS_mremap,
            libc::SYS_mprotect,
            libc::SYS_msync,
            libc::SYS_mincore,
            libc::SYS_madvise,
            libc::SYS_mlock,
            libc::SYS_mlock2,
            libc::SYS_munlock,
            libc::SYS_mlockall,
            libc::SYS_munlockall,
            libc::SYS_mseal,
            libc::SYS_mbind,
            libc::SYS_get_mempolicy,
            libc::SYS_set_mempolicy,
            libc::SYS_pkey_alloc,
            libc::SYS_pkey_free,
            libc::SYS_pkey_mprotect,
            libc::SYS_membarrier,
        ],
    },
    Group {
        reason: "processes and threads; new namespaces are refused by argument",
        calls: &[
            libc::SYS_clone,
            libc::SYS_unshare,
            libc::SYS_execve,
            libc::SYS_execveat,
            libc::SYS_exit,
            libc::SYS_exit_group,
            libc::SYS_wait4,
            libc::SYS_waitid,
            libc::SYS_set_tid_address,
            libc::SYS_set_robust_list,
            libc::SYS_get_robust_list,
            libc::SYS_rseq,
            libc::SYS_futex,
            libc::SYS_futex_waitv,
            libc::SYS_prctl,
            libc::SYS_personality,
            libc::SYS_getpid,
            libc::SYS_getppid,
            libc::SYS_gettid,
            libc::SYS_getpgid,
            libc::SYS_setpgid,
            libc::SYS_getsid,
            libc::SYS_setsid,
            libc::SYS_pidfd_open,
            libc::SYS_pidfd_send_signal,
        ],
    },
    Group {
        reason: "signals: only processes of the same namespace can be named",
        calls: &[
            libc::SYS_kill,
            libc::SYS_tkill,
            libc::SYS_tgkill,
            libc::SYS_rt_sigaction,
            libc::SYS_rt_sigprocmask,
            libc::SYS_rt_sigpending,
            libc::SYS_rt_sigqueueinfo,
            libc::SYS_rt_tgsigqueueinfo,
            libc::SYS_rt_sigreturn,
            libc::SYS_rt_sigsuspend,
            libc::SYS_rt_sigtimedwait,
            libc::SYS_sigaltstack,
            libc::SYS_restart_syscall,
            libc::SYS_signalfd4,
        ],
    },
    Group {
        reason: "scheduling and limits: they can only be made stricter",
        calls: &[
            libc::SYS_sched_yield,
            libc::SYS_sched_getaffinity,
            libc::SYS_sched_setaffinity,
            libc::SYS_sched_getattr,
            libc::SYS_sched_setattr,
            libc::SYS_sched_getparam,
            libc::SYS_sched_setparam,
            libc::SYS_sched_getscheduler,
            libc::SYS_sched_setscheduler,
            libc::SYS_sched_get_priority_max,
            libc::SYS_sched_get_priority_min,
            libc::SYS_sched_rr_get_interval,
            libc::SYS_getpriority,
            libc::SYS_setpriority,
            libc::SYS_ioprio_get,
            libc::SYS_ioprio_set,
            libc::SYS_getrlimit,
            libc::SYS_setrlimit,
            libc::SYS_prlimit64,
            libc::SYS_getrusage,
            libc::SYS_getcpu,
        ],
    },
    Group {
        reason: "who the process is; there is one user and no capability to gain",
        calls: &[
            libc::SYS_getuid,
            libc::SYS_geteuid,
            libc::SYS_getgid,
            libc::SYS_getegid,
            libc::SYS_getresuid,
            libc::SYS_getresgid,
            libc::SYS_getgroups,
            libc::SYS_setuid,
            libc::SYS_setgid,
            libc::SYS_setreuid,
            libc::SYS_setregid,
            libc::SYS_setresuid,
            libc::SYS_setresgid,
            libc::SYS_setfsuid,
            libc::SYS_setfsgid,
            libc::SYS_setgroups,
            libc::SYS_capget,
            libc::SYS_capset,
        ],
    },
    Group {
        reason: "time: reading, waiting, timers",
        calls: &[
            libc::SYS_gettimeofday,
            libc::SYS_clock_gettime,
            libc::SYS_clock_getres,
            libc::SYS_clock_nanosleep,
            libc::SYS_nanosleep,
            libc::SYS_times,
            libc::SYS_getitimer,
            libc::SYS_setitimer,
            libc::SYS_timer_create,
            libc::SYS_timer_settime,
            libc::SYS_timer_gettime,
            libc::SYS_timer_getoverrun,
            libc::SYS_timer_delete,
            libc::SYS_timerfd_create,
            libc::SYS_timerfd_settime,
            libc::SYS_timerfd_gettime,
        ],
    },
    Group {
        reason: "waiting for events",
        calls: &[
            libc::SYS_ppoll,
            libc::SYS_pselect6,
            libc::SYS_epoll_create1,
            libc::SYS_epoll_ctl,
            libc::SYS_epoll_pwait,
            libc::SYS_epoll_pwait2,
            libc::SYS_eventfd2,
        ],
    },
    Group {
        reason: "sockets of the families that are allowed, in the sandbox's own network namespace",
        calls: &[
            libc::SYS_socket,
            libc::SYS_socketpair,
            libc::SYS_bind,
            libc::SYS_listen,
            libc::SYS_accept,
            libc::SYS_accept4,
            libc::SYS_connect,
            libc::SYS_getsockname,
            libc::SYS_getpeername,
            libc::SYS_getsockopt,
            libc::SYS_setsockopt,
            libc::SYS_sendto,
            libc::SYS_sendmsg,
            libc::SYS_sendmmsg,
            libc::SYS_recvfrom,
            libc::SYS_recvmsg,
            libc::SYS_recvmmsg,
            libc::SYS_shutdown,
        ],
    },
    Group {
        reason: "System V and POSIX communication, in the sandbox's own namespace",
        calls: &[
            libc::SYS_shmget,
            libc::SYS_shmat,
            libc::SYS_shmctl,
            libc::SYS_shmdt,
            libc::SYS_semget,
            libc::SYS_semop,
            libc::SYS_semctl,
            libc::SYS_semtimedop,
            libc::SYS_msgget,
            libc::SYS_msgsnd,
            libc::SYS_msgrcv,
            libc::SYS_msgctl,
            libc::SYS_mq_open,
            libc::SYS_mq_unlink,
            libc::SYS_mq_timedsend,
            libc::SYS_mq_timedreceive,
            libc::SYS_mq_notify,
            libc::SYS_mq_getsetattr,
        ],
    },
    Group {
        reason: "the older asynchronous interface of databases; its calls are checked like others",
        calls: &[
            libc::SYS_io_setup,
            libc::SYS_io_destroy,
            libc::SYS_io_submit,
            libc::SYS_io_cancel,
            libc::SYS_io_getevents,
        ],
    },
    Group {
        reason: "facts of the system, and random numbers",
        calls: &[libc::SYS_uname, libc::SYS_sysinfo, libc::SYS_getrandom],
    },
    Group {
        reason: "walls that a command builds around itself",
        calls: &[
            libc::SYS_seccomp,
            libc::SYS_landlock_create_ruleset,
            libc::SYS_landlock_add_rule,
            libc::SYS_landlock_restrict_self,
        ],
    },
    #[cfg(target_arch = "x86_64")]
    Group {
        reason: "older forms of the calls above, which newer architectures do not have",
        calls: &[
            libc::SYS_open,
            libc::SYS_creat,
            libc::SYS_dup2,
            libc::SYS_pipe,
            libc::SYS_stat,
            libc::SYS_lstat,
            libc::SYS_access,
            libc::SYS_mkdir,
            libc::SYS_rmdir,
            libc::SYS_mknod,
            libc::SYS_unlink,
            libc::SYS_link,
            libc::SYS_symlink,
            libc::SYS_readlink,
            libc::SYS_rename,
            libc::SYS_renameat,
            libc::SYS_chmod,
            libc::SYS_chown,
            libc::SYS_lchown,
            libc::SYS_utime,
            libc::SYS_utimes,
            libc::SYS_futimesat,
            libc::SYS_getdents,
            libc::SYS_inotify_init,
            libc::SYS_fork,
            libc::SYS_vfork,
            libc::SYS_getpgrp,
            libc::SYS_pause,
            libc::SYS_alarm,
            libc::SYS_time,
            libc::SYS_poll,
            libc::SYS_select,
            libc::SYS_epoll_create,
            libc::SYS_epoll_wait,
            libc::SYS_eventfd,
            libc::SYS_signalfd,
            libc::SYS_arch_prctl,
        ],
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_fit_the_kernel_and_begin_with_the_architecture() {
        const BPF_MAX_INSTRUCTIONS: usize = 4096;
        let programs = programs().expect("the tables compile");
        assert_eq!(programs.len(), 2);
        for program in programs {
            assert!(program.len() / 8 < BPF_MAX_INSTRUCTIONS);
            // Load the word at offset 4 of `struct seccomp_data`: the architecture.
            assert_eq!(program[..8], [0x20, 0, 0, 0, 4, 0, 0, 0]);
        }
    }

    #[test]
    fn each_call_is_in_one_group_and_each_group_has_a_reason() {
        let mut seen = BTreeSet::new();
        for group in KNOWN.iter().chain(REFUSED) {
            assert!(!group.reason.is_empty());
            for call in group.calls {
                assert!(seen.insert(*call), "{call} is there twice ({})", group.reason);
            }
        }
    }

    #[test]
    fn calls_refused_by_argument_are_known() {
        let known: BTreeSet<_> = groups(KNOWN).collect();
        for call in refused_arguments().expect("the rules compile").keys() {
            assert!(known.contains(call), "{call}");
        }
    }
}
