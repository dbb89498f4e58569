//! [`Kept`]: a service of the host that does not outlive the process which started it.

use std::{
    fs,
    os::unix::process::CommandExt as _,
    path::Path,
    process::Stdio,
    sync::mpsc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

use super::host_command;

/// How long a service may take to listen.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// Ends the service when its starter ends, waits for it, and removes its files.
const KEEPER: &str = r#"
    directory=$1; shift
    # The engine leaves the network namespace that it made mounted.
    end() {
        exec 2>/dev/null
        kill "$engine"; wait "$engine"
        # One that was killed before leaves shims, and mounts of its own.
        kill -9 $(grep -lazx "$directory/exec/containerd/containerd.sock" /proc/[0-9]*/cmdline | cut -d/ -f3)
        umount "$directory"/exec/netns/* "$directory"/data/overlay2/*/merged "$directory/data"
        find /sys/fs/cgroup -depth -type d -path "*/${directory##*/}*" -exec rmdir {} +
        rm -rf "$directory"; exit
    }
    trap end TERM
    "$@" </dev/null >"$directory/log" 2>&1 &
    engine=$!
    wait "$engine"
"#;

/// A service that ends with this process, with a directory that is removed then. To drop this changes nothing.
#[derive(Debug)]
pub struct Kept {
    /// The shell that keeps it.
    keeper: Option<Pid>,
    /// The signal comes when the thread that started the shell ends, so that thread stays for as long as this process.
    starter: JoinHandle<()>,
}

impl Kept {
    /// Starts a program, whose words go to the file `log` in the directory.
    pub fn start(directory: &Path, program: &Path, arguments: &[String]) -> Self {
        let mut command = host_command("setpriv");
        command.args(["--pdeathsig", "TERM", "sh", "-c", KEEPER, "keeper"]);
        command.arg(directory).arg(program).args(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        // What interrupts the test from a terminal must not end the shell before it has cleaned up.
        command.process_group(0);
        let (sender, started) = mpsc::channel();
        let starter = thread::spawn(move || {
            if let Ok(mut child) = command.spawn() {
                let _ = sender.send(child.id());
                let _ = child.wait();
            }
        });
        let keeper = started.recv().ok().and_then(|pid| Pid::from_raw(pid.cast_signed()));
        Self { keeper, starter }
    }

    /// Returns true once the program has ended.
    pub fn has_ended(&self) -> bool {
        self.starter.is_finished()
    }

    /// Ends it, removes its directory, and waits for that.
    pub fn end(self) {
        if let Some(keeper) = self.keeper.filter(|_| !self.starter.is_finished()) {
            // It may end by itself at this moment.
            let _ = kill_process(keeper, Signal::TERM);
        }
        let _ = self.starter.join();
    }
}

/// Waits until a kept program is ready, or says what it wrote last.
///
/// # Errors
///
/// Its last words, after a minute.
pub fn wait_for(directory: &Path, ready: impl Fn() -> bool) -> Result<(), String> {
    let deadline = Instant::now() + START_TIMEOUT;
    while !ready() {
        if Instant::now() > deadline {
            return Err(format!("it does not listen: {}", last_words(directory)));
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Returns the last lines that a kept program wrote, the last one first.
pub(super) fn last_words(directory: &Path) -> String {
    let log = fs::read_to_string(directory.join("log")).unwrap_or_default();
    log.lines().rev().take(3).collect::<Vec<_>>().join(" | ")
}
