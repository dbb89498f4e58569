//! Merges layers into one tree, for where an overlay file system cannot stack them.
//!
//! Files are hard links to those of the layers, so that a merged root costs little more than its directories.

use std::{
    fs, io,
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, Dir, FileType},
    io::Errno,
};

use crate::{confine, unpack::LayerFacts};

/// A layer to merge: where its tree is, and what is known of it.
pub(crate) type Source<'a> = (&'a Path, &'a LayerFacts);

/// Merges layers, lowest first, into the empty directory `target`, and returns how many directories it has.
///
/// Both trees are this program's own, made by [`crate::unpack`]; no other path is followed all the same.
pub(crate) fn merge(layers: &[Source<'_>], target: &OwnedFd) -> io::Result<u64> {
    let mut made = 0;
    for (path, facts) in layers {
        let tree = confine::open_host_directory(path)?;
        let mut todo = vec![PathBuf::new()];
        while let Some(directory) = todo.pop() {
            let from = confine::open_directory(&tree, &directory)?;
            let to = confine::open_directory(target, &directory)?;
            if facts.opaque.contains(&directory) {
                clear(&to)?;
            }
            for entry in Dir::read_from(&from)? {
                let entry = entry?;
                let name = Path::new(std::ffi::OsStr::from_bytes(entry.file_name().to_bytes()));
                if matches!(name.as_os_str().as_bytes(), b"." | b"..") {
                    continue;
                }
                let Some(found) = confine::stat_here(&from, name.as_os_str())? else { continue };
                if confine::kind_of(&found) == FileType::Directory {
                    made += u64::from(make_directory(&to, name)?);
                    todo.push(directory.join(name));
                    continue;
                }
                remove(&to, name)?;
                if !confine::is_whiteout(&found) {
                    link(&from, &to, name)?;
                }
            }
        }
    }
    Ok(made)
}

/// Makes a directory in place of whatever is there; one that is there stays.
fn make_directory(parent: &OwnedFd, name: &Path) -> io::Result<bool> {
    match confine::stat_here(parent, name.as_os_str())? {
        Some(found) if confine::kind_of(&found) == FileType::Directory => return Ok(false),
        Some(_) => rustix::fs::unlinkat(parent, name, AtFlags::empty())?,
        None => {}
    }
    confine::make_directory(parent, name.as_os_str())?;
    Ok(true)
}

/// Links a file or symbolic link, or copies it if it has too many names already.
fn link(from: &OwnedFd, to: &OwnedFd, name: &Path) -> io::Result<()> {
    match rustix::fs::linkat(from, name, to, name, AtFlags::empty()) {
        Err(Errno::MLINK) => {
            let mut source = fs::File::from(confine::open_following(from, name)?);
            let mut copy = confine::create_file(to, name.as_os_str())?;
            io::copy(&mut source, &mut copy)?;
            copy.set_permissions(source.metadata()?.permissions())
        }
        linked => Ok(linked?),
    }
}

/// Removes whatever is there, with all that is below it.
fn remove(parent: &OwnedFd, name: &Path) -> io::Result<()> {
    let Some(found) = confine::stat_here(parent, name.as_os_str())? else { return Ok(()) };
    if confine::kind_of(&found) != FileType::Directory {
        return Ok(rustix::fs::unlinkat(parent, name, AtFlags::empty())?);
    }
    let directory = confine::open_directory(parent, name)?;
    clear(&directory)?;
    Ok(rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR)?)
}

/// Empties a directory.
fn clear(directory: &OwnedFd) -> io::Result<()> {
    let names: Vec<_> = Dir::read_from(directory)?
        .map(|entry| entry.map(|entry| entry.file_name().to_owned()))
        .collect::<Result<_, _>>()?;
    for name in names {
        if !matches!(name.to_bytes(), b"." | b"..") {
            remove(directory, Path::new(std::ffi::OsStr::from_bytes(name.to_bytes())))?;
        }
    }
    Ok(())
}
