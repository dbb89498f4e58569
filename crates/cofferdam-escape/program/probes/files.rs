//! Files, directories and devices of the host.

use std::{
    ffi::CString,
    fs,
    io::{self, Read},
    os::unix::{
        ffi::OsStrExt,
        fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink},
        net::UnixStream,
    },
    path::{Path, PathBuf},
    time::Duration,
};

use super::{probe_table, sight::process_ids};
use crate::{
    numbers as n,
    outcome::Outcome,
    run::exists,
    sys::{self, structure, sys},
    targets::{Targets, fingerprint, holds},
};

probe_table! { "files":
    host_file "host-file" "read a file of the host",
    host_file_write "host-file-write" "make a file on the host",
    host_file_mode "host-file-mode" "change the mode of a host file",
    host_file_times "host-file-times" "change the times of a host file",
    host_file_attribute "host-file-attribute" "set an extended attribute of a host file",
    host_file_link "host-file-link" "make a hard link to a host file",
    link_out "symlink-write" "write to the host through a symbolic link",
    process_roots "proc-root" "reach host files through /proc/PID/root and cwd",
    process_descriptors "proc-fd" "reach host files through /proc/PID/fd",
    shadow "shadow" "read the host's password hashes",
    homes "homes" "list home directories of the host",
    other_directories "host-directories" "list directories of the host that no command needs",
    engine_socket "engine-socket" "connect to a container engine's socket",
    path_socket "path-socket" "connect to a Unix socket of the host by path",
    descriptors "leaked-descriptors" "find descriptors that the launcher left open",
    by_handle "open-by-handle" "open files by handle past the root directory",
    block_devices "block-devices" "read a disk",
    device_nodes "device-nodes" "open other device nodes of the host",
    make_block_device "mknod" "make a device node",
    memory_device "dev-mem" "open physical memory",
    system_write "system-write" "add to the programs that later commands run",
    system_mode "system-mode" "change a program that later commands run",
    shared_memory "dev-shm" "find a file in the host's /dev/shm",
    sys_write "sys-write" "open a file of /sys for writing",
    set_id "set-id-mounts" "find a file system that honours set-id programs or devices",
}

const AT_FDCWD: i32 = -100;

fn c_path(path: &Path) -> CString {
    // A path with a NUL byte cannot exist.
    CString::new(path.as_os_str().as_bytes()).unwrap_or_default()
}

/// Open if the file holds the canary of this kind.
pub(super) fn file_holds(path: &Path, canary: &str) -> Outcome {
    match fs::File::open(path).and_then(|file| {
        let mut bytes = Vec::new();
        file.take(1 << 16).read_to_end(&mut bytes).map(|_| bytes)
    }) {
        Ok(bytes) if holds(&bytes, canary) => {
            Outcome::open(format!("read the canary in {}", path.display()))
        }
        Ok(_) => Outcome::denied("another file is there"),
        Err(error) => Outcome::refused(&error),
    }
}

fn host_file(targets: &Targets) -> Outcome {
    file_holds(&targets.outside.join("canary"), &targets.canary("file"))
}

fn host_file_write(targets: &Targets) -> Outcome {
    // The runner looks whether it is really there.
    Outcome::of(fs::write(targets.outside.join("made-by-write"), "x"), "made a file")
}

fn host_file_mode(targets: &Targets) -> Outcome {
    same_mode(&targets.outside.join("canary"))
}

fn same_mode(path: &Path) -> Outcome {
    let changed = fs::metadata(path).and_then(|old| fs::set_permissions(path, old.permissions()));
    Outcome::of(changed, format!("chmod {} worked", path.display()))
}

fn host_file_times(targets: &Targets) -> Outcome {
    Outcome::any([targets.outside.join("canary"), system_program()].map(|path| {
        let same = |old: fs::Metadata| {
            let times =
                structure!(32; old.atime(), old.atime_nsec(), old.mtime(), old.mtime_nsec());
            sys!(n::UTIMENSAT, AT_FDCWD, c_path(&path).as_c_str(), &times[..], 0)
        };
        Outcome::of(
            fs::metadata(&path).and_then(same),
            format!("set the times of {}", path.display()),
        )
    }))
}

