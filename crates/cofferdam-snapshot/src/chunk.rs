//! [`Chunker`]: cuts what a file holds into pieces, so that an edit changes few of them.
//!
//! A file of up to 64 KiB is one chunk. In a larger one, blocks of 64 KiB that are all zero become holes, whether or not
//! they were on the disk, and what is between holes is cut by its content (FastCDC). So the pieces depend on the content
//! and the size alone, and equal files have equal pieces.

use bytes::{Bytes, BytesMut};
use fastcdc::v2020::FastCDC;

/// Files up to this size are one chunk; also the unit of holes.
pub(crate) const BLOCK: usize = 64 << 10;
/// Files above this size have larger chunks.
const LARGE_FILE: u64 = 64 << 20;
/// The largest chunk.
pub(crate) const MAX_CHUNK: usize = 4 << 20;

static ZEROS: [u8; BLOCK] = [0; BLOCK];

#[derive(Debug, Clone, Copy)]
struct Sizes {
    min: usize,
    average: usize,
    max: usize,
}

const USUAL: Sizes = Sizes { min: 16 << 10, average: 64 << 10, max: 256 << 10 };
const LARGE: Sizes = Sizes { min: 256 << 10, average: 1 << 20, max: MAX_CHUNK };

/// A piece of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Piece {
    Data(Bytes),
    Hole(u64),
}

/// Cuts one file.
#[derive(Debug)]
pub(crate) struct Chunker {
    sizes: Sizes,
    total: u64,
    /// Less than a block, or exactly the first one.
    block: BytesMut,
    /// Since the last hole, not cut yet.
    data: BytesMut,
    hole: u64,
}

impl Chunker {
    /// Begins a file that is said to have this size.
    pub(crate) fn new(size: u64) -> Self {
        let sizes = if size > LARGE_FILE { LARGE } else { USUAL };
        Self { sizes, total: 0, block: BytesMut::new(), data: BytesMut::new(), hole: 0 }
    }

    /// Returns the bytes so far.
    pub(crate) fn total(&self) -> u64 {
        self.total
    }

    /// Takes the next bytes.
    pub(crate) fn data(&mut self, mut bytes: &[u8], out: &mut Vec<Piece>) {
        self.total += bytes.len() as u64;
        while !bytes.is_empty() {
            if self.block.len() == BLOCK {
                self.end_block(out);
            }
            if self.block.is_empty() && bytes.len() > BLOCK {
                let (block, rest) = bytes.split_at(BLOCK);
                self.whole_block(block, out);
                bytes = rest;
                continue;
            }
            let (taken, rest) = bytes.split_at(bytes.len().min(BLOCK - self.block.len()));
            self.block.extend_from_slice(taken);
            bytes = rest;
        }
    }

    /// Takes the next so many zeros.
    pub(crate) fn hole(&mut self, mut length: u64, out: &mut Vec<Piece>) {
        while length > 0 {
            if self.block.is_empty() && length > BLOCK as u64 {
                // All but a last block, which may be the end of a small file.
                let blocks = (length - 1) / BLOCK as u64 * BLOCK as u64;
                self.total += blocks;
                self.zeros(blocks, out);
                length -= blocks;
            } else {
                let room = if self.block.len() == BLOCK { BLOCK } else { BLOCK - self.block.len() };
                let part = usize::try_from(length).unwrap_or(usize::MAX).min(room);
                self.data(&ZEROS[..part], out);
                length -= part as u64;
            }
        }
    }

    /// Ends the file.
    pub(crate) fn finish(mut self, out: &mut Vec<Piece>) {
        if self.total <= BLOCK as u64 {
            if self.total > 0 {
                out.push(Piece::Data(self.block.freeze()));
            }
            return;
        }
        self.end_block(out);
        self.end_data(out);
        self.end_hole(out);
    }

    fn end_block(&mut self, out: &mut Vec<Piece>) {
        let block = std::mem::take(&mut self.block);
        if !block.is_empty() {
            self.whole_block(&block, out);
        }
    }

    /// Takes one block, or the last of a file, which may be shorter.
    fn whole_block(&mut self, block: &[u8], out: &mut Vec<Piece>) {
        if block == &ZEROS[..block.len()] {
            self.zeros(block.len() as u64, out);
            return;
        }
        self.end_hole(out);
        self.data.extend_from_slice(block);
        while self.data.len() >= self.sizes.max {
            self.cut(out);
        }
    }

