//! [`StateDirectory`]: where sandboxes that linger are found again, by their names.
//!
//! ```text
//! <state directory>/            0700, of this user
//!   <sandbox>/                  while the sandbox lives
//!     door                      the socket of its guest
//!     supervisor                the socket of its supervisor
//!     state.json                what an attaching process needs, 0600: who reads it can use the sandbox
//!   <sandbox>.ended             why it has ended, if nobody was attached then; kept for a day
//!   .<maker>-<sandbox>.new/     one that is being made, and by which process
//! ```
//!
//! A directory whose supervisor nobody serves is a leftover: of a supervisor that was killed, or of an earlier boot.

use std::{
    collections::BTreeMap,
    fs::{self, DirBuilder, File},
    io::{self, ErrorKind, Read as _, Write as _},
    os::{
        fd::AsRawFd as _,
        unix::{
            fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
            net::{UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
    time::Duration,
};

use cofferdam_core::{SandboxId, Timestamp};
use cofferdam_sandbox::{SandboxError, SandboxState};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{
    cgroups::{Group, Owner},
    plan::LINGER_FILES,
    setup::{BACKEND, host},
};

const DOOR: &str = LINGER_FILES[0];
const SUPERVISOR: &str = LINGER_FILES[1];
const STATE: &str = LINGER_FILES[2];

/// After the name of a sandbox: why it has ended.
const ENDED: &str = ".ended";

/// After the name of a directory that is being made, which tells by whom.
const NEW: &str = ".new";

/// The version of [`StateFile`].
const VERSION: u32 = 1;

/// The largest state file, in bytes.
const MAX_STATE: u64 = 4 << 20;

/// The largest file that tells of an end, in bytes.
const MAX_ENDED: u64 = 64 << 10;

/// Who owns, in a container, what belongs to a user of the host that is not in it, such as the host's root.
const UNMAPPED: u32 = 65_534;

/// How long making a directory may take; then it is nobody's.
const MAKING: Duration = Duration::from_secs(60);

/// How long, and for how many sandboxes, it is known why they have ended.
const REMEMBERED: (Duration, usize) = (Duration::from_secs(24 * 3600), 256);

/// What an attaching process needs to know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StateFile {
    /// Version of this form; 1.
    pub(crate) version: u32,
    pub(crate) id: SandboxId,
    pub(crate) created: Timestamp,
    pub(crate) labels: BTreeMap<String, String>,
    /// The process id of the supervisor, for messages.
    pub(crate) supervisor: u32,
    pub(crate) wall_time: Duration,
    pub(crate) linger: Duration,
    pub(crate) environment: BTreeMap<String, String>,
    pub(crate) output_bytes: u64,
    pub(crate) idle_time: Option<Duration>,
    /// What proves a host to the guest, in hexadecimal digits.
    pub(crate) token: String,
    pub(crate) group: Group,
}

impl StateFile {
    pub(crate) const VERSION: u32 = VERSION;

    /// Returns what is handed out of it, which holds no secret.
    pub(crate) fn state(&self) -> SandboxState {
        SandboxState {
            version: 1,
            backend: BACKEND.to_owned(),
            id: self.id.clone(),
            data: json!({ "labels": self.labels, "lingers": true }),
        }
    }
}

/// The directory of a backend.
#[derive(Debug, Clone)]
pub(crate) struct StateDirectory(PathBuf);

/// The directory of one sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) directory: PathBuf,
    pub(crate) ended: PathBuf,
}

/// A directory that was made, with the sockets in it.
#[derive(Debug)]
pub(crate) struct Made {
    pub(crate) entry: Entry,
    pub(crate) door: UnixListener,
    pub(crate) supervisor: UnixListener,
}

impl StateDirectory {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self(path)
    }

    /// Makes it if it is not there, and refuses one that others could change or read.
    pub(crate) fn prepare(&self) -> Result<(), SandboxError> {
        if !self.0.is_absolute() {
            return Err(self.unusable("its path is not absolute".to_owned()));
        }
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&self.0);
        made.map_err(|error| self.unusable(error.to_string()))?;
        let found = fs::symlink_metadata(&self.0);
        let found = found.map_err(|error| self.unusable(error.to_string()))?;
        let (user, mode) = (rustix::process::geteuid().as_raw(), found.mode() & 0o7777);
        if !found.is_dir() {
            return Err(self.unusable("it is no directory".to_owned()));
        }
        if found.uid() != user {
            return Err(self.unusable(format!("it belongs to user {}", found.uid())));
        }
        if mode & 0o077 != 0 {
            return Err(self.unusable(format!("it is open to others (mode {mode:o})")));
        }
        // Whoever may rename what is above it can put another one in its place.
        for above in self.0.ancestors().skip(1) {
            let found = fs::metadata(above).map_err(|error| self.unusable(error.to_string()))?;
            let (owner, mode) = (found.uid(), found.mode() & 0o7777);
            let trusted = owner == user || owner == 0 || owner == UNMAPPED;
            if !trusted || (mode & 0o022 != 0 && mode & 0o1000 == 0) {
                let above = above.display();
                let whose = format!("{above} above it is user {owner}'s with mode {mode:o}");
                return Err(self.unusable(whose));
            }
        }
        Ok(())
    }

    fn unusable(&self, reason: String) -> SandboxError {
        SandboxError::HostUnable {
            backend: BACKEND,
            step: format!("use the state directory {}", self.0.display()),
            reason,
            remedy: "name one that belongs to this user with mode 0700, such as one below \
                     XDG_RUNTIME_DIR"
                .to_owned(),
        }
    }

    /// Returns where a sandbox is found; none if no sandbox has such a name.
    pub(crate) fn entry(&self, id: &SandboxId) -> Option<Entry> {
        let id = id.as_str();
        let digits = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        (id.len() == 32 && id.bytes().all(digits)).then(|| Entry {
            directory: self.0.join(id),
            ended: self.0.join(format!("{id}{ENDED}")),
        })
    }

    /// Returns all that are there, alive or not. There is none if the directory is not there.
    pub(crate) fn entries(&self) -> Result<Vec<Entry>, SandboxError> {
        let names = self.names().map_err(host("read the state directory"))?;
        Ok(names.into_iter().filter_map(|name| self.entry(&SandboxId::new(name))).collect())
    }

    fn names(&self) -> io::Result<Vec<String>> {
        let entries = match fs::read_dir(&self.0) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        Ok(entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect())
    }

    /// Makes the directory of a sandbox. It appears with all that is in it, and with somebody at the sockets.
    pub(crate) fn make(&self, state: &StateFile) -> Result<Made, SandboxError> {
        let content = serde_json::to_vec(state).map_err(|error| SandboxError::Host {
            operation: "write down a sandbox",
            source: Box::new(error),
        })?;
        if content.len() as u64 > MAX_STATE {
            let reason = format!("labels and environment are larger than {MAX_STATE} bytes");
            return Err(SandboxError::InvalidRequest { reason });
        }
        let Some(entry) = self.entry(&state.id) else {
            let reason = format!("no sandbox that lingers can be named {}", state.id);
            return Err(SandboxError::InvalidRequest { reason });
        };
        let name = Owner::current().directory_name(state.id.as_str());
        let new = Entry { directory: self.0.join(format!(".{name}{NEW}")), ..entry.clone() };
        let made = new.fill(&content).and_then(|(door, supervisor)| {
            fs::rename(&new.directory, &entry.directory)?;
            Ok((door, supervisor))
        });
        match made {
            Ok((door, supervisor)) => Ok(Made { entry, door, supervisor }),
            Err(error) => {
                if let Err(error) = new.remove() {
                    tracing::warn!(directory = %new.directory.display(), %error, "could not remove what was half made");
                }
                Err(host("make the state of a sandbox")(error))
            }
        }
    }

    /// Removes what nobody serves any more; returns how many sandboxes that were.
    pub(crate) fn sweep(&self) -> Result<usize, SandboxError> {
        let failed = "sweep the state directory";
        let names = self.names().map_err(host(failed))?;
        let age = |path: &Path| {
            let modified = fs::symlink_metadata(path).and_then(|found| found.modified());
            modified.ok().and_then(|time| time.elapsed().ok()).unwrap_or_default()
        };
        let mut swept = 0;
        let mut ended = Vec::new();
        for name in names {
            let path = self.0.join(&name);
            if let Some(entry) = self.entry(&SandboxId::new(name.as_str())) {
                if entry.is_left() {
                    entry.remove().map_err(host(failed))?;
                    swept += 1;
                }
            } else if let Some(made) =
                name.strip_prefix('.').and_then(|name| name.strip_suffix(NEW))
            {
                if Owner::of_directory(made).is_some_and(Owner::is_dead) || age(&path) > MAKING {
                    let half = Entry { directory: path, ended: PathBuf::new() };
                    half.remove().map_err(host(failed))?;
                }
            } else if name.ends_with(ENDED) {
                ended.push((age(&path), path));
            }
        }
        ended.sort_unstable();
        let (time, count) = REMEMBERED;
        for (at, (age, path)) in ended.into_iter().enumerate() {
            if at >= count || age > time {
                remove_file(&path).map_err(host(failed))?;
            }
        }
        Ok(swept)
    }
}

