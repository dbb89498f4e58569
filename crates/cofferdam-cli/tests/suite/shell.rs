//! `cofferdam shell` on a real terminal: a prompt, a size, control characters, and an end.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    os::fd::OwnedFd,
    process::Stdio,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use rustix::{
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{Winsize, tcsetwinsize},
};

use crate::support::{Place, can_seal};

/// The side of a terminal at which a person sits.
struct Person {
    keyboard: File,
    shown: mpsc::Receiver<Vec<u8>>,
    seen: String,
}

/// How long a person waits for a text to be shown.
const PATIENCE: Duration = Duration::from_secs(30);

impl Person {
    /// Returns a person and the terminal for a command.
    fn sit_down(rows: u16, columns: u16) -> (Self, OwnedFd) {
        let controller = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&controller).unwrap();
        unlockpt(&controller).unwrap();
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&controller, size).unwrap();
        let name = ptsname(&controller, Vec::new()).unwrap();
        let terminal =
            File::options().read(true).write(true).open(name.to_str().unwrap()).unwrap().into();
        let keyboard = File::from(controller);
        let mut screen = keyboard.try_clone().unwrap();
        let (show, shown) = mpsc::channel();
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            // A terminal without anybody at its other side answers with an error.
            while let Ok(length @ 1..) = screen.read(&mut buffer) {
                if show.send(buffer[..length].to_vec()).is_err() {
                    return;
                }
            }
        });
        (Self { keyboard, shown, seen: String::new() }, terminal)
    }

    fn types(&mut self, text: &str) {
        self.keyboard.write_all(text.as_bytes()).unwrap();
    }

    /// Waits for a text to be shown after what was waited for before.
    fn waits_for(&mut self, text: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(at) = self.seen.find(text) {
                self.seen.drain(..at + text.len());
                return;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            match self.shown.recv_timeout(left) {
                Ok(bytes) => self.seen.push_str(&String::from_utf8_lossy(&bytes)),
                Err(error) => panic!("waiting for {text:?}: {error}; shown: {:?}", self.seen),
            }
        }
    }
}

#[test]
fn a_person_works_in_a_sealed_shell() {
    if !can_seal("a_person_works_in_a_sealed_shell") {
        return;
    }
    let place = Place::new(&[(
        "workspace.yaml",
        "version: 1\nentries:\n  notes.txt: {type: file, content: \"hello\\n\"}\n",
    )]);
    let (mut person, terminal) = Person::sit_down(33, 77);
    let end = || Stdio::from(terminal.try_clone().unwrap());
    let mut child = place
        .command()
        .args(["shell", "workspace.yaml"])
        .stdin(end())
        .stdout(end())
        .stderr(end())
        .spawn()
        .unwrap();
    drop(terminal);
    person.waits_for("A sealed shell of the linux backend: no network, a workspace of 1 entry.");
    person.waits_for("sealed:");
    person.types("stty size; cat notes.txt; id -u\r");
    person.waits_for("33 77");
    person.waits_for("hello");
    person.waits_for("1000");
    // Ctrl-C ends what runs in the shell, and nothing else.
    // The job itself says that it runs: a shell that has not started it yet may lose the character.
    person.types("sh -c 'echo sleeping; exec sleep 600'\r");
    person.waits_for("sleeping\r\n");
    person.types("\x03");
    person.waits_for("sealed:");
    person.types("exit 7\r");
    let status = child.wait().unwrap();
    assert_eq!(status.code(), Some(7), "{}", person.seen);
}

#[test]
fn a_shell_wants_a_terminal() {
    let done = Place::new(&[]).run(&["shell"]);
    assert_eq!(done.code, 2);
    assert!(done.stderr.contains("`cofferdam exec -- sh`"), "{done:?}");
}
