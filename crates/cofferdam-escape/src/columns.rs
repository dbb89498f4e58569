//! What is attacked: the controls, the backends, and peers that are installed.

use std::path::{Path, PathBuf};

use crate::{PROGRAM_NAME, report::Kind};

/// `nobody`: exists everywhere and owns nothing.
pub const ORDINARY_USER: u32 = 65534;

/// Something to attack, and how a command is run in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The head of its column.
    pub name: String,
    /// Whose walls it shows.
    pub kind: Kind,
    /// The user that starts it.
    pub user: u32,
    /// How the probe program is run in it.
    pub launch: Launch,
}

/// How the probe program is run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Launch {
    /// By a command line. `{ws}` is the workspace on the host; the program's words follow.
    Command {
        /// The words before the program's.
        prefix: Vec<String>,
        /// Where the program is, as the sandbox sees it.
        program: String,
        /// Whether a second one can run beside it.
        neighbour: bool,
    },
    /// By a backend of this project, in a worker process.
    Backend(String),
    /// It cannot be; why.
    Missing(String),
}

/// Where peers are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Peers {
    /// `bwrap`.
    pub bubblewrap: Option<PathBuf>,
    /// `codex`.
    pub codex: Option<PathBuf>,
    /// `docker`.
    pub docker: Option<PathBuf>,
    /// The engine's address, such as `unix:///var/run/docker.sock`.
    pub docker_host: Option<String>,
    /// An image to run; it may be empty, as the program is static.
    pub docker_image: Option<String>,
    /// Why there is no engine or no image.
    pub docker_missing: Option<String>,
    /// A Python with the Agents SDK, and the adapter script.
    pub agents_sdk: Option<(PathBuf, PathBuf)>,
}

/// Returns everything that can be attacked, by the superuser if this is one, and by an ordinary user.
#[must_use]
pub fn targets(superuser: bool, own_user: u32, peers: &Peers) -> Vec<Target> {
    let ordinary = if superuser { ORDINARY_USER } else { own_user };
    let users =
        if superuser { vec![(0, "root"), (ordinary, "user")] } else { vec![(ordinary, "user")] };
    let mut targets = Vec::new();
    let mut add = |name: String, kind, user, launch| {
        targets.push(Target { name, kind, user, launch });
    };
    for (user, word) in &users {
        add(format!("none, {word}"), Kind::Control, *user, plain_command());
    }
    for (user, word) in &users {
        add(format!("Linux, {word}"), Kind::Own, *user, Launch::Backend("linux".to_owned()));
    }
    // Whoever may speak to an engine is root on its machine.
    let owner = if superuser { 0 } else { ordinary };
    add("Docker".to_owned(), Kind::Own, owner, docker_backend(peers));
    for (user, word) in &users {
        add(format!("bwrap, {word}"), Kind::Peer, *user, bubblewrap(peers));
    }
    if superuser {
        add("docker run".to_owned(), Kind::Peer, 0, docker(peers, false));
        add("docker run, hardened".to_owned(), Kind::Peer, 0, docker(peers, true));
    }
    for (user, word) in &users {
        add(format!("Codex, {word}"), Kind::Peer, *user, codex(peers));
    }
    for (user, word) in &users {
        add(format!("Agents SDK local, {word}"), Kind::Peer, *user, agents_sdk(peers));
    }
    targets
}

/// The program in the workspace on the host.
fn on_the_host() -> String {
    format!("{{ws}}/{PROGRAM_NAME}")
}

fn plain_command() -> Launch {
    Launch::Command { prefix: Vec::new(), program: on_the_host(), neighbour: true }
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

fn bubblewrap(peers: &Peers) -> Launch {
    let Some(program) = &peers.bubblewrap else {
        return Launch::Missing("bubblewrap is not installed (Debian: bubblewrap)".to_owned());
    };
    let mut prefix = vec![shown(program)];
    prefix.extend(words(
        "--unshare-all --die-with-parent --ro-bind / / --dev /dev --proc /proc --tmpfs /tmp --bind {ws} {ws} \
         --chdir {ws} --",
    ));
    Launch::Command { prefix, program: on_the_host(), neighbour: true }
}

fn docker_backend(peers: &Peers) -> Launch {
    match (&peers.docker_host, &peers.docker_image) {
        (Some(host), Some(image)) => Launch::Backend(format!("docker,{host},{image}")),
        _ => no_docker(peers),
    }
}

fn no_docker(peers: &Peers) -> Launch {
    let why = peers.docker_missing.as_deref().unwrap_or("none was named");
    Launch::Missing(format!("no container engine: {why}; name one in DOCKER_HOST"))
}

fn docker(peers: &Peers, hardened: bool) -> Launch {
    let (Some(program), Some(host), Some(image)) =
        (&peers.docker, &peers.docker_host, &peers.docker_image)
    else {
        return no_docker(peers);
    };
    let mut prefix = vec![shown(program), "--host".to_owned(), host.clone()];
    prefix.extend(words("run --rm -i -v {ws}:/workspace -w /workspace"));
    if hardened {
        prefix.extend(words(
            "--network none --cap-drop ALL --security-opt no-new-privileges --pids-limit 256 --memory 512m --read-only \
             --user 65534",
        ));
    }
    prefix.push(image.clone());
    Launch::Command { prefix, program: format!("/workspace/{PROGRAM_NAME}"), neighbour: true }
}

fn codex(peers: &Peers) -> Launch {
    let Some(program) = &peers.codex else {
        return Launch::Missing("codex is not installed (npm: @openai/codex)".to_owned());
    };
    let mut prefix = words("env HOME={ws}/home CODEX_HOME={ws}/home");
    prefix.push(shown(program));
    prefix.extend(words("sandbox -c sandbox_mode=\"workspace-write\" --"));
    Launch::Command { prefix, program: on_the_host(), neighbour: true }
}

fn agents_sdk(peers: &Peers) -> Launch {
    let Some((python, script)) = &peers.agents_sdk else {
        return Launch::Missing("the Agents SDK is not installed (PyPI: openai-agents)".to_owned());
    };
    let prefix = vec!["env".to_owned(), "HOME={ws}/home".to_owned(), shown(python), shown(script)];
    Launch::Command { prefix, program: on_the_host(), neighbour: false }
}
