//! The kernel: interfaces with a long history of holes, and settings of the whole machine.

use std::{fs, os::fd::OwnedFd};

use super::probe_table;
use crate::{
    numbers as n,
    outcome::{EBADF, EFAULT, EINVAL, ENODEV, ENOENT, Outcome},
    sys::{self, OldAbi, structure, sys},
    targets::Targets,
};

probe_table! { "kernel":
    io_uring "io-uring" "make an io_uring",
    add_key "add-key" "add a key to the session's ring",
    key_ring "keyctl" "reach a key ring",
    request_key "request-key" "ask the kernel to find a key",
    key_list "proc-keys" "read the list of keys",
    bpf "bpf" "make a BPF map",
    performance "perf" "open a performance counter",
    faults "userfaultfd" "handle page faults in user space",
    fanotify "fanotify" "watch a whole file system (fanotify)",
    settings "proc-sys-write" "open the core pattern, sysrq or modprobe path for writing",
    name_file "proc-sys-hostname" "open the host name's file for writing",
    random_file "proc-sys-random" "open other kernel settings for writing",
    cgroup_files "cgroup-write" "open control files of a cgroup for writing",
    kernel_memory "kcore" "read the kernel's memory or symbol addresses",
    command_line "proc-cmdline" "read the kernel's command line",
    log "dmesg" "read the kernel's log",
    clock "settimeofday" "set the clock",
    tune_clock "adjtimex" "tune the clock",
    reboot "reboot" "reboot",
    host_name "sethostname" "set the host name",
    module "finit-module" "load a module from a file",
    module_bytes "init-module" "load a module from memory",
    kexec "kexec" "load another kernel",
    accounting "acct" "switch process accounting",
    swap "swapon" "add or remove swap",
    ports "iopl" "use processor ports",
    segments "modify-ldt" "change the segment table",
    persona "personality" "switch off random addresses",
    old_calls "int80" "make system calls of 32-bit x86",
    x32_calls "x32" "make system calls of x32",
    trace_files "tracefs" "reach the kernel's tracing",
}

fn io_uring(_: &Targets) -> Outcome {
    let mut parameters = [0_u8; 120];
    let made = sys::descriptor(n::IO_URING_SETUP, &[1.into(), (&mut parameters[..]).into()]);
    Outcome::of(made, "made one")
}

const SESSION_KEYRING: i32 = -3;

fn add_key(_: &Targets) -> Outcome {
    const KEYCTL_UNLINK: i32 = 9;
    let added = sys!(n::ADD_KEY, c"user", c"cofferdam-probe", &b"x"[..], 1, SESSION_KEYRING);
    if let Ok(key) = added {
        let _ = sys!(n::KEYCTL, KEYCTL_UNLINK, key, SESSION_KEYRING);
    }
    Outcome::of(added, "added a key")
}

fn key_ring(_: &Targets) -> Outcome {
    const KEYCTL_GET_KEYRING_ID: i32 = 0;
    Outcome::of(
        sys!(n::KEYCTL, KEYCTL_GET_KEYRING_ID, SESSION_KEYRING, 0),
        "found the session's ring",
    )
}

fn request_key(_: &Targets) -> Outcome {
    const ENOKEY: i32 = 126;
    let found = sys!(n::REQUEST_KEY, c"user", c"cofferdam-no-such-key", 0, 0);
    Outcome::past_the_check(found, &[ENOKEY])
}

fn key_list(_: &Targets) -> Outcome {
    text("/proc/keys", |text| !text.is_empty())
}

/// Open if a file has a text that tells something.
fn text(path: &str, tells: impl Fn(&str) -> bool) -> Outcome {
    match fs::read_to_string(path) {
        Ok(text) if tells(&text) => Outcome::open(format!("read {path}")),
        Ok(_) => Outcome::denied("it is masked"),
        Err(error) => Outcome::refused(&error),
    }
}

fn bpf(_: &Targets) -> Outcome {
    const MAP_CREATE: i32 = 0;
    const ARRAY: u32 = 2;
    let attributes = structure!(72; ARRAY, 4_u32, 4_u32, 1_u32);
    let made = sys::descriptor(n::BPF, &[MAP_CREATE.into(), (&attributes[..]).into(), 72.into()]);
    Outcome::of(made, "made a map")
}

