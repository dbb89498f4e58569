//! The seccomp profile, in the format that the engine takes: `system_calls.toml` and the rules on arguments.
//!
//! The engine's own default profile is not enough: it lets pass what the escape attempts of this crate's tests found
//! open (io_uring, odd socket families, tracing, `TIOCSTI`). What is not allowed here fails with `EPERM`, calls of other
//! architectures kill the process.

use std::sync::OnceLock;

use cofferdam_sandbox::SystemCallProfile;
use serde::Deserialize;
use serde_json::{Value, json};

/// The groups of calls, as data with a reason each.
const SYSTEM_CALLS: &str = include_str!("system_calls.toml");

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    group: Vec<Group>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Group {
    #[cfg_attr(not(test), expect(dead_code, reason = "the reasons are for readers and tests"))]
    reason: String,
    without: Option<SystemCallProfile>,
    only: Option<SystemCallProfile>,
    calls: Vec<String>,
}

/// Flags of `clone` that make a namespace: mount, cgroup, host name, ipc, user, process, network.
const NEW_NAMESPACES: u64 = 0x7e02_0000;

const LOCAL: u64 = 1;
const NETLINK: u64 = 16;
const NETLINK_ROUTE: u64 = 0;

/// The internet's families of sockets, and what they may be. A ping socket needs no capability, only a setting of the
/// kernel that lets its group, and MPTCP, SCTP and DCCP had holes.
const INTERNET: [u64; 2] = [2, 10];
/// Streams and datagrams.
const INTERNET_TYPES: [u64; 2] = [1, 2];
/// The usual one of the type, TCP and UDP.
const INTERNET_PROTOCOLS: [u64; 3] = [0, 6, 17];
/// The bits of a socket's type that are beside no flags.
const SOCKET_TYPE: u64 = 0xf;

/// Typing into, and taking over the selection of, a terminal that somebody else reads from.
const TIOCSTI: u32 = 0x5412;
const TIOCLINUX: u32 = 0x541c;

/// Linux, 32-bit, `uname` as 2.6, both, and asking. Others weaken address space layout randomisation.
const PERSONALITIES: [u64; 5] = [0, 0x0008, 0x0002_0000, 0x0002_0008, 0xffff_ffff];

/// The kernel reads 32 bits of these arguments and the filter compares 64: without a mask, a set upper half slips by.
const LOW: u64 = 0xffff_ffff;

