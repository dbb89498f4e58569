//! Attempts to get out of a sandbox without namespaces, each with a control: the same script outside shows that it can work.
//!
//! A script prints `OPEN` if the attempt worked and `SHUT` if it was denied. One that prints neither was killed on the way,
//! which counts as denied inside and as no proof outside. What does not work outside either proves nothing on this host,
//! and is printed as such rather than counted.

use cofferdam_sandbox::Sandbox;

use crate::{host::run, targets::Targets};

/// Prints `OPEN` if a command succeeds.
pub(crate) fn attempt(command: &str) -> String {
    format!("if ( {command} ) >/dev/null 2>&1; then echo OPEN; else echo SHUT; fi")
}

/// A system call by number with Perl; it works if it does not return -1.
pub(crate) fn call(number: libc::c_long, arguments: &str) -> String {
    // Through an array, since Perl does not hand constants to system calls.
    attempt(&format!("perl -e 'my @a = ({arguments}); exit(syscall({number}, @a) == -1)'"))
}

/// A socket that can be made.
fn socket(arguments: &str) -> String {
    attempt(&format!("perl -e 'socket(S, {arguments}) or exit 1'"))
}

/// A connection over which the token comes.
fn connect(family: &str, address: &str) -> String {
    attempt(&format!(
        "perl -MSocket -e 'alarm 5; socket(S, {family}, SOCK_STREAM, 0) and connect(S, {address}) or exit 1; \
         exit(<S> !~ /^@TOKEN/)'"
    ))
}

/// An i386 program that does `exit(7)` by `int 0x80`: the door around filters that look at numbers only.
fn old_abi() -> String {
    let code = "b801000000bb07000000cd80";
    let header = "7f454c46010101000000000000000000020003000100000054800408340000000000000000000000340020000100000000000000";
    let segment = "0100000000000000008004080080040860000000600000000500000000100000";
    format!(
        "perl -e 'print pack(\"H*\", \"{header}{segment}{code}\")' > i386 && chmod 755 i386; ./i386; \
         if [ $? = 7 ]; then echo OPEN; else echo SHUT; fi"
    )
}

