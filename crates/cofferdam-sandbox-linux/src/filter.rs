//! The seccomp filter: which system calls a command may make, from the tables in `groups`.
//!
//! Two programs are installed one after the other, and the kernel takes the stricter answer:
//!
//! 1. The numbers, as a search (`allow_list`). What no table knows fails with `ENOSYS`, as on an older kernel, so programs
//!    fall back and a call that a future kernel adds is closed until somebody has looked at it. What a table knows and
//!    the profile does not allow fails with `EPERM`, for what people know and look for: the message `Operation not
//!    permitted` says that a wall is there. Calls of another architecture (`int 0x80`, the x32 ABI) kill the process or
//!    are unknown: a search compares whole numbers, while a deny-list would have to name each number of each ABI.
//! 2. The arguments of the few calls that are refused for some of them only.
//!
//! Most of the refused calls would fail anyhow, for want of a capability. They are refused here as well since they
//! are where kernels have had holes that need none.

mod confined;
mod groups;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, PoisonError},
};

use cofferdam_sandbox::SystemCallProfile;
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch, sock_filter,
};

pub(crate) use self::confined::Confinement;
use self::groups::GROUPS;
use crate::allow_list;

/// Programs in the order in which they are installed; each instruction is 8 bytes.
type Programs = Vec<Vec<u8>>;

/// The programs of all profiles.
#[derive(Debug)]
pub(crate) struct Filters {
    default: Programs,
    debugger: Programs,
    strict: Programs,
    /// Those of sandboxes without namespaces, compiled at their first use.
    confined: Mutex<HashMap<(SystemCallProfile, Confinement), Programs>>,
}

impl Filters {
    /// Compiles the tables.
    pub(crate) fn compile() -> Result<Self, BackendError> {
        Ok(Self {
            default: programs(SystemCallProfile::Default, None)?,
            debugger: programs(SystemCallProfile::Debugger, None)?,
            strict: programs(SystemCallProfile::Strict, None)?,
            confined: Mutex::default(),
        })
    }

    /// Returns the programs of a profile, or `None` if this crate does not know it.
    pub(crate) fn of(&self, profile: SystemCallProfile) -> Option<&[Vec<u8>]> {
        match profile {
            SystemCallProfile::Default => Some(&self.default),
            SystemCallProfile::Debugger => Some(&self.debugger),
            SystemCallProfile::Strict => Some(&self.strict),
            _ => None,
        }
    }
}

impl Filters {
    /// Returns the programs of a profile for sandboxes without namespaces; `None` if this crate does not know it.
    pub(crate) fn confined(
        &self,
        profile: SystemCallProfile,
        confinement: Confinement,
    ) -> Result<Option<Programs>, BackendError> {
        if self.of(profile).is_none() {
            return Ok(None);
        }
        // What a panic could leave is without some programs, which are made again.
        let mut known = self.confined.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(programs) = known.get(&(profile, confinement)) {
            return Ok(Some(programs.clone()));
        }
        let made = programs(profile, Some(confinement))?;
        Ok(Some(known.entry((profile, confinement)).or_insert(made).clone()))
    }
}

/// Returns the programs of a profile.
fn programs(
    profile: SystemCallProfile,
    confinement: Option<Confinement>,
) -> Result<Programs, BackendError> {
    let mut answers = answers(profile);
    let mut refused = refused_arguments(profile)?;
    if let Some(confinement) = confinement {
        for call in confinement.refused().filter_map(|call| u32::try_from(call).ok()) {
            answers.insert(call, refuse(EPERM));
        }
        confinement.refuse_arguments(&mut refused)?;
    }
    let numbers = allow_list::program(&answers, refuse(ENOSYS), TARGET)
        .ok_or(BackendError::FilterTooLarge(answers.len()))?;
    let refusal = SeccompAction::Errno(u32::from(EPERM));
    let arguments = SeccompFilter::new(refused, SeccompAction::Allow, refusal, TARGET)?;
    Ok(vec![bytes(&numbers), bytes(&BpfProgram::try_from(arguments)?)])
}

/// Returns the answer for every known call.
fn answers(profile: SystemCallProfile) -> BTreeMap<u32, u32> {
    let of_group = |group: &groups::Group| {
        if group.allowed.contains(&profile) { libc::SECCOMP_RET_ALLOW } else { refuse(EPERM) }
    };
    GROUPS
        .iter()
        .flat_map(|group| group.calls.iter().map(move |&call| (call, of_group(group))))
        .filter_map(|(call, answer)| Some((u32::try_from(call).ok()?, answer)))
        .collect()
}

