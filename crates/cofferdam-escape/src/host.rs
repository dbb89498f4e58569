//! [`Host`]: things of the host that a sandbox must not reach, made for one run and gone after it.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write},
    net::{TcpListener, UdpSocket},
    os::{
        linux::net::SocketAddrExt,
        unix::{
            fs::{PermissionsExt, chown},
            net::{SocketAddr, UnixListener},
            process::CommandExt,
        },
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
};

use anyhow::{Context as _, Result};

/// Canaries of one user, each with text that nobody else has.
#[derive(Debug)]
pub struct Host {
    token: String,
    outside: tempfile::TempDir,
    shared_memory: PathBuf,
    victim: Child,
    terminal: String,
    tcp_port: u16,
    udp_port: u16,
    neighbour_port: u16,
    engine_socket: Option<PathBuf>,
    key: u32,
}

impl Host {
    /// Makes everything, owned by `user` as far as files and processes go.
    ///
    /// # Errors
    ///
    /// If the host cannot even be prepared; the text names what failed.
    #[expect(clippy::disallowed_methods, reason = "the victim is a process of the host")]
    pub fn prepare(user: u32, probe: &Path, engine_socket: Option<PathBuf>) -> Result<Self> {
        // Unique on this machine while this process lives.
        let key =
            std::process::id().wrapping_mul(16).wrapping_add(u32::from(user != 0)) & 0x3fff_ffff;
        let token = format!("{key:08x}");
        // Not in `/tmp`, which many sandboxes give to their commands.
        let outside =
            tempfile::Builder::new().prefix("cofferdam-outside-").tempdir_in("/var/tmp")?;
        open_to_all(outside.path())?;
        let canary = outside.path().join("canary");
        fs::write(&canary, format!("file-{token}\n"))?;
        let shared_memory = PathBuf::from(format!("/dev/shm/cofferdam-{token}"));
        fs::write(&shared_memory, format!("shm-{token}\n"))?;
        for file in [&canary, &shared_memory] {
            open_to_all(file)?;
            chown(file, Some(user), Some(user)).or_else(not_the_superuser(user))?;
        }

        let mut command = Command::new(probe);
        command
            .args(["victim", &format!("argv-{token}"), &key.to_string()])
            .env("COFFERDAM_CANARY", format!("environ-{token}"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        as_user(&mut command, user);
        let mut victim = command.spawn().context("could not start the victim")?;
        let mut line = String::new();
        if let Some(stdout) = victim.stdout.take() {
            BufReader::new(stdout).read_line(&mut line)?;
        }
        let told: serde_json::Value =
            serde_json::from_str(&line).context("the victim did not say its terminal")?;
        let terminal = told["terminal"].as_str().unwrap_or_default().to_owned();

        let tcp = TcpListener::bind("127.0.0.1:0")?;
        let udp = UdpSocket::bind("127.0.0.1:0")?;
        let (tcp_port, udp_port) = (tcp.local_addr()?.port(), udp.local_addr()?.port());
        let name = SocketAddr::from_abstract_name(format!("abstract-{token}"))?;
        let listeners =
            [UnixListener::bind_addr(&name)?, UnixListener::bind(outside.path().join("socket"))?];
        open_to_all(&outside.path().join("socket"))?;
        let answer = |kind: &str| format!("{kind}-{token}").into_bytes();
        let said = answer("tcp");
        // These threads end with the process; the runner is nothing else.
        thread::spawn(move || {
            tcp.incoming().flatten().for_each(|mut it| drop(it.write_all(&said)))
        });
        for listener in listeners {
            let said = answer("socket");
            thread::spawn(move || {
                listener.incoming().flatten().for_each(|mut it| drop(it.write_all(&said)));
            });
        }
        let said = answer("udp");
        thread::spawn(move || {
            let mut query = [0; 512];
            while let Ok((_, peer)) = udp.recv_from(&mut query) {
                let _ = udp.send_to(&said, peer);
            }
        });
        // A port that is free on the host now; the neighbour takes it inside its sandbox.
        let neighbour_port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        Ok(Self {
            token,
            outside,
            shared_memory,
            victim,
            terminal,
            tcp_port,
            udp_port,
            neighbour_port,
            engine_socket,
            key,
        })
    }

    /// The text behind every canary's own word.
    #[must_use]
    pub fn token(&self) -> &str {
        &self.token
    }

    /// The directory of the host that no sandbox was given.
    #[must_use]
    pub fn outside(&self) -> &Path {
        self.outside.path()
    }

    /// What the probe program reads: `key=value` lines.
    #[must_use]
    pub fn targets(&self) -> String {
        let shadow = fs::read("/etc/shadow").map(|bytes| fingerprint(&bytes)).unwrap_or_default();
        let engine_socket = self.engine_socket.clone().unwrap_or_default();
        format!(
            "token={}\noutside={}\nvictim={}\ntcp_port={}\nudp_port={}\nshm_key={}\nterminal={}\nshadow={shadow}\n\
             engine_socket={}\nneighbour_port={}\nneighbour_key={}\n",
            self.token,
            self.outside.path().display(),
            self.victim.id(),
            self.tcp_port,
            self.udp_port,
            self.key,
            self.terminal,
            engine_socket.display(),
            self.neighbour_port,
            self.key ^ 0x4000_0000,
        )
    }

    /// Takes away what attacks made on the host, and returns its names.
    ///
    /// A sandbox may show a private copy of the host's directory: only what is found here was really made.
    #[must_use]
    pub fn take_made(&self) -> Vec<String> {
        let entries = fs::read_dir(self.outside.path()).into_iter().flatten().flatten();
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        let made: Vec<String> =
            names.filter(|name| !["canary", "socket"].contains(&name.as_str())).collect();
        for name in &made {
            let path = self.outside.path().join(name);
            let _ = fs::remove_file(&path).or_else(|_| fs::remove_dir_all(&path));
        }
        made
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // The end of its input ends the victim, which removes its shared memory.
        drop(self.victim.stdin.take());
        let _ = self.victim.wait();
        let _ = fs::remove_file(&self.shared_memory);
    }
}

/// Lets a command run as another user, without the groups of this one.
pub(crate) fn as_user(command: &mut Command, user: u32) {
    if user != 0 {
        command.uid(user).gid(user);
    }
}

fn not_the_superuser(user: u32) -> impl Fn(std::io::Error) -> std::io::Result<()> {
    // Without the right to give files away, they are this user's already.
    move |error| if user == 0 { Err(error) } else { Ok(()) }
}

pub(crate) fn open_to_all(path: &Path) -> std::io::Result<()> {
    let mode = if path.is_dir() { 0o777 } else { 0o666 };
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

/// FNV-1a, as the probe program has it: the file can be compared and is not told.
fn fingerprint(bytes: &[u8]) -> String {
    let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{hash:016x}")
}
