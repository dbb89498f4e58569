//! What the probes aim at: things of the host that the runner made, told in a file of `key=value` lines.

use std::{fs, io, path::PathBuf};

/// The runner's canaries. What is missing is empty or zero, and its probes find nothing.
#[derive(Debug, Clone, Default)]
pub(crate) struct Targets {
    /// Text that nobody else has; each canary holds it behind a word of its own.
    pub(crate) token: String,
    /// A directory of the host outside of the workspace.
    pub(crate) outside: PathBuf,
    /// A process of the host under the same user as the launcher.
    pub(crate) victim: i32,
    pub(crate) tcp_port: u16,
    pub(crate) udp_port: u16,
    /// A System V shared memory segment.
    pub(crate) shm_key: i32,
    /// A terminal of the host.
    pub(crate) terminal: PathBuf,
    /// FNV-1a of the host's `/etc/shadow`.
    pub(crate) shadow: String,
    /// A container engine's socket.
    pub(crate) engine_socket: PathBuf,
    /// Where the neighbour listens on its own loopback.
    pub(crate) neighbour_port: u16,
    pub(crate) neighbour_key: i32,
}

impl Targets {
    pub(crate) fn read(file: &str) -> io::Result<Self> {
        let text = fs::read_to_string(file)?;
        let get = |name: &str| {
            text.lines()
                .filter_map(|line| line.split_once('='))
                .find(|(key, _)| *key == name)
                .map(|(_, value)| value.to_owned())
                .unwrap_or_default()
        };
        let number = |name: &str| get(name).parse::<i32>().unwrap_or(0);
        let port = |name: &str| get(name).parse::<u16>().unwrap_or(0);
        if get("token").is_empty() {
            return Err(io::Error::other("the file of targets has no token"));
        }
        Ok(Self {
            token: get("token"),
            outside: get("outside").into(),
            victim: number("victim"),
            tcp_port: port("tcp_port"),
            udp_port: port("udp_port"),
            shm_key: number("shm_key"),
            terminal: get("terminal").into(),
            shadow: get("shadow"),
            engine_socket: get("engine_socket").into(),
            neighbour_port: port("neighbour_port"),
            neighbour_key: number("neighbour_key"),
        })
    }

    /// The text that one kind of canary holds.
    pub(crate) fn canary(&self, kind: &str) -> String {
        format!("{kind}-{}", self.token)
    }
}

/// Whether bytes hold a text.
pub(crate) fn holds(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len().max(1)).any(|window| window == text.as_bytes())
}

/// FNV-1a, so that the content of a file can be compared and is not told.
pub(crate) fn fingerprint(bytes: &[u8]) -> String {
    let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{hash:016x}")
}
