//! What a directory source remembers of a walk: for each file what its file system told of it, so that the next walk knows
//! which contents cannot have changed.
//!
//! The file lies with whoever takes the snapshots, never in the tree. It is written beside its place while a tree is walked
//! and moved there when the snapshot is durable. It is read in the order of a walk and never whole, so that its size costs no
//! memory. Whatever is wrong with it (another version, a damaged block, an end that is missing) makes files be read again,
//! and is no error.
//!
//! ```text
//! "CDSTAT\0" u8 version | 32 tree | i64 moment | u64 offset of the notes | 16 checksum of these
//! blocks: u32 length | 16 checksum | path, number, entries          one for each directory with files, in order of the walk
//! notes:  u32 length | 16 checksum | number, notes
//! entry = name | inode | size | modified | changed | mode | attributes
//! note  = path | 0 (do not trust it)  or  path | 1 | attributes
//! ```
//!
//! # When a file is known
//!
//! Inode, size, mode and both times must be as they were. The time of the last change of *anything* is set by the kernel
//! alone: a program that writes to a file and sets its size and other time back is seen by it. As in git, a file whose times
//! are not before the moment at which the walk began could have changed after it was looked at, within one tick of the
//! clock: it is not known. That moment is taken from the file system, by making the new file.

use std::{
    cmp::Ordering,
    collections::HashMap,
    fs::File,
    io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write},
    os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use crate::{
    id::TreeId,
    node::Xattr,
    wire::{Decoder, Encoder, Malformed},
};

const MAGIC: &[u8; 7] = b"CDSTAT\0";
const VERSION: u8 = 1;
const CHECKSUM: usize = 16;
const HEADER: usize = 8 + TreeId::BYTES + 8 + 8;

/// The most bytes of a block; a directory with more is read again.
const MAX_BLOCK: usize = 64 << 20;

/// The most notes; a walk with more is not remembered.
const MAX_NOTES: usize = 1 << 16;

/// What a file system tells of a file, as far as it tells whether it is the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Fingerprint {
    pub(crate) inode: u64,
    pub(crate) size: u64,
    pub(crate) modified_ns: i64,
    pub(crate) changed_ns: i64,
    pub(crate) mode: u16,
}

/// A file that was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CachedFile {
    pub(crate) name: Box<[u8]>,
    pub(crate) fingerprint: Fingerprint,
    pub(crate) xattrs: Vec<Xattr>,
}

/// What was found out about a file after it was listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Note {
    /// It is not what was listed: read it again.
    Distrust,
    /// It has these attributes.
    Xattrs(Vec<Xattr>),
}

/// Compares two directories in the order in which a walk comes to them: each before what is in it.
pub(crate) fn walk_order(a: &[u8], b: &[u8]) -> Ordering {
    // No name has a NUL, so that a slash sorts before every other byte.
    let key = |byte: &u8| if *byte == b'/' { 0 } else { *byte };
    a.iter().map(key).cmp(b.iter().map(key))
}

fn checksum(bytes: &[u8]) -> [u8; CHECKSUM] {
    let mut short = [0; CHECKSUM];
    short.copy_from_slice(&blake3::hash(bytes).as_bytes()[..CHECKSUM]);
    short
}

/// Writes what a walk sees.
#[derive(Debug)]
pub(crate) struct CacheWriter {
    out: BufWriter<File>,
    /// Where it is written, and where it goes.
    path: PathBuf,
    target: PathBuf,
    moment_ns: i64,
    written: u64,
    committed: bool,
}

impl CacheWriter {
    /// Begins beside `target`; what an earlier writer left there is replaced.
    pub(crate) fn create(target: &Path) -> io::Result<Self> {
        let mut path = target.as_os_str().to_owned();
        path.push(".new");
        let path = PathBuf::from(path);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file =
            File::options().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
        let made = file.metadata()?;
        let moment_ns =
            made.ctime().saturating_mul(1_000_000_000).saturating_add(made.ctime_nsec());
        let mut writer = Self {
            out: BufWriter::with_capacity(128 << 10, file),
            path,
            target: target.to_owned(),
            moment_ns,
            written: 0,
            committed: false,
        };
        writer.put(&[0; HEADER + CHECKSUM])?;
        Ok(writer)
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.written += bytes.len() as u64;
        self.out.write_all(bytes)
    }

