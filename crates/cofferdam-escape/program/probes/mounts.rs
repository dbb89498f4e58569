//! Mounts and namespaces: changing what the sandbox is made of.

use std::{fs, io, os::fd::OwnedFd};

use super::{probe_table, sight::first};
use crate::{
    numbers as n,
    outcome::{EBADF, EINVAL, ENOENT, Outcome},
    sys::{self, Word, structure, sys},
    targets::Targets,
};

probe_table! { "mounts and namespaces":
    tmpfs "mount-tmpfs" "mount a file system",
    bind "mount-bind" "mount one directory over another",
    procfs "mount-proc" "mount a process file system without masks",
    overlay "mount-overlay" "mount an overlay",
    remount "remount" "remount a read-only place to be written",
    new_mount "fsopen" "make a mount by descriptor (fsopen)",
    clone_mounts "open-tree" "clone a mount tree (open_tree)",
    move_mount "move-mount" "attach a mount by descriptor (move_mount)",
    set_mount "mount-setattr" "change a mount's attributes (mount_setattr)",
    unmount "umount" "unmount what masks the host",
    pivot "pivot-root" "change the root (pivot_root)",
    chroot "chroot" "change the root (chroot)",
    enter_first "setns-init" "enter namespaces of the first process",
    enter_victim "setns-host" "enter namespaces of a host process",
    enter_by_pidfd "setns-pidfd" "enter namespaces by a process descriptor",
    user_namespace "userns-unshare" "make a user namespace (unshare)",
    user_namespace_clone3 "userns-clone3" "make a user namespace (clone3)",
    user_namespace_mount "userns-mount" "mount in a new user namespace",
    other_namespaces "other-namespaces" "make mount, network and other namespaces",
}

const CLONE_NEWNS: i32 = 0x0002_0000;
const CLONE_NEWCGROUP: i32 = 0x0200_0000;
const CLONE_NEWUTS: i32 = 0x0400_0000;
const CLONE_NEWIPC: i32 = 0x0800_0000;
pub(super) const CLONE_NEWUSER: i32 = 0x1000_0000;
const CLONE_NEWPID: i32 = 0x2000_0000;
const CLONE_NEWNET: i32 = 0x4000_0000;
const CLONE_NEWTIME: i32 = 0x80;
const MNT_DETACH: i32 = 2;
const AT_FDCWD: i32 = -100;

/// Mounts on a directory of the probe's own, and unmounts.
pub(super) fn mount(kind: &std::ffi::CStr, options: Word) -> Outcome {
    if let Err(error) = fs::create_dir_all("mountpoint") {
        return Outcome::broken(format!("no directory: {error}"));
    }
    let none = c"none";
    let made =
        sys::call(n::MOUNT, &[none.into(), c"mountpoint".into(), kind.into(), 0.into(), options]);
    if made.is_ok() {
        let _ = sys!(n::UMOUNT2, c"mountpoint", MNT_DETACH);
    }
    Outcome::of(made, format!("mounted {}", kind.to_string_lossy()))
}

fn tmpfs(_: &Targets) -> Outcome {
    mount(c"tmpfs", 0.into())
}

fn procfs(_: &Targets) -> Outcome {
    mount(c"proc", 0.into())
}

fn overlay(_: &Targets) -> Outcome {
    // Without layers the kernel finds fault with the options, after the check.
    match mount(c"overlay", 0.into()) {
        Outcome::Broken(seen) => Outcome::open(format!("{seen}: past the check of permissions")),
        other => other,
    }
}

fn bind(_: &Targets) -> Outcome {
    // With all below it: a mount that came with the namespace cannot be taken from its place.
    const MS_BIND_ALL: i32 = 0x5000;
    if let Err(error) = fs::create_dir_all("mountpoint") {
        return Outcome::broken(format!("no directory: {error}"));
    }
    let made = sys!(n::MOUNT, c"/", c"mountpoint", 0, MS_BIND_ALL, 0);
    if made.is_ok() {
        let _ = sys!(n::UMOUNT2, c"mountpoint", MNT_DETACH);
    }
    Outcome::of(made, "bound / into the workspace")
}

fn remount(_: &Targets) -> Outcome {
    const MS_REMOUNT: i32 = 32;
    const MS_BIND: i32 = 0x1000;
    // `mountinfo` names what is mounted read-only; a directory that is no mount is past the check with EINVAL.
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let read_only = text.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(4);
        let (place, options) = (fields.next()?, fields.next()?);
        options.split(',').any(|option| option == "ro").then(|| place.to_owned())
    });
    let place = read_only.into_iter().next().unwrap_or_else(|| "/".to_owned());
    let Ok(path) = std::ffi::CString::new(place.clone()) else {
        return Outcome::broken("a mount point with NUL");
    };
    // The same flags again would be harmless, but tell less: ask for it on a directory that is no mount point first.
    let beside = sys!(n::MOUNT, 0, c".", 0, MS_REMOUNT | MS_BIND, 0);
    if place == "/" {
        return Outcome::past_the_check(beside, &[EINVAL]);
    }
    match Outcome::past_the_check(beside, &[EINVAL]) {
        Outcome::Open(_) => {
            // Past the check: but a mount that came with the namespace may be locked, so really try it, and undo it.
            const MS_RDONLY: i32 = 1;
            let made = sys!(n::MOUNT, 0, path.as_c_str(), 0, MS_REMOUNT | MS_BIND, 0);
            if made.is_ok() {
                let _ = sys!(n::MOUNT, 0, path.as_c_str(), 0, MS_REMOUNT | MS_BIND | MS_RDONLY, 0);
            }
            Outcome::of(made, format!("made {place} writable for an instant"))
        }
        other => other,
    }
}