const EPERM: u16 = 1;
/// As an older kernel answers a call that it does not have.
const ENOSYS: u16 = 38;

fn refuse(errno: u16) -> u32 {
    libc::SECCOMP_RET_ERRNO | u32::from(errno)
}

#[cfg(target_arch = "x86_64")]
const TARGET: TargetArch = TargetArch::x86_64;
#[cfg(target_arch = "aarch64")]
const TARGET: TargetArch = TargetArch::aarch64;

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
/// Of all of these arguments the kernel looks at 32 bits, or refuses the rest: comparing 64 would let a set upper half
/// slip by.
fn refused_arguments(profile: SystemCallProfile) -> Result<Rules, BackendError> {
    let mut rules = Rules::new();

    // New namespaces give back capabilities, over a kernel surface that is full of past holes. `clone3` hides its flags
    // behind a pointer, so it is unknown, and the C library falls back to `clone`.
    for flag in NAMESPACE_FLAGS {
        let flag = u64::from(flag.cast_unsigned());
        for call in [libc::SYS_clone, libc::SYS_unshare] {
            rules.entry(call).or_default().push(all(vec![argument(
                0,
                SeccompCmpOp::MaskedEq(flag),
                flag,
            )])?);
        }
    }
    rules.insert(libc::SYS_socket, refused_sockets(profile)?);
    // A pair of any other family is as good as a socket of it.
    rules.insert(libc::SYS_socketpair, vec![none_of(0, &[word(libc::AF_UNIX)])?]);

    // Typing into, and taking over the selection of, a terminal that somebody else reads from.
    rules.insert(
        libc::SYS_ioctl,
        vec![
            all(vec![argument(1, SeccompCmpOp::Eq, TIOCSTI)])?,
            all(vec![argument(1, SeccompCmpOp::Eq, TIOCLINUX)])?,
        ],
    );

    // Only the harmless personalities: Linux, 32-bit, `uname` as 2.6, both, and asking. Others weaken address space layout
    // randomisation, which debuggers want.
    let mut harmless = vec![0, 0x0008, 0x0002_0000, 0x0002_0008, 0xffff_ffff];
    if profile == SystemCallProfile::Debugger {
        harmless.push(ADDR_NO_RANDOMIZE);
    }
    rules.insert(libc::SYS_personality, vec![none_of(0, &harmless)?]);
    Ok(rules)
}

/// Local, internet and routing sockets. All other families (packet, vsock, which no namespace divides, netfilter, alg,
/// bluetooth, can, ...) are attack surface that commands do not need, and so are the internet's other protocols: a ping
/// socket needs no capability, only a setting of the kernel that lets its group, and MPTCP, SCTP and DCCP had holes.
fn refused_sockets(profile: SystemCallProfile) -> Result<Vec<SeccompRule>, BackendError> {
    let [unix, inet, inet6, netlink] =
        [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK].map(word);
    let strict = profile == SystemCallProfile::Strict;
    let mut rules = Vec::new();
    for family in [inet, inet6] {
        let mut other_protocol = vec![argument(0, SeccompCmpOp::Eq, family)];
        other_protocol.extend(
            INTERNET_PROTOCOLS.map(|protocol| argument(2, SeccompCmpOp::Ne, word(protocol))),
        );
        rules.push(all(other_protocol)?);
    }
    // Streams and datagrams only; in the strict profile also of local sockets.
    for (bits, value) in OTHER_SOCKET_TYPES {
        let other_type = || argument(1, SeccompCmpOp::MaskedEq(bits), value);
        if strict {
            rules.push(all(vec![other_type()])?);
            continue;
        }
        for family in [inet, inet6] {
            rules.push(all(vec![argument(0, SeccompCmpOp::Eq, family), other_type()])?);
        }
    }
    if strict {
        rules.push(none_of(0, &[unix, inet, inet6])?);
    } else {
        rules.push(none_of(0, &[unix, inet, inet6, netlink])?);
        rules.push(all(vec![
            argument(0, SeccompCmpOp::Eq, netlink),
            argument(2, SeccompCmpOp::Ne, word(libc::NETLINK_ROUTE)),
        ])?);
    }
    Ok(rules)
}

fn word(number: libc::c_int) -> u64 {
    u64::from(number.cast_unsigned())
}

fn argument(
    index: u8,
    operator: SeccompCmpOp,
    value: u64,
) -> Result<SeccompCondition, BackendError> {
    SeccompCondition::new(index, SeccompCmpArgLen::Dword, operator, value)
}