fn host_file_attribute(targets: &Targets) -> Outcome {
    let path = c_path(&targets.outside.join("canary"));
    let name = c"user.cofferdam-probe";
    let set = sys!(n::SETXATTR, path.as_c_str(), name, &b"x"[..], 1, 0);
    if set.is_ok() {
        let _ = sys!(n::REMOVEXATTR, path.as_c_str(), name);
    }
    Outcome::of(set, "set and removed user.cofferdam-probe")
}

fn host_file_link(targets: &Targets) -> Outcome {
    match fs::hard_link(targets.outside.join("canary"), targets.outside.join("made-by-link")) {
        Ok(()) => Outcome::open("made a link"),
        Err(error) => Outcome::refused(&error),
    }
}

fn link_out(targets: &Targets) -> Outcome {
    let written =
        symlink(&targets.outside, "out").and_then(|()| fs::write("out/made-through-link", "x"));
    Outcome::of(written, "wrote through a link")
}

fn process_roots(targets: &Targets) -> Outcome {
    let inside = targets.outside.strip_prefix("/").unwrap_or(&targets.outside).join("canary");
    let tries = process_ids().into_iter().flat_map(|pid| {
        ["root", "cwd"].map(|link| {
            let mut up = PathBuf::from(format!("/proc/{pid}/{link}"));
            if link == "cwd" {
                up.extend(["..", "..", "..", "..", "..", "..", "..", ".."]);
            }
            file_holds(&up.join(&inside), &targets.canary("file"))
        })
    });
    Outcome::any(tries)
}

fn process_descriptors(targets: &Targets) -> Outcome {
    let tries = process_ids().into_iter().flat_map(|pid| {
        let listed = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        // Only what is named like the canary: opening others could take a connection or a terminal.
        let named = listed.filter(|entry| {
            fs::read_link(entry.path()).is_ok_and(|to| to == targets.outside.join("canary"))
        });
        named.map(|entry| file_holds(&entry.path(), &targets.canary("file"))).collect::<Vec<_>>()
    });
    Outcome::any(tries)
}

fn shadow(targets: &Targets) -> Outcome {
    match fs::read("/etc/shadow") {
        Ok(bytes) if fingerprint(&bytes) == targets.shadow => Outcome::open("read /etc/shadow"),
        Ok(_) => Outcome::denied("another file is there"),
        Err(error) => Outcome::refused(&error),
    }
}

fn homes(_: &Targets) -> Outcome {
    let homes = fs::read_dir("/home").into_iter().flatten().flatten().map(|home| home.path());
    // A sandbox's own home says nothing.
    let own = std::env::current_dir().unwrap_or_default();
    let others = homes.filter(|home| !own.starts_with(home) && !home.ends_with("sandbox"));
    Outcome::any(
        [PathBuf::from("/root")]
            .into_iter()
            .chain(others)
            .map(|home| Outcome::of(fs::read_dir(&home), format!("listed {}", home.display()))),
    )
}

fn other_directories(_: &Targets) -> Outcome {
    Outcome::any(["/boot", "/opt", "/srv", "/sys", "/var/lib", "/var/log"].map(|path| {
        match fs::read_dir(path).map(|mut entries| entries.next().is_some()) {
            // A sandbox may have an empty one of its own.
            Ok(false) => Outcome::denied(format!("nothing is in {path}")),
            listed => Outcome::of(listed, format!("listed {path}")),
        }
    }))
}

fn engine_socket(targets: &Targets) -> Outcome {
    let known =
        ["/var/run/docker.sock", "/run/containerd/containerd.sock", "/run/podman/podman.sock"];
    let paths = known.iter().map(PathBuf::from).chain([targets.engine_socket.clone()]);
    let paths = paths.filter(|path| !path.as_os_str().is_empty());
    Outcome::any(paths.map(|path| {
        Outcome::of(UnixStream::connect(&path), format!("connected to {}", path.display()))
    }))
}