impl Entry {
    /// Makes the directory and what is in it.
    fn fill(&self, state: &[u8]) -> io::Result<(UnixListener, UnixListener)> {
        DirBuilder::new().mode(0o700).create(&self.directory)?;
        let directory = File::open(&self.directory)?;
        let listen = |name: &str| {
            let path = through(&directory, name);
            let listener = UnixListener::bind(&path)?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
            Ok::<_, io::Error>(listener)
        };
        let sockets = (listen(DOOR)?, listen(SUPERVISOR)?);
        let path = self.directory.join(STATE);
        File::options().write(true).create_new(true).mode(0o600).open(path)?.write_all(state)?;
        Ok(sockets)
    }

    /// Connects to the guest. It takes a greeting.
    pub(crate) fn connect_guest(&self) -> io::Result<UnixStream> {
        self.connect(DOOR)
    }

    /// Connects to the supervisor, which tells how it stands.
    pub(crate) fn connect_supervisor(&self) -> io::Result<UnixStream> {
        self.connect(SUPERVISOR)
    }

    fn connect(&self, name: &str) -> io::Result<UnixStream> {
        UnixStream::connect(through(&File::open(&self.directory)?, name))
    }

    /// Returns true if nobody serves it.
    fn is_left(&self) -> bool {
        self.connect_supervisor().is_err_and(|error| is_gone(&error))
    }