/// Refuses if all conditions hold.
fn all(
    conditions: Vec<Result<SeccompCondition, BackendError>>,
) -> Result<SeccompRule, BackendError> {
    SeccompRule::new(conditions.into_iter().collect::<Result<_, _>>()?)
}

/// Refuses if an argument is none of these.
fn none_of(index: u8, values: &[u64]) -> Result<SeccompRule, BackendError> {
    all(values.iter().map(|&value| argument(index, SeccompCmpOp::Ne, value)).collect())
}

/// Bits of a socket's type, and values of them that neither 1, streams, nor 2, datagrams, has: all others are found in few
/// comparisons, since every sandbox has the kernel translate them. The lowest four bits are the type, flags lie above.
const OTHER_SOCKET_TYPES: [(u64, u64); 4] = [(0xf, 0), (0x3, 3), (0x4, 4), (0x8, 8)];
/// The usual one of the type, TCP and UDP.
const INTERNET_PROTOCOLS: [libc::c_int; 3] = [0, libc::IPPROTO_TCP, libc::IPPROTO_UDP];

const TIOCSTI: u64 = 0x5412;
const TIOCLINUX: u64 = 0x541c;
const ADDR_NO_RANDOMIZE: u64 = 0x0004_0000;

const NAMESPACE_FLAGS: [libc::c_int; 7] = [
    libc::CLONE_NEWNS,
    libc::CLONE_NEWCGROUP,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const PROFILES: [SystemCallProfile; 3] =
        [SystemCallProfile::Default, SystemCallProfile::Debugger, SystemCallProfile::Strict];

    #[test]
    fn programs_fit_the_kernel_and_begin_with_the_architecture() {
        const BPF_MAX_INSTRUCTIONS: usize = 4096;
        let filters = Filters::compile().expect("the tables compile");
        for profile in PROFILES {
            let programs = filters.of(profile).expect("it is known");
            assert_eq!(programs.len(), 2);
            for program in programs {
                assert!(program.len() / 8 < BPF_MAX_INSTRUCTIONS);
                // Load the word at offset 4 of `struct seccomp_data`: the architecture.
                assert_eq!(program[..8], [0x20, 0, 0, 0, 4, 0, 0, 0]);
            }
        }
    }

    #[test]
    fn each_call_is_in_one_group_and_each_group_has_a_reason() {
        let mut seen = BTreeSet::new();
        for group in GROUPS {
            assert!(!group.reason.is_empty());
            for call in group.calls {
                assert!(seen.insert(*call), "{call} is there twice ({})", group.reason);
            }
        }
    }

    #[test]
    fn calls_refused_by_argument_are_allowed_otherwise() {
        let allowed = |call: i64| {
            let call = u32::try_from(call).expect("a number");
            answers(SystemCallProfile::Default).get(&call) == Some(&libc::SECCOMP_RET_ALLOW)
        };
        for profile in PROFILES {
            for call in refused_arguments(profile).expect("the rules compile").keys() {
                assert!(allowed(*call), "{call}");
            }
        }
    }

    #[test]
    fn socket_types_other_than_streams_and_datagrams_are_found() {
        let is_other =
            |kind: u64| OTHER_SOCKET_TYPES.iter().any(|&(bits, value)| kind & bits == value);
        let flags = [0, libc::SOCK_CLOEXEC, libc::SOCK_NONBLOCK].map(word);
        for kind in flags.into_iter().flat_map(|flag| (0..16).map(move |kind| kind | flag)) {
            assert_eq!(is_other(kind), ![1, 2].contains(&(kind & 0xf)), "{kind:#x}");
        }
    }

    #[test]
    fn the_profiles_differ_by_groups() {
        let only = |profile: SystemCallProfile, than: SystemCallProfile| {
            let more = GROUPS
                .iter()
                .filter(|group| group.allowed.contains(&profile) && !group.allowed.contains(&than));
            more.map(|group| group.reason.split([':', ';', ',']).next().unwrap_or_default())
                .collect::<Vec<_>>()
                .join("\n")
        };
        insta::assert_snapshot!(only(SystemCallProfile::Debugger, SystemCallProfile::Default), @"looking into another process and changing it");
        insta::assert_snapshot!(only(SystemCallProfile::Default, SystemCallProfile::Strict), @"
        System V and POSIX communication
        the older asynchronous interface of databases
        memory that cannot be swapped
        where memory is
        pipes filled with pages instead of bytes
        other schedulers
        other personalities
        ");
        assert_eq!(only(SystemCallProfile::Strict, SystemCallProfile::Default), "");
        assert_eq!(only(SystemCallProfile::Default, SystemCallProfile::Debugger), "");
    }
}