fn path_socket(targets: &Targets) -> Outcome {
    match UnixStream::connect(targets.outside.join("socket")) {
        Ok(stream) => says(stream, &targets.canary("socket")),
        Err(error) => Outcome::refused(&error),
    }
}

/// Open if the other side says the canary within a second.
pub(super) fn says(mut stream: UnixStream, canary: &str) -> Outcome {
    let mut answer = vec![0; canary.len()];
    let heard = stream
        .set_read_timeout(Some(Duration::from_secs(1)))
        .and_then(|()| stream.read_exact(&mut answer));
    match heard {
        Ok(()) if answer == canary.as_bytes() => Outcome::open("it said the canary"),
        Ok(()) => Outcome::denied("somebody else answered"),
        Err(error) => Outcome::refused(&error),
    }
}

fn descriptors(targets: &Targets) -> Outcome {
    let open = fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    let leaked = open.filter_map(|entry| {
        let number: i32 = entry.file_name().to_str()?.parse().ok()?;
        let to = fs::read_link(entry.path()).ok()?;
        // The host's root directory or its secret file, not what this program opened itself.
        let ours = to == Path::new("/") || to == targets.outside.join("canary");
        (number > 2 && ours).then(|| format!("descriptor {number} is {}", to.display()))
    });
    let found: Vec<String> = leaked.collect();
    // Without `/proc`, the numbers themselves can be tried.
    let tried = (3..64).filter(|fd| fd_holds(*fd, &targets.canary("file"))).count();
    if found.is_empty() && tried == 0 {
        return Outcome::denied("no descriptor beyond standard error leads to the host");
    }
    Outcome::open(if found.is_empty() { "read a leaked file".to_owned() } else { found.join(", ") })
}

fn fd_holds(fd: i32, canary: &str) -> bool {
    let mut bytes = vec![0_u8; 256];
    let length = bytes.len();
    // Only regular files: a read of the pipe of an answer would hang.
    let regular = fs::metadata(format!("/proc/self/fd/{fd}")).is_ok_and(|it| it.is_file());
    regular && sys!(n::PREAD64, fd, &mut bytes[..], length, 0).is_ok() && holds(&bytes, canary)
}

fn by_handle(_: &Targets) -> Outcome {
    const O_DIRECTORY: i32 = 0o200_000;
    let Ok(root) = fs::File::open("/") else { return Outcome::broken("cannot open /") };
    let root = std::os::fd::OwnedFd::from(root);
    let mut handle = structure!(136; 128_u32, 0_i32);
    let mut mount = [0_u8; 4];
    let named = sys!(n::NAME_TO_HANDLE_AT, AT_FDCWD, c"/", &mut handle[..], &mut mount[..], 0);
    if named.is_err() {
        // The root directory of most file systems: inode 2 or so, whatever its generation.
        handle = structure!(136; 8_u32, 1_i32, 2_u32, 0_u32);
    }
    let opened = sys::descriptor(
        n::OPEN_BY_HANDLE_AT,
        &[(&root).into(), (&handle[..]).into(), O_DIRECTORY.into()],
    );
    Outcome::past_the_check(opened, &[116, 22])
}

fn nodes(wanted: impl Fn(&fs::Metadata, &str) -> bool) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for directory in ["/dev", "/dev/net", "/dev/input", "/dev/dri", "/dev/mapper", "/dev/vfio"] {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
            if entry.metadata().is_ok_and(|metadata| wanted(&metadata, &name)) {
                found.push(path);
            }
        }
    }
    found
}

fn try_nodes(paths: Vec<PathBuf>) -> Outcome {
    const O_NONBLOCK: i32 = 0o4000;
    const O_NOCTTY: i32 = 0o400;
    Outcome::any(paths.into_iter().map(|path| {
        let name = c_path(&path);
        let opened = sys::descriptor(
            n::OPENAT,
            &[AT_FDCWD.into(), name.as_c_str().into(), (O_NONBLOCK | O_NOCTTY).into(), 0.into()],
        );
        Outcome::of(opened, format!("opened {}", path.display()))
    }))
}

