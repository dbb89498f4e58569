//! What attempts to get out aim at on the host.

use std::{
    fs::{self, File},
    io::{Read, Write},
    net::{TcpListener, UdpSocket},
    os::{
        linux::net::SocketAddrExt,
        unix::{
            fs::PermissionsExt,
            net::{SocketAddr, UnixListener},
            process::CommandExt,
        },
    },
    process::{Child, Command, Stdio},
    thread,
};

use crate::host::unique;

/// Things of the host that a sandbox must not reach, made for one test and gone after it.
pub(crate) struct Targets {
    /// Text that nobody else has.
    pub(crate) token: String,
    directory: tempfile::TempDir,
    victim: Child,
    tcp_port: u16,
    udp_port: u16,
    leaked: File,
    key: u64,
}

impl Targets {
    pub(crate) fn new() -> Self {
        let token = format!("canary{}", unique());
        let directory = tempfile::Builder::new()
            .prefix("cofferdam-outside-")
            .tempdir_in("/var/tmp")
            .expect("a directory");
        let path = directory.path();
        fs::set_permissions(path, fs::Permissions::from_mode(0o777)).expect("open to all");
        fs::write(path.join("file"), &token).expect("a file");
        let victim = Command::new("sh")
            .args(["-c", "sleep 600; :", &format!("victim-{token}")])
            .env("CANARY", &token)
            .process_group(0)
            .stdin(Stdio::null())
            .spawn()
            .expect("a process");

        let tcp = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let udp = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        let (tcp_port, udp_port) =
            (tcp.local_addr().expect("bound").port(), udp.local_addr().expect("bound").port());
        let name = SocketAddr::from_abstract_name(&token).expect("a name");
        let local = UnixListener::bind_addr(&name).expect("a listener");
        let path_socket = UnixListener::bind(path.join("socket")).expect("a listener");
        fs::set_permissions(path.join("socket"), fs::Permissions::from_mode(0o777)).expect("open");
        let answer = token.clone();
        thread::spawn(move || {
            tcp.incoming().flatten().for_each(|mut s| drop(s.write_all(answer.as_bytes())))
        });
        for listener in [local, path_socket] {
            let answer = token.clone();
            thread::spawn(move || {
                listener
                    .incoming()
                    .flatten()
                    .for_each(|mut s| drop(s.write_all(answer.as_bytes())));
            });
        }
        thread::spawn(move || {
            let mut query = [0; 512];
            while let Ok((length, peer)) = udp.recv_from(&mut query) {
                let _ = udp.send_to(&query[..length], peer);
            }
        });

        // A descriptor that the host forgot to close on exec.
        let leaked = File::open(path.join("file")).expect("opens");
        rustix::io::fcntl_setfd(&leaked, rustix::io::FdFlags::empty()).expect("leaks");
        let key = unique() & 0x7fff_ffff;
        let targets = Self { key, token, directory, victim, tcp_port, udp_port, leaked };
        fs::write(targets.shared_memory(), "x").expect("shared memory");
        targets.run_outside(&format!("perl -e 'shmget({key}, 4096, 01666)'"));
        targets
    }

    fn shared_memory(&self) -> String {
        format!("/dev/shm/cofferdam-{}", self.token)
    }

    /// Replaces the names of targets in a script.
    pub(crate) fn fill(&self, script: &str) -> String {
        use std::os::fd::AsRawFd;
        script
            .replace("@TOKEN", &self.token)
            .replace("@OUTSIDE", &self.directory.path().display().to_string())
            .replace("@VICTIM", &self.victim.id().to_string())
            .replace("@TCP", &self.tcp_port.to_string())
            .replace("@KEY", &self.key.to_string())
            .replace("@UDP", &self.udp_port.to_string())
            .replace("@LEAKED", &self.leaked.as_raw_fd().to_string())
    }

    /// Returns whether a file was made outside, and removes it.
    pub(crate) fn was_made(&self, name: &str) -> bool {
        fs::remove_file(self.directory.path().join(name)).is_ok()
    }

    /// Runs a script on the host, without any wall, and returns what it printed.
    pub(crate) fn run_outside(&self, script: &str) -> String {
        let directory = tempfile::tempdir().expect("a directory");
        let mut command = Command::new("sh");
        command
            .args(["-c", script])
            .env("CANARY", &self.token)
            .current_dir(directory.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut child = command.spawn().expect("sh");
        let mut text = String::new();
        child.stdout.take().expect("piped").read_to_string(&mut text).expect("text");
        child.wait().expect("ended");
        text
    }
}

impl Drop for Targets {
    fn drop(&mut self) {
        // The group is the victim's own.
        let group = rustix::process::Pid::from_child(&self.victim);
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        let _ = self.victim.wait();
        let _ = fs::remove_file(self.shared_memory());
        self.run_outside(&format!("ipcrm -M {}", self.key));
    }
}
