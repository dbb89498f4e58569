//! Starting programs: cargo with the right directory, output that is shown and read at once, a search on `PATH`.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use anyhow::{Context as _, Result};

/// The cargo that runs this program, in a directory.
pub(crate) fn cargo_in(directory: &Path) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(directory);
    command
}

/// The command as a person would type it.
pub(crate) fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or(command.get_program());
    let words = std::iter::once(program).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

/// Runs the command on this terminal, after showing it. Answers whether it succeeded.
pub(crate) fn run(command: &mut Command) -> Result<bool> {
    println!("$ {}", shown(command));
    let status = command.status().with_context(|| format!("could not start {}", shown(command)))?;
    Ok(status.success())
}

/// Runs the command, showing each line of its standard output and handing it to `read`.
pub(crate) fn run_reading(command: &mut Command, mut read: impl FnMut(&str)) -> Result<ExitStatus> {
    println!("$ {}", shown(command));
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("could not start {}", shown(command)))?;
    if let Some(stdout) = child.stdout.take() {
        // Bytes, not `lines()`: a test may print what is not UTF-8.
        for line in BufReader::new(stdout).split(b'\n') {
            let line = String::from_utf8_lossy(&line?).into_owned();
            println!("{line}");
            read(&line);
        }
    }
    Ok(child.wait()?)
}

/// Standard output of a command that must succeed, without the final newline.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("could not start {}", shown(command)))?;
    anyhow::ensure!(
        output.status.success(),
        "{} failed with {}: {}",
        shown(command),
        output.status,
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
}

/// Whether the command runs and succeeds; shows nothing.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// The program's place on `PATH`.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|directory| directory.join(name))
        .find(|file| is_executable(file))
}

fn is_executable(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    file.metadata()
        .is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

/// A server that lives as long as this value.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    /// What it said on its first line.
    pub(crate) told: serde_json::Value,
}

impl Server {
    /// Starts a server that prints a line of JSON once it serves.
    ///
    /// Its standard input stays open as long as this value, so a server that ends with it does not outlive a killed xtask.
    pub(crate) fn start(command: &mut Command) -> Result<Self> {
        println!("$ {} &", shown(command));
        let child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("could not start {}", shown(command)))?;
        // From here on dropping `server` stops the child, also when its first line is not what it should be.
        let mut server = Self { child, told: serde_json::Value::Null };
        let mut line = String::new();
        if let Some(stdout) = server.child.stdout.as_mut() {
            BufReader::new(stdout).read_line(&mut line)?;
        }
        server.told = serde_json::from_str(&line).with_context(|| {
            format!("{} printed {line:?} where a line of JSON was expected", shown(command))
        })?;
        Ok(server)
    }

    /// The port on loopback that it named.
    pub(crate) fn port(&self) -> Result<u16> {
        let port = self.told["port"].as_u64().and_then(|port| u16::try_from(port).ok());
        port.with_context(|| format!("a server named no port in {}", self.told))
    }

    /// Ends it by the end of its standard input, and waits until it has put away what it had.
    pub(crate) fn end(mut self) -> Result<ExitStatus> {
        Ok(self.child.wait()?)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself; either way it must not outlive the suite.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::{Command, Server, find_program, output, run_reading, shown, succeeds};

    fn sh(script: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn reads_lines_and_status() {
        let mut lines = Vec::new();
        let status = run_reading(&mut sh("printf 'one\\n\\377two'; exit 3"), |line| {
            lines.push(line.to_owned())
        })
        .unwrap();
        assert_eq!(lines, ["one", "\u{fffd}two"]);
        assert_eq!(status.code(), Some(3));
    }

    #[test]
    fn a_failing_command_tells_what_it_said() {
        let error = output(&mut sh("echo why >&2; exit 1")).unwrap_err().to_string();
        assert_eq!(error, "sh -c echo why >&2; exit 1 failed with exit status: 1: why");
        assert!(!succeeds(&mut sh("exit 1")));
        assert!(!succeeds(&mut Command::new("/nonexistent/program")));
    }

    #[test]
    fn finds_programs_as_a_shell_does() {
        assert!(find_program("sh").is_some());
        assert!(find_program("no-such-program-anywhere").is_none());
        assert_eq!(shown(&sh("true")), "sh -c true");
    }

    #[test]
    fn a_server_must_name_its_port() {
        let server = Server::start(&mut sh("echo '{\"port\": 4711}'; exec sleep 60")).unwrap();
        assert_eq!(server.port().unwrap(), 4711);
        let error = Server::start(&mut sh("echo listening")).unwrap_err();
        assert!(format!("{error:#}").contains("where a line of JSON was expected"), "{error:#}");
        let nameless = Server::start(&mut sh("echo '{}'; exec sleep 60")).unwrap();
        assert_eq!(nameless.port().unwrap_err().to_string(), "a server named no port in {}");
    }

    #[test]
    fn a_server_that_is_ended_puts_its_things_away() {
        let server = Server::start(&mut sh("echo 1; cat; exit 3")).unwrap();
        assert_eq!(server.end().unwrap().code(), Some(3));
    }
}
