//! Runs the attacks on each target and collects a [`Report`].

use std::{
    collections::{BTreeMap, btree_map::Entry},
    fs,
    io::{BufRead as _, BufReader, Read as _},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};

use crate::{
    PROGRAM, PROGRAM_NAME,
    columns::{Launch, Target},
    harness,
    host::{Host, as_user, open_to_all},
    report::{Answer, Attack, Column, Kind, Outcome, Report},
};

/// What one sandbox may take for all its attacks.
const SANDBOX_TIMEOUT: Duration = Duration::from_secs(300);

/// How long a neighbour in another sandbox may take to be there.
const NEIGHBOUR_TIMEOUT: Duration = Duration::from_secs(30);

/// How many sandboxes of a target may end without one answer before the target is given up.
const MAX_LOST: u32 = 10;

/// Bytes of what a sandbox says on standard error that are kept.
const MAX_COMPLAINT: u64 = 64 << 10;

/// The programs of a run, where every user can start them.
#[derive(Debug)]
pub struct Runner {
    place: tempfile::TempDir,
    attacks: Vec<Attack>,
    engine_socket: Option<PathBuf>,
    race: Duration,
}

impl Runner {
    /// Puts the programs into a directory that is open to all. `own` is the program that has the `worker` command.
    ///
    /// # Errors
    ///
    /// If that fails, or the probe program does not tell its attacks.
    #[expect(clippy::disallowed_methods, reason = "the probe program tells its attacks")]
    pub fn new(own: &Path, engine_socket: Option<PathBuf>) -> Result<Self> {
        let place = tempfile::Builder::new().prefix("cofferdam-escape-").tempdir_in("/var/tmp")?;
        open_to_all(place.path())?;
        let probe = place.path().join(PROGRAM_NAME);
        fs::write(&probe, PROGRAM)?;
        fs::copy(own, place.path().join("cofferdam-escape"))?;
        for program in [&probe, &place.path().join("cofferdam-escape")] {
            fs::set_permissions(program, fs::Permissions::from_mode(0o755))?;
        }
        let listed = Command::new(&probe).arg("list").output()?;
        let mut attacks = Vec::new();
        for line in listed.stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            attacks.push(serde_json::from_slice(line).context("the list of probes")?);
        }
        anyhow::ensure!(!attacks.is_empty(), "the probe program has no probes for this machine");
        attacks.extend(harness::attacks());
        Ok(Self { place, attacks, engine_socket, race: Duration::from_secs(10) })
    }

    /// Sets how long races are run. Default 10 s; at most a minute, to stay within what one attack may take.
    #[must_use]
    pub fn race(mut self, race: Duration) -> Self {
        self.race = race.min(Duration::from_secs(60));
        self
    }

    /// Returns the attacks, in the order of the table.
    #[must_use]
    pub fn attacks(&self) -> &[Attack] {
        &self.attacks
    }

    /// Attacks each target in turn and tells `progress` of each column.
    ///
    /// # Errors
    ///
    /// If the host's canaries cannot be made. What goes wrong with a target is in its column.
    pub fn run(&self, targets: &[Target], mut progress: impl FnMut(&Column)) -> Result<Report> {
        let mut hosts: BTreeMap<u32, Host> = BTreeMap::new();
        let mut report = Report { attacks: self.attacks.clone(), columns: Vec::new() };
        for target in targets {
            let host = match hosts.entry(target.user) {
                Entry::Occupied(host) => host.into_mut(),
                Entry::Vacant(none) => {
                    let probe = self.place.path().join(PROGRAM_NAME);
                    none.insert(Host::prepare(target.user, &probe, self.engine_socket.clone())?)
                }
            };
            let column = self.column(target, host)?;
            progress(&column);
            report.columns.push(column);
        }
        Ok(report)
    }

    fn column(&self, target: &Target, host: &Host) -> Result<Column> {
        let mut column = Column {
            name: target.name.clone(),
            kind: target.kind,
            root: target.user == 0,
            answers: BTreeMap::new(),
            skipped: None,
        };
        if let Launch::Missing(why) = &target.launch {
            column.skipped = Some(why.clone());
            return Ok(column);
        }
        let _ = host.take_made();
        let workspace = self.workspace(host)?;
        let mut left = self.applicable(target);
        // A peer that does not let the neighbour listen has nothing that others could reach, or does not run at all;
        // which of the two, the attacks tell.
        let neighbour = match self.start_neighbour(target, workspace.path()) {
            Ok(neighbour) => neighbour,
            Err(_) if target.kind == Kind::Peer => {
                left.retain(|id| !id.starts_with("neighbour-"));
                None
            }
            Err(error) => return Err(error.context(target.name.clone())),
        };
        let mut lost = 0;
        while !left.is_empty() {
            let (answers, complaint) = self.attack(target, host, workspace.path(), &left)?;
            let before = left.len();
            for answer in answers {
                left.retain(|id| *id != answer.id);
                column.answers.insert(answer.id.clone(), answer);
            }
            if left.len() == before {
                if column.answers.is_empty() && target.kind == Kind::Peer {
                    column.skipped = Some(format!("it does not run here: {complaint}"));
                    break;
                }
                lost += 1;
                anyhow::ensure!(lost <= MAX_LOST, "{}: {complaint}", target.name);
                // The sandbox ended over the first that is left; the others get a new one.
                let id = left.remove(0);
                let why = format!("the sandbox ended: {complaint}");
                column.answers.insert(id.clone(), Answer::new(id, Outcome::Broken, why));
            }
        }
        drop(neighbour);
        judge_made(&mut column, &host.take_made());
        Ok(column)
    }

    /// A directory of the host that is given to the sandbox, or to which a command is confined.
    fn workspace(&self, host: &Host) -> Result<tempfile::TempDir> {
        let workspace = tempfile::Builder::new().prefix("ws-").tempdir_in(self.place.path())?;
        open_to_all(workspace.path())?;
        fs::create_dir(workspace.path().join("home"))?;
        open_to_all(&workspace.path().join("home"))?;
        let probe = workspace.path().join(PROGRAM_NAME);
        fs::write(&probe, PROGRAM)?;
        fs::set_permissions(&probe, fs::Permissions::from_mode(0o755))?;
        let targets = format!("{}race={}\n", host.targets(), self.race.as_secs());
        fs::write(workspace.path().join("targets"), targets)?;
        Ok(workspace)
    }

    fn applicable(&self, target: &Target) -> Vec<String> {
        let neighbours = !matches!(target.launch, Launch::Command { neighbour: false, .. });
        let through = matches!(target.launch, Launch::Backend(_));
        self.attacks
            .iter()
            .map(|attack| attack.id.clone())
            .filter(|id| neighbours || !id.starts_with("neighbour-"))
            .filter(|id| through || target.kind == Kind::Control || harness::find(id).is_none())
            .collect()
    }

    /// Runs attacks in one sandbox; returns what they answered, and the last words of the sandbox.
    fn attack(
        &self,
        target: &Target,
        host: &Host,
        workspace: &Path,
        ids: &[String],
    ) -> Result<(Vec<Answer>, String)> {
        let mut words =
            vec!["stage".to_owned(), target.user.to_string(), host.outside().display().to_string()];
        let mut answers = Vec::new();
        match &target.launch {
            Launch::Command { .. } => {
                let (through, inside): (Vec<_>, Vec<_>) =
                    ids.iter().cloned().partition(|id| harness::find(id).is_some());
                for id in &through {
                    answers.push(harness::control(id, &host.targets()));
                }
                if inside.is_empty() {
                    return Ok((answers, String::new()));
                }
                words.extend(command_words(&target.launch, workspace));
                words.extend(["run".to_owned(), "targets".to_owned()]);
                words.extend(inside);
            }
            Launch::Backend(name) => {
                words.push(self.place.path().join("cofferdam-escape").display().to_string());
                words.extend(["worker".to_owned(), name.clone(), "targets".to_owned()]);
                words.extend(ids.iter().cloned());
            }
            Launch::Missing(why) => return Ok((answers, why.clone())),
        }
        let (lines, complaint) = self.output_of(&words, host, workspace)?;
        let parsed = lines.iter().filter_map(|line| serde_json::from_str::<Answer>(line).ok());
        answers.extend(parsed.filter(|answer| ids.contains(&answer.id)));
        Ok((answers, complaint))
    }

    #[expect(clippy::disallowed_methods, reason = "the suite starts what it attacks")]
    fn output_of(
        &self,
        words: &[String],
        host: &Host,
        workspace: &Path,
    ) -> Result<(Vec<String>, String)> {
        let mut child = Command::new(self.place.path().join(PROGRAM_NAME))
            .args(words)
            // A secret that whoever starts a sandbox has in its environment.
            .env("COFFERDAM_PROBE_SECRET", format!("inherited-{}", host.token()))
            .current_dir(workspace)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("could not start the stage")?;
        let (said, complained) = (child.stdout.take(), child.stderr.take());
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || {
            let lines = said.into_iter().flat_map(|said| BufReader::new(said).lines());
            for line in lines.map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let complaints = thread::spawn(move || {
            let mut text = Vec::new();
            if let Some(complained) = complained {
                let _ = complained.take(MAX_COMPLAINT).read_to_end(&mut text);
            }
            String::from_utf8_lossy(&text).into_owned()
        });
        let mut lines = Vec::new();
        let why = loop {
            match receiver.recv_timeout(SANDBOX_TIMEOUT) {
                Ok(line) => lines.push(line),
                Err(mpsc::RecvTimeoutError::Disconnected) => break String::new(),
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    child.kill()?;
                    break format!("nothing for {} s", SANDBOX_TIMEOUT.as_secs());
                }
            }
        };
        let status = child.wait()?;
        let complaint = complaints.join().unwrap_or_default();
        let last = complaint.lines().map(str::trim).rfind(|line| !line.starts_with("probe: "));
        let last = last.unwrap_or_default().to_owned();
        let parts = [why, last, status.to_string()];
        let text = parts.iter().find(|part| !part.is_empty()).cloned().unwrap_or_default();
        Ok((lines, text))
    }

    /// Starts the program as a neighbour in a second sandbox, where one can run beside the first.
    #[expect(clippy::disallowed_methods, reason = "the suite starts what it attacks")]
    fn start_neighbour(&self, target: &Target, workspace: &Path) -> Result<Option<Neighbour>> {
        if !matches!(target.launch, Launch::Command { neighbour: true, .. }) {
            // A backend's worker makes its own.
            return Ok(None);
        }
        let words = command_words(&target.launch, workspace);
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).args(["neighbour", "targets"]).current_dir(workspace);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        as_user(&mut command, target.user);
        let mut child = command.spawn().with_context(|| format!("could not start {}", words[0]))?;
        let (said, complained) = (child.stdout.take(), child.stderr.take());
        let neighbour = Neighbour(child);
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || {
            let lines = said.into_iter().flat_map(|said| BufReader::new(said).lines());
            let ready = lines.map_while(Result::ok).any(|line| line.trim() == "ready");
            let _ = sender.send(ready);
        });
        if receiver.recv_timeout(NEIGHBOUR_TIMEOUT) == Ok(true) {
            return Ok(Some(neighbour));
        }
        drop(neighbour);
        let mut text = String::new();
        if let Some(complained) = complained {
            let _ = complained.take(MAX_COMPLAINT).read_to_string(&mut text);
        }
        anyhow::bail!("{}", text.lines().last().unwrap_or("it said nothing"))
    }
}

