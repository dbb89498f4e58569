//! [`OutputBuffer`]: the beginning and the end of a command's output in bounded memory.

use std::collections::VecDeque;

use crate::truncate::OutputText;

/// How many bytes a buffer keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BufferLimits {
    pub(crate) head_bytes: usize,
    pub(crate) tail_bytes: usize,
}

impl BufferLimits {
    /// Splits a size into two halves.
    pub(crate) fn halves_of(bytes: usize) -> Self {
        Self { head_bytes: bytes.div_ceil(2), tail_bytes: bytes / 2 }
    }
}

/// Output that nobody has taken yet: a head that stays, a tail that moves, and a count of what fell out between them.
#[derive(Debug)]
pub(crate) struct OutputBuffer {
    limits: BufferLimits,
    head: Vec<u8>,
    tail: VecDeque<u8>,
    omitted_bytes: u64,
    line_ends: u64,
    last_byte: Option<u8>,
}

impl OutputBuffer {
    pub(crate) fn new(limits: BufferLimits) -> Self {
        Self {
            limits,
            head: Vec::new(),
            tail: VecDeque::new(),
            omitted_bytes: 0,
            line_ends: 0,
            last_byte: None,
        }
    }

    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.line_ends += bytes.iter().filter(|byte| **byte == b'\n').count() as u64;
        self.last_byte = bytes.last().copied().or(self.last_byte);
        let mut rest = bytes;
        if self.tail.is_empty() && self.omitted_bytes == 0 {
            let room = self.limits.head_bytes.saturating_sub(self.head.len());
            let (first, second) = rest.split_at(room.min(rest.len()));
            self.head.extend_from_slice(first);
            rest = second;
        }
        // What cannot stay anyway is not copied.
        let useless = rest.len().saturating_sub(self.limits.tail_bytes);
        if useless > 0 {
            self.omitted_bytes += (self.tail.len() + useless) as u64;
            self.tail.clear();
        }
        self.tail.extend(&rest[useless..]);
        self.trim_tail();
    }

    /// Counts bytes that were written before all others and are not there any more.
    pub(crate) fn lose(&mut self, bytes: u64) {
        self.omitted_bytes = self.omitted_bytes.saturating_add(bytes);
    }

    /// Returns how many bytes nobody has taken yet, those that fell out included.
    pub(crate) fn waiting_bytes(&self) -> u64 {
        self.omitted_bytes + (self.head.len() + self.tail.len()) as u64
    }

    fn trim_tail(&mut self) {
        let excess = self.tail.len().saturating_sub(self.limits.tail_bytes);
        self.tail.drain(..excess);
        self.omitted_bytes += excess as u64;
    }

    /// Changes the limits. What no longer fits is omitted from the middle.
    pub(crate) fn set_limits(&mut self, limits: BufferLimits) {
        self.limits = limits;
        if self.head.len() > limits.head_bytes {
            let excess = self.head.split_off(limits.head_bytes);
            if self.omitted_bytes == 0 {
                self.tail = excess.into_iter().chain(self.tail.drain(..)).collect();
            } else {
                self.omitted_bytes += excess.len() as u64;
            }
        }
        self.trim_tail();
        self.head.shrink_to(limits.head_bytes);
        self.tail.shrink_to(limits.tail_bytes);
    }

    /// Takes everything as text; bytes that are not UTF-8 are replaced.
    ///
    /// Unless `at_end`, a character of which only the first bytes have arrived stays for the next time.
    pub(crate) fn take(&mut self, at_end: bool) -> OutputText {
        let taken = std::mem::replace(self, Self::new(self.limits));
        let mut lines = taken.line_ends + u64::from(!matches!(taken.last_byte, None | Some(b'\n')));
        let mut head = taken.head;
        let mut tail = Vec::from(taken.tail);
        let mut omitted_bytes = taken.omitted_bytes;
        if omitted_bytes > 0 {
            // The gap broke characters at both of its sides.
            let broken = incomplete_end(&head);
            head.truncate(head.len() - broken);
            let orphans = tail.iter().take(3).take_while(|byte| is_continuation(**byte)).count();
            tail.drain(..orphans);
            omitted_bytes += (broken + orphans) as u64;
        }
        let mut original_bytes = omitted_bytes + (head.len() + tail.len()) as u64;
        if omitted_bytes > 0 {
            head.extend_from_slice(format!("\n…{omitted_bytes} bytes omitted…\n").as_bytes());
        }
        head.append(&mut tail);
        if !at_end {
            let unfinished = head.split_off(head.len() - incomplete_end(&head));
            original_bytes -= unfinished.len() as u64;
            lines = if head.is_empty() { 0 } else { lines };
            self.push(&unfinished);
        }
        let text = match String::from_utf8_lossy(&head) {
            std::borrow::Cow::Owned(text) => text,
            // Found valid just now, so that this takes the bytes without a copy.
            std::borrow::Cow::Borrowed(_) => String::from_utf8(head).unwrap_or_default(),
        };
        OutputText { text, lines, original_bytes }
    }
}

