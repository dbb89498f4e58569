//! Clones repositories with the host's git: a clean environment, no hooks, no prompts, no submodules, bounded in time and
//! size, and only the protocols that the source names.

use std::{
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use cofferdam_core::{Secret, WorkspacePath};
use cofferdam_manifest::{Entry, GitSource};
use rustix::process::{Pid, Signal, kill_process_group};
use tempfile::TempDir;
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    process::Command,
};

use crate::{HostFileError, MaterializeError, beneath, host_file::shown};

/// Bytes of git's messages that are kept.
const MAX_MESSAGE_BYTES: usize = 8 << 10;
/// Bytes of a listing of a tree that are read; beyond it there are too many files.
const MAX_LISTING_BYTES: usize = 64 << 20;
/// How often the size of a download is looked at.
const WATCH_EVERY: Duration = Duration::from_millis(200);
/// What the administration of a repository may take besides the files.
const OVERHEAD_BYTES: u64 = 16 << 20;

/// A repository on the host, removed when dropped.
#[derive(Debug)]
pub(crate) struct Clone {
    directory: TempDir,
    /// The commit that is checked out.
    pub(crate) revision: String,
}

impl Clone {
    fn worktree(&self) -> PathBuf {
        self.directory.path().join("tree")
    }

    /// Opens the part of the repository that is wanted.
    pub(crate) fn open(
        &self,
        entry: &WorkspacePath,
        source: &GitSource,
    ) -> Result<OwnedFd, MaterializeError> {
        let subpath = source.subpath.as_ref().map_or(".", WorkspacePath::as_str);
        beneath::open_root(&self.worktree())
            .and_then(|root| beneath::open_directory(root, Path::new(subpath)))
            .map_err(|error| MaterializeError::Git {
                entry: entry.clone(),
                url: source.url.clone(),
                step: "find the subpath of",
                detail: format!("{subpath} is no directory of the repository: {error}"),
            })
    }
}

/// Clones the revision that a source names.
pub(crate) async fn clone(
    entry: &WorkspacePath,
    source: &GitSource,
    token: Option<&Secret>,
    program: &Path,
    timeout: Duration,
) -> Result<Clone, MaterializeError> {
    let directory =
        tempfile::Builder::new().prefix("cofferdam-git-").tempdir().map_err(|source| {
            HostFileError { operation: "make", path: "a temporary directory".to_owned(), source }
        })?;
    let git = Git { entry, source, token, program, directory: directory.path() };
    let revision = tokio::time::timeout(timeout, git.run()).await.map_err(|_| {
        MaterializeError::GitTimeout {
            entry: entry.clone(),
            url: source.url.clone(),
            after: timeout,
        }
    })??;
    tracing::debug!(entry = %entry, url = %source.url, %revision, "cloned");
    Ok(Clone { directory, revision })
}

struct Git<'a> {
    entry: &'a WorkspacePath,
    source: &'a GitSource,
    token: Option<&'a Secret>,
    program: &'a Path,
    directory: &'a Path,
}