fn performance(_: &Targets) -> Outcome {
    const SOFTWARE: u32 = 1;
    const USER_ONLY: u64 = 0x60;
    let attributes = structure!(112; SOFTWARE, 112_u32, 0_u64, 0_u64, 0_u64, 0_u64, USER_ONLY);
    let opened = sys::descriptor(
        n::PERF_EVENT_OPEN,
        &[(&attributes[..]).into(), 0.into(), (-1).into(), (-1).into(), 0.into()],
    );
    Outcome::of(opened, "opened a counter")
}

fn faults(_: &Targets) -> Outcome {
    const USER_MODE_ONLY: i32 = 1;
    Outcome::any(
        [0, USER_MODE_ONLY].map(|flags| {
            Outcome::of(sys::descriptor(n::USERFAULTFD, &[flags.into()]), "opened one")
        }),
    )
}

fn fanotify(_: &Targets) -> Outcome {
    const REPORT_FID: i32 = 0x200;
    Outcome::any([0, REPORT_FID].map(|flags| {
        Outcome::of(sys::descriptor(n::FANOTIFY_INIT, &[flags.into(), 0.into()]), "opened a watch")
    }))
}

/// Open if one of the files can be opened for writing. None is written.
pub(super) fn writable(files: &[&str]) -> Outcome {
    Outcome::any(files.iter().map(|file| {
        let opened = fs::OpenOptions::new().write(true).open(file);
        Outcome::of(opened, format!("opened {file} for writing"))
    }))
}

fn settings(_: &Targets) -> Outcome {
    writable(&["/proc/sys/kernel/core_pattern", "/proc/sysrq-trigger", "/proc/sys/kernel/modprobe"])
}

fn name_file(_: &Targets) -> Outcome {
    writable(&["/proc/sys/kernel/hostname", "/proc/sys/kernel/domainname"])
}

fn random_file(_: &Targets) -> Outcome {
    writable(&[
        "/proc/sys/kernel/randomize_va_space",
        "/proc/sys/fs/binfmt_misc/register",
        "/proc/sys/vm/drop_caches",
        "/proc/sys/kernel/panic",
        "/proc/sys/user/max_user_namespaces",
        "/proc/irq/default_smp_affinity",
    ])
}

/// The control files in a directory of cgroups and the ones right below.
fn control_files(names: &[&str]) -> Vec<String> {
    let mut files = Vec::new();
    let top = "/sys/fs/cgroup".to_owned();
    let below = fs::read_dir(&top).into_iter().flatten().flatten();
    let below = below.map(|entry| entry.path().display().to_string());
    for directory in [top].into_iter().chain(below) {
        files.extend(names.iter().map(|name| format!("{directory}/{name}")));
    }
    files
}

fn cgroup_files(_: &Targets) -> Outcome {
    let files = control_files(&["cgroup.procs", "tasks", "release_agent", "notify_on_release"]);
    writable(&files.iter().map(String::as_str).collect::<Vec<_>>())
}

fn kernel_memory(_: &Targets) -> Outcome {
    let address = |text: &str| text.lines().any(|line| !line.starts_with("0000000000000000 "));
    Outcome::any([
        {
            use std::io::Read as _;
            let mut byte = [0];
            let read = fs::File::open("/proc/kcore").and_then(|mut file| file.read(&mut byte));
            match read {
                Ok(0) => Outcome::denied("it is masked"),
                read => Outcome::of(read, "read /proc/kcore"),
            }
        },
        text("/proc/kallsyms", address),
    ])
}

fn command_line(_: &Targets) -> Outcome {
    text("/proc/cmdline", |text| !text.trim().is_empty())
}

fn log(_: &Targets) -> Outcome {
    const SIZE_OF_BUFFER: i32 = 10;
    const READ_ALL: i32 = 3;
    let mut buffer = vec![0_u8; 256];
    Outcome::any([
        Outcome::of(sys!(n::SYSLOG, READ_ALL, &mut buffer[..], 256), "read it by syslog(2)"),
        Outcome::of(sys!(n::SYSLOG, SIZE_OF_BUFFER, 0, 0), "asked for its size"),
        Outcome::of(fs::File::open("/dev/kmsg"), "opened /dev/kmsg"),
    ])
}

