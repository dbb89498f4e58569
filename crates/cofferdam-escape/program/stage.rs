//! The other sides of an attack: a host that forgot to close things, a process with secrets, a neighbour in a sandbox.

use std::{
    fs,
    io::{self, Read, Write},
    net::TcpListener,
    os::{
        fd::OwnedFd,
        linux::net::SocketAddrExt,
        unix::{
            net::{SocketAddr, UnixListener},
            process::CommandExt,
        },
    },
    process::{Command, Stdio},
};

use crate::{
    numbers as n,
    sys::{self, Ended, sys},
    targets::Targets,
};

const O_RDWR: i32 = 2;
const O_NOCTTY: i32 = 0o400;
const O_CLOEXEC: i32 = 0o2_000_000;
const AT_FDCWD: i32 = -100;
const TIOCGPTN: u64 = 0x8004_5430;
const TIOCSPTLCK: u64 = 0x4004_5431;
const TIOCGPTPEER: u64 = 0x5441;
const TIOCSCTTY: u64 = 0x540e;
const F_DUPFD: i32 = 0;
const IPC_CREAT: i32 = 0o1000;

/// Opens a new terminal: the controlling side, and its number.
fn open_terminal() -> io::Result<(OwnedFd, u32)> {
    let flags = O_RDWR | O_NOCTTY | O_CLOEXEC;
    let controller = sys::descriptor(
        n::OPENAT,
        &[AT_FDCWD.into(), c"/dev/ptmx".into(), flags.into(), 0.into()],
    )?;
    let unlocked = 0_i32.to_ne_bytes();
    sys!(n::IOCTL, &controller, TIOCSPTLCK, &unlocked[..])?;
    let mut number = [0_u8; 4];
    sys!(n::IOCTL, &controller, TIOCGPTN, &mut number[..])?;
    Ok((controller, u32::from_ne_bytes(number)))
}

/// Runs a command with a terminal of its own on standard input, descriptors 9 and 10 left open on `/` and on a secret
/// file, and whatever secrets are in the environment; as another user if that is not the caller.
#[expect(clippy::disallowed_methods, reason = "this is the host that starts a sandbox")]
pub(crate) fn stage(user: &str, outside: &str, command: &[&str]) -> io::Result<()> {
    let user: u32 = user.parse().map_err(io::Error::other)?;
    let [program, arguments @ ..] = command else {
        return Err(io::Error::other("stage needs a command"));
    };
    let (controller, _) = open_terminal()?;
    if let Some(child) = sys::fork_process()? {
        const PR_SET_DUMPABLE: i32 = 4;
        // The launcher is a process of that user too, as open to others as any.
        become_user(user)?;
        sys!(n::PRCTL, PR_SET_DUMPABLE, 1, 0, 0, 0)?;
        let ended = sys::wait_child(child, true)?;
        drop(controller);
        return match ended {
            Some(Ended::Exited(0)) => Ok(()),
            other => Err(io::Error::other(format!("{program} ended with {other:?}"))),
        };
    }
    let error = (|| {
        sys!(n::SETSID)?;
        let flags = O_RDWR | O_NOCTTY | O_CLOEXEC;
        let terminal =
            sys::descriptor(n::IOCTL, &[(&controller).into(), TIOCGPTPEER.into(), flags.into()])?;
        sys!(n::IOCTL, &terminal, TIOCSCTTY, 0)?;
        for (number, path) in [(9, "/".to_owned()), (10, format!("{outside}/canary"))] {
            let file = OwnedFd::from(fs::File::open(path)?);
            // Without close-on-exec, and never closed: leaked.
            sys!(n::FCNTL, &file, F_DUPFD, number)?;
        }
        become_user(user)?;
        const PR_SET_PDEATHSIG: i32 = 1;
        sys!(n::PRCTL, PR_SET_PDEATHSIG, 9, 0, 0, 0)?;
        Err(Command::new(program).args(arguments).stdin(Stdio::from(terminal)).exec())
    })();
    let error: io::Error = match error {
        Ok(()) => io::Error::other("unreachable: exec does not return"),
        Err(error) => error,
    };
    eprintln!("probe stage: {program}: {error}");
    sys::exit_now(98)
}

fn become_user(user: u32) -> io::Result<()> {
    if user != 0 {
        // An ordinary user cannot drop groups, nor become another one; then it is that user already.
        let _ = sys!(n::SETGROUPS, 0, 0);
        sys!(n::SETGID, user)?;
        sys!(n::SETUID, user)?;
    }
    Ok(())
}

/// Is a process of the host until standard input ends: with secrets in its arguments and environment, which the runner
/// gave, a terminal and a shared memory segment.
pub(crate) fn victim(_secret_argument: &str, key: &str) -> io::Result<()> {
    let key: i32 = key.parse().map_err(io::Error::other)?;
    let (_controller, number) = open_terminal()?;
    let segment = sys!(n::SHMGET, key, 4096, IPC_CREAT | 0o666)?;
    println!("{{\"terminal\":\"/dev/pts/{number}\"}}");
    until_input_ends();
    remove_segment(segment)
}

/// Is something that another sandbox must not reach, until standard input ends.
pub(crate) fn neighbour(targets: &Targets) -> io::Result<()> {
    let name = targets.canary("neighbour");
    let _listener = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name)?)?;
    let _tcp = TcpListener::bind(("127.0.0.1", targets.neighbour_port));
    let files = ["/tmp", "/dev/shm"].map(|place| format!("{place}/{name}"));
    for file in &files {
        // A root file system may lack the place.
        let _ = fs::write(file, &name);
    }
    let segment = sys!(n::SHMGET, targets.neighbour_key, 4096, IPC_CREAT | 0o666);
    const PR_SET_NAME: i32 = 15;
    let own_name = std::ffi::CString::new(comm(targets))?;
    sys!(n::PRCTL, PR_SET_NAME, own_name.as_c_str(), 0, 0, 0)?;
    println!("ready");
    io::stdout().flush()?;
    until_input_ends();
    for file in &files {
        let _ = fs::remove_file(file);
    }
    segment.map_or(Ok(()), remove_segment)
}

/// What the neighbour calls itself; the kernel keeps 15 bytes.
pub(crate) fn comm(targets: &Targets) -> String {
    format!("nb{}", targets.token).chars().take(15).collect()
}

fn until_input_ends() {
    let mut rest = Vec::new();
    let _ = io::stdin().take(1024).read_to_end(&mut rest);
}

fn remove_segment(segment: i64) -> io::Result<()> {
    const IPC_RMID: i32 = 0;
    sys!(n::SHMCTL, segment, IPC_RMID, 0).map(drop)
}