impl Git<'_> {
    async fn run(&self) -> Result<String, MaterializeError> {
        std::fs::create_dir(self.directory.join("home"))
            .and_then(|()| std::fs::create_dir(self.directory.join("tree")))
            .map_err(|error| self.failed("prepare a directory for", error.to_string()))?;
        self.git("prepare a directory for", &["init", "-q", "--template="], 0).await?;
        let reference = self.source.reference.as_deref().unwrap_or("HEAD");
        let fetch = ["fetch", "-q", "--depth=1", "--no-tags", "--no-recurse-submodules", "--"];
        let fetch = [&fetch[..], &[&self.source.url, reference]].concat();
        self.git("fetch", &fetch, 0).await?;
        let commit = ["rev-parse", "--verify", "FETCH_HEAD^{commit}"];
        let commit = self.git("find the commit of", &commit, 256).await?;
        let commit = String::from_utf8_lossy(&commit).trim().to_owned();
        let subpath = self.source.subpath.as_ref().filter(|path| !path.is_root());
        let tree = subpath.map_or_else(|| commit.clone(), |path| format!("{commit}:{path}"));
        let list = ["ls-tree", "-r", "-l", "-z", "--full-tree", &tree];
        let step = if subpath.is_some() { "find the subpath of" } else { "list" };
        let listing = self.git(step, &list, MAX_LISTING_BYTES).await?;
        self.check_caps(&listing)?;
        match subpath {
            None => {
                let checkout = ["checkout", "-q", "--detach", &commit];
                self.git("check out", &checkout, 0).await?;
            }
            Some(path) => {
                let checkout = ["checkout", "-q", &commit, "--", path.as_str()];
                self.git("check out", &checkout, 0).await?;
            }
        }
        Ok(commit)
    }

    /// Holds the tree against the caps before a file of it is written.
    fn check_caps(&self, listing: &[u8]) -> Result<(), MaterializeError> {
        let max_files = self.source.max_files.unwrap_or(Entry::DEFAULT_MAX_FILES);
        let max_bytes = self.max_bytes();
        let (mut files, mut bytes) = (0_u64, 0_u64);
        let over = |cap, found, unit, field, path: &[u8]| MaterializeError::OverCap {
            entry: self.entry.clone(),
            source_path: self.source.url.clone(),
            cap,
            unit,
            found,
            field,
            path: shown(path),
        };
        for line in listing.split(|byte| *byte == 0).filter(|line| !line.is_empty()) {
            // `<mode> SP <type> SP <object> SP+ <size> TAB <path>`
            let mut halves = line.splitn(2, |byte| *byte == b'\t');
            let facts = halves.next().unwrap_or_default();
            let path = halves.next().unwrap_or_default();
            let size = facts.rsplit(|byte| *byte == b' ').next().unwrap_or_default();
            files += 1;
            // A submodule has no size.
            bytes = bytes.saturating_add(String::from_utf8_lossy(size).parse().unwrap_or(0));
            if files > max_files {
                return Err(over(max_files, files, "files", "max_files", path));
            }
            if bytes > max_bytes {
                return Err(over(max_bytes, bytes, "bytes", "max_bytes", path));
            }
        }
        if listing.len() >= MAX_LISTING_BYTES {
            return Err(over(max_files, files, "files", "max_files", b""));
        }
        Ok(())
    }

    fn max_bytes(&self) -> u64 {
        self.source.max_bytes.unwrap_or(Entry::DEFAULT_MAX_BYTES).bytes()
    }

    /// Runs git to its end and returns the beginning of its output.
    async fn git(
        &self,
        step: &'static str,
        arguments: &[&str],
        max_output_bytes: usize,
    ) -> Result<Vec<u8>, MaterializeError> {
        let mut command = self.command();
        command.args(arguments);
        let mut child = command.spawn().map_err(|error| {
            let program = self.program.display();
            self.failed(step, format!("{program} did not start ({error}); install git on the host"))
        })?;
        let mut group = Group(child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)));
        let output = read_beginning(child.stdout.take(), max_output_bytes);
        let message = read_beginning(child.stderr.take(), MAX_MESSAGE_BYTES);
        let end = async {
            let (output, message, status) = tokio::join!(output, message, child.wait());
            (output, message, status)
        };
        let (output, message, status) = tokio::select! {
            end = end => end,
            size = self.watch() => {
                let cap = self.max_bytes();
                return Err(self.failed(step, format!(
                    "the download has {size} bytes already, and `max_bytes` of the entry is {cap}; raise it"
                )));
            }
        };
        group.0 = None;
        match status {
            Ok(status) if status.success() => Ok(output),
            Ok(status) => {
                let message = shown(String::from_utf8_lossy(&message).trim().as_bytes());
                let message = message.replace("\\n", "; ");
                Err(self.failed(step, if message == "." { status.to_string() } else { message }))
            }
            Err(error) => Err(self.failed(step, error.to_string())),
        }
    }

    /// Returns when the repository is larger than it may be, with its size.
    async fn watch(&self) -> u64 {
        let packs = self.directory.join("tree/.git/objects/pack");
        loop {
            tokio::time::sleep(WATCH_EVERY).await;
            let size = directory_bytes(&packs);
            if size > self.max_bytes().saturating_add(OVERHEAD_BYTES) {
                return size;
            }
        }
    }

    fn command(&self) -> Command {
        let mut command = Command::new(self.program);
        let home = self.directory.join("home");
        command
            .current_dir(self.directory.join("tree"))
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .env("HOME", &home)
            .env("LC_ALL", "C")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_ATTR_NOSYSTEM", "1")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_LITERAL_PATHSPECS", "1")
            .env("GIT_NO_REPLACE_OBJECTS", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .process_group(0);
        let mut settings = vec![
            "core.hooksPath=/dev/null",
            "core.fsmonitor=false",
            "core.symlinks=true",
            "core.autocrlf=false",
            "credential.helper=",
            "fetch.recurseSubmodules=false",
            "gc.auto=0",
            "maintenance.auto=false",
            "submodule.recurse=false",
            "advice.detachedHead=false",
            "init.defaultBranch=main",
            "protocol.allow=never",
        ];
        settings.push(if self.source.url.starts_with("https://") {
            "protocol.https.allow=always"
        } else if self.source.url.starts_with("http://") {
            "protocol.http.allow=always"
        } else {
            "protocol.file.allow=always"
        });
        for setting in settings {
            command.args(["-c", setting]);
        }
        if let Some(token) = self.token {
            // In the environment and not among the arguments, which every user of the host can read; for this server
            // only, so that a redirect does not carry it elsewhere.
            let credentials = STANDARD.encode(format!("x-access-token:{}", token.expose()));
            command
                .env("GIT_CONFIG_COUNT", "1")
                .env("GIT_CONFIG_KEY_0", format!("http.{}.extraHeader", origin(&self.source.url)))
                .env("GIT_CONFIG_VALUE_0", format!("Authorization: Basic {credentials}"));
        }
        command
    }

    fn failed(&self, step: &'static str, detail: String) -> MaterializeError {
        let (entry, url) = (self.entry.clone(), self.source.url.clone());
        MaterializeError::Git { entry, url, step, detail }
    }
}