fn clock(_: &Targets) -> Outcome {
    // A time zone that the kernel rejects, after the check of permissions.
    let zone = structure!(8; i32::MAX, 0_i32);
    let set = sys!(n::SETTIMEOFDAY, 0, &zone[..]);
    Outcome::past_the_check(set, &[EINVAL])
}

fn tune_clock(_: &Targets) -> Outcome {
    const ADJ_TICK: u32 = 0x4000;
    // A tick of 0 is out of every range.
    let mut values = structure!(208; ADJ_TICK);
    Outcome::past_the_check(sys!(n::ADJTIMEX, &mut values[..]), &[EINVAL])
}

fn reboot(_: &Targets) -> Outcome {
    // A bad magic number: EINVAL for whom the kernel would listen to.
    Outcome::past_the_check(sys!(n::REBOOT, 0, 0, 0, 0), &[EINVAL])
}

fn host_name(_: &Targets) -> Outcome {
    const TOO_LONG: i32 = 1 << 20;
    Outcome::past_the_check(sys!(n::SETHOSTNAME, c"", TOO_LONG), &[EINVAL])
}

fn module(_: &Targets) -> Outcome {
    Outcome::past_the_check(sys!(n::FINIT_MODULE, -1, c"", 0), &[EBADF, EINVAL])
}

fn module_bytes(_: &Targets) -> Outcome {
    Outcome::past_the_check(sys!(n::INIT_MODULE, 0, 0, c""), &[8, EFAULT, EINVAL])
}

fn kexec(_: &Targets) -> Outcome {
    const TOO_MANY: i32 = 1 << 20;
    Outcome::past_the_check(sys!(n::KEXEC_LOAD, 0, TOO_MANY, 0, 0), &[EINVAL, EFAULT])
}

fn accounting(_: &Targets) -> Outcome {
    Outcome::past_the_check(sys!(n::ACCT, c"/no-such-directory/file"), &[ENOENT])
}

fn swap(_: &Targets) -> Outcome {
    Outcome::any([
        Outcome::past_the_check(sys!(n::SWAPON, c"/no-such-file", 0), &[ENOENT, EINVAL]),
        Outcome::past_the_check(sys!(n::SWAPOFF, c"/no-such-file"), &[ENOENT, EINVAL]),
    ])
}

fn ports(_: &Targets) -> Outcome {
    Outcome::any([
        Outcome::of(sys!(n::IOPL, 3), "iopl(3)"),
        Outcome::of(sys!(n::IOPERM, 0x80, 1, 1), "ioperm of port 0x80"),
    ])
}

fn segments(_: &Targets) -> Outcome {
    const READ: i32 = 0;
    let mut table = [0_u8; 64];
    Outcome::of(sys!(n::MODIFY_LDT, READ, &mut table[..], 64), "it answered")
}

fn persona(_: &Targets) -> Outcome {
    const NO_RANDOM_ADDRESSES: i32 = 0x0004_0000;
    Outcome::of(sys!(n::PERSONALITY, NO_RANDOM_ADDRESSES), "it was switched off")
}

fn old_calls(_: &Targets) -> Outcome {
    Outcome::of(OldAbi::I386.process_id(), "getpid by int 0x80 answered")
}

fn x32_calls(_: &Targets) -> Outcome {
    Outcome::of(OldAbi::X32.process_id(), "getpid by x32 answered")
}

fn trace_files(_: &Targets) -> Outcome {
    let files =
        ["/sys/kernel/tracing/trace", "/sys/kernel/debug/tracing/trace", "/sys/kernel/debug"];
    Outcome::any(files.map(|path| match fs::File::open(path).map(OwnedFd::from) {
        Err(error) if error.raw_os_error() == Some(ENODEV) => Outcome::refused(&error),
        opened => Outcome::of(opened, format!("opened {path}")),
    }))
}
