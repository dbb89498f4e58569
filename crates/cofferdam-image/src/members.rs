//! Members of a tar archive, read strictly: what two readers could understand differently is refused.
//!
//! The `tar` crate reads headers and finds the next one. Extension headers are read here, with a bound, since what they
//! say replaces names and sizes; the crate would read them whole into memory.

use std::io::{self, Read};

use tar::{Entries, EntryType};

use crate::{EntryProblem, ImageError, error::shown};

/// The longest extension header, in bytes.
const MAX_EXTENSION: u64 = 1 << 20;

/// What a member is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    Directory,
    Symlink,
    HardLink,
    /// A device node or a fifo.
    Special,
}

/// The headers of one member.
#[derive(Debug, Clone)]
pub(crate) struct Member {
    /// As written: not checked yet.
    pub(crate) path: Vec<u8>,
    pub(crate) kind: Kind,
    /// The target of a link, as written.
    pub(crate) link: Vec<u8>,
    /// Bytes of content; 0 for all but files.
    pub(crate) size: u64,
    pub(crate) mode: u32,
    /// Seconds since 1970.
    pub(crate) modified: u64,
    /// Extended attributes: name, then value.
    pub(crate) attributes: Vec<(Vec<u8>, Vec<u8>)>,
    /// Where the content begins in the archive, in bytes.
    pub(crate) offset: u64,
}

impl Member {
    pub(crate) fn refused(&self, problem: EntryProblem) -> ImageError {
        ImageError::Entry { entry: shown(&self.path), problem }
    }
}

/// What extension headers said on the member that follows them.
#[derive(Debug, Default)]
struct Extensions {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    records: Option<Vec<u8>>,
}

/// Calls `visit` with each member and its content; content that is not read is skipped.
///
/// `what` names the archive in errors.
pub(crate) fn walk<R: Read>(
    entries: Entries<'_, R>,
    what: &str,
    mut visit: impl FnMut(&Member, &mut dyn Read) -> Result<(), ImageError>,
) -> Result<(), ImageError> {
    let mut extensions = Extensions::default();
    for entry in entries.raw(true) {
        let mut entry = entry.map_err(|error| broken(what, error))?;
        let kind = entry.header().entry_type();
        let slot = match kind {
            EntryType::GNULongName => Some(&mut extensions.path),
            EntryType::GNULongLink => Some(&mut extensions.link),
            EntryType::XHeader => Some(&mut extensions.records),
            _ => None,
        };
        if let Some(slot) = slot {
            let bytes = read_extension(&mut entry, what)?;
            if slot.replace(bytes).is_some() {
                return Err(contradiction(&entry.path_bytes()));
            }
            continue;
        }
        if kind == EntryType::XGlobalHeader {
            // Comments of the program that wrote it. What would rename or resize every member is refused.
            let bytes = read_extension(&mut entry, what)?;
            let records = records(&bytes).ok_or_else(|| contradiction(&entry.path_bytes()))?;
            if records.iter().any(|(key, _)| matches!(*key, b"path" | b"linkpath" | b"size")) {
                return Err(contradiction(&entry.path_bytes()));
            }
            continue;
        }
        let member = member(&entry, std::mem::take(&mut extensions))?;
        visit(&member, &mut entry)?;
    }
    if extensions.path.is_some() || extensions.link.is_some() || extensions.records.is_some() {
        return Err(malformed(what, "it ends after a header that describes the next entry"));
    }
    Ok(())
}

