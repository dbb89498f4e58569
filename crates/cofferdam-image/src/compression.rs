//! Layers as byte streams: unpacked by what their first bytes say, hashed before and after, and bounded.

use std::{
    cell::Cell,
    io::{self, BufRead, BufReader, Read},
    rc::Rc,
};

use crate::{ImageError, ImageLimits, limits::RATIO_FREE_BYTES};

const GZIP: &[u8] = &[0x1f, 0x8b];
const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
/// A zstd frame that holds no data; some writers begin with one.
const ZSTD_SKIPPABLE: &[u8] = &[0x2a, 0x4d, 0x18];

/// Returns true if these first bytes are those of a stream that [`decoded`] unpacks.
pub(crate) fn is_packed(start: &[u8]) -> bool {
    start.starts_with(GZIP) || is_zstd(start)
}

fn is_zstd(start: &[u8]) -> bool {
    start.starts_with(ZSTD)
        || (start.first().is_some_and(|byte| byte & 0xf0 == 0x50)
            && start.get(1..4) == Some(ZSTD_SKIPPABLE))
}

/// Unpacks a stream of gzip or zstd, and passes any other through.
///
/// Reading fails with an [`ImageError::TooLarge`] inside the [`io::Error`] above a bound of `limits`.
pub(crate) fn decoded<'a>(
    packed: impl Read + 'a,
    limits: &ImageLimits,
) -> io::Result<Box<dyn Read + 'a>> {
    let consumed = Rc::new(Cell::new(0));
    let mut packed =
        BufReader::with_capacity(64 << 10, Counted { inner: packed, count: Rc::clone(&consumed) });
    let start = packed.fill_buf()?;
    let stream: Box<dyn Read + 'a> = if start.starts_with(GZIP) {
        Box::new(flate2::bufread::MultiGzDecoder::new(packed))
    } else if is_zstd(start) {
        Box::new(zstd::stream::read::Decoder::with_buffer(packed)?)
    } else {
        Box::new(packed)
    };
    Ok(Box::new(Bounded {
        inner: stream,
        consumed,
        produced: 0,
        most: limits.layer_bytes,
        ratio: limits.layer_ratio.max(1),
    }))
}

struct Counted<R> {
    inner: R,
    count: Rc<Cell<u64>>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.count.set(self.count.get() + count as u64);
        Ok(count)
    }
}

struct Bounded<'a> {
    inner: Box<dyn Read + 'a>,
    consumed: Rc<Cell<u64>>,
    produced: u64,
    most: u64,
    ratio: u64,
}

impl Read for Bounded<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.produced += count as u64;
        let too_large = if self.produced > self.most {
            ("the unpacked size of a layer, in bytes,", self.most)
        } else if self.produced > RATIO_FREE_BYTES
            && self.produced / self.ratio > self.consumed.get()
        {
            ("the ratio of unpacked to packed size of a layer", self.ratio)
        } else {
            return Ok(count);
        };
        let (what, limit) = too_large;
        Err(io::Error::other(ImageError::TooLarge { what, limit }))
    }
}
