//! Terminals of the host.

use std::{fs, os::fd::OwnedFd};

use super::probe_table;
use crate::{
    numbers as n,
    outcome::Outcome,
    sys::{self, sys},
    targets::Targets,
};

probe_table! { "terminal":
    controlling "controlling-tty" "have the launcher's terminal as controlling terminal",
    inherited "inherited-tty" "have the launcher's terminal as standard input",
    others "host-ptys" "open a terminal of the host",
    paste "tioclinux" "paste into a console (TIOCLINUX)",
    console "console" "open the console",
}

const O_RDWR: i32 = 2;
const O_NONBLOCK: i32 = 0o4000;
const O_NOCTTY: i32 = 0o400;
const AT_FDCWD: i32 = -100;

fn open(path: &std::ffi::CStr) -> std::io::Result<OwnedFd> {
    let flags = O_RDWR | O_NONBLOCK | O_NOCTTY;
    sys::descriptor(n::OPENAT, &[AT_FDCWD.into(), path.into(), flags.into(), 0.into()])
}

fn controlling(_: &Targets) -> Outcome {
    Outcome::of(open(c"/dev/tty"), "opened /dev/tty")
}

fn inherited(_: &Targets) -> Outcome {
    const TCGETS: u64 = 0x5401;
    let mut state = [0_u8; 64];
    Outcome::of(sys!(n::IOCTL, 0, TCGETS, &mut state[..]), "standard input is a terminal")
}

fn others(targets: &Targets) -> Outcome {
    let path = targets.terminal.display().to_string();
    match fs::OpenOptions::new().read(true).write(true).open(&path) {
        Ok(_) => Outcome::open(format!("opened {path}")),
        Err(error) => Outcome::refused(&error),
    }
}

fn paste(_: &Targets) -> Outcome {
    const TIOCLINUX: u64 = 0x541c;
    // Asks for the shift state, which changes nothing.
    let mut question = [6_u8; 8];
    Outcome::any([c"/dev/tty0", c"/dev/tty1", c"/dev/console", c"/dev/tty"].map(|path| {
        let asked = open(path).and_then(|fd| sys!(n::IOCTL, &fd, TIOCLINUX, &mut question[..]));
        match asked {
            // A terminal that is no console does not know the request.
            Err(error) if error.raw_os_error() == Some(22) => Outcome::refused(&error),
            asked => Outcome::of(asked, "the console answered"),
        }
    }))
}

fn console(_: &Targets) -> Outcome {
    Outcome::any(
        [c"/dev/console", c"/dev/tty0", c"/dev/ttyS0"]
            .map(|path| Outcome::of(open(path), format!("opened {}", path.to_string_lossy()))),
    )
}
