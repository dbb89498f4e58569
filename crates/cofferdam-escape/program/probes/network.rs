//! The network, and sockets of kinds that lead elsewhere.

use std::{
    fs,
    io::Read,
    net::{Ipv4Addr, SocketAddr as InternetAddress, TcpStream, UdpSocket},
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixStream},
    },
    time::Duration,
};

use super::{files::says, probe_table};
use crate::{
    numbers as n,
    outcome::Outcome,
    sys::{self, structure, sys},
    targets::Targets,
};

probe_table! { "network":
    loopback "loopback-tcp" "connect to the host's loopback",
    resolver "loopback-udp" "ask a resolver on the host's loopback",
    abstract_socket "abstract-socket" "connect to an abstract Unix socket of the host",
    metadata "route-metadata" "have a route to the metadata address of clouds",
    outside "route-out" "have a route to the internet",
    outside_v6 "route-out-v6" "have a route to the internet by IPv6",
    interfaces "interfaces" "see network interfaces of the host",
    raw_icmp "raw-socket" "open a raw socket",
    ping "ping-socket" "open a ping socket",
    packet "packet-socket" "open a packet socket",
    vsock "vsock" "open a socket to the hypervisor (vsock)",
    crypto "alg-socket" "open a kernel crypto socket (AF_ALG)",
    netfilter "netlink-netfilter" "open a netfilter socket",
    audit "netlink-audit" "open an audit socket",
    events "netlink-uevent" "listen to device events",
    families "odd-sockets" "open a socket of an odd family",
    tunnel "tun" "make a network device",
}

fn loopback(targets: &Targets) -> Outcome {
    let address = InternetAddress::from((Ipv4Addr::LOCALHOST, targets.tcp_port));
    let canary = targets.canary("tcp");
    let heard =
        TcpStream::connect_timeout(&address, Duration::from_secs(2)).and_then(|mut stream| {
            stream.set_read_timeout(Some(Duration::from_secs(2)))?;
            let mut answer = vec![0; canary.len()];
            stream.read_exact(&mut answer).map(|()| answer)
        });
    match heard {
        Ok(answer) if answer == canary.as_bytes() => Outcome::open("it said the canary"),
        Ok(_) => Outcome::denied("somebody else answered"),
        Err(error) => Outcome::refused(&error),
    }
}

fn resolver(targets: &Targets) -> Outcome {
    let asked = UdpSocket::bind("127.0.0.1:0").and_then(|socket| {
        socket.set_read_timeout(Some(Duration::from_secs(1)))?;
        socket.connect((Ipv4Addr::LOCALHOST, targets.udp_port))?;
        socket.send(b"query")?;
        let mut answer = [0; 64];
        let length = socket.recv(&mut answer)?;
        Ok(answer[..length].to_vec())
    });
    match asked {
        Ok(answer) if answer == targets.canary("udp").as_bytes() => {
            Outcome::open("it said the canary")
        }
        Ok(_) => Outcome::denied("somebody else answered"),
        Err(error) => Outcome::refused(&error),
    }
}

fn abstract_socket(targets: &Targets) -> Outcome {
    let connected = SocketAddr::from_abstract_name(targets.canary("abstract"))
        .and_then(|address| UnixStream::connect_addr(&address));
    match connected {
        Ok(stream) => says(stream, &targets.canary("socket")),
        Err(error) => Outcome::refused(&error),
    }
}

/// Whether the kernel finds a route; connecting a datagram socket sends nothing.
fn route(address: &str) -> Outcome {
    let any = if address.contains('[') { "[::]:0" } else { "0.0.0.0:0" };
    let found = UdpSocket::bind(any).and_then(|socket| socket.connect(address));
    Outcome::of(found, format!("a route to {address}"))
}

fn metadata(_: &Targets) -> Outcome {
    route("169.254.169.254:80")
}

fn outside(_: &Targets) -> Outcome {
    // An address of the range for documentation.
    route("192.0.2.53:53")
}

fn outside_v6(_: &Targets) -> Outcome {
    route("[2001:db8::53]:53")
}

fn interfaces(_: &Targets) -> Outcome {
    let text = match fs::read_to_string("/proc/net/dev") {
        Ok(text) => text,
        Err(error) => return Outcome::refused(&error),
    };
    let names = text.lines().filter_map(|line| line.split_once(':')).map(|(name, _)| name.trim());
    // These appear by themselves in every new network namespace.
    let own = [
        "lo", "tunl0", "sit0", "ip6tnl0", "gre0", "gretap0", "erspan0", "ip_vti0", "ip6_vti0",
        "ip6gre0",
    ];
    let others: Vec<&str> = names.filter(|name| !own.contains(name)).collect();
    if others.is_empty() {
        return Outcome::denied("only its own loopback");
    }
    Outcome::open(others.join(" "))
}

const STREAM: i32 = 1;
const DATAGRAM: i32 = 2;
const RAW: i32 = 3;

fn socket(family: i32, kind: i32, protocol: i32) -> Outcome {
    let made = sys::descriptor(n::SOCKET, &[family.into(), kind.into(), protocol.into()]);
    Outcome::of(made, format!("opened a socket of family {family}"))
}

fn raw_icmp(_: &Targets) -> Outcome {
    socket(2, RAW, 1)
}

fn ping(_: &Targets) -> Outcome {
    socket(2, DATAGRAM, 1)
}

fn packet(_: &Targets) -> Outcome {
    socket(17, RAW, 0x0300)
}

fn vsock(_: &Targets) -> Outcome {
    socket(40, STREAM, 0)
}

fn crypto(_: &Targets) -> Outcome {
    socket(38, 5, 0)
}

fn netfilter(_: &Targets) -> Outcome {
    socket(16, RAW, 12)
}

fn audit(_: &Targets) -> Outcome {
    socket(16, RAW, 9)
}

fn events(_: &Targets) -> Outcome {
    socket(16, RAW, 15)
}

fn families(_: &Targets) -> Outcome {
    // All but Unix, IPv4, IPv6, netlink, and those with a row of their own.
    let others = (3..=45).filter(|family| ![10, 16, 17, 38, 40].contains(family));
    Outcome::any(others.map(|family| {
        Outcome::any([STREAM, DATAGRAM, RAW, 5].map(|kind| match socket(family, kind, 0) {
            Outcome::Broken(why) => Outcome::denied(why),
            other => other,
        }))
    }))
}

fn tunnel(_: &Targets) -> Outcome {
    const TUNSETIFF: u64 = 0x4004_54ca;
    const IFF_TUN: i16 = 1;
    let mut request = b"cofferdam%d\0\0\0\0\0".to_vec();
    request.extend(structure!(24; IFF_TUN));
    let made =
        fs::OpenOptions::new().read(true).write(true).open("/dev/net/tun").and_then(|file| {
            sys!(n::IOCTL, &std::os::fd::OwnedFd::from(file), TUNSETIFF, &mut request[..])
        });
    // The device is gone when its descriptor is.
    Outcome::of(made, "made a device for an instant")
}