/// A running neighbour; gone with this value.
#[derive(Debug)]
struct Neighbour(Child);

impl Drop for Neighbour {
    fn drop(&mut self) {
        // The end of its input ends it, also in a container whose client is killed.
        drop(self.0.stdin.take());
        for _ in 0..50 {
            if matches!(self.0.try_wait(), Ok(Some(_))) {
                return;
            }
            thread::sleep(Duration::from_millis(100));
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn command_words(launch: &Launch, workspace: &Path) -> Vec<String> {
    let Launch::Command { prefix, program, .. } = launch else { return Vec::new() };
    let workspace = workspace.display().to_string();
    prefix.iter().chain([program]).map(|word| word.replace("{ws}", &workspace)).collect()
}

/// An attack that says it made something on the host, of which the host sees nothing, had no effect.
fn judge_made(column: &mut Column, made: &[String]) {
    for (id, name) in [
        ("host-file-write", "made-by-write"),
        ("host-file-link", "made-by-link"),
        ("symlink-write", "made-through-link"),
    ] {
        if let Some(answer) = column.answers.get_mut(id)
            && answer.outcome == Outcome::Open
            && !made.iter().any(|it| it == name)
        {
            answer.outcome = Outcome::Denied;
            answer.evidence = "no effect on the host".to_owned();
        }
    }
}
