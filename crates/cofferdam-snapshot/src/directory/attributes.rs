//! Extended attributes: those of the user are kept, and none that means something to a kernel.

use std::os::fd::AsFd;

use rustix::{
    fs::{XattrFlags, fgetxattr, flistxattr, fsetxattr},
    io::Errno,
};

use crate::node::{MAX_XATTR_BYTES, Xattr};

/// The names that are kept.
const KEPT: &[u8] = b"user.";

/// What an overlay keeps of itself: it speaks of layers, and a restored tree has none.
const OVERLAY: &[u8] = b"user.overlay.";

/// The most attributes that are kept of one file.
const MAX_KEPT: usize = 64;

/// The most bytes of one value, as of Linux.
const MAX_VALUE: usize = 64 << 10;

/// Returns whether an attribute belongs into a snapshot and onto a restored file.
pub(super) fn is_kept(name: &[u8]) -> bool {
    name.starts_with(KEPT) && !name.starts_with(OVERLAY) && name.len() <= 255
}

/// Reads the attributes that are kept, in ascending order of names. `Err(None)` if there are more than can be.
pub(super) fn read(file: impl AsFd) -> Result<Vec<Xattr>, Option<Errno>> {
    let mut list = [0_u8; 1024];
    let length = match flistxattr(&file, &mut list[..]) {
        Ok(0) => return Ok(Vec::new()),
        Ok(length) => length,
        // No attributes here at all.
        Err(Errno::NOTSUP) => return Ok(Vec::new()),
        Err(Errno::RANGE) => return read_of(&file, &long_list(&file)?),
        Err(error) => return Err(Some(error)),
    };
    read_of(&file, &list[..length])
}

fn long_list(file: impl AsFd) -> Result<Vec<u8>, Option<Errno>> {
    // The most that the kernel tells.
    let mut list = vec![0; 64 << 10];
    let length = flistxattr(file, &mut list[..]).map_err(Some)?;
    list.truncate(length);
    Ok(list)
}

fn read_of(file: impl AsFd, list: &[u8]) -> Result<Vec<Xattr>, Option<Errno>> {
    let mut found = Vec::new();
    let mut bytes = 0;
    for name in list.split(|byte| *byte == 0).filter(|name| is_kept(name)) {
        let mut value = vec![0; MAX_VALUE];
        match fgetxattr(&file, name, &mut value[..]) {
            Ok(length) => value.truncate(length),
            // Removed since they were listed.
            Err(Errno::NODATA) => continue,
            Err(error) => return Err(Some(error)),
        }
        bytes += name.len() + value.len();
        if found.len() == MAX_KEPT || bytes > MAX_XATTR_BYTES {
            return Err(None);
        }
        value.shrink_to_fit();
        found.push(Xattr { name: name.to_vec(), value });
    }
    found.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

/// Gives a file the attributes that are kept; the others are left out.
pub(super) fn write(file: impl AsFd, xattrs: &[Xattr]) -> Result<(), Errno> {
    xattrs.iter().filter(|xattr| is_kept(&xattr.name)).try_for_each(|xattr| {
        fsetxattr(&file, xattr.name.as_slice(), &xattr.value, XattrFlags::empty())
    })
}

/// Returns whether an overlay marked an open directory as one that hides what is beneath.
pub(super) fn is_opaque(directory: impl AsFd) -> bool {
    ["user.overlay.opaque", "trusted.overlay.opaque"].into_iter().any(|name| {
        let mut value = [0_u8; 2];
        matches!(fgetxattr(&directory, name, &mut value[..]), Ok(1) if value[0] == b'y')
    })
}