fn new_mount(_: &Targets) -> Outcome {
    Outcome::of(sys::descriptor(n::FSOPEN, &[c"tmpfs".into(), 0.into()]), "opened a file system")
}

fn clone_mounts(_: &Targets) -> Outcome {
    const CLONE_ALL_BELOW: i32 = 0x8001;
    let cloned =
        sys::descriptor(n::OPEN_TREE, &[AT_FDCWD.into(), c"/".into(), CLONE_ALL_BELOW.into()]);
    Outcome::of(cloned, "cloned the root mount")
}

fn move_mount(_: &Targets) -> Outcome {
    const EMPTY_PATHS: i32 = 0x44;
    let moved = sys!(n::MOVE_MOUNT, -1, c"", -1, c"", EMPTY_PATHS);
    Outcome::past_the_check(moved, &[EBADF, ENOENT, EINVAL])
}

fn set_mount(_: &Targets) -> Outcome {
    const MOUNT_ATTR_RDONLY: u64 = 1;
    // Clears and sets nothing that is not so already: read-only on a path that does not exist.
    let attributes = structure!(32; MOUNT_ATTR_RDONLY, 0_u64, 0_u64, 0_u64);
    let changed = sys!(n::MOUNT_SETATTR, AT_FDCWD, c"no-such-directory", 0, &attributes[..], 32);
    Outcome::past_the_check(changed, &[ENOENT, EINVAL])
}

fn unmount(_: &Targets) -> Outcome {
    const MNT_EXPIRE: i32 = 4;
    // The first call with this flag only marks an idle mount and answers EAGAIN; a busy one answers EBUSY.
    let marked = sys!(n::UMOUNT2, c"/proc", MNT_EXPIRE);
    Outcome::past_the_check(marked, &[11, 16])
}

fn pivot(_: &Targets) -> Outcome {
    let moved = sys!(n::PIVOT_ROOT, c"no-such-directory", c"no-such-directory");
    Outcome::past_the_check(moved, &[ENOENT])
}

fn chroot(_: &Targets) -> Outcome {
    Outcome::of(sys!(n::CHROOT, c"."), "changed the root to the workspace")
}

const NAMESPACES: [&str; 7] = ["uts", "ipc", "net", "mnt", "pid", "cgroup", "user"];

fn enter(pid: i32) -> Outcome {
    Outcome::any(NAMESPACES.map(|namespace| {
        let path = format!("/proc/{pid}/ns/{namespace}");
        let entered =
            fs::File::open(&path).and_then(|file| sys!(n::SETNS, &OwnedFd::from(file), 0));
        match entered {
            // One's own user namespace cannot be entered again, by nobody.
            Err(error) if error.raw_os_error() == Some(EINVAL) => Outcome::refused(&error),
            entered => Outcome::of(entered, format!("entered {path}")),
        }
    }))
}

fn enter_first(_: &Targets) -> Outcome {
    enter(first())
}

fn enter_victim(targets: &Targets) -> Outcome {
    enter(targets.victim)
}

fn enter_by_pidfd(targets: &Targets) -> Outcome {
    let tries = [targets.victim, first()].map(|pid| {
        let entered = sys::descriptor(n::PIDFD_OPEN, &[pid.into(), 0.into()])
            .and_then(|pidfd| sys!(n::SETNS, &pidfd, CLONE_NEWUTS | CLONE_NEWIPC));
        Outcome::of(entered, format!("entered namespaces of process {pid}"))
    });
    Outcome::any(tries)
}

fn user_namespace(_: &Targets) -> Outcome {
    Outcome::of(sys!(n::UNSHARE, CLONE_NEWUSER), "made a user namespace")
}

fn user_namespace_clone3(_: &Targets) -> Outcome {
    let flags = u64::from(CLONE_NEWUSER.unsigned_abs());
    let arguments = structure!(64; flags, 0_u64, 0_u64, 0_u64, 17_u64, 0_u64, 0_u64, 0_u64);
    match sys!(n::CLONE3, &arguments[..], 64) {
        Ok(0) => sys::exit_now(0),
        made => Outcome::of(made, "made a process in a user namespace"),
    }
}

fn user_namespace_mount(_: &Targets) -> Outcome {
    match sys!(n::UNSHARE, CLONE_NEWUSER | CLONE_NEWNS) {
        Ok(_) => tmpfs(&Targets::default()),
        Err(error) => Outcome::refused(&error),
    }
}

fn other_namespaces(_: &Targets) -> Outcome {
    let kinds = [
        ("mount", CLONE_NEWNS),
        ("network", CLONE_NEWNET),
        ("ipc", CLONE_NEWIPC),
        ("uts", CLONE_NEWUTS),
        ("pid", CLONE_NEWPID),
        ("cgroup", CLONE_NEWCGROUP),
        ("time", CLONE_NEWTIME),
    ];
    Outcome::any(kinds.map(|(name, flag)| -> Outcome {
        let made: io::Result<i64> = sys!(n::UNSHARE, flag);
        Outcome::of(made, format!("made a {name} namespace"))
    }))
}
