//! A model of a workspace: a map of paths, and what each operation does to it.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{
    layout::{directory, file, link, upload},
    support::{Random, errno, path},
};
use crate::{FileKind, Sandbox, SandboxError, WriteOptions};

/// What is at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Node {
    Directory(u32),
    File(u32, Vec<u8>),
    Link(String),
}

/// A workspace as a map from path to node; all paths are short and their components plain.
#[derive(Debug, Default)]
pub(super) struct Model(BTreeMap<String, Node>);

/// Something that changes a workspace.
#[derive(Debug, Clone)]
pub(super) enum Operation {
    Write {
        path: String,
        content: Vec<u8>,
        mode: u32,
        keep_mode: bool,
        must_be_new: bool,
        make_parents: bool,
    },
    MakeDirectory {
        path: String,
    },
    Rename {
        from: String,
        to: String,
        replace: bool,
    },
    Remove {
        path: String,
        recursive: bool,
    },
    UploadFile {
        path: String,
        mode: u32,
        content: Vec<u8>,
    },
    UploadLink {
        path: String,
        target: String,
    },
    UploadDirectory {
        path: String,
    },
}

/// What a listing tells of a path.
type Listed = (FileKind, u32, Option<Vec<u8>>);

/// The numbers of which a refusal has one.
type Refusal = &'static [i32];

fn some_path(random: &mut Random) -> String {
    let names = ["a", "b", "c"];
    (0..=random.below(3)).map(|_| names[random.below(3)]).collect::<Vec<_>>().join("/")
}

fn above(path: &str) -> Option<&str> {
    path.rsplit_once('/').map(|(above, _)| above)
}

impl Operation {
    pub(super) fn generate(random: &mut Random) -> Self {
        let path = some_path(random);
        let mode = [0o644, 0o755, 0o600][random.below(3)];
        match random.below(12) {
            0..=3 => Self::Write {
                path,
                content: {
                    let length = random.below(50);
                    random.bytes(length)
                },
                mode,
                keep_mode: random.below(2) == 0,
                must_be_new: random.below(4) == 0,
                make_parents: random.below(3) > 0,
            },
            4 | 5 => Self::MakeDirectory { path },
            6 | 7 => {
                Self::Rename { from: path, to: some_path(random), replace: random.below(2) == 0 }
            }
            8 => Self::Remove { path, recursive: random.below(2) == 0 },
            9 => Self::UploadFile { path, mode, content: random.bytes(20) },
            10 => Self::UploadLink { path, target: "nowhere".to_owned() },
            _ => Self::UploadDirectory { path },
        }
    }

    /// Does it to a sandbox.
    pub(super) async fn perform(&self, sandbox: &dyn Sandbox) -> Result<(), SandboxError> {
        let files = sandbox.files();
        match self.clone() {
            Self::Write { path: at, content, mode, keep_mode, must_be_new, make_parents } => {
                let options = WriteOptions { mode, keep_mode, must_be_new, make_parents };
                files.write(&path(&at)?, Bytes::from(content), &options).await
            }
            Self::MakeDirectory { path: at } => files.make_directory(&path(&at)?, 0o755).await,
            Self::Rename { from, to, replace } => {
                files.rename(&path(&from)?, &path(&to)?, replace).await
            }
            Self::Remove { path: at, recursive } => files.remove(&path(&at)?, recursive).await,
            Self::UploadFile { path: at, mode, content } => {
                upload(sandbox, ".", file(at, mode, &content)).await.map(drop)
            }
            Self::UploadLink { path: at, target } => {
                upload(sandbox, ".", vec![link(&at, &target)]).await.map(drop)
            }
            Self::UploadDirectory { path: at } => {
                upload(sandbox, ".", vec![directory(&at)]).await.map(drop)
            }
        }
    }
}

