//! The table of probes, one function each, in groups by what they aim at.

mod files;
mod kernel;
mod limits;
mod mounts;
mod neighbours;
mod network;
mod privileges;
mod processes;
mod regressions;
mod sight;
mod terminal;

use crate::{outcome::Outcome, targets::Targets};

/// One attempt to get out.
#[derive(Debug)]
pub(crate) struct Probe {
    /// What tables and command lines call it.
    pub(crate) id: &'static str,
    /// What it aims at.
    pub(crate) group: &'static str,
    /// The attempt in words.
    pub(crate) name: &'static str,
    /// Signals by which a limit or the kernel may end it, which is a denial then.
    pub(crate) killed_by: &'static [i32],
    pub(crate) run: fn(&Targets) -> Outcome,
}

/// Writes the table of a group.
macro_rules! probe_table {
    ($group:literal: $($function:ident $id:literal $(($($signal:literal),+))? $name:literal,)+) => {
        pub(super) const PROBES: &[$crate::probes::Probe] = &[$($crate::probes::Probe {
            id: $id,
            group: $group,
            name: $name,
            killed_by: &[$($($signal),+)?],
            run: $function,
        }),+];
    };
}
use probe_table;

/// Probes that are broken on purpose, for the test of how that is told; in no list.
pub(crate) const SELF_TEST: &[Probe] = &[
    Probe {
        id: "self-test-crash",
        group: "self-test",
        name: "die of a signal",
        killed_by: &[],
        run: |_| {
            std::process::abort();
        },
    },
    Probe {
        id: "self-test-exit",
        group: "self-test",
        name: "end without an answer",
        killed_by: &[],
        run: |_| crate::sys::exit_now(7),
    },
    Probe {
        id: "self-test-expected",
        group: "self-test",
        name: "die of a signal that a limit would send",
        killed_by: &[6],
        run: |_| {
            std::process::abort();
        },
    },
    Probe {
        id: "self-test-fault",
        group: "self-test",
        name: "make a call that the kernel finds fault with",
        killed_by: &[],
        run: |_| Outcome::of::<()>(Err(std::io::Error::from_raw_os_error(22)), "unreachable"),
    },
];

/// Every probe. Bombs come last, so that what they exhaust is missed by none.
pub(crate) fn all() -> impl Iterator<Item = &'static Probe> {
    [
        files::PROBES,
        mounts::PROBES,
        processes::PROBES,
        network::PROBES,
        kernel::PROBES,
        privileges::PROBES,
        terminal::PROBES,
        neighbours::PROBES,
        regressions::PROBES,
        limits::PROBES,
    ]
    .into_iter()
    .flatten()
}
