//! Bombs, each bounded to a little more than a sandbox should allow.

use std::{fs, io::Write as _};

use super::probe_table;
use crate::{
    numbers as n,
    outcome::{Outcome, name_of},
    sys::{self, structure, sys},
    targets::Targets,
};

probe_table! { "limits":
    descriptors "fd-bomb" "open 15 000 files",
    inodes "inode-bomb" "make 10 000 files",
    processes "fork-bomb" "start 1 500 processes",
    disk "disk-bomb" (25) "write 256 MiB",
    memory "memory-bomb" (9, 6, 11) "use 1 GiB of memory",
}

fn descriptors(_: &Targets) -> Outcome {
    const RLIMIT_NOFILE: i32 = 7;
    const MANY: u64 = 15_000;
    let mut limit = [0_u8; 16];
    let hard = match sys!(n::PRLIMIT64, 0, RLIMIT_NOFILE, 0, &mut limit[..]) {
        Ok(_) => u64::from_ne_bytes(limit[8..].try_into().unwrap_or_default()),
        Err(error) => return Outcome::refused(&error),
    };
    // As far up as anybody may.
    let raised = structure!(16; hard, hard);
    let _ = sys!(n::PRLIMIT64, 0, RLIMIT_NOFILE, &raised[..], 0);
    for count in 0..MANY {
        if let Err(error) = sys!(n::DUP, 1) {
            return Outcome::denied(format!("{} after {count}", name_of(&error)));
        }
    }
    Outcome::open("all were opened")
}

fn inodes(_: &Targets) -> Outcome {
    const MANY: u32 = 10_000;
    for count in 0..MANY {
        if let Err(error) = fs::File::create(format!("{count}")) {
            return Outcome::denied(format!("{} after {count}", name_of(&error)));
        }
    }
    Outcome::open("all were made")
}

fn processes(_: &Targets) -> Outcome {
    const MANY: usize = 1_500;
    const PR_SET_PDEATHSIG: i32 = 1;
    let mut children = Vec::new();
    let mut refused = None;
    while children.len() < MANY && refused.is_none() {
        match sys::fork_process() {
            Ok(None) => {
                let _ = sys!(n::PRCTL, PR_SET_PDEATHSIG, 9, 0, 0, 0);
                let _ = sys!(n::ALARM, 20);
                let _ = sys!(n::PAUSE);
                sys::exit_now(0)
            }
            Ok(Some(pid)) => children.push(pid),
            Err(error) => refused = Some(error),
        }
    }
    for child in &children {
        let _ = sys::kill(*child, 9);
    }
    for child in &children {
        let _ = sys::wait_child(*child, true);
    }
    match refused {
        Some(error) => Outcome::denied(format!("{} after {}", name_of(&error), children.len())),
        None => Outcome::open("all were started"),
    }
}

fn disk(_: &Targets) -> Outcome {
    const MIB: usize = 1 << 20;
    const MANY: usize = 256;
    // Several files, so that a bound on the size of one is not taken for a bound on the disk.
    let block = vec![0xa5_u8; MIB];
    for count in 0..MANY {
        let written = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(format!("fill-{}", count / 16))
            .and_then(|mut file| file.write_all(&block));
        if let Err(error) = written {
            return Outcome::denied(format!("{} after {count} MiB", name_of(&error)));
        }
    }
    Outcome::open("all was written")
}

fn memory(_: &Targets) -> Outcome {
    const STEP: usize = 16 << 20;
    const STEPS: usize = 64;
    let mut held: Vec<Vec<u8>> = Vec::new();
    for count in 0..STEPS {
        let mut piece = Vec::new();
        if piece.try_reserve_exact(STEP).is_err() {
            return Outcome::denied(format!("ENOMEM after {} MiB", count * 16));
        }
        // Written, so that the memory is really used.
        piece.resize(STEP, 0xa5);
        held.push(piece);
    }
    Outcome::open(format!("used {} MiB", held.len() * 16))
}