    /// Reads what is written down of the sandbox.
    pub(crate) fn read(&self) -> io::Result<StateFile> {
        let text = read_bounded(&self.directory.join(STATE), MAX_STATE)?;
        let state: StateFile = serde_json::from_slice(&text)?;
        if state.version != VERSION {
            let text = format!("version {} of the state file, not {VERSION}", state.version);
            return Err(io::Error::new(ErrorKind::InvalidData, text));
        }
        Ok(state)
    }

    /// Reads why the sandbox has ended, if that was written down.
    pub(crate) fn read_ended(&self) -> Option<Vec<u8>> {
        read_bounded(&self.ended, MAX_ENDED).ok()
    }

    /// Forgets why the sandbox has ended.
    pub(crate) fn forget(&self) -> io::Result<()> {
        remove_file(&self.ended)
    }

    /// Removes the directory; that it is gone is no error.
    pub(crate) fn remove(&self) -> io::Result<()> {
        for name in LINGER_FILES {
            remove_file(&self.directory.join(name))?;
        }
        match fs::remove_dir(&self.directory) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

/// Returns whether a connection failed because nobody serves the socket, or it is not there.
pub(crate) fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::ConnectionRefused | ErrorKind::NotFound)
}

/// Returns a short path for a socket in a directory, however long its own is: the kernel takes 107 bytes.
fn through(directory: &File, name: &str) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}/{name}", directory.as_raw_fd()))
}

fn read_bounded(path: &Path, bound: u64) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    File::open(path)?.take(bound + 1).read_to_end(&mut content)?;
    if content.len() as u64 > bound {
        let text = format!("{} is larger than {bound} bytes", path.display());
        return Err(io::Error::new(ErrorKind::InvalidData, text));
    }
    Ok(content)
}

