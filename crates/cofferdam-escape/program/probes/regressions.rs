//! Holes that others had, each as the step of its attack that a command inside can take.
//!
//! Those that need a prepared root file system or a second process outside are tried by the runner (`src/harness`).

use std::{
    fs,
    os::{fd::OwnedFd, unix::fs::FileTypeExt, unix::fs::MetadataExt},
    path::Path,
};

use super::{
    files::file_holds,
    mounts::{self, CLONE_NEWUSER},
    probe_table,
    processes::seize,
    sight::{is_the_probe, process_ids},
};
use crate::{
    numbers as n,
    outcome::{ETXTBSY, Outcome},
    sys::{self, structure, sys},
    targets::Targets,
};

probe_table! { "holes that others had":
    runc_2019_5736 "cve-2019-5736" "runc: overwrite the launcher through /proc/PID/exe",
    runc_2022_0492 "cve-2022-0492" "runc: set a release agent in a cgroup mount of a user namespace",
    runc_2024_21626 "cve-2024-21626" "runc: leave by a leaked directory descriptor",
    runc_2023_27561 "cve-2023-27561" "runc (and 2019-19921): a /proc that is not the kernel's",
    runc_2025_31133 "cve-2025-31133" "runc: a mask that is not the null device",
    runc_2025_52565 "cve-2025-52565" "runc: a console bound over what should be masked",
    runc_2025_52881 "cve-2025-52881" "runc: writes to /proc/self/attr that end in sysrq or core_pattern",
    bwrap_2017_5226 "cve-2017-5226" "bubblewrap: type into the launcher's terminal (TIOCSTI)",
    bwrap_2020_5291 "cve-2020-5291" "bubblewrap: get capabilities back by tracing the set-up in a user namespace",
    bwrap_2026_41163 "cve-2026-41163" "bubblewrap: trace the set-up process",
    codex_proc_sys "codex-proc-sys" "codex as root: write /proc/sys",
    sdk_parent "agents-sdk-parent-environ" "agents sdk: read the parent's environment",
}

fn runc_2019_5736(_: &Targets) -> Outcome {
    let others = process_ids().into_iter().filter(|pid| !is_the_probe(*pid));
    Outcome::any(others.map(|pid| rewritable(&format!("/proc/{pid}/exe"))))
}

/// Whether a program could be rewritten once it no longer runs. A sealed memory file never can.
fn rewritable(exe: &str) -> Outcome {
    const F_GET_SEALS: i32 = 1034;
    const F_SEAL_WRITE: i64 = 8;
    let sealed = fs::File::open(exe)
        .and_then(|file| sys!(n::FCNTL, &OwnedFd::from(file), F_GET_SEALS))
        .is_ok_and(|seals| seals & F_SEAL_WRITE != 0);
    if sealed {
        return Outcome::denied("a sealed memory file");
    }
    let opened = fs::OpenOptions::new().write(true).open(exe);
    Outcome::past_the_check(opened, &[ETXTBSY])
}

fn runc_2022_0492(_: &Targets) -> Outcome {
    const CLONE_NEWNS: i32 = 0x0002_0000;
    const CLONE_NEWCGROUP: i32 = 0x0200_0000;
    let direct = mounts::mount(c"cgroup", c"memory".into());
    if matches!(direct, Outcome::Open(_)) {
        return direct;
    }
    match sys!(n::UNSHARE, CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWCGROUP) {
        Ok(_) => mounts::mount(c"cgroup", c"memory".into()),
        Err(error) => Outcome::refused(&error),
    }
}

fn runc_2024_21626(targets: &Targets) -> Outcome {
    const O_RDONLY: i32 = 0;
    let inside = targets.outside.strip_prefix("/").unwrap_or(&targets.outside).join("canary");
    let Ok(name) = std::ffi::CString::new(inside.as_os_str().as_encoded_bytes()) else {
        return Outcome::broken("a path with NUL");
    };
    let opened = (3..256).find_map(|fd| {
        let file =
            sys::descriptor(n::OPENAT, &[fd.into(), name.as_c_str().into(), O_RDONLY.into()]);
        file.ok().map(|file| (fd, file))
    });
    let up = Path::new("../../../../../../../../../../").join(&inside);
    match opened {
        Some((fd, _)) => Outcome::open(format!("opened the canary beneath descriptor {fd}")),
        // The hole itself: a working directory outside of the root, from which `..` leads on.
        None => match file_holds(&up, &targets.canary("file")) {
            Outcome::Denied(_) => Outcome::denied("EBADF"),
            other => other,
        },
    }
}

fn runc_2023_27561(_: &Targets) -> Outcome {
    const PROC_MAGIC: [u8; 8] = 0x9fa0_u64.to_ne_bytes();
    let mut buffer = [0_u8; 120];
    match sys!(n::STATFS, c"/proc/self/attr", &mut buffer[..]) {
        Ok(_) if buffer[..8] == PROC_MAGIC => Outcome::denied("it is the kernel's"),
        Ok(_) => Outcome::open("/proc/self/attr is not of the process file system"),
        // No process file system: then there is nothing for a launcher to be fooled with.
        Err(error) => Outcome::refused(&error),
    }
}