    fn block(&mut self, content: &[u8]) -> io::Result<()> {
        let length = u32::try_from(content.len()).map_err(io::Error::other)?;
        self.put(&length.to_le_bytes())?;
        self.put(&checksum(content))?;
        self.put(content)
    }

    /// Adds the files of a directory, whose names are in order. Directories come in the order of a walk.
    pub(crate) fn directory(&mut self, path: &[u8], files: &[CachedFile]) -> io::Result<()> {
        if files.is_empty() {
            return Ok(());
        }
        let mut content = Encoder::default();
        content.text(path);
        content.count(files.len());
        for file in files {
            let fingerprint = &file.fingerprint;
            content.text(&file.name);
            content.number(fingerprint.inode);
            content.number(fingerprint.size);
            content.signed(fingerprint.modified_ns);
            content.signed(fingerprint.changed_ns);
            content.number(fingerprint.mode.into());
            encode_xattrs(&file.xattrs, &mut content);
        }
        let content = content.into_bytes();
        if content.len() > MAX_BLOCK { Ok(()) } else { self.block(&content) }
    }

    /// Ends it with what was found out later, says of which tree it is, and puts it in place.
    pub(crate) fn commit(mut self, tree: &TreeId, notes: &[(Vec<u8>, Note)]) -> io::Result<()> {
        if notes.len() > MAX_NOTES {
            return Err(io::Error::other("too many files changed while they were read"));
        }
        let at = self.written;
        let mut content = Encoder::default();
        content.count(notes.len());
        for (path, note) in notes {
            content.text(path);
            match note {
                Note::Distrust => content.byte(0),
                Note::Xattrs(xattrs) => {
                    content.byte(1);
                    encode_xattrs(xattrs, &mut content);
                }
            }
        }
        self.block(&content.into_bytes())?;
        self.out.flush()?;
        let mut header = Vec::with_capacity(HEADER + CHECKSUM);
        header.extend_from_slice(MAGIC);
        header.push(VERSION);
        header.extend_from_slice(tree.as_bytes());
        header.extend_from_slice(&self.moment_ns.to_le_bytes());
        header.extend_from_slice(&at.to_le_bytes());
        header.extend_from_slice(&checksum(&header));
        self.out.get_ref().write_all_at(&header, 0)?;
        std::fs::rename(&self.path, &self.target)?;
        self.committed = true;
        Ok(())
    }
}

