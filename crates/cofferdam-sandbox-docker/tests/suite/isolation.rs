//! Attempts to get out, each with a control: the same script outside shows that it can work.
//!
//! A script prints `OPEN` if the attempt worked. Whatever else it does, such as being killed, counts as denied inside, and as
//! no proof outside. What does not work outside either proves nothing on this host and is not counted.
#![cfg(target_arch = "x86_64")]

use std::{
    io::Write as _,
    net::TcpListener,
    os::linux::net::SocketAddrExt as _,
    os::unix::net::{SocketAddr, UnixListener},
    process::Stdio,
};

use cofferdam_sandbox::{ExecRequest, Sandbox, SandboxBackend as _, SandboxExt as _, SandboxSpec};
use cofferdam_testkit::engine::{TestEngine, find, host_command};

use crate::engine::TestEngineExt as _;

/// Prints `OPEN` if a command succeeds.
fn attempt(command: &str) -> String {
    format!("if ( {command} ) >/dev/null 2>&1; then echo OPEN; else echo SHUT; fi")
}

/// A system call by number; it works if it does not return -1. Where it makes a child, the child ends.
fn call(number: u32, arguments: &str) -> String {
    // Through an array, since Perl does not hand constants to system calls.
    attempt(&format!(
        "perl -e 'my @a = ({arguments}); my $p = $$; my $r = syscall({number}, @a); exit 0 if $$ != $p; exit($r == -1)'"
    ))
}

fn socket(arguments: &str) -> String {
    attempt(&format!("perl -e 'socket(S, {arguments}) or exit 1'"))
}

/// A terminal of one's own as the controlling one, then a control of it.
fn terminal_control(control: &str) -> String {
    attempt(&format!(
        "perl -MPOSIX -e 'my $k = fork; if ($k) {{ waitpid($k, 0); exit($? != 0) }} \
         setsid(); $SIG{{HUP}} = \"IGNORE\"; open(M, \"+<\", \"/dev/ptmx\") or exit 2; my $z = pack(\"i\", 0); ioctl(M, 0x40045431, $z) or exit 3; \
         my $n = pack(\"i\", 0); ioctl(M, 0x80045430, $n) or exit 4; my $name = \"/dev/pts/\" . unpack(\"i\", $n); \
         open(S, \"+<\", $name) or exit 5; {control}'"
    ))
}

/// An i386 program that does `exit(7)` by `int 0x80`: the door around filters that look at numbers only.
fn old_abi() -> String {
    let header = "7f454c46010101000000000000000000020003000100000054800408340000000000000000000000340020000100000000000000";
    let segment = "0100000000000000008004080080040860000000600000000500000000100000";
    let code = "b801000000bb07000000cd80";
    format!(
        "perl -e 'print pack(\"H*\", \"{header}{segment}{code}\")' > i386 && chmod 755 i386; ./i386; \
         if [ $? = 7 ]; then echo OPEN; else echo SHUT; fi"
    )
}