impl Model {
    /// Does an operation, or says with which numbers it is refused.
    pub(super) fn apply(&mut self, operation: &Operation) -> Result<(), Refusal> {
        match operation {
            Operation::Write { path, content, mode, keep_mode, must_be_new, make_parents } => {
                self.enter(path, *make_parents)?;
                let mode = match self.0.get(path) {
                    Some(_) if *must_be_new => return Err(&[errno::EEXIST]),
                    Some(Node::Directory(_)) => return Err(&[errno::EISDIR]),
                    Some(Node::File(old, _)) if *keep_mode => *old,
                    _ => *mode,
                };
                self.0.insert(path.clone(), Node::File(mode, content.clone()));
                Ok(())
            }
            Operation::MakeDirectory { path } => {
                self.enter(path, true)?;
                match self.0.get(path) {
                    Some(Node::Directory(_)) => Ok(()),
                    Some(Node::File(..)) => Err(&[errno::ENOTDIR, errno::EEXIST]),
                    Some(Node::Link(_)) => Err(LINK),
                    None => {
                        self.0.insert(path.clone(), Node::Directory(0o755));
                        Ok(())
                    }
                }
            }
            Operation::Rename { from, to, replace } => self.rename(from, to, *replace),
            Operation::Remove { path, recursive } => {
                self.enter(path, false)?;
                let below = format!("{path}/");
                match self.0.get(path) {
                    None => Err(&[errno::ENOENT]),
                    Some(Node::Directory(_))
                        if !recursive && self.0.keys().any(|name| name.starts_with(&below)) =>
                    {
                        Err(&[errno::ENOTEMPTY])
                    }
                    Some(_) => {
                        self.0.retain(|name, _| name != path && !name.starts_with(&below));
                        Ok(())
                    }
                }
            }
            Operation::UploadFile { path, mode, content } => {
                self.place(path, Node::File(*mode, content.clone()))
            }
            Operation::UploadLink { path, target } => self.place(path, Node::Link(target.clone())),
            Operation::UploadDirectory { path } => {
                self.enter(path, true)?;
                // One that is there is kept, whatever else is there is replaced.
                self.0.insert(path.clone(), Node::Directory(0o755));
                Ok(())
            }
        }
    }

    /// Looks at, and if `make` says so makes, the directories above a path.
    fn enter(&mut self, path: &str, make: bool) -> Result<(), Refusal> {
        let Some(directory) = above(path) else { return Ok(()) };
        self.enter(directory, make)?;
        match self.0.get(directory) {
            Some(Node::Directory(_)) => Ok(()),
            Some(Node::File(..)) => Err(&[errno::ENOTDIR]),
            Some(Node::Link(_)) => Err(LINK),
            None if make => {
                self.0.insert(directory.to_owned(), Node::Directory(0o755));
                Ok(())
            }
            None => Err(&[errno::ENOENT]),
        }
    }

    fn place(&mut self, path: &str, node: Node) -> Result<(), Refusal> {
        self.enter(path, true)?;
        if let Some(Node::Directory(_)) = self.0.get(path) {
            return Err(&[errno::EISDIR, errno::EEXIST, errno::ENOTEMPTY]);
        }
        self.0.insert(path.to_owned(), node);
        Ok(())
    }

    fn rename(&mut self, from: &str, to: &str, replace: bool) -> Result<(), Refusal> {
        self.enter(from, false)?;
        self.enter(to, false)?;
        let Some(node) = self.0.get(from).cloned() else { return Err(&[errno::ENOENT]) };
        let (below_from, below_to) = (format!("{from}/"), format!("{to}/"));
        if to.starts_with(&below_from) {
            return Err(&[errno::EINVAL]);
        }
        match (&node, self.0.get(to)) {
            (_, Some(_)) if !replace => return Err(&[errno::EEXIST]),
            _ if from == to => return Ok(()),
            (Node::Directory(_), Some(Node::Directory(_)))
                if self.0.keys().any(|name| name.starts_with(&below_to)) =>
            {
                return Err(&[errno::ENOTEMPTY, errno::EEXIST]);
            }
            (Node::Directory(_), Some(Node::Directory(_))) => {}
            (Node::Directory(_), Some(_)) => return Err(&[errno::ENOTDIR]),
            (_, Some(Node::Directory(_))) => return Err(&[errno::EISDIR, errno::ENOTEMPTY]),
            _ => {}
        }
        let moved: Vec<_> =
            self.0.keys().filter(|name| name.starts_with(&below_from)).cloned().collect();
        for name in moved {
            if let Some(node) = self.0.remove(&name) {
                self.0.insert(format!("{to}{}", &name[from.len()..]), node);
            }
        }
        self.0.remove(from);
        self.0.insert(to.to_owned(), node);
        Ok(())
    }

    /// What a listing of everything says.
    pub(super) fn listing(&self) -> BTreeMap<Vec<u8>, Listed> {
        let listed = |node: &Node| match node {
            Node::Directory(mode) => (FileKind::Directory, *mode, None),
            Node::File(mode, _) => (FileKind::File, *mode, None),
            Node::Link(target) => (FileKind::Link, 0o777, Some(target.as_bytes().to_vec())),
        };
        self.0.iter().map(|(path, node)| (path.as_bytes().to_vec(), listed(node))).collect()
    }

    /// The content of each file.
    pub(super) fn contents(&self) -> BTreeMap<Vec<u8>, Vec<u8>> {
        let content = |(path, node): (&String, &Node)| match node {
            Node::File(_, content) => Some((path.as_bytes().to_vec(), content.clone())),
            _ => None,
        };
        self.0.iter().filter_map(content).collect()
    }
}

/// How a path through a link that leads nowhere may be refused.
const LINK: Refusal = &[errno::ENOENT, errno::ENOTDIR, errno::EEXIST, errno::ELOOP];