    fn zeros(&mut self, length: u64, out: &mut Vec<Piece>) {
        self.end_data(out);
        self.hole += length;
    }

    fn end_data(&mut self, out: &mut Vec<Piece>) {
        while !self.data.is_empty() {
            self.cut(out);
        }
    }

    fn end_hole(&mut self, out: &mut Vec<Piece>) {
        if self.hole > 0 {
            out.push(Piece::Hole(std::mem::take(&mut self.hole)));
        }
    }

    fn cut(&mut self, out: &mut Vec<Piece>) {
        let Sizes { min, average, max } = self.sizes;
        let window = &self.data[..self.data.len().min(max)];
        let (_, end) = FastCDC::new(window, min, average, max).cut(0, window.len());
        out.push(Piece::Data(self.data.split_to(end.clamp(1, window.len())).freeze()));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Bytes that follow from a seed and do not repeat.
    fn noise(seed: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        let mut hasher = blake3::Hasher::new();
        hasher.update(&seed.to_le_bytes());
        hasher.finalize_xof().fill(&mut bytes);
        bytes
    }

    /// One step of a file: that many bytes of noise or of zeros.
    #[derive(Debug, Clone)]
    struct Part {
        zeros: bool,
        length: usize,
    }

    fn part() -> impl Strategy<Value = Part> {
        let length = prop_oneof![0_usize..400, 65_000_usize..66_000, 0_usize..300_000];
        (any::<bool>(), length).prop_map(|(zeros, length)| Part { zeros, length })
    }

    fn content(parts: &[Part]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (seed, part) in parts.iter().enumerate() {
            let length = part.length;
            bytes.extend(if part.zeros { vec![0; length] } else { noise(seed as u64, length) });
        }
        bytes
    }

    fn join(pieces: &[Piece]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for piece in pieces {
            match piece {
                Piece::Data(data) => bytes.extend_from_slice(data),
                Piece::Hole(length) => {
                    bytes.resize(bytes.len() + usize::try_from(*length).unwrap(), 0)
                }
            }
        }
        bytes
    }

    fn pieces(content: &[u8], step: usize) -> Vec<Piece> {
        let mut out = Vec::new();
        let mut chunker = Chunker::new(content.len() as u64);
        content.chunks(step.max(1)).for_each(|part| chunker.data(part, &mut out));
        chunker.finish(&mut out);
        out
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn pieces_follow_from_content_alone(parts in proptest::collection::vec(part(), 0..6), step in 1_usize..200_000) {
            let content = content(&parts);
            let whole = pieces(&content, content.len());
            prop_assert_eq!(join(&whole), content.clone());
            prop_assert_eq!(&pieces(&content, step), &whole);

            // Zeros that are told as holes give the same.
            let mut sparse = Vec::new();
            let mut chunker = Chunker::new(content.len() as u64);
            for (seed, part) in parts.iter().enumerate() {
                if part.zeros {
                    chunker.hole(part.length as u64, &mut sparse);
                } else {
                    chunker.data(&noise(seed as u64, part.length), &mut sparse);
                }
            }
            prop_assert_eq!(chunker.total(), content.len() as u64);
            chunker.finish(&mut sparse);
            prop_assert_eq!(sparse, whole);
        }
    }

    #[test]
    fn a_huge_hole_takes_no_time() {
        let mut out = Vec::new();
        let mut chunker = Chunker::new(10 << 30);
        chunker.data(b"begin", &mut out);
        chunker.hole((10 << 30) - 8, &mut out);
        chunker.data(b"end", &mut out);
        chunker.finish(&mut out);
        let lengths: Vec<u64> = out
            .iter()
            .map(|piece| match piece {
                Piece::Data(data) => data.len() as u64,
                Piece::Hole(length) => *length,
            })
            .collect();
        assert_eq!(lengths, [65_536, (10 << 30) - 2 * 65_536, 65_536]);
    }

    #[test]
    fn an_edit_changes_few_pieces() {
        let before = noise(1, 8 << 20);
        let mut after = before.clone();
        after.splice(4 << 20..4 << 20, *b"some bytes in the middle");
        let (before, after) = (pieces(&before, 1 << 20), pieces(&after, 1 << 20));
        let new = after.iter().filter(|piece| !before.contains(piece)).count();
        assert!(before.len() > 60 && new <= 3, "{new} of {} pieces are new", before.len());
    }
}