fn attempts() -> Vec<(&'static str, String)> {
    vec![
        ("read a file of the host", attempt("grep -q @TOKEN @OUTSIDE/file")),
        ("write beside the root", attempt("touch /cofferdam-probe && rm /cofferdam-probe")),
        ("write below /etc", attempt("touch /etc/cofferdam-probe && rm /etc/cofferdam-probe")),
        ("change a mode in the image", attempt("f=$(command -v sh) && chmod 755 $f")),
        ("read the users' passwords", attempt("cat /etc/shadow")),
        (
            "read the disk",
            attempt("for d in /dev/vda /dev/sda; do head -c 1 $d && exit 0; done; exit 1"),
        ),
        ("make a device node", attempt("mknod disk b 1 0 && rm disk")),
        ("write the guest's program", attempt("[ -w /proc/1/exe ]")),
        ("read through /proc/1/root", attempt("[ -d /proc/1/root/etc ]")),
        ("the engine's socket", attempt("[ -S @ENGINE ]")),
        (
            "see a process of the host",
            attempt("cat /proc/[0-9]*/cmdline | tr '\\0' ' ' | grep -q '[v]ictim-@TOKEN'"),
        ),
        ("signal a process of the host", attempt("kill -0 @VICTIM")),
        (
            "an abstract socket of the host",
            attempt(
                "perl -MSocket -e 'socket(S, 1, 1, 0) and connect(S, pack(\"S\", 1) . \"\\0@TOKEN\") or exit 1'",
            ),
        ),
        (
            "loopback of the host",
            attempt(
                "perl -MSocket -e 'alarm 5; socket(S, 2, 1, 0) and connect(S, sockaddr_in(@PORT, inet_aton(\"127.0.0.1\"))) or exit 1'",
            ),
        ),
        (
            "a name server of the host",
            attempt("grep -v '^#' /etc/resolv.conf | grep nameserver | grep -qv 127.0.0.1"),
        ),
        ("mount", attempt("mkdir m; mount -t tmpfs none m && umount m")),
        ("chroot", attempt("chroot / true")),
        ("unshare a user namespace", call(272, "0x10000000")),
        ("clone a user namespace", call(56, "0x10000011, 0, 0, 0, 0")),
        (
            "clone a user namespace, new form",
            call(435, "pack(\"Q5 x48\", 0x10000000, 0, 0, 0, 17), 88"),
        ),
        ("enter a namespace", attempt("nsenter -t 1 -u true")),
        (
            "a file by handle",
            call(303, "-100, \"/bin\", pack(\"L2 x128\", 128, 0), pack(\"L\", 0), 0"),
        ),
        ("a mount by descriptor", call(430, "\"tmpfs\", 0")),
        ("clone a mount tree", call(428, "-100, \"/\", 1")),
        (
            "trace a child",
            attempt(
                "perl -e 'my $p = fork; if (!$p) { sleep 5; exit } my $r = syscall(101, 0x4206, $p, 0, 0); kill 9, $p; exit($r == -1)'",
            ),
        ),
        ("compare processes", call(312, "$$, $$, 2, 0, 0")),
        ("a key ring", call(250, "0, -3, 0")),
        ("a key", call(248, "\"user\", \"cofferdam-probe\", \"x\", 1, -3")),
        ("a program in the kernel", call(321, "0, pack(\"L4 x104\", 2, 4, 4, 1), 120")),
        ("a performance counter", call(298, "pack(\"L2 Q x104\", 1, 120, 0), 0, -1, -1, 0")),
        ("an asynchronous ring", call(425, "8, \"\\0\" x 120")),
        ("a page fault of one's own", call(323, "0x80001")),
        ("watch a file system", call(300, "0, 0")),
        ("a segment table", call(154, "0, \"\\0\" x 16, 16")),
        ("an odd personality", call(135, "0x40000")),
        ("the kernel's log", call(103, "10, 0, 0")),
        ("a virtual machine's socket", socket("40, 1, 0")),
        ("a netfilter socket", socket("16, 3, 12")),
        ("a packet socket", socket("17, 3, 768")),
        ("a raw socket", socket("2, 3, 1")),
        ("a ping socket", socket("2, 2, 1")),
        ("a multipath stream", socket("2, 1, 262")),
        ("another ABI", old_abi()),
        ("type into a terminal", terminal_control("my $c = \"x\"; exit(!ioctl(S, 0x5412, $c))")),
        (
            "type into a terminal, by a number with an upper half",
            terminal_control(
                "my @a = (fileno(S), 0x100005412, \"x\"); exit(syscall(16, @a) == -1)",
            ),
        ),
        ("the pattern of core files", attempt("[ -w /proc/sys/kernel/core_pattern ]")),
        ("the magic key", attempt("[ -w /proc/sysrq-trigger ]")),
        ("the kernel's memory", attempt("head -c 1 /proc/kcore | grep -q .")),
        ("the kernel's symbols", attempt("head -c 1 /proc/kallsyms | grep -q .")),
        ("the kernel's command line", attempt("grep -q . /proc/cmdline")),
        ("the list of keys", attempt("grep -q . /proc/keys")),
        ("control groups", attempt("[ -d /sys/fs/cgroup ]")),
        ("devices of the machine", attempt("[ -d /sys/class ]")),
        ("the host's name", attempt("hostname $(hostname)")),
        ("the clock", call(164, "0, 0")),
        ("become another user", attempt("perl -e '$> = 12345; exit($> != 12345)'")),
        ("a real-time priority", call(144, "0, 1, pack(\"i\", 1)")),
        (
            "a set-id program that works",
            attempt(
                "grep ' /workspace ' /proc/mounts | grep -qv nosuid || ! grep -q ' /workspace ' /proc/mounts",
            ),
        ),
    ]
}

/// What is there to be reached on the host.
struct Targets {
    token: String,
    directory: tempfile::TempDir,
    victim: std::process::Child,
    tcp: TcpListener,
    _abstract_socket: UnixListener,
}