/// Kills git and what it started, unless it has ended.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

/// Scheme, host and port of an address, with a final `/`.
fn origin(url: &str) -> String {
    let mut slashes = url.match_indices('/').map(|(position, _)| position);
    let end = slashes.nth(2).unwrap_or(url.len());
    format!("{}/", &url[..end])
}

/// Reads a pipe to its end and keeps the beginning.
async fn read_beginning(pipe: Option<impl AsyncRead + Unpin>, max_bytes: usize) -> Vec<u8> {
    let mut kept = Vec::new();
    let Some(mut pipe) = pipe else { return kept };
    let mut piece = [0; 8192];
    while let Ok(length @ 1..) = pipe.read(&mut piece).await {
        let room = max_bytes.saturating_sub(kept.len()).min(length);
        kept.extend_from_slice(&piece[..room]);
    }
    kept
}

/// The bytes of the files in one directory; 0 if it is not there.
fn directory_bytes(path: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(path) else { return 0 };
    entries.flatten().filter_map(|entry| entry.metadata().ok()).map(|metadata| metadata.len()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_goes_to_its_server_only_and_into_no_argument() {
        let Entry { source: cofferdam_manifest::EntrySource::Git(source), .. } =
            Entry::git("https://git.example.com:8443/a/b.git")
        else {
            panic!("no git entry")
        };
        let token = Secret::new("canary");
        let git = Git {
            entry: &WorkspacePath::root(),
            source: &source,
            token: Some(&token),
            program: Path::new("git"),
            directory: Path::new("/nowhere"),
        };
        let command = git.command();
        let command = command.as_std();
        let environment: Vec<String> = command
            .get_envs()
            .map(|(name, value)| format!("{name:?}={:?}", value.unwrap_or_default()))
            .filter(|line| line.contains("GIT_CONFIG_"))
            .collect();
        insta::assert_snapshot!(environment.join("\n"), @r#"
        "GIT_CONFIG_COUNT"="1"
        "GIT_CONFIG_GLOBAL"="/dev/null"
        "GIT_CONFIG_KEY_0"="http.https://git.example.com:8443/.extraHeader"
        "GIT_CONFIG_NOSYSTEM"="1"
        "GIT_CONFIG_VALUE_0"="Authorization: Basic eC1hY2Nlc3MtdG9rZW46Y2FuYXJ5"
        "#);
        let encoded = STANDARD.encode("x-access-token:canary");
        assert!(!command.get_args().any(|a| a.to_string_lossy().contains(&encoded)));
        assert!(!command.get_args().any(|a| a.to_string_lossy().contains("canary")));
    }
}