/// Joins a header with the extensions before it.
fn member<R: Read>(
    entry: &tar::Entry<'_, R>,
    extensions: Extensions,
) -> Result<Member, ImageError> {
    let header = entry.header();
    let mut path = header.path_bytes().into_owned();
    let mut link = header.link_name_bytes().unwrap_or_default().into_owned();
    let mut attributes = Vec::new();
    let refuse = |path: &[u8], problem| ImageError::Entry { entry: shown(path), problem };

    // A GNU name ends with one NUL; one in its middle stays, and is refused as part of a path.
    let trimmed = |mut name: Vec<u8>| {
        if name.last() == Some(&0) {
            name.pop();
        }
        name
    };
    let (named, linked) = (extensions.path.is_some(), extensions.link.is_some());
    path = extensions.path.map_or(path, trimmed);
    link = extensions.link.map_or(link, trimmed);
    let size = entry.size();
    if let Some(bytes) = &extensions.records {
        let records = records(bytes).ok_or_else(|| refuse(&path, EntryProblem::Contradiction))?;
        for (key, value) in records {
            match key {
                // Two mechanisms that name the same member.
                b"path" if named => return Err(refuse(&path, EntryProblem::Contradiction)),
                b"linkpath" if linked => return Err(refuse(&path, EntryProblem::Contradiction)),
                b"path" => path = value.to_vec(),
                b"linkpath" => link = value.to_vec(),
                // Readers disagree on which of two sizes counts, and what one takes for content is members to another.
                b"size"
                    if std::str::from_utf8(value).ok().and_then(|text| text.parse().ok())
                        != Some(size) =>
                {
                    return Err(refuse(&path, EntryProblem::Contradiction));
                }
                key if key.starts_with(b"GNU.sparse.") => {
                    return Err(refuse(&path, EntryProblem::Sparse));
                }
                key => {
                    if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                        attributes.push((name.to_vec(), value.to_vec()));
                    }
                }
            }
        }
    }
    let kind = match header.entry_type() {
        // Before directories had a type of their own.
        EntryType::Regular if path.ends_with(b"/") => Kind::Directory,
        EntryType::Regular | EntryType::Continuous => Kind::File,
        EntryType::Directory => Kind::Directory,
        EntryType::Symlink => Kind::Symlink,
        EntryType::Link => Kind::HardLink,
        EntryType::Char | EntryType::Block | EntryType::Fifo => Kind::Special,
        EntryType::GNUSparse => return Err(refuse(&path, EntryProblem::Sparse)),
        _ => return Err(refuse(&path, EntryProblem::Kind)),
    };
    // Readers disagree on whether content follows such an entry.
    if kind != Kind::File && size != 0 {
        return Err(refuse(&path, EntryProblem::Contradiction));
    }
    let mode = header.mode().map_err(|_| refuse(&path, EntryProblem::Contradiction))?;
    let modified = header.mtime().unwrap_or(0);
    let offset = entry.raw_file_position();
    Ok(Member { path, kind, link, size, mode, modified, attributes, offset })
}

fn read_extension<R: Read>(
    entry: &mut tar::Entry<'_, R>,
    what: &str,
) -> Result<Vec<u8>, ImageError> {
    let size = entry.size();
    if size > MAX_EXTENSION {
        return Err(ImageError::TooLarge {
            what: "an extension header of an archive, in bytes,",
            limit: MAX_EXTENSION,
        });
    }
    let mut bytes = Vec::new();
    entry.read_to_end(&mut bytes).map_err(|error| broken(what, error))?;
    if bytes.len() as u64 != size {
        return Err(malformed(what, "it ends in the middle of a header"));
    }
    Ok(bytes)
}

/// Reads `length key=value\n` records; `None` if they are malformed.
fn records(mut bytes: &[u8]) -> Option<Vec<(&[u8], &[u8])>> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let space = bytes.iter().position(|&byte| byte == b' ')?;
        let length: usize = std::str::from_utf8(&bytes[..space]).ok()?.parse().ok()?;
        let record = bytes.get(space + 1..length)?.strip_suffix(b"\n")?;
        let equals = record.iter().position(|&byte| byte == b'=')?;
        found.push((&record[..equals], &record[equals + 1..]));
        bytes = &bytes[length..];
    }
    Some(found)
}

fn contradiction(name: &[u8]) -> ImageError {
    ImageError::Entry { entry: shown(name), problem: EntryProblem::Contradiction }
}

fn malformed(what: &str, reason: &str) -> ImageError {
    ImageError::Malformed { what: what.to_owned(), reason: reason.to_owned() }
}

/// Sorts an error of reading an archive: a limit that a reader below it enforces, the host's own, or the archive's.
pub(crate) fn broken(what: &str, error: io::Error) -> ImageError {
    if error.raw_os_error().is_some() {
        return ImageError::Source { path: what.into(), source: error };
    }
    let text = error.to_string();
    match error.downcast::<ImageError>() {
        Ok(limit) => limit,
        Err(_) => ImageError::Malformed { what: what.to_owned(), reason: text },
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn records_may_hold_any_bytes() {
        let bytes = b"19 path=a=b\nc d\0e\xff\n13 key=value\n";
        let expect: Vec<(&[u8], &[u8])> = vec![(b"path", b"a=b\nc d\0e\xff"), (b"key", b"value")];
        assert_eq!(records(bytes), Some(expect));
        assert_eq!(records(b""), Some(Vec::new()));
        for bytes in [
            b"4 a=".as_slice(),
            b"x a=b\n",
            b"99 a=b\n",
            b"0 a=b\n",
            b"2 a=b\n",
            b"5 ab\n",
            b"-1 a=b\n",
            b"18446744073709551615 a=b\n",
        ] {
            assert_eq!(records(bytes), None, "{}", String::from_utf8_lossy(bytes));
        }
    }

    proptest! {
        #[test]
        fn no_bytes_break_the_reader(bytes in proptest::collection::vec(any::<u8>(), 0..2048)) {
            let _ = records(&bytes);
            let mut archive = tar::Archive::new(bytes.as_slice());
            let entries = archive.entries().expect("at the start");
            let _ = walk(entries, "it", |_, content| {
                io::copy(content, &mut io::sink()).map_err(|error| broken("it", error)).map(drop)
            });
        }
    }
}
