//! An empty image for Docker: the program is static, so that nothing else needs to be in it.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result};

use crate::columns::Peers;

/// An image made for one run; removed with this value.
#[derive(Debug)]
pub struct Image {
    docker: PathBuf,
    host: String,
    name: String,
    /// Images of this project that the engine had before.
    before: Vec<String>,
}

impl Image {
    /// Imports an empty image into the engine.
    ///
    /// # Errors
    ///
    /// If no engine was named, or it does not answer.
    pub fn make(peers: &Peers) -> Result<Self> {
        let docker = peers.docker.clone().context("the docker command was not found")?;
        let host = peers.docker_host.clone().context("no engine was named")?;
        let name = format!("cofferdam-probe:{}", std::process::id());
        let mut import = command(&docker, &host)
            .args(["import", "-", &name])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("could not start docker")?;
        if let Some(mut stdin) = import.stdin.take() {
            // Two blocks of zeros are the end of an archive.
            let _ = stdin.write_all(&[0; 1024]);
        }
        let output = import.wait_with_output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        anyhow::ensure!(output.status.success(), "{}", said.lines().last().unwrap_or("no answer"));
        let before = images(&docker, &host);
        Ok(Self { docker, host, name, before })
    }

    /// The image's name in the engine.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        // The backend keeps what it prepares, for the next time; the roots of the attacks do not come again. Without force,
        // so that what somebody uses stays.
        let made = images(&self.docker, &self.host);
        let made = made.into_iter().filter(|image| !self.before.contains(image));
        for image in made.chain([self.name.clone()]) {
            let mut remove = command(&self.docker, &self.host);
            let _ =
                remove.args(["rmi", &image]).stdout(Stdio::null()).stderr(Stdio::null()).status();
        }
    }
}

/// The images that the backend has prepared or imported.
fn images(docker: &Path, host: &str) -> Vec<String> {
    let mut list = command(docker, host);
    list.args(["image", "ls", "--filter", "reference=cofferdam/*"]);
    let listed = list.args(["--format", "{{.Repository}}:{{.Tag}}"]).output();
    let text =
        listed.map(|it| String::from_utf8_lossy(&it.stdout).into_owned()).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

#[expect(clippy::disallowed_methods, reason = "Docker is one of the peers")]
fn command(docker: &Path, host: &str) -> Command {
    let mut command = Command::new(docker);
    command.args(["--host", host]);
    command
}
