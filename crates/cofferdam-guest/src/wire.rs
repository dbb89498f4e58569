//! Reading and writing the fields of messages: little-endian integers and counted bytes.

use crate::ProtocolError;

/// Reads the fields of one message, and never beyond its end.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
    what: &'static str,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(what: &'static str, payload: &'a [u8]) -> Self {
        Self { rest: payload, what }
    }

    pub(crate) fn take(&mut self, length: usize) -> Result<&'a [u8], ProtocolError> {
        let (head, rest) = self
            .rest
            .split_at_checked(length)
            .ok_or(ProtocolError::Truncated { what: self.what })?;
        self.rest = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], ProtocolError> {
        let (head, rest) = self
            .rest
            .split_first_chunk::<N>()
            .ok_or(ProtocolError::Truncated { what: self.what })?;
        self.rest = rest;
        Ok(*head)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, ProtocolError> {
        Ok(self.array::<1>()?[0])
    }

    pub(crate) fn u16(&mut self) -> Result<u16, ProtocolError> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    pub(crate) fn u32(&mut self) -> Result<u32, ProtocolError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(crate) fn i32(&mut self) -> Result<i32, ProtocolError> {
        Ok(i32::from_le_bytes(self.array()?))
    }

    pub(crate) fn u64(&mut self) -> Result<u64, ProtocolError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    pub(crate) fn i64(&mut self) -> Result<i64, ProtocolError> {
        Ok(i64::from_le_bytes(self.array()?))
    }

    pub(crate) fn bool(&mut self) -> Result<bool, ProtocolError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(ProtocolError::Invalid { what: self.what, value: u64::from(other) }),
        }
    }

    /// Reads a count, which must not be above `limit`.
    pub(crate) fn count(
        &mut self,
        what: &'static str,
        limit: usize,
    ) -> Result<usize, ProtocolError> {
        let count = self.u32()?;
        match usize::try_from(count) {
            Ok(count) if count <= limit => Ok(count),
            _ => Err(ProtocolError::Bound { what, length: u64::from(count), limit: limit as u64 }),
        }
    }

    /// Reads counted bytes, which must not be longer than `limit`.
    pub(crate) fn bytes(
        &mut self,
        what: &'static str,
        limit: usize,
    ) -> Result<Vec<u8>, ProtocolError> {
        let length = self.count(what, limit)?;
        Ok(self.take(length)?.to_vec())
    }

    /// Reads counted text; bytes that are not UTF-8 become U+FFFD.
    pub(crate) fn text(
        &mut self,
        what: &'static str,
        limit: usize,
    ) -> Result<String, ProtocolError> {
        let length = self.count(what, limit)?;
        Ok(String::from_utf8_lossy(self.take(length)?).into_owned())
    }

    /// Returns how many bytes were not read yet.
    pub(crate) fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// Checks that the message has no further bytes.
    pub(crate) fn end(self) -> Result<(), ProtocolError> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(ProtocolError::Trailing { what: self.what, extra: self.rest.len() })
        }
    }
}

/// Appends the fields of one message.
pub(crate) trait Writer {
    fn u8(&mut self, value: u8);
    fn u16(&mut self, value: u16);
    fn u32(&mut self, value: u32);
    fn i32(&mut self, value: i32);
    fn u64(&mut self, value: u64);
    fn i64(&mut self, value: i64);
    fn count(&mut self, count: usize);
    fn bytes(&mut self, value: &[u8]);
}

impl Writer for Vec<u8> {
    fn u8(&mut self, value: u8) {
        self.push(value);
    }

    fn u16(&mut self, value: u16) {
        self.extend_from_slice(&value.to_le_bytes());
    }

    fn u32(&mut self, value: u32) {
        self.extend_from_slice(&value.to_le_bytes());
    }

    fn i32(&mut self, value: i32) {
        self.extend_from_slice(&value.to_le_bytes());
    }

    fn u64(&mut self, value: u64) {
        self.extend_from_slice(&value.to_le_bytes());
    }

    fn i64(&mut self, value: i64) {
        self.extend_from_slice(&value.to_le_bytes());
    }

    fn count(&mut self, count: usize) {
        // A count that does not fit is above every bound, so the frame encoder refuses the message anyhow.
        self.u32(u32::try_from(count).unwrap_or(u32::MAX));
    }

    fn bytes(&mut self, value: &[u8]) {
        self.count(value.len());
        self.extend_from_slice(value);
    }
}
