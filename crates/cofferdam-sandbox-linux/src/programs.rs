//! The two programs as sealed memory files: nothing on the host's file systems, and nobody can change them.

use std::{
    io::{self, Write},
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    sync::OnceLock,
};

use rustix::{
    fs::{MemfdFlags, Mode, SealFlags},
    io::Errno,
};

/// The launcher, made by `build.rs` from `launcher/`.
const LAUNCHER: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/cofferdam-launcher"));

/// The programs of this process; the files are made once and shared by all sandboxes.
#[derive(Debug)]
pub(crate) struct Programs {
    launcher: OwnedFd,
    guest: OwnedFd,
}

impl Programs {
    /// Returns the programs, making them at the first call.
    pub(crate) fn get() -> io::Result<&'static Self> {
        static PROGRAMS: OnceLock<Programs> = OnceLock::new();
        if let Some(programs) = PROGRAMS.get() {
            return Ok(programs);
        }
        let programs = Self {
            launcher: sealed(c"cofferdam-launcher", LAUNCHER, Mode::from_raw_mode(0o555))?,
            // Not readable: the kernel then keeps whoever runs it from being looked into by others of the same user,
            // from its first instruction on.
            guest: sealed(
                c"cofferdam-guest",
                cofferdam_guest::PROGRAM,
                Mode::from_raw_mode(0o111),
            )?,
        };
        Ok(PROGRAMS.get_or_init(|| programs))
    }

    /// Returns the path under which a child of this process finds the launcher.
    pub(crate) fn launcher_path(&self) -> String {
        format!("/proc/self/fd/{}", self.launcher.as_raw_fd())
    }

    /// Returns the guest program.
    pub(crate) fn guest(&self) -> BorrowedFd<'_> {
        self.guest.as_fd()
    }
}

fn sealed(name: &std::ffi::CStr, content: &[u8], mode: Mode) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // From Linux 6.3 a host can let memory files be not executable unless they say that they are.
    let file = match rustix::fs::memfd_create(name, flags | MemfdFlags::EXEC) {
        Err(Errno::INVAL) => rustix::fs::memfd_create(name, flags)?,
        other => other?,
    };
    let mut file = std::fs::File::from(file);
    file.write_all(content)?;
    rustix::fs::fchmod(&file, mode)?;
    rustix::fs::fcntl_add_seals(
        &file,
        SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE,
    )?;
    Ok(file.into())
}
