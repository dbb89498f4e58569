//! A directory with files, and the command run in it.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use tempfile::TempDir;

/// A directory of its own, in which the command runs.
pub(crate) struct Place {
    directory: TempDir,
}

/// What the command did, with the directory's path and run ids written as `[..]`.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Place {
    pub(crate) fn new(files: &[(&str, &str)]) -> Self {
        let place = Self { directory: tempfile::tempdir().unwrap() };
        for (path, content) in files {
            let path = place.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        place
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn command(&self) -> Command {
        #[expect(clippy::disallowed_methods, reason = "the command is what is tested")]
        let mut command = Command::new(env!("CARGO_BIN_EXE_cofferdam"));
        command
            .current_dir(self.path())
            .env_remove("OPENAI_API_KEY")
            .env("COFFERDAM_STATE", self.state());
        command
    }

    /// Where the command records runs.
    pub(crate) fn state(&self) -> PathBuf {
        self.path().join("state")
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Done {
        self.run_with_input(arguments, "")
    }

    pub(crate) fn run_with_input(&self, arguments: &[&str], input: &str) -> Done {
        let mut child = self
            .command()
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // A command that does not read its input may be gone by now.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        self.done(&child.wait_with_output().unwrap())
    }

    pub(crate) fn done(&self, output: &Output) -> Done {
        let clean = |bytes: &[u8]| {
            let text = String::from_utf8_lossy(bytes);
            text.replace(self.path().to_str().unwrap(), "[..]")
        };
        Done {
            code: output.status.code().unwrap_or(-1),
            stdout: clean(&output.stdout),
            stderr: clean(&output.stderr),
        }
    }

    /// Returns the one directory below `out`.
    pub(crate) fn run_directory(&self) -> PathBuf {
        let runs: Vec<_> = std::fs::read_dir(self.path().join("out"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        assert_eq!(runs.len(), 1, "{runs:?}");
        runs[0].clone()
    }
}

/// Returns false, and says so, where this host cannot make sandboxes at all.
pub(crate) fn can_seal(test: &str) -> bool {
    let done = Place::new(&[]).run(&["exec", "--", "true"]);
    if done.code == 3 {
        cofferdam_testkit::skip(test, &done.stderr);
        return false;
    }
    assert_eq!(done.code, 0, "{done:?}");
    true
}
