//! What attacks through the interface of a sandbox need inside: files that are hard on a harness, processes that linger.

use std::{
    fs,
    io::{self, Write},
    os::unix::{ffi::OsStrExt, fs::symlink, net::UnixListener},
};

use crate::{
    numbers as n,
    sys::{self, sys},
};

const AT_FDCWD: i32 = -100;

/// Everything here ends by itself after this many seconds, whoever forgot it.
const BOUND: u32 = 120;

fn say(word: &str) -> io::Result<()> {
    let mut stdout = io::stdout();
    writeln!(stdout, "{word}")?;
    stdout.flush()
}

/// Swaps the directory `swapped` for a link to `outside`, until it is killed.
pub(crate) fn swap(outside: &str) -> io::Result<()> {
    const EXCHANGE: i32 = 2;
    fs::create_dir("swapped")?;
    fs::write("swapped/canary", "inside")?;
    symlink(outside, "other")?;
    sys!(n::ALARM, BOUND)?;
    say("ready")?;
    loop {
        sys!(n::RENAMEAT2, AT_FDCWD, c"swapped", AT_FDCWD, c"other", EXCHANGE)?;
    }
}

/// Makes files that are hard on a harness.
pub(crate) fn plant(what: &str) -> io::Result<()> {
    match what {
        "special" => {
            const FIFO: i32 = 0o010_644;
            fs::create_dir("special")?;
            sys!(n::MKNODAT, AT_FDCWD, c"special/fifo", FIFO, 0)?;
            drop(UnixListener::bind("special/socket")?);
            symlink("/dev/ptmx", "special/terminal")
        }
        "sparse" => {
            fs::create_dir("sparse")?;
            fs::File::create("sparse/file")?.set_len(1 << 40)
        }
        "names" => names(),
        other => Err(io::Error::other(format!("plant {other}?"))),
    }
}

fn names() -> io::Result<()> {
    fs::create_dir("names")?;
    let long = [b'n'; 255];
    let names: [&[u8]; 10] = [
        b"a\nb",
        b"\xff\xfe",
        &long,
        b" lead",
        b"-rf",
        b"*",
        b"a\\b",
        b"\t",
        b"\"'$(x)",
        b"\xe2\x80\xae",
    ];
    for name in names {
        fs::write(std::path::Path::new("names").join(std::ffi::OsStr::from_bytes(name)), "x")?;
    }
    fs::create_dir("deep")?;
    std::env::set_current_dir("deep")?;
    for _ in 0..2_000 {
        fs::create_dir("d")?;
        std::env::set_current_dir("d")?;
    }
    say(&names.len().to_string())
}

/// Leaves a process in a session of its own, orphaned, and is one itself.
pub(crate) fn linger() -> io::Result<()> {
    if sys::fork_process()?.is_none() {
        let _ = sys!(n::SETSID);
        if let Ok(Some(_)) = sys::fork_process() {
            sys::exit_now(0);
        }
        let _ = sys!(n::ALARM, BOUND);
        let _ = sys!(n::PAUSE);
        sys::exit_now(0);
    }
    sys!(n::ALARM, BOUND)?;
    say("ready")?;
    sys!(n::PAUSE).map(drop)
}

/// Kills every process that it may kill. Only where few are in sight: never outside of a sandbox.
pub(crate) fn kill_all() -> io::Result<()> {
    const FEW: usize = 16;
    let in_sight = fs::read_dir("/proc")?
        .flatten()
        .filter(|entry| entry.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit))
        .count();
    if in_sight == 0 || in_sight > FEW {
        return Err(io::Error::other(format!("{in_sight} processes in sight: this is no sandbox")));
    }
    sys::kill(-1, 9)?;
    // Linux spares the caller; so that nobody is left, it goes too.
    sys::kill(i32::try_from(std::process::id()).map_err(io::Error::other)?, 9)
}

/// Writes zeros without an end of line, for as long as somebody takes them.
pub(crate) fn flood() -> io::Result<()> {
    let block = vec![b'0'; 1 << 16];
    sys!(n::ALARM, BOUND)?;
    let mut stdout = io::stdout();
    loop {
        stdout.write_all(&block)?;
    }
}
