//! A small root file system of programs of this host: busybox, bash and perl, with their libraries.

use std::{
    fs, io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use super::{find, host_command};

/// Makes it in a directory that does not exist.
pub(super) fn make(top: &Path) -> io::Result<()> {
    let missing = |name| io::Error::other(format!("{name} is not installed"));
    for directory in ["bin", "etc", "tmp"] {
        fs::create_dir_all(top.join(directory))?;
    }
    let busybox = find("busybox").ok_or_else(|| missing("busybox (Debian: busybox-static)"))?;
    fs::copy(&busybox, top.join("bin/busybox"))?;
    let listed = host_command("busybox").arg("--list").output()?;
    for name in String::from_utf8_lossy(&listed.stdout).lines().filter(|n| *n != "busybox") {
        symlink("busybox", top.join("bin").join(name))?;
    }
    // The shell of busybox takes its own programs before those of others, so it is not the one that is used.
    let shell = find("dash").or_else(|| find("bash")).ok_or_else(|| missing("dash or bash"))?;
    fs::remove_file(top.join("bin/sh"))?;
    fs::copy(&shell, top.join("bin/sh"))?;
    // What busybox lacks or does otherwise, and perl where it is there: attempts to get out are written in it.
    let mut needed = vec![find("bash").ok_or_else(|| missing("bash"))?, shell];
    needed.extend(["cksum", "date", "stty"].into_iter().filter_map(find));
    if let Some(perl) = find("perl") {
        needed.push(perl);
        needed.extend(perl_modules()?);
    }
    for program in needed.clone() {
        needed.extend(libraries(&program)?);
    }
    for library in needed {
        let copy = match library.strip_prefix("/usr/bin") {
            Ok(name) => top.join("bin").join(name),
            Err(_) => top.join(library.strip_prefix("/").map_err(io::Error::other)?),
        };
        // Not through a link to busybox.
        let _ = fs::remove_file(&copy);
        fs::create_dir_all(copy.parent().unwrap_or(top))?;
        fs::copy(&library, copy)?;
    }
    Ok(())
}

/// The libraries of a program, as its loader tells.
fn libraries(program: &Path) -> io::Result<Vec<PathBuf>> {
    let listed = host_command("ldd").arg(program).output()?;
    let text = String::from_utf8_lossy(&listed.stdout).into_owned();
    let words = text.split_ascii_whitespace().filter(|word| word.starts_with('/'));
    Ok(words.map(PathBuf::from).collect())
}

/// The modules of a small Perl, as it finds them.
fn perl_modules() -> io::Result<Vec<PathBuf>> {
    let script = "require Socket; require POSIX; print join qq(\n), values %INC; print qq(\n$_) for @DynaLoader::dl_shared_objects";
    let listed = host_command("perl").args(["-e", script]).output()?;
    let text = String::from_utf8_lossy(&listed.stdout).into_owned();
    Ok(text.lines().map(PathBuf::from).filter(|path| path.is_file()).collect())
}