fn is_continuation(byte: u8) -> bool {
    byte & 0b1100_0000 == 0b1000_0000
}

/// The number of bytes at the end that begin a character and do not complete it.
fn incomplete_end(bytes: &[u8]) -> usize {
    let from = bytes.len().saturating_sub(3);
    match std::str::from_utf8(&bytes[from..]) {
        Ok(_) => 0,
        Err(_) => (1..=3.min(bytes.len()))
            .find(|length| {
                let end = &bytes[bytes.len() - length..];
                !is_continuation(end[0])
                    && matches!(std::str::from_utf8(end), Err(error) if error.error_len().is_none())
            })
            .unwrap_or(0),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn buffer(total: usize) -> OutputBuffer {
        OutputBuffer::new(BufferLimits::halves_of(total))
    }

    fn check(pieces: &[&str], total: usize, expect: &str) {
        let mut buffer = buffer(total);
        pieces.iter().for_each(|piece| buffer.push(piece.as_bytes()));
        assert_eq!(buffer.take(true).text, expect, "for {pieces:?} in {total}");
    }

    #[test]
    fn keeps_both_ends() {
        check(&[], 8, "");
        check(&["abc", "defgh"], 8, "abcdefgh");
        check(&["abcdefghi"], 8, "abcd\n…1 bytes omitted…\nfghi");
        check(&["abcd", "efgh", "i", "jklmnopq"], 8, "abcd\n…9 bytes omitted…\nnopq");
        check(&["üüüü", "üüüü"], 9, "üü\n…8 bytes omitted…\nüü");
    }

    #[test]
    fn does_not_break_characters_between_takes() {
        let mut buffer = buffer(100);
        let euro = "€".as_bytes();
        buffer.push(b"1 ");
        buffer.push(&euro[..2]);
        assert_eq!(
            buffer.take(false),
            OutputText { text: "1 ".into(), lines: 1, original_bytes: 2 }
        );
        assert_eq!(buffer.take(false), OutputText::default());
        buffer.push(&euro[2..]);
        assert_eq!(buffer.take(false).text, "€");
        buffer.push(&euro[..2]);
        assert_eq!(buffer.take(true).text, "\u{fffd}");
        buffer.push(b"\xff\xfe");
        assert_eq!(buffer.take(false).text, "\u{fffd}\u{fffd}");
    }

    #[test]
    fn counts_all_lines() {
        let mut buffer = buffer(10);
        (0..1000).for_each(|n| buffer.push(format!("{n}\n").as_bytes()));
        buffer.push(b"end");
        assert_eq!(buffer.take(true).lines, 1001);
    }

    #[test]
    fn limits_change_under_load() {
        let mut buffer = buffer(16);
        buffer.push(b"0123456789abcdef");
        buffer.set_limits(BufferLimits::halves_of(4));
        assert_eq!(buffer.take(true).text, "01\n…12 bytes omitted…\nef");
        buffer.push(b"0123456789");
        buffer.set_limits(BufferLimits::halves_of(16));
        buffer.push(b"abcdefgh");
        assert_eq!(buffer.take(true).text, "01\n…8 bytes omitted…\nabcdefgh");
    }

    proptest! {
        #[test]
        fn memory_and_counts_hold(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20), 0..20)) {
            let mut buffer = buffer(16);
            for piece in &pieces {
                buffer.push(piece);
                prop_assert!(buffer.head.len() + buffer.tail.len() <= 16);
            }
            let all = pieces.concat();
            let kept = buffer.head.len() + buffer.tail.len();
            prop_assert_eq!(kept as u64 + buffer.omitted_bytes, all.len() as u64);
            prop_assert!(all.starts_with(&buffer.head));
            let tail: Vec<u8> = buffer.tail.iter().copied().collect();
            prop_assert!(all.ends_with(&tail));
        }

        #[test]
        fn text_in_pieces_is_text(text in "\\PC{0,40}", cuts in prop::collection::vec(1usize..5, 0..40)) {
            let mut buffer = buffer(4096);
            let (mut rest, mut got) = (text.as_bytes(), String::new());
            for cut in cuts {
                let (piece, after) = rest.split_at(cut.min(rest.len()));
                buffer.push(piece);
                got.push_str(&buffer.take(false).text);
                rest = after;
            }
            buffer.push(rest);
            got.push_str(&buffer.take(true).text);
            prop_assert_eq!(got, text);
        }
    }
}