fn block_devices(_: &Targets) -> Outcome {
    try_nodes(nodes(|metadata, _| metadata.file_type().is_block_device()))
}

fn device_nodes(_: &Targets) -> Outcome {
    const HARMLESS: &[&str] =
        &["null", "zero", "full", "random", "urandom", "tty", "ptmx", "console", "watchdog", "mem"];
    try_nodes(nodes(|metadata, name| {
        // Opening a watchdog would start it.
        metadata.file_type().is_char_device()
            && !HARMLESS.contains(&name)
            && !name.starts_with("watchdog")
            && !name.starts_with("tty")
    }))
}

fn memory_device(_: &Targets) -> Outcome {
    Outcome::any(
        ["/dev/mem", "/dev/kmem", "/dev/port"]
            .map(|path| Outcome::of(fs::File::open(path), format!("opened {path}"))),
    )
}

fn make_block_device(_: &Targets) -> Outcome {
    const BLOCK: i32 = 0o060_600;
    const CHARACTER: i32 = 0o020_600;
    let disk = fs::metadata("/").map_or(0x0800, |root| root.dev());
    let device = |name, mode, number: u64| sys!(n::MKNODAT, AT_FDCWD, name, mode, number);
    Outcome::any([
        Outcome::of(device(c"disk", BLOCK, disk), "made a block device"),
        Outcome::of(device(c"memory", CHARACTER, 0x0101), "made a character device"),
    ])
}

fn system_program() -> PathBuf {
    let known = ["/usr/bin/env", "/usr/bin/true", "/bin/busybox", "/bin/sh"];
    known.iter().find(|path| exists(path)).map_or_else(PathBuf::new, PathBuf::from)
}

fn system_write(_: &Targets) -> Outcome {
    Outcome::any(["/usr", "/usr/bin", "/bin", "/lib", "/etc", "/boot"].map(|directory| {
        let file = format!("{directory}/.cofferdam-probe");
        let made = fs::write(&file, "x");
        if made.is_ok() {
            let _ = fs::remove_file(&file);
        }
        Outcome::of(made, format!("wrote below {directory}"))
    }))
}

fn system_mode(_: &Targets) -> Outcome {
    same_mode(&system_program())
}

fn shared_memory(targets: &Targets) -> Outcome {
    let name = format!("/dev/shm/cofferdam-{}", targets.token);
    file_holds(Path::new(&name), &targets.canary("shm"))
}

fn sys_write(_: &Targets) -> Outcome {
    // Opened, not written.
    let files = [
        "/sys/kernel/uevent_helper",
        "/sys/kernel/mm/transparent_hugepage/enabled",
        "/sys/power/state",
        "/sys/module/kernel/parameters/panic",
        "/sys/kernel/mm/ksm/run",
    ];
    Outcome::any(files.map(|file| {
        let opened = fs::OpenOptions::new().write(true).open(file);
        Outcome::of(opened, format!("opened {file} for writing"))
    }))
}

fn set_id(_: &Targets) -> Outcome {
    const NOSUID: u64 = 2;
    const NODEV: u64 = 4;
    let honours = |place: &str| -> io::Result<bool> {
        let mut buffer = [0_u8; 120];
        sys!(n::STATFS, CString::new(place)?.as_c_str(), &mut buffer[..])?;
        let mut flags = [0_u8; 8];
        flags.copy_from_slice(&buffer[80..88]);
        Ok(u64::from_ne_bytes(flags) & (NOSUID | NODEV) != (NOSUID | NODEV))
    };
    // Where a command can write, it can make such a program itself; elsewhere the host has some.
    let places = [".", "/tmp", "/dev/shm", "/usr"];
    let found: Vec<&str> = places
        .into_iter()
        .filter(|place| fs::metadata(place).is_ok_and(|it| it.permissions().mode() != 0))
        .filter(|place| honours(place).unwrap_or(false))
        .collect();
    if found.is_empty() {
        return Outcome::denied("nosuid,nodev everywhere");
    }
    Outcome::open(format!("without nosuid,nodev: {}", found.join(" ")))
}
