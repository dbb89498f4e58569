//! Controls: what a careless harness does with a directory that a command has written to.

use std::{
    fs,
    io::Read as _,
    os::unix::fs::{PermissionsExt, symlink},
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use anyhow::Result;

use super::{Found, Targets, bases, denied, open};
use crate::report::Outcome;

fn directory() -> Result<tempfile::TempDir> {
    Ok(tempfile::tempdir()?)
}

fn found(opened: bool, seen: &str) -> Result<Found> {
    if opened { open(seen) } else { denied("no effect") }
}

pub(super) fn read_link(targets: &Targets) -> Result<Found> {
    let place = directory()?;
    symlink(targets.canary(), place.path().join("x"))?;
    found(targets.is_canary(&fs::read(place.path().join("x"))?), "followed the link")
}

pub(super) fn write_link(targets: &Targets) -> Result<Found> {
    let place = directory()?;
    symlink(&targets.outside, place.path().join("out"))?;
    fs::write(place.path().join("out/made-naively"), "x")?;
    found(targets.take("made-naively"), "wrote through the link")
}

pub(super) fn unpack(targets: &Targets) -> Result<Found> {
    let place = directory()?;
    // What joining an absolute name to a directory does.
    fs::write(place.path().join(targets.outside.join("made-naively")), "x")?;
    found(targets.take("made-naively"), "an absolute name was taken as it is")
}

pub(super) fn set_id(_: &Targets) -> Result<Found> {
    let place = directory()?;
    let file = place.path().join("x");
    fs::write(&file, "x")?;
    fs::set_permissions(&file, fs::Permissions::from_mode(0o6755))?;
    found(fs::metadata(&file)?.permissions().mode() & 0o6000 != 0, "the bits were kept")
}

/// Whether reading a fifo that nobody writes to hangs.
pub(super) fn fifo(_: &Targets) -> Result<Found> {
    let place = directory()?;
    let path = place.path().join("f");
    let made = command("mkfifo").arg(&path).status()?;
    anyhow::ensure!(made.success(), "mkfifo ended with {made}");
    let (sender, receiver) = mpsc::channel();
    let reading = path.clone();
    thread::spawn(move || {
        let _ = sender.send(fs::read(reading));
    });
    let hung = receiver.recv_timeout(Duration::from_millis(500)).is_err();
    // Opening it for writing lets the reader go.
    drop(fs::OpenOptions::new().write(true).open(&path)?);
    found(hung, "reading it hung")
}

pub(super) fn race(targets: &Targets) -> Result<Found> {
    // The check and the use with the swap in between, played in order.
    let place = directory()?;
    let path = place.path().join("d");
    fs::create_dir(&path)?;
    fs::write(path.join("canary"), "inside")?;
    let checked = fs::canonicalize(path.join("canary"))?.starts_with(place.path().canonicalize()?);
    fs::remove_dir_all(&path)?;
    symlink(&targets.outside, &path)?;
    let read = fs::read(path.join("canary"))?;
    found(checked && targets.is_canary(&read), "read after a check that had passed")
}

pub(super) fn sparse(_: &Targets) -> Result<Found> {
    let place = directory()?;
    let file = fs::File::create(place.path().join("sparse"))?;
    file.set_len(1 << 40)?;
    // A careless reader takes all of it: here only so much that the trend is plain.
    let mut bytes = Vec::new();
    fs::File::open(place.path().join("sparse"))?.take(64 << 20).read_to_end(&mut bytes)?;
    found(bytes.len() == 64 << 20, "64 MiB of zeros were read of a file that holds nothing")
}

pub(super) fn odd_names(_: &Targets) -> Result<Found> {
    let place = directory()?;
    fs::write(place.path().join("a\nb"), "x")?;
    let listed = String::from_utf8(command("ls").arg(place.path()).output()?.stdout)?;
    found(listed.lines().count() == 2, "one file became two lines")
}

#[expect(clippy::disallowed_methods, reason = "a careless harness starts processes")]
fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    command.stdin(Stdio::null()).stderr(Stdio::null());
    command
}

/// Whether a process lives on when the one that started it is killed.
pub(super) fn survivor(_: &Targets) -> Result<Found> {
    let mut shell = command("sh")
        .args(["-c", "setsid sleep 30 >/dev/null & echo $!; sleep 30"])
        .stdout(Stdio::piped())
        .spawn()?;
    let pid = first_line(&mut shell)?;
    shell.kill()?;
    shell.wait()?;
    let lives = fs::read_to_string(format!("/proc/{pid}/comm")).is_ok();
    let _ = command("kill").args(["-9", &pid]).status();
    found(lives, "it lived on")
}

fn first_line(child: &mut Child) -> Result<String> {
    let mut line = String::new();
    if let Some(stdout) = child.stdout.as_mut() {
        std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut line)?;
    }
    Ok(line.trim().to_owned())
}

/// Killing every process of the user is not played outside of a sandbox.
pub(super) fn never(_: &Targets) -> Result<Found> {
    Ok((Outcome::Denied, "not tried without a sandbox".to_owned()))
}

pub(super) fn flood(_: &Targets) -> Result<Found> {
    let mut child =
        command("head").args(["-c", "67108864", "/dev/zero"]).stdout(Stdio::piped()).spawn()?;
    let mut bytes = Vec::new();
    if let Some(mut stdout) = child.stdout.take() {
        stdout.read_to_end(&mut bytes)?;
    }
    child.wait()?;
    found(bytes.len() == 64 << 20, "all of it was kept")
}

/// A careless host has no walls to demand, and starts all the same.
pub(super) fn undemanding(_: &Targets) -> Result<Found> {
    found(command("true").status()?.success(), "started without any wall")
}

pub(super) fn root_links(targets: &Targets) -> Result<Found> {
    let root = directory()?;
    symlink(&targets.outside, root.path().join("workspace"))?;
    fs::create_dir_all(root.path().join("workspace/made-in-root"))?;
    found(targets.take("made-in-root"), "made a directory outside of the root")
}

/// What commands do to a directory of the host that they work in.
pub(super) fn base_write(targets: &Targets) -> Result<Found> {
    let base = bases::base(&targets.canary())?;
    let before = bases::picture(base.path())?;
    command("sh").args(["-c", bases::CHANGES]).current_dir(base.path()).status()?;
    found(bases::picture(base.path())? != before, "the directory was changed")
}

/// Whether anybody makes a device that stands for a file that was removed.
pub(super) fn whiteout(_: &Targets) -> Result<Found> {
    let place = directory()?;
    let made = command("mknod").args(["w", "c", "0", "0"]).current_dir(place.path()).status()?;
    found(made.success(), "made it")
}
