//! What came of an attempt: it worked, it was denied, or the probe itself was broken.

use std::{fmt, io};

/// What came of one attempt, with what was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The step of the attack worked.
    Open(String),
    /// Something stood in the way, or what was aimed at is not there.
    Denied(String),
    /// The probe could not try it, so it says nothing.
    Broken(String),
}

pub(crate) const EPERM: i32 = 1;
pub(crate) const ENOENT: i32 = 2;
pub(crate) const EBADF: i32 = 9;
pub(crate) const EACCES: i32 = 13;
pub(crate) const EFAULT: i32 = 14;
pub(crate) const EINVAL: i32 = 22;
pub(crate) const ETXTBSY: i32 = 26;
pub(crate) const ENODEV: i32 = 19;
pub(crate) const ENOSYS: i32 = 38;

impl Outcome {
    pub(crate) fn open(seen: impl Into<String>) -> Self {
        Self::Open(seen.into())
    }

    pub(crate) fn denied(seen: impl Into<String>) -> Self {
        Self::Denied(seen.into())
    }

    pub(crate) fn broken(why: impl Into<String>) -> Self {
        Self::Broken(why.into())
    }

    /// Denied if the call failed. The kernel finding fault with the arguments means that the probe is wrong.
    pub(crate) fn of<T>(result: io::Result<T>, seen: impl Into<String>) -> Self {
        match result {
            Ok(_) => Self::open(seen),
            Err(error) => match error.raw_os_error() {
                Some(code @ (EFAULT | EINVAL)) => Self::broken(errno(code)),
                _ => Self::refused(&error),
            },
        }
    }

    /// For a call that is made with senseless arguments on purpose: open if it failed with one of `beyond`, which are the
    /// answers that come only after the check of permissions.
    pub(crate) fn past_the_check<T>(result: io::Result<T>, beyond: &[i32]) -> Self {
        match result {
            Ok(_) => Self::open("it returned success"),
            Err(error) => match error.raw_os_error() {
                Some(code) if beyond.contains(&code) => {
                    Self::open(format!("{}: past the check of permissions", errno(code)))
                }
                _ => Self::refused(&error),
            },
        }
    }

    /// Denied, with the error's name.
    pub(crate) fn refused(error: &io::Error) -> Self {
        Self::denied(name_of(error))
    }

    /// The first open one, or the last.
    pub(crate) fn any(outcomes: impl IntoIterator<Item = Self>) -> Self {
        let mut last = Self::denied("there was nothing to try");
        for outcome in outcomes {
            if matches!(outcome, Self::Open(_)) {
                return outcome;
            }
            last = outcome;
        }
        last
    }

    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::Open(_) => "open",
            Self::Denied(_) => "denied",
            Self::Broken(_) => "broken",
        }
    }

    pub(crate) fn evidence(&self) -> &str {
        let (Self::Open(text) | Self::Denied(text) | Self::Broken(text)) = self;
        text
    }
}

/// An error's name as the manuals have it.
pub(crate) fn name_of(error: &io::Error) -> String {
    error.raw_os_error().map_or_else(|| error.to_string(), errno)
}

/// The name of an error number.
pub(crate) fn errno(code: i32) -> String {
    const NAMES: &[(i32, &str)] = &[
        (EPERM, "EPERM"),
        (ENOENT, "ENOENT"),
        (3, "ESRCH"),
        (5, "EIO"),
        (6, "ENXIO"),
        (EBADF, "EBADF"),
        (10, "ECHILD"),
        (11, "EAGAIN"),
        (12, "ENOMEM"),
        (EACCES, "EACCES"),
        (EFAULT, "EFAULT"),
        (16, "EBUSY"),
        (17, "EEXIST"),
        (18, "EXDEV"),
        (ENODEV, "ENODEV"),
        (20, "ENOTDIR"),
        (21, "EISDIR"),
        (EINVAL, "EINVAL"),
        (23, "ENFILE"),
        (24, "EMFILE"),
        (25, "ENOTTY"),
        (ETXTBSY, "ETXTBSY"),
        (27, "EFBIG"),
        (28, "ENOSPC"),
        (30, "EROFS"),
        (ENOSYS, "ENOSYS"),
        (40, "ELOOP"),
        (93, "EPROTONOSUPPORT"),
        (94, "ESOCKTNOSUPPORT"),
        (95, "EOPNOTSUPP"),
        (97, "EAFNOSUPPORT"),
        (99, "EADDRNOTAVAIL"),
        (101, "ENETUNREACH"),
        (111, "ECONNREFUSED"),
        (113, "EHOSTUNREACH"),
        (122, "EDQUOT"),
        (126, "ENOKEY"),
    ];
    NAMES
        .iter()
        .find(|(number, _)| *number == code)
        .map_or_else(|| format!("errno {code}"), |(_, name)| (*name).to_owned())
}

/// A line of JSON for one probe.
pub(crate) struct Line<'a> {
    pub(crate) id: &'a str,
    pub(crate) outcome: &'a Outcome,
}

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (word, evidence) = (self.outcome.word(), Quoted(self.outcome.evidence()));
        write!(f, "{{\"id\":{},\"outcome\":\"{word}\",\"evidence\":{evidence}}}", Quoted(self.id))
    }
}

/// Text as a JSON string, at most 200 characters of it.
pub(crate) struct Quoted<'a>(pub(crate) &'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"")?;
        for character in self.0.chars().take(200) {
            match character {
                '"' | '\\' => write!(f, "\\{character}")?,
                control if control.is_control() => write!(f, "\\u{:04x}", u32::from(control))?,
                other => write!(f, "{other}")?,
            }
        }
        f.write_str("\"")
    }
}