impl Drop for CacheWriter {
    fn drop(&mut self) {
        if !self.committed {
            // Of no use to anybody; the next writer replaces it anyhow.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn encode_xattrs(xattrs: &[Xattr], out: &mut Encoder) {
    out.count(xattrs.len());
    for xattr in xattrs {
        out.text(&xattr.name);
        out.text(&xattr.value);
    }
}

fn decode_xattrs(from: &mut Decoder<'_>) -> Result<Vec<Xattr>, Malformed> {
    (0..from.count(2)?)
        .map(|_| {
            let name = from.text(255)?.to_vec();
            Ok(Xattr { name, value: from.text(crate::node::MAX_XATTR_BYTES)?.to_vec() })
        })
        .collect()
}

/// Reads what an earlier walk saw, in the order of a walk.
#[derive(Debug)]
pub(crate) struct CacheReader {
    input: BufReader<File>,
    /// Where the blocks end.
    end: u64,
    at: u64,
    moment_ns: i64,
    /// The directory that was read last and not asked for yet.
    next: Option<(Vec<u8>, Vec<CachedFile>)>,
    notes: HashMap<Vec<u8>, Note>,
}

impl CacheReader {
    /// Opens what was remembered of a tree; `None` if that is nothing, or nothing that can be used.
    pub(crate) fn open(path: &Path, tree: &TreeId) -> Option<Self> {
        let mut file = File::open(path).ok()?;
        let mut header = [0; HEADER + CHECKSUM];
        file.read_exact(&mut header).ok()?;
        let (content, sum) = header.split_at(HEADER);
        let (magic, rest) = content.split_at(MAGIC.len() + 1);
        let (of, rest) = rest.split_at(TreeId::BYTES);
        let (moment, end) = rest.split_at(8);
        let good = magic[..MAGIC.len()] == MAGIC[..]
            && magic[MAGIC.len()] == VERSION
            && of == tree.as_bytes()
            && sum == checksum(content);
        if !good {
            return None;
        }
        let mut reader = Self {
            input: BufReader::with_capacity(128 << 10, file),
            end: u64::from_le_bytes(end.try_into().ok()?),
            at: (HEADER + CHECKSUM) as u64,
            moment_ns: i64::from_le_bytes(moment.try_into().ok()?),
            next: None,
            notes: HashMap::new(),
        };
        // Without the notes nothing of it can be trusted.
        reader.input.seek(SeekFrom::Start(reader.end)).ok()?;
        let notes = reader.block()?;
        reader.notes = Self::decode_notes(&notes).ok()?;
        reader.input.seek(SeekFrom::Start(reader.at)).ok()?;
        Some(reader)
    }

    /// Reads a block; `None` if it is not whole.
    fn block(&mut self) -> Option<Vec<u8>> {
        let mut head = [0; 4 + CHECKSUM];
        self.input.read_exact(&mut head).ok()?;
        let length = u32::from_le_bytes(head[..4].try_into().ok()?);
        let length = usize::try_from(length).ok().filter(|length| *length <= MAX_BLOCK)?;
        let mut content = Vec::new();
        // No more memory than there are bytes.
        self.input.by_ref().take(length as u64).read_to_end(&mut content).ok()?;
        (content.len() == length && checksum(&content) == head[4..]).then_some(content)
    }

    fn decode_notes(bytes: &[u8]) -> Result<HashMap<Vec<u8>, Note>, Malformed> {
        let mut from = Decoder::new(bytes);
        let notes = (0..from.count(2)?)
            .map(|_| {
                let path = from.text(MAX_BLOCK)?.to_vec();
                let note = if from.flag()? {
                    Note::Xattrs(decode_xattrs(&mut from)?)
                } else {
                    Note::Distrust
                };
                Ok((path, note))
            })
            .collect::<Result<_, Malformed>>()?;
        from.end()?;
        Ok(notes)
    }

    fn decode(bytes: &[u8]) -> Result<(Vec<u8>, Vec<CachedFile>), Malformed> {
        let mut from = Decoder::new(bytes);
        let path = from.text(MAX_BLOCK)?.to_vec();
        let files = (0..from.count(7)?)
            .map(|_| {
                let name = Box::from(from.text(255)?);
                let fingerprint = Fingerprint {
                    inode: from.number()?,
                    size: from.number()?,
                    modified_ns: from.signed()?,
                    changed_ns: from.signed()?,
                    mode: u16::try_from(from.number()?)
                        .map_err(|_| Malformed("a mode is too large"))?,
                };
                Ok(CachedFile { name, fingerprint, xattrs: decode_xattrs(&mut from)? })
            })
            .collect::<Result<_, Malformed>>()?;
        from.end()?;
        Ok((path, files))
    }

    /// Takes the next directory from the file; after anything that is wrong there is none.
    fn advance(&mut self) -> Option<(Vec<u8>, Vec<CachedFile>)> {
        if self.at >= self.end {
            return None;
        }
        let found = self.block().and_then(|block| {
            self.at += (4 + CHECKSUM + block.len()) as u64;
            Self::decode(&block).ok()
        });
        if found.is_none() {
            self.at = self.end;
        }
        found
    }

    /// Returns the files of a directory that are known, in order. Directories must be asked for in the order of a walk.
    pub(crate) fn directory(&mut self, path: &[u8]) -> Vec<CachedFile> {
        loop {
            let (of, mut files) = match self.next.take().or_else(|| self.advance()) {
                Some(next) => next,
                None => return Vec::new(),
            };
            match walk_order(&of, path) {
                Ordering::Less => {}
                Ordering::Greater => {
                    self.next = Some((of, files));
                    return Vec::new();
                }
                Ordering::Equal => {
                    files.retain_mut(|file| self.is_known(path, file));
                    return files;
                }
            }
        }
    }

    /// Applies the notes and the racy rule.
    fn is_known(&self, directory: &[u8], file: &mut CachedFile) -> bool {
        let Fingerprint { modified_ns, changed_ns, .. } = file.fingerprint;
        if modified_ns.max(changed_ns) >= self.moment_ns {
            return false;
        }
        if self.notes.is_empty() {
            return true;
        }
        let separator: &[u8] = if directory.is_empty() { b"" } else { b"/" };
        match self.notes.get(&[directory, separator, &file.name].concat()) {
            None => true,
            Some(Note::Distrust) => false,
            Some(Note::Xattrs(xattrs)) => {
                file.xattrs.clone_from(xattrs);
                true
            }
        }
    }
}