/// Returns the profile as JSON.
///
/// # Errors
///
/// That the table of this crate cannot be read, which a test rules out.
fn profile(profile: SystemCallProfile) -> Result<String, toml::de::Error> {
    static TABLE: OnceLock<Result<Table, toml::de::Error>> = OnceLock::new();
    let table =
        TABLE.get_or_init(|| toml::from_str(SYSTEM_CALLS)).as_ref().map_err(Clone::clone)?;
    let names: Vec<&str> = table
        .group
        .iter()
        .filter(|group| group.without != Some(profile))
        .filter(|group| group.only.is_none_or(|only| only == profile))
        .flat_map(|group| group.calls.iter().map(String::as_str))
        .collect();
    let mut rules = vec![
        allow(&names, &[]),
        allow(&["clone"], &[equals(0, NEW_NAMESPACES, 0)]),
        // It hides its flags behind a pointer. As on an older kernel, the C library falls back to `clone`.
        json!({ "names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38 }),
        allow(&["socket"], &[equals(0, LOW, NETLINK), equals(2, LOW, NETLINK_ROUTE)]),
    ];
    rules.push(allow(&["socket"], &[equals(0, LOW, LOCAL)]));
    rules.extend(internet_sockets());
    rules.extend(PERSONALITIES.map(|value| allow(&["personality"], &[equals(0, LOW, value)])));
    rules.extend(
        all_but(TIOCSTI, TIOCLINUX)
            .into_iter()
            .map(|(mask, value)| allow(&["ioctl"], &[equals(1, mask.into(), value.into())])),
    );
    Ok(json!({ "defaultAction": "SCMP_ACT_ERRNO", "syscalls": rules }).to_string())
}

/// How profiles get to an engine.
#[derive(Debug)]
pub(crate) enum Delivery {
    /// In the request.
    Inline,
    /// As files of this host, which the engine reads: Podman takes nothing else.
    Files(tempfile::TempDir),
    /// Not at all: the engine reads files, and of another host. Its own profile stands.
    EnginesOwn,
}

impl Delivery {
    /// Returns how an engine takes profiles.
    pub(crate) fn of(is_podman: bool, is_local: bool) -> std::io::Result<Self> {
        Ok(match (is_podman, is_local) {
            (false, _) => Self::Inline,
            (true, true) => {
                Self::Files(tempfile::Builder::new().prefix("cofferdam-seccomp-").tempdir()?)
            }
            (true, false) => Self::EnginesOwn,
        })
    }

    /// Returns the security option for a profile; none if the engine's own stands.
    pub(crate) fn option(&self, of: SystemCallProfile) -> std::io::Result<Option<String>> {
        let text = profile(of).map_err(std::io::Error::other)?;
        match self {
            Self::Inline => Ok(Some(format!("seccomp={text}"))),
            Self::Files(directory) => {
                let file = directory.path().join(format!("{of:?}.json"));
                // The same content each time, put in place whole: an engine may be reading it.
                let mut written = tempfile::NamedTempFile::new_in(directory.path())?;
                std::io::Write::write_all(&mut written, text.as_bytes())?;
                written.persist(&file)?;
                Ok(Some(format!("seccomp={}", file.display())))
            }
            Self::EnginesOwn => Ok(None),
        }
    }
}

fn allow(names: &[&str], arguments: &[Value]) -> Value {
    json!({ "names": names, "action": "SCMP_ACT_ALLOW", "args": arguments })
}

/// Every kind of socket of the internet that is allowed, a rule for each.
fn internet_sockets() -> impl Iterator<Item = Value> {
    INTERNET.into_iter().flat_map(|family| {
        INTERNET_TYPES.into_iter().flat_map(move |kind| {
            INTERNET_PROTOCOLS.map(|protocol| {
                let what = [
                    equals(0, LOW, family),
                    equals(1, SOCKET_TYPE, kind),
                    equals(2, LOW, protocol),
                ];
                allow(&["socket"], &what)
            })
        })
    })
}

/// The condition that an argument has this value in the bits of a mask.
fn equals(index: u32, mask: u64, value: u64) -> Value {
    json!({ "index": index, "value": mask, "valueTwo": value, "op": "SCMP_CMP_MASKED_EQ" })
}

/// Returns masks and values such that a word matches one of them exactly if it is neither of these two.
///
/// A profile can only list what is allowed, and knows no "differs under a mask". A word is neither if it differs in a
/// bit that both share, or agrees with both there and is another combination of the bits in which they differ.
fn all_but(one: u32, other: u32) -> Vec<(u32, u32)> {
    let differing = one ^ other;
    let shared = (0..u32::BITS).map(|bit| 1 << bit).filter(|bit| differing & bit == 0);
    let mut rules: Vec<(u32, u32)> = shared.map(|bit| (bit, !one & bit)).collect();
    // Every subset of the differing bits, by counting down through them.
    let mut subset = differing;
    loop {
        let word = (one & !differing) | subset;
        if word != one && word != other {
            rules.push((u32::MAX, word));
        }
        if subset == 0 {
            return rules;
        }
        subset = (subset - 1) & differing;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn names(of: SystemCallProfile) -> BTreeSet<String> {
        let profile: Value = serde_json::from_str(&profile(of).expect("a table")).expect("JSON");
        let rules = profile["syscalls"].as_array().expect("rules");
        let allowed =
            rules.iter().filter(|rule| rule["args"].as_array().is_some_and(Vec::is_empty));
        allowed
            .flat_map(|rule| rule["names"].as_array().expect("names"))
            .map(|name| name.as_str().expect("a name").to_owned())
            .collect()
    }

    #[test]
    fn what_leads_out_is_in_no_profile() {
        for of in
            [SystemCallProfile::Default, SystemCallProfile::Debugger, SystemCallProfile::Strict]
        {
            let names = names(of);
            for call in [
                "mount",
                "unshare",
                "setns",
                "pivot_root",
                "chroot",
                "keyctl",
                "add_key",
                "bpf",
                "perf_event_open",
                "io_uring_setup",
                "userfaultfd",
                "open_by_handle_at",
                "clone",
                "socket",
                "ioctl",
                "personality",
                "init_module",
                "reboot",
                "syslog",
            ] {
                assert!(!names.contains(call), "{call} in {of:?}");
            }
        }
    }

    /// Whether a rule of a profile lets a call with these arguments pass, as the engine reads it.
    fn allows(of: SystemCallProfile, call: &str, arguments: [u64; 3]) -> bool {
        let profile: Value = serde_json::from_str(&profile(of).expect("a table")).expect("JSON");
        let number = |value: &Value, name: &str| value[name].as_u64().expect("a number");
        let holds = |condition: &Value| {
            let index = usize::try_from(number(condition, "index")).expect("small");
            arguments[index] & number(condition, "value") == number(condition, "valueTwo")
        };
        let rules = profile["syscalls"].as_array().expect("rules");
        rules.iter().any(|rule| {
            let named = rule["names"].as_array().expect("names").iter().any(|name| name == call);
            named && rule["args"].as_array().is_some_and(|args| args.iter().all(holds))
        })
    }

    #[test]
    fn sockets() {
        for of in
            [SystemCallProfile::Default, SystemCallProfile::Debugger, SystemCallProfile::Strict]
        {
            let check = |arguments: [u64; 3], expect: bool| {
                assert_eq!(allows(of, "socket", arguments), expect, "{arguments:x?} in {of:?}");
            };
            const FLAGS: u64 = 0x80800;
            for family in [2, 10] {
                for (kind, protocol) in [(1, 0), (1, 6), (2, 0), (2, 17)] {
                    check([family, kind, protocol], true);
                    check([family, kind | FLAGS, protocol], true);
                }
                // Ping, multipath, SCTP, light datagrams; then raw, reliable, sequenced, DCCP and packet sockets.
                for (kind, protocol) in [(2, 1), (2, 58), (1, 262), (1, 132), (2, 136)]
                    .into_iter()
                    .chain([0, 3, 4, 5, 6, 10].map(|kind| (kind, 0)))
                {
                    check([family, kind, protocol], false);
                    check([family, kind | FLAGS, protocol], false);
                }
                check([family | 1 << 32, 2, 1], false);
                check([family, 2, 1 | 1 << 32], false);
            }
            check([1, 1, 0], true);
            check([1, 5 | FLAGS, 0], true);
            check([16, 3, 0], true);
            check([16, 3, 12], false);
            for family in [17, 38, 40] {
                check([family, 1, 0], false);
            }
        }
    }

    #[test]
    fn profiles_differ_as_they_say() {
        let default = names(SystemCallProfile::Default);
        let debugger = names(SystemCallProfile::Debugger);
        let strict = names(SystemCallProfile::Strict);
        assert!(default.is_subset(&debugger) && strict.is_subset(&default));
        assert!(debugger.contains("ptrace") && !default.contains("ptrace"));
        assert!(default.contains("shmget") && !strict.contains("shmget"));
    }

    #[test]
    fn each_group_has_a_reason_and_no_call_is_named_twice() {
        let table: Table = toml::from_str(SYSTEM_CALLS).expect("a table");
        let mut seen = BTreeSet::new();
        for group in &table.group {
            assert!(!group.reason.is_empty());
            for call in &group.calls {
                assert!(seen.insert(call), "{call} is named twice");
            }
        }
    }

    proptest! {
        #[test]
        fn all_but_two_is_all_but_two(word: u32, one: u32, other: u32) {
            let rules = all_but(one, other);
            for word in [word, one, other, one ^ 1, other ^ 0x8000_0000] {
                let matched = rules.iter().any(|(mask, value)| word & mask == *value);
                prop_assert_eq!(matched, word != one && word != other);
            }
        }
    }

    #[test]
    fn terminals_take_few_rules() {
        assert_eq!(all_but(TIOCSTI, TIOCLINUX).len(), 29 + 6);
    }
}
