//! The few programs of a sandbox in memory.

use std::{collections::BTreeMap, collections::VecDeque, time::Duration};

use bytes::Bytes;

use super::live::{Live, errno_text};
use crate::file_tree::{
    Content,
    errno::{EACCES, ENOENT, ENOEXEC},
};

/// What a program will do.
#[derive(Debug)]
pub(super) enum Work {
    /// Say this, then end.
    Say { said: VecDeque<Said>, code: i32 },
    /// Say so many zero bytes.
    Zeros { left: u64 },
    /// Repeat standard input.
    Echo,
    /// Count standard input.
    Count { bytes: u64 },
    /// Wait.
    Sleep { time: Duration },
}

/// A piece of output.
#[derive(Debug)]
pub(super) enum Said {
    Out(Bytes),
    Err(Bytes),
}

/// The greatest piece of output.
pub(super) const PIECE: usize = 16 * 1024;

impl Work {
    /// Looks a program up, or returns why it cannot be started.
    pub(super) fn find(
        live: &Live,
        directory: &str,
        argv: &[Vec<u8>],
        environment: &BTreeMap<String, String>,
    ) -> Result<Self, i32> {
        let (name, arguments) = argv.split_first().ok_or(ENOENT)?;
        let arguments: Vec<String> =
            arguments.iter().map(|a| String::from_utf8_lossy(a).into_owned()).collect();
        let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
        match (name.as_slice(), &*words) {
            (b"true", _) => Ok(Self::say([], 0)),
            (b"false", _) => Ok(Self::say([], 1)),
            (b"echo", _) => Ok(Self::say([Said::Out(joined(&argv[1..]))], 0)),
            (b"env", []) => {
                let lines = environment.iter().map(|(name, value)| format!("{name}={value}\n"));
                Ok(Self::say([Said::Out(lines.collect::<String>().into())], 0))
            }
            (b"sleep", [seconds]) => {
                let time = seconds.parse().map(Duration::from_secs_f64);
                Ok(Self::Sleep { time: time.unwrap_or_default() })
            }
            (b"wc", ["-c"]) => Ok(Self::Count { bytes: 0 }),
            (b"head", ["-c", bytes, "/dev/zero"]) => {
                Ok(Self::Zeros { left: bytes.parse().unwrap_or_default() })
            }
            (b"cat", []) => Ok(Self::Echo),
            (b"cat", ["/dev/zero"]) => Ok(Self::Zeros { left: u64::MAX }),
            (b"cat", ["/proc/self/environ"]) => {
                let pairs = environment.iter().map(|(name, value)| format!("{name}={value}\0"));
                Ok(Self::say([Said::Out(pairs.collect::<String>().into())], 0))
            }
            (b"cat", files) => Ok(cat(live, directory, files)),
            (path, _) if path.contains(&b'/') => Err(refusal(live, directory, path)),
            _ => Err(ENOENT),
        }
    }

    fn say(said: impl IntoIterator<Item = Said>, code: i32) -> Self {
        Self::Say { said: said.into_iter().collect(), code }
    }
}

fn joined(words: &[Vec<u8>]) -> Bytes {
    [words.join(&b' '), b"\n".to_vec()].concat().into()
}

fn cat(live: &Live, directory: &str, files: &[&str]) -> Work {
    let (mut said, mut code) = (VecDeque::new(), 0);
    for file in files {
        match live.tree().read(format!("{directory}/{file}").as_bytes(), 0, u64::MAX) {
            Ok(content) => said.push_back(Said::Out(content)),
            Err(errno) => {
                said.push_back(Said::Err(format!("cat: {file}: {}\n", errno_text(errno)).into()));
                code = 1;
            }
        }
    }
    Work::Say { said, code }
}

/// Why a file of the workspace is not started: the double can run none.
fn refusal(live: &Live, directory: &str, path: &[u8]) -> i32 {
    if path.first() == Some(&b'/') {
        return ENOENT;
    }
    let tree = live.tree();
    match tree.node(&[directory.as_bytes(), b"/", path].concat(), true) {
        Err(errno) => errno,
        Ok(node) => match &node.content {
            Content::File(_) if node.mode & 0o111 == 0 => EACCES,
            // An interpreter that would be there is not, either.
            Content::File(content) if content.starts_with(b"#!") => ENOENT,
            Content::File(_) => ENOEXEC,
            _ => EACCES,
        },
    }
}