fn attempts() -> Vec<(&'static str, String)> {
    let mut list = vec![
        // The file system.
        ("read a file of the host", attempt("grep -q @TOKEN @OUTSIDE/file")),
        ("write a file of the host", attempt("echo x > @OUTSIDE/made")),
        ("write through a link", attempt("ln -s @OUTSIDE link && echo x > link/made")),
        ("read through /proc/1/root", attempt("ls /proc/1/root/ && [ $$ != 1 ]")),
        ("read the users' passwords", attempt("cat /etc/shadow")),
        ("see the home of root", attempt("ls -d /root")),
        ("see the host's other directories", attempt("ls -d /var/lib /boot /sys /opt")),
        ("change a mode below /usr", attempt("f=$(command -v env) && chmod $(stat -c %a $f) $f")),
        ("write below /usr", attempt("t=/usr/cofferdam-probe; touch $t && rm $t")),
        (
            "read the disk",
            attempt(
                "for d in /dev/vda /dev/sda /dev/nvme0n1; do head -c 1 $d && exit 0; done; exit 1",
            ),
        ),
        ("make a device node", attempt("mknod disk b 1 0")),
        (
            "use a leaked descriptor",
            attempt("grep -q @TOKEN /proc/self/fd/@LEAKED /dev/fd/@LEAKED"),
        ),
        (
            "a Unix socket of the host by path",
            connect("PF_UNIX", "sockaddr_un(\"@OUTSIDE/socket\")"),
        ),
        ("see the host's shared memory", attempt("ls /dev/shm/cofferdam-@TOKEN")),
        ("chroot", attempt("chroot / true")),
        ("mount", attempt("mkdir m; mount -t tmpfs none m && umount m")),
        ("mount in a new user namespace", attempt("unshare -Urm mount -t tmpfs none /tmp")),
        ("a new user namespace", attempt("unshare -U true")),
        ("enter the first process's namespaces", attempt("nsenter -t 1 -u true")),
        (
            "open a file by handle",
            call(
                libc::SYS_name_to_handle_at,
                "-100, \"/usr\", pack(\"L2 x128\", 128, 0), pack(\"L\", 0), 0",
            ),
        ),
        ("a new mount by descriptor", call(libc::SYS_fsopen, "\"tmpfs\", 0")),
        ("clone a mount tree", call(libc::SYS_open_tree, "-100, \"/\", 1")),
        // Processes.
        (
            "see a process of the host",
            attempt("cat /proc/[0-9]*/cmdline | tr '\\0' '\\n' | grep -q victim[-]@TOKEN"),
        ),
        (
            "read a secret of the host's environment",
            attempt(
                "cat /proc/[0-9]*/environ | tr '\\0' '\\n' | grep -v '^_' | grep -q CANARY=@TOKEN",
            ),
        ),
        ("have a secret in the environment", attempt("env | grep -q CANARY")),
        ("signal a process of the host", attempt("kill -0 @VICTIM")),
        ("trace a process of the host", call(libc::SYS_ptrace, "0x4206, @VICTIM, 0, 0")),
        (
            "trace a child",
            attempt(
                "perl -e 'my $p = fork; if (!$p) { sleep 5; exit } my $r = syscall(101, 0x4206, $p, 0, 0); kill 9, $p; exit($r == -1)'",
            ),
        ),
        (
            "read the memory of a child",
            attempt(
                "perl -e 'my $p = fork; if (!$p) { sleep 5; exit } my $b = \"\\0\" x 8; my $r = sysopen(M, \"/proc/$p/mem\", 2); kill 9, $p; exit(!$r)'",
            ),
        ),
        ("a shared memory segment of System V of the host", call(libc::SYS_shmget, "@KEY, 0, 0")),
        // The kernel.
        ("the pattern of core files", attempt("[ -w /proc/sys/kernel/core_pattern ]")),
        ("the magic key", attempt("[ -w /proc/sysrq-trigger ]")),
        (
            "the host's name by file",
            attempt("h=$(cat /proc/sys/kernel/hostname) && echo $h > /proc/sys/kernel/hostname"),
        ),
        ("the host's name by call", attempt("hostname $(hostname)")),
        ("the clock", attempt("date -s @$(date +%s)")),
        ("the kernel's log", attempt("dmesg")),
        ("the kernel's memory", attempt("head -c 1 /proc/kcore")),
        (
            "the kernel's symbols",
            attempt("[ -s /proc/kallsyms ] && head -c 1 /proc/kallsyms | grep -q ."),
        ),
        ("the kernel's command line", attempt("grep -q . /proc/cmdline")),
        ("the list of keys", attempt("grep -q . /proc/keys")),
        (
            "a cgroup of the host",
            attempt(
                "for f in /sys/fs/cgroup/cgroup.procs /sys/fs/cgroup/*/cgroup.procs; do [ -w $f ] && exit 0; done; exit 1",
            ),
        ),
        ("a key ring", call(libc::SYS_keyctl, "0, -3, 0")),
        ("a key", call(libc::SYS_add_key, "\"user\", \"cofferdam-probe\", \"x\", 1, -3")),
        ("a BPF map", call(libc::SYS_bpf, "0, pack(\"L4 x56\", 2, 4, 4, 1), 72")),
        (
            "a performance counter",
            call(
                libc::SYS_perf_event_open,
                "pack(\"L2 Q x24 Q x64\", 1, 112, 1, 0x60), 0, -1, -1, 0",
            ),
        ),
        ("an io_uring", call(libc::SYS_io_uring_setup, "1, \"\\0\" x 120")),
        ("a userfaultfd", call(libc::SYS_userfaultfd, "1")),
        (
            "a module",
            attempt(&format!(
                "perl -e 'my $p = \"\"; syscall({}, -1, $p, 0); exit($! == 1 || $! == 13 || $! == 38)'",
                libc::SYS_finit_module
            )),
        ),
        ("a file system watch", call(libc::SYS_fanotify_init, "0, 0")),
        ("a personality without random addresses", call(libc::SYS_personality, "0x0040000")),
        (
            "a swap file",
            attempt(&format!(
                "perl -e 'my $p = \"/nowhere\"; syscall({}, $p); exit($! == 1 || $! == 38)'",
                libc::SYS_swapoff
            )),
        ),
        (
            "typing into a terminal",
            attempt(
                "perl -e 'use POSIX; my $fd = POSIX::open(\"/dev/ptmx\", 2); open(T, \"+<&=\", $fd) or exit 1; my $c = \" \"; $! = 0; ioctl(T, 0x5412, $c); exit($! == 1)'",
            ),
        ),
        // The network.
        ("loopback of the host", connect("PF_INET", "sockaddr_in(@TCP, inet_aton(\"127.0.0.1\"))")),
        (
            "an abstract socket of the host",
            connect("PF_UNIX", "pack(\"Sa*\", AF_UNIX, \"\\0@TOKEN\")"),
        ),
        (
            "a resolver of the host",
            attempt(
                "perl -MSocket -e 'alarm 5; socket(S, PF_INET, SOCK_DGRAM, 0); send(S, \"query\", 0, sockaddr_in(@UDP, inet_aton(\"127.0.0.1\"))) or exit 1; my $r = \"\"; vec($r, fileno(S), 1) = 1; select($r, undef, undef, 2) or exit 1; recv(S, my $a, 512, 0); exit($a ne \"query\")'",
            ),
        ),
        (
            "a route out",
            attempt(
                "perl -MSocket -e 'socket(S, PF_INET, SOCK_DGRAM, 0); connect(S, sockaddr_in(53, inet_aton(\"169.254.169.254\"))) or exit 1'",
            ),
        ),
        ("a packet socket", socket("17, 3, 0")),
        ("a raw socket", socket("2, 3, 1")),
        ("a vsock", socket("40, 1, 0")),
        ("a crypto socket", socket("38, 5, 0")),
        ("a netfilter socket", socket("16, 3, 12")),
        // Privileges.
        (
            "a set-uid program of the host",
            attempt(
                "grep -q '^NoNewPrivs:.0' /proc/self/status && find /usr/bin /bin -maxdepth 1 -user root -perm -4001 | grep -q .",
            ),
        ),
        (
            "a capability in the bounding set",
            attempt("grep -q '^CapBnd:.*[1-9a-f]' /proc/self/status"),
        ),
        ("no filter of system calls", attempt("grep -q '^Seccomp:.0' /proc/self/status")),
        ("core files", attempt("[ \"$(ulimit -H -c)\" != 0 ]")),
    ];
    if cfg!(target_arch = "x86_64") {
        list.push(("the system calls of another architecture", old_abi()));
    }
    list
}

