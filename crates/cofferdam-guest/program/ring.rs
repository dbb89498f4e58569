//! The last bytes of an output, and how many there were in all.

use std::collections::VecDeque;

/// Keeps the end of a stream of bytes. Positions count from the start of the stream.
#[derive(Debug)]
pub(crate) struct Ring {
    kept: VecDeque<u8>,
    capacity: usize,
    end: u64,
}

impl Ring {
    /// Returns an empty ring; memory is taken as bytes come.
    pub(crate) fn new(capacity: usize) -> Self {
        Self { kept: VecDeque::new(), capacity, end: 0 }
    }

    /// Adds bytes, and drops the oldest that have no room.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.end += bytes.len() as u64;
        let keep = &bytes[bytes.len().saturating_sub(self.capacity)..];
        let over = (self.kept.len() + keep.len()).saturating_sub(self.capacity);
        self.kept.drain(..over);
        self.kept.extend(keep);
    }

    /// Returns the position after the last byte.
    pub(crate) fn end(&self) -> u64 {
        self.end
    }

    /// Returns the position of the first byte that is still there.
    pub(crate) fn start(&self) -> u64 {
        self.end - self.kept.len() as u64
    }

    /// Returns the bytes held.
    pub(crate) fn len(&self) -> usize {
        self.kept.len()
    }

    /// Copies bytes from a position on; returns how many, 0 at the end.
    pub(crate) fn read(&self, from: u64, buffer: &mut [u8]) -> usize {
        let skip = usize::try_from(from.saturating_sub(self.start())).unwrap_or(usize::MAX);
        let (first, second) = self.kept.as_slices();
        let mut copied = 0;
        for (part, skip) in [(first, skip), (second, skip.saturating_sub(first.len()))] {
            let part = part.get(skip..).unwrap_or_default();
            let length = part.len().min(buffer.len() - copied);
            buffer[copied..copied + length].copy_from_slice(&part[..length]);
            copied += length;
        }
        copied
    }
}
