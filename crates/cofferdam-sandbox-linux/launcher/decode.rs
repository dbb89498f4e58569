//! Reads a [`Plan`] from the bytes that `src/encode.rs` made.

use std::ffi::CString;

use crate::{
    plan::{
        Base, Confined, Entry, HostTree, Identity, LandlockAccess, LandlockRule, Linger, Plan,
        Root, Scratch,
    },
    report::Step,
};

/// The plan is cut short or malformed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BadPlan;

type Result<T> = std::result::Result<T, BadPlan>;

/// Reads a whole plan.
pub(crate) fn decode(bytes: &[u8]) -> Result<Plan> {
    let mut r = Reader(bytes);
    let plan = Plan {
        fault: match (r.u8()?, r.u32()?) {
            (0, _) => None,
            (step, errno) => Some((Step::from_code(step).ok_or(BadPlan)?, errno.cast_signed())),
        },
        hostname: r.bytes()?,
        own_network: r.flag()?,
        own_users: r.flag()?,
        identity: Identity {
            inner: r.u32()?,
            outer_user: r.u32()?,
            outer_group: r.u32()?,
            drop_groups: r.flag()?,
        },
        cgroup_into: r.option(Reader::bytes)?,
        cgroup_joins: r.list(Reader::bytes)?,
        cgroup_directories: r.list(Reader::bytes)?,
        cgroup_thaw: r.option(|r| Ok((r.bytes()?, r.bytes()?)))?,
        oom_counter: r.option(Reader::bytes)?,
        wall_time_ms: r.u64()?,
        confined: r.option(|r| Ok(Confined { directory: r.text()?, own_user: r.flag()? }))?,
        linger: r.option(|r| {
            Ok(Linger { time_ms: r.u64()?, directory: r.bytes()?, ended: r.bytes()? })
        })?,
        root: Root {
            staging: r.text()?,
            layers: r.list(Reader::text)?,
            trees: r.list(|r| {
                Ok(HostTree { source: r.text()?, target: r.text()?, devices: r.flag()? })
            })?,
            entries: r.list(|r| match r.u8()? {
                0 => Ok(Entry::Directory(r.text()?)),
                1 => Ok(Entry::Link(r.text()?, r.text()?)),
                2 => Ok(Entry::File(r.text()?, r.bytes()?)),
                _ => Err(BadPlan),
            })?,
            own_proc: r.flag()?,
        },
        scratch: Scratch { bytes: r.u64()?, inodes: r.u64()?, directories: r.list(Reader::text)? },
        base: r.option(|r| {
            let directory = r.text()?;
            Ok(Base { directory, owner: r.option(|r| Ok((r.u32()?, r.u32()?)))? })
        })?,
        masks: r.list(Reader::text)?,
        resource_limits: r.list(|r| Ok((r.u32()?, r.u64()?)))?,
        landlock: r.list(|r| {
            let access = match r.u8()? {
                0 => LandlockAccess::Read,
                1 => LandlockAccess::Write,
                2 => LandlockAccess::Device,
                3 => LandlockAccess::ReadFile,
                _ => return Err(BadPlan),
            };
            Ok(LandlockRule { access, path: r.text()? })
        })?,
        filters: r.list(Reader::bytes)?,
    };
    if r.0.is_empty() { Ok(plan) } else { Err(BadPlan) }
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>().ok_or(BadPlan)?;
        self.0 = rest;
        Ok(*head)
    }

    fn u8(&mut self) -> Result<u8> {
        Ok(self.take::<1>()?[0])
    }

    fn flag(&mut self) -> Result<bool> {
        Ok(self.u8()? != 0)
    }

    fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.take()?))
    }

    fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_le_bytes(self.take()?))
    }

    fn bytes(&mut self) -> Result<Vec<u8>> {
        let length = self.u32()? as usize;
        let (head, rest) = self.0.split_at_checked(length).ok_or(BadPlan)?;
        self.0 = rest;
        Ok(head.to_vec())
    }

    fn text(&mut self) -> Result<CString> {
        CString::new(self.bytes()?).map_err(|_| BadPlan)
    }

    fn option<T>(&mut self, item: impl FnOnce(&mut Self) -> Result<T>) -> Result<Option<T>> {
        if self.flag()? { item(self).map(Some) } else { Ok(None) }
    }

    fn list<T>(&mut self, mut item: impl FnMut(&mut Self) -> Result<T>) -> Result<Vec<T>> {
        let count = self.u32()?;
        (0..count).map(|_| item(self)).collect()
    }
}
