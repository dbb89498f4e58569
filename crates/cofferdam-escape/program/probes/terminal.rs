//! Terminals of the host.

use std::{fs, io::Error, os::fd::OwnedFd};

use super::probe_table;
use crate::{
    numbers as n,
    outcome::{EINVAL, Outcome},
    sys::{self, Ended, sys},
    targets::Targets,
};

probe_table! { "terminal":
    controlling "controlling-tty" "have the launcher's terminal as controlling terminal",
    inherited "inherited-tty" "have the launcher's terminal as standard input",
    others "host-ptys" "open a terminal of the host",
    own "own-tty" "type into an own terminal, as if somebody had (TIOCSTI)",
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

fn own(_: &Targets) -> Outcome {
    let code = |error: &Error| error.raw_os_error().unwrap_or(EINVAL);
    // In a child: whoever leads a group cannot begin a session.
    let ended = match sys::fork_process() {
        Ok(None) => {
            // Open to the end: its hang-up would kill the session.
            let terminal = own_terminal();
            let typed = terminal.as_ref().map_err(code);
            let typed = typed.and_then(|[_, it]| type_into(it).map_err(|error| code(&error)));
            sys::exit_now(typed.err().unwrap_or(0))
        }
        Ok(Some(child)) => sys::wait_child(child, true),
        Err(error) => Err(error),
    };
    match ended {
        Ok(Some(Ended::Exited(0))) => Outcome::open("typed into it"),
        Ok(Some(Ended::Exited(code))) => Outcome::refused(&Error::from_raw_os_error(code)),
        Ok(ended) => Outcome::broken(format!("the child ended so: {ended:?}")),
        Err(error) => Outcome::broken(format!("no child: {error}")),
    }
}

/// Begins a session with a terminal of its own, since into another's only the superuser may type. Returns both its ends.
fn own_terminal() -> std::io::Result<[OwnedFd; 2]> {
    const TIOCSPTLCK: u64 = 0x4004_5431;
    const TIOCGPTPEER: u64 = 0x5441;
    const TIOCSCTTY: u64 = 0x540e;
    sys!(n::SETSID)?;
    let master = open(c"/dev/ptmx")?;
    let unlocked = 0_i32.to_ne_bytes();
    sys!(n::IOCTL, &master, TIOCSPTLCK, &unlocked[..])?;
    let flags = (O_RDWR | O_NOCTTY).into();
    let terminal = sys::descriptor(n::IOCTL, &[(&master).into(), TIOCGPTPEER.into(), flags])?;
    sys!(n::IOCTL, &terminal, TIOCSCTTY, 0)?;
    Ok([master, terminal])
}

fn type_into(terminal: &OwnedFd) -> std::io::Result<()> {
    const TIOCSTI: u64 = 0x5412;
    // The kernel looks at the lower half of the number alone; a filter may forget that.
    let by = |request: u64| sys!(n::IOCTL, terminal, request, &b" "[..]).map(drop);
    by(TIOCSTI).or_else(|_| by(TIOCSTI | 1 << 32))
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
