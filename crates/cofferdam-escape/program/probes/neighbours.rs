//! Another sandbox of the same backend, in which `probe neighbour` runs.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr as InternetAddress, TcpStream},
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixStream},
    },
    path::Path,
    time::Duration,
};

use super::{files::file_holds, probe_table, sight::process_ids};
use crate::{numbers as n, outcome::Outcome, stage, sys, sys::sys, targets::Targets};

probe_table! { "another sandbox":
    abstract_socket "neighbour-abstract" "connect to an abstract socket of another sandbox",
    loopback "neighbour-tcp" "connect to a port of another sandbox",
    temporary "neighbour-tmp" "find a file in /tmp of another sandbox",
    memory "neighbour-shm" "find a file in /dev/shm of another sandbox",
    segment "neighbour-sysv" "find a shared memory segment of another sandbox",
    signal "neighbour-signal" "see and signal a process of another sandbox",
}

fn abstract_socket(targets: &Targets) -> Outcome {
    let connected = SocketAddr::from_abstract_name(targets.canary("neighbour"))
        .and_then(|address| UnixStream::connect_addr(&address));
    Outcome::of(connected, "connected")
}

fn loopback(targets: &Targets) -> Outcome {
    let address = InternetAddress::from((Ipv4Addr::LOCALHOST, targets.neighbour_port));
    Outcome::of(TcpStream::connect_timeout(&address, Duration::from_secs(2)), "connected")
}

fn shared(targets: &Targets, place: &str) -> Outcome {
    let name = targets.canary("neighbour");
    file_holds(Path::new(&format!("{place}/{name}")), &name)
}

fn temporary(targets: &Targets) -> Outcome {
    shared(targets, "/tmp")
}

fn memory(targets: &Targets) -> Outcome {
    shared(targets, "/dev/shm")
}

fn segment(targets: &Targets) -> Outcome {
    Outcome::of(sys!(n::SHMGET, targets.neighbour_key, 0, 0), "found it")
}

fn signal(targets: &Targets) -> Outcome {
    let name = stage::comm(targets);
    let found = process_ids().into_iter().find(|pid| {
        fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim_end() == name)
    });
    match found {
        Some(pid) => Outcome::of(sys::kill(pid, 0), format!("signal 0 was sent to {pid}")),
        None => Outcome::denied("no such process in sight"),
    }
}