fn remove_file(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example(id: &str) -> StateFile {
        StateFile {
            version: VERSION,
            id: SandboxId::new(id),
            created: Timestamp(1_000),
            labels: [("run".to_owned(), "1".to_owned())].into(),
            supervisor: 7,
            wall_time: Duration::from_secs(60),
            linger: Duration::from_secs(5),
            environment: [("LANG".to_owned(), "C".to_owned())].into(),
            output_bytes: 9,
            idle_time: None,
            token: "00".repeat(32),
            group: Group::default(),
        }
    }

    fn place() -> (tempfile::TempDir, StateDirectory) {
        let place = tempfile::tempdir().expect("a directory");
        // Longer than the path of a socket may be.
        let directory = StateDirectory::new(place.path().join("d".repeat(120)));
        directory.prepare().expect("usable");
        (place, directory)
    }

    #[test]
    fn the_state_file_keeps_its_form() {
        let text = serde_json::to_string(&example("a")).expect("JSON");
        insta::assert_snapshot!(text, @r#"{"version":1,"id":"a","created":1000,"labels":{"run":"1"},"supervisor":7,"wall_time":{"secs":60,"nanos":0},"linger":{"secs":5,"nanos":0},"environment":{"LANG":"C"},"output_bytes":9,"idle_time":null,"token":"0000000000000000000000000000000000000000000000000000000000000000","group":{"directories":[],"oom_counter":null,"tree":null,"freezer":null}}"#);
        assert_eq!(serde_json::from_str::<StateFile>(&text).expect("read"), example("a"));
        assert!(!example("a").state().data.to_string().contains("token"));
    }

    #[test]
    fn what_is_made_is_for_its_user_alone_and_is_swept_when_nobody_serves_it() {
        let (_place, directory) = place();
        let (one, two) = ("1".repeat(32), "2".repeat(32));
        let made = directory.make(&example(&one)).expect("made");
        let left = directory.make(&example(&two)).expect("made");
        for (name, mode) in [("", 0o700), (DOOR, 0o600), (SUPERVISOR, 0o600), (STATE, 0o600)] {
            let found = fs::metadata(made.entry.directory.join(name)).expect("it is there");
            assert_eq!(found.mode() & 0o7777, mode, "{name}");
        }
        assert_eq!(made.entry.read().expect("read"), example(&one));
        assert!(made.entry.connect_guest().is_ok() && made.entry.connect_supervisor().is_ok());
        drop((left.door, left.supervisor));
        fs::write(directory.0.join("of somebody"), "").expect("written");
        // Half made by this process, and by one that has ended.
        let half = |owner: String| directory.0.join(format!(".{owner}{NEW}"));
        let mine = half(Owner::current().directory_name(&two));
        let of_the_dead = half(Owner::before(Owner::current()).directory_name(&two));
        fs::create_dir(&mine).expect("made");
        fs::create_dir(&of_the_dead).expect("made");
        assert_eq!(directory.sweep().expect("swept"), 1);
        assert_eq!(directory.entries().expect("listed"), std::slice::from_ref(&made.entry));
        assert!(directory.0.join("of somebody").exists() && mine.exists());
        assert!(!of_the_dead.exists());
        made.entry.remove().expect("removed");
        made.entry.remove().expect("again");
        assert_eq!(directory.entries().expect("listed"), Vec::new());
    }

    #[test]
    fn names_that_lead_elsewhere_are_of_no_sandbox() {
        let (_place, directory) = place();
        let (short, long) = ("a".repeat(31), "a".repeat(33));
        for name in
            ["", ".", "..", "../x", "/etc", &*short, &*long, &"A".repeat(32), &"/".repeat(32)]
        {
            assert_eq!(directory.entry(&SandboxId::new(name)), None, "{name}");
        }
        assert!(directory.make(&example("no-such-name")).is_err());
    }

    #[test]
    fn state_that_cannot_be_read_says_why() {
        let (_place, directory) = place();
        let made = directory.make(&example(&"1".repeat(32))).expect("made");
        let newer = StateFile { version: 2, ..example("a") };
        let newer = serde_json::to_string(&newer).expect("JSON");
        for (content, expect) in [
            (newer.as_str(), "version 2 of the state file, not 1"),
            ("", "EOF while parsing a value at line 1 column 0"),
            ("{}", "missing field `version` at line 1 column 2"),
        ] {
            fs::write(made.entry.directory.join(STATE), content).expect("written");
            assert_eq!(made.entry.read().expect_err("unreadable").to_string(), expect);
        }
    }

    #[test]
    fn a_directory_that_others_can_use_is_refused() {
        let place = tempfile::tempdir().expect("a directory");
        let path = place.path().join("state");
        let check = |path: &Path, expect: &str| {
            let error = StateDirectory::new(path.to_owned()).prepare().expect_err("refused");
            assert!(error.to_string().contains(expect), "{error}");
        };
        check(Path::new("state"), "its path is not absolute");
        fs::create_dir(&path).expect("made");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("opened");
        check(&path, "it is open to others (mode 755)");
        let link = place.path().join("link");
        std::os::unix::fs::symlink(&path, &link).expect("linked");
        check(&link, "it is no directory");
        fs::write(place.path().join("file"), "").expect("written");
        check(&place.path().join("file"), "File exists");
        let open = place.path().join("open");
        fs::create_dir(&open).expect("made");
        fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).expect("opened");
        check(&open.join("state"), "above it is user");
        if rustix::process::geteuid().is_root() {
            fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).expect("closed");
            std::os::unix::fs::chown(&path, Some(12_345), None).expect("given away");
            check(&path, "it belongs to user 12345");
        }
    }
}