fn runc_2025_31133(_: &Targets) -> Outcome {
    const NULL: u64 = 0x0103;
    let null = match fs::symlink_metadata("/dev/null") {
        Ok(null) => null,
        Err(error) => return Outcome::refused(&error),
    };
    if !null.file_type().is_char_device() || null.rdev() != NULL {
        return Outcome::open("/dev/null is something else");
    }
    // What a mask covers must be empty to read and lead nowhere to write.
    let masked = [
        "/proc/kcore",
        "/proc/keys",
        "/proc/timer_list",
        "/proc/sched_debug",
        "/proc/latency_stats",
    ];
    let tries = masked.map(|path| {
        use std::io::Read as _;
        let mut byte = [0];
        match fs::File::open(path).and_then(|mut file| file.read(&mut byte)) {
            Ok(0) => Outcome::denied("masked"),
            Ok(_) => Outcome::open(format!("read {path}")),
            Err(error) => Outcome::refused(&error),
        }
    });
    Outcome::any(tries)
}

fn runc_2025_52565(_: &Targets) -> Outcome {
    // The console must be a terminal or nothing; and what it could have been bound over stays shut.
    let console = match fs::symlink_metadata("/dev/console") {
        Ok(console) if console.file_type().is_symlink() => {
            Outcome::open("/dev/console is a symbolic link")
        }
        Ok(_) => Outcome::denied("it is no link"),
        Err(error) => Outcome::refused(&error),
    };
    Outcome::any([
        console,
        super::kernel::writable(&["/proc/sysrq-trigger", "/proc/sys/kernel/core_pattern"]),
    ])
}

fn runc_2025_52881(_: &Targets) -> Outcome {
    Outcome::any([
        redirected("/proc/self/attr/current"),
        redirected("/proc/thread-self/attr/exec"),
        super::kernel::writable(&["/proc/sysrq-trigger", "/proc/sys/kernel/core_pattern"]),
    ])
}

/// Whether a file of `/proc` is another file than the kernel's, put there by a mount.
fn redirected(path: &str) -> Outcome {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mounted = text.lines().filter_map(|line| line.split(' ').nth(4));
    if mounted.into_iter().any(|place| place.ends_with(path.trim_start_matches("/proc/self"))) {
        return Outcome::open(format!("something is mounted on {path}"));
    }
    Outcome::denied("nothing is mounted there")
}

fn bwrap_2017_5226(_: &Targets) -> Outcome {
    const TIOCSTI: u64 = 0x5412;
    let terminal =
        fs::OpenOptions::new().read(true).write(true).open("/dev/tty").map(OwnedFd::from);
    let tries = [
        Outcome::of(sys!(n::IOCTL, 0, TIOCSTI, &b" "[..]), "typed into standard input"),
        Outcome::of(
            terminal.and_then(|fd| sys!(n::IOCTL, &fd, TIOCSTI, &b" "[..])),
            "typed into the controlling terminal",
        ),
    ];
    Outcome::any(tries)
}

fn bwrap_2020_5291(_: &Targets) -> Outcome {
    const VERSION_3: u32 = 0x2008_0522;
    const CAP_SYS_ADMIN: u32 = 1 << 21;
    if let Err(error) = sys!(n::UNSHARE, CLONE_NEWUSER) {
        return Outcome::refused(&error);
    }
    let header = structure!(8; VERSION_3, 0_i32);
    let data = structure!(24; CAP_SYS_ADMIN, CAP_SYS_ADMIN, CAP_SYS_ADMIN);
    Outcome::of(sys!(n::CAPSET, &header[..], &data[..]), "a user namespace gave CAP_SYS_ADMIN")
}

fn bwrap_2026_41163(_: &Targets) -> Outcome {
    // Those that started the command: what set the sandbox up is one of them.
    let others = process_ids().into_iter().filter(|pid| !is_the_probe(*pid));
    Outcome::any(others.map(seize))
}

fn codex_proc_sys(_: &Targets) -> Outcome {
    super::kernel::writable(&["/proc/sys/kernel/hostname", "/proc/sys/kernel/core_pattern"])
}

fn sdk_parent(targets: &Targets) -> Outcome {
    // The chain of parents, from the one above the program that prints the answers.
    let mut pid = std::os::unix::process::parent_id();
    let mut steps = 0;
    while steps < 16 {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"));
        let Some(parent) = parent.and_then(|it| it.trim().parse::<u32>().ok()) else { break };
        if parent == 0 {
            break;
        }
        let outcome =
            file_holds(Path::new(&format!("/proc/{parent}/environ")), &targets.canary("inherited"));
        if matches!(outcome, Outcome::Open(_)) {
            return outcome;
        }
        pid = parent;
        steps += 1;
    }
    Outcome::denied(format!("not in the environment of {steps} parents"))
}