/// What came of attempts to get out of a sandbox.
pub(crate) struct Tried {
    /// Those that worked inside.
    pub(crate) open: Vec<&'static str>,
    /// How many work outside, and so show something.
    pub(crate) proven: usize,
    pub(crate) unproven: Vec<&'static str>,
}

/// Makes all attempts to get out.
pub(crate) async fn try_all(sealed: &dyn Sandbox, targets: &Targets) -> Tried {
    try_these(sealed, targets, attempts()).await
}

/// Makes these attempts, each a name and a script, outside and inside.
pub(crate) async fn try_these(
    sealed: &dyn Sandbox,
    targets: &Targets,
    attempts: Vec<(&'static str, String)>,
) -> Tried {
    let mut open = Vec::new();
    let mut unproven = Vec::new();
    let mut proven = 0;
    for (name, script) in attempts {
        let script = targets.fill(&script);
        let outside = targets.run_outside(&script);
        targets.was_made("made");
        // Each in a directory of its own, so that none finds what another left.
        let inside = run(
            sealed,
            &format!("t=${{TMPDIR:-/tmp}}/a; mkdir -p $t && cd $(mktemp -d -p $t) && {script}"),
        )
        .await;
        if inside.stdout.to_text().contains("OPEN") || targets.was_made("made") {
            open.push(name);
        }
        if outside.contains("OPEN") {
            proven += 1;
        } else {
            unproven.push(name);
        }
    }
    Tried { open, proven, unproven }
}
