//! The network of a sandbox: its own, with nothing but loopback, or the host's if that was opened.

use std::{
    io::Write,
    net::TcpListener,
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixListener},
    },
    thread,
};

use cofferdam_core::NetworkAccess;
use cofferdam_sandbox::{SandboxBackend, SandboxSpec};
use cofferdam_sandbox_linux::LinuxBackend;

use crate::host::{run, sandbox, small, unique};

/// Connects, and prints `OPEN` if the token comes over it.
fn connect(token: &str, family: &str, address: &str) -> String {
    format!(
        "if perl -MSocket -e 'alarm 5; socket(S, {family}, SOCK_STREAM, 0) and connect(S, {address}) or exit 1; \
         exit(<S> !~ /^{token}/)' >/dev/null 2>&1; then echo OPEN; else echo SHUT; fi"
    )
}

#[tokio::test]
async fn the_hosts_network_is_reached_only_if_it_was_opened() {
    let token = format!("canary{}", unique());
    let tcp = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let port = tcp.local_addr().expect("bound").port();
    let name = SocketAddr::from_abstract_name(&token).expect("a name");
    let local = UnixListener::bind_addr(&name).expect("a listener");
    let (to_tcp, to_local) = (token.clone(), token.clone());
    // These threads end with the test program.
    thread::spawn(move || {
        tcp.incoming().flatten().for_each(|mut it| drop(it.write_all(to_tcp.as_bytes())))
    });
    thread::spawn(move || {
        local.incoming().flatten().for_each(|mut it| drop(it.write_all(to_local.as_bytes())))
    });
    let address = format!("sockaddr_in({port}, inet_aton(\"127.0.0.1\"))");
    let script = connect(&token, "PF_INET", &address);
    let address = format!("pack(\"Sa*\", AF_UNIX, \"\\0{token}\")");
    let abstract_socket = connect(&token, "PF_UNIX", &address);
    for (network, expect) in [(NetworkAccess::None, "SHUT"), (NetworkAccess::Host, "OPEN")] {
        let sealed = sandbox(&SandboxSpec { network, ..small() }).await;
        assert_eq!(run(&*sealed, &script).await.stdout.to_text().trim(), expect, "{network:?}");
        // Not a part of the network that anybody means, so Landlock keeps it shut.
        assert_eq!(run(&*sealed, &abstract_socket).await.stdout.to_text().trim(), "SHUT");
        sealed.close().await.expect("closes");
    }
}

/// The network of a backend's first sandbox is made with it, that of a later one may have been made ahead.
#[tokio::test]
async fn each_sandbox_has_a_network_of_its_own_that_nobody_can_change() {
    let backend = LinuxBackend::new();
    let host = std::fs::read_link("/proc/self/ns/net").expect("a network of the host");
    let mut networks = vec![host.to_string_lossy().into_owned()];
    // It is up, nothing but loopback is there, and it cannot be taken down (SIOCSIFFLAGS).
    let script = "readlink /proc/self/ns/net; cut -d: -sf1 /proc/net/dev | tr -d ' '; \
                  perl -MSocket -e 'socket(S, PF_INET, SOCK_STREAM, 0) or die; \
                    bind(S, sockaddr_in(0, inet_aton(\"127.0.0.1\"))) and listen(S, 1) or die; \
                    socket(C, PF_INET, SOCK_STREAM, 0) and connect(C, getsockname(S)) and print \"up\\n\"; \
                    my $request = pack(\"Z16s\", \"lo\", 0) . (\"\\0\" x 22); \
                    print ioctl(S, 0x8914, $request) ? \"changed\\n\" : \"sealed\\n\"'";
    // All are kept: the number of a network that is gone may come again.
    let mut alive = Vec::new();
    for _ in 0..4 {
        let sealed = backend.create(&small()).await.expect("a sandbox");
        let seen = run(&*sealed, script).await.stdout.to_text().into_owned();
        let (network, rest) = seen.split_once('\n').expect("two lines");
        assert_eq!(rest, "lo\nup\nsealed\n");
        assert!(!networks.iter().any(|known| known == network), "{networks:?}, {network}");
        networks.push(network.to_owned());
        alive.push(sealed);
    }
    for sealed in alive {
        sealed.close().await.expect("closes");
    }
}