impl Targets {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let token = format!("token{}", std::process::id());
        std::fs::write(directory.path().join("file"), &token).expect("a file");
        // One process, so that killing it leaves none.
        let victim = host_command("bash")
            .args(["-c", &format!("exec -a victim-{token} sleep 600")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("a process");
        let address = SocketAddr::from_abstract_name(&token).expect("a name");
        Self {
            tcp: TcpListener::bind("127.0.0.1:0").expect("a port"),
            _abstract_socket: UnixListener::bind_addr(&address).expect("a socket"),
            token,
            directory,
            victim,
        }
    }

    fn fill(&self, script: &str, engine: &TestEngine) -> String {
        let port = self.tcp.local_addr().expect("an address").port();
        let socket = engine.endpoint().to_string().replace("unix://", "");
        script
            .replace("@TOKEN", &self.token)
            .replace("@OUTSIDE", &self.directory.path().display().to_string())
            .replace("@ENGINE", &socket)
            .replace("@VICTIM", &self.victim.id().to_string())
            .replace("@PORT", &port.to_string())
    }
}

impl Drop for Targets {
    fn drop(&mut self) {
        let _ = self.victim.kill();
        let _ = self.victim.wait();
    }
}

async fn opens_inside(sandbox: &dyn Sandbox, script: &str) -> bool {
    let told = sandbox.run(ExecRequest::shell(script), 4096).await.expect("it ran");
    told.stdout.to_text().contains("OPEN")
}

/// In namespaces of its own, so that what works changes nothing of the host.
fn opens_outside(script: &str) -> bool {
    let directory = tempfile::tempdir().expect("a directory");
    let told = host_command("unshare")
        .args(["--uts", "--mount", "sh", "-c", script])
        .current_dir(directory.path())
        .output()
        .expect("a shell");
    String::from_utf8_lossy(&told.stdout).contains("OPEN")
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_gets_out() {
    let Some(engine) = TestEngine::get("isolation") else { return };
    if find("perl").is_none() {
        return cofferdam_testkit::skip("isolation", "perl is not installed");
    }
    let targets = Targets::new();
    let sandbox = engine.backend().create(&engine.spec()).await.expect("a sandbox");
    let (mut shown, mut open) = (0, Vec::new());
    let attempts = attempts();
    for (what, script) in &attempts {
        let script = targets.fill(script, engine);
        let outside = opens_outside(&script);
        let inside = opens_inside(&*sandbox, &script).await;
        shown += u32::from(outside);
        if inside {
            open.push(*what);
        }
        let control = if outside { "works outside" } else { "proves nothing here" };
        writeln!(std::io::stdout(), "{what}: {}, {control}", if inside { "OPEN" } else { "shut" })
            .expect("output");
    }
    sandbox.close().await.expect("closed");
    assert_eq!(open, Vec::<&str>::new(), "worked inside");
    let of = attempts.len();
    assert!(shown * 4 >= 3 * u32::try_from(of).expect("few"), "only {shown} of {of} work outside");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_process_is() {
    let Some(engine) = TestEngine::get("what_a_process_is") else { return };
    let backend = engine.backend();
    let spec = engine.spec();
    let (one, two) = tokio::join!(backend.create(&spec), backend.create(&spec));
    let (one, two) = (one.expect("a sandbox"), two.expect("a sandbox"));
    let read = async |sandbox: &dyn Sandbox| {
        let script = "grep -E '^(Cap|NoNewPrivs|Seccomp:|Uid)' /proc/self/status; ulimit -c; id -un; ls -d /sys/* /proc/bus/* 2>&-; :";
        let told = sandbox.run(ExecRequest::shell(script), 4096).await.expect("it ran");
        told.stdout.to_text().into_owned()
    };
    let (of_one, of_two) = (read(&*one).await, read(&*two).await);
    let user = |text: &str| {
        text.lines().next().and_then(|line| line.split('\t').nth(1)?.parse::<u32>().ok())
    };
    assert!(user(&of_one).is_some_and(|user| user >= 0x7000_0000), "{of_one}");
    assert_ne!(user(&of_one), user(&of_two), "each has a user of its own");
    let rest: String = of_one.lines().skip(1).map(|line| format!("{line}\n")).collect();
    let zero = "0000000000000000";
    assert_eq!(
        rest,
        format!(
            "CapInh:\t{zero}\nCapPrm:\t{zero}\nCapEff:\t{zero}\nCapBnd:\t{zero}\nCapAmb:\t{zero}\nNoNewPrivs:\t1\n\
             Seccomp:\t2\n0\nsandbox\n"
        )
    );
    one.close().await.expect("closed");
    two.close().await.expect("closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_bounded_in_number_everywhere() {
    let Some(engine) = TestEngine::get("inodes") else { return };
    let mut spec: SandboxSpec = engine.spec();
    spec.limits.disk_inodes = 800;
    let sandbox = engine.backend().create(&spec).await.expect("a sandbox");
    let script = "for d in /workspace /tmp ~ /dev/shm; do cd $d; i=0; while [ $i -lt 900 ]; do echo > $i || break; i=$((i+1)); done; done 2>&-;
                  ls /workspace /tmp ~ /dev/shm | grep -c '^[0-9]'";
    let told = sandbox.run(ExecRequest::shell(script), 4096).await.expect("it ran");
    let made: u64 = told.stdout.to_text().trim().parse().expect("a number");
    assert!((700..=800).contains(&made), "{made} of 800");
    sandbox.close().await.expect("closed");
}
