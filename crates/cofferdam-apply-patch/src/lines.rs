//! A file's text as lines that remember their endings.
//!
//! Lines end in LF, CRLF or a lone CR, and may do so by turns. A byte order mark is set aside so that it cannot hide the
//! first line from a search.

const BYTE_ORDER_MARK: &str = "\u{feff}";

/// The largest text whose offsets fit.
pub(crate) const MAX_TEXT_BYTES: usize = u32::MAX as usize;

/// A text split into lines, borrowing the file.
#[derive(Debug)]
pub(crate) struct Text<'a> {
    body: &'a str,
    /// Start and end of each line's content in `body`, without its ending.
    spans: Vec<(u32, u32)>,
    /// Whether a byte order mark stood before `body`.
    has_mark: bool,
}

impl<'a> Text<'a> {
    /// Splits a text of at most [`MAX_TEXT_BYTES`].
    pub(crate) fn new(text: &'a str) -> Self {
        let marked = text.strip_prefix(BYTE_ORDER_MARK);
        let body = marked.unwrap_or(text);
        Self { body, spans: split(body.as_bytes()), has_mark: marked.is_some() }
    }

    /// The number of lines. An empty text has none.
    pub(crate) fn len(&self) -> usize {
        self.spans.len()
    }

    /// The content of line `index`, counted from 0, without its ending.
    pub(crate) fn line(&self, index: usize) -> &'a str {
        let (start, end) = self.spans[index];
        &self.body[start as usize..end as usize]
    }

    /// The text of the lines from `from` up to `to`, with their endings.
    pub(crate) fn slice(&self, from: usize, to: usize) -> &'a str {
        &self.body[self.start_of(from)..self.start_of(to)]
    }

    /// The byte order mark, or nothing.
    pub(crate) fn mark(&self) -> &'static str {
        if self.has_mark { BYTE_ORDER_MARK } else { "" }
    }

    /// The ending of the first line, which inserted lines take; LF where no line has one.
    pub(crate) fn newline(&self) -> &'a str {
        let first =
            self.spans.first().map_or("", |&(_, end)| &self.body[end as usize..self.start_of(1)]);
        if first.is_empty() { "\n" } else { first }
    }

    pub(crate) fn is_ascii(&self) -> bool {
        self.body.is_ascii()
    }

    /// Whether the last line has no ending.
    pub(crate) fn lacks_final_newline(&self) -> bool {
        self.spans.last().is_some_and(|&(_, end)| end as usize == self.body.len())
    }

    fn start_of(&self, index: usize) -> usize {
        self.spans.get(index).map_or(self.body.len(), |&(start, _)| start as usize)
    }
}

fn split(bytes: &[u8]) -> Vec<(u32, u32)> {
    let mut spans = Vec::with_capacity(bytes.len() / 32 + 1);
    let mut start = 0;
    for_each_break(bytes, |at| {
        // The second half of a CRLF belongs to the line that its CR ended.
        if at != start || at == 0 || bytes[at] != b'\n' || bytes[at - 1] != b'\r' {
            spans.push((narrow(start), narrow(at)));
        }
        start = at + 1;
    });
    if start < bytes.len() {
        spans.push((narrow(start), narrow(bytes.len())));
    }
    spans
}

/// Offsets take half the memory as 32 bits, and memory is most of the cost of a large file.
fn narrow(offset: usize) -> u32 {
    u32::try_from(offset).unwrap_or(u32::MAX)
}

/// Calls `found` with the offset of each LF and CR, eight bytes at a time.
fn for_each_break(bytes: &[u8], mut found: impl FnMut(usize)) {
    const LOW: u64 = 0x7f7f_7f7f_7f7f_7f7f;
    // Sets the high bit of exactly those bytes of `word` that equal `byte`.
    let equal = |word: u64, byte: u8| {
        let difference = word ^ u64::from_ne_bytes([byte; 8]);
        !(((difference & LOW) + LOW) | difference | LOW)
    };
    let (words, rest) = bytes.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let mut breaks = equal(word, b'\n') | equal(word, b'\r');
        while breaks != 0 {
            found(index * 8 + breaks.trailing_zeros() as usize / 8);
            breaks &= breaks - 1;
        }
    }
    for (index, byte) in rest.iter().enumerate() {
        if matches!(byte, b'\n' | b'\r') {
            found(words.len() * 8 + index);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_at_every_ending_and_keeps_it() {
        for (text, lines, newline, lacks) in [
            ("", vec![], "\n", false),
            ("a", vec!["a"], "\n", true),
            ("a\nb\n", vec!["a", "b"], "\n", false),
            ("a\r\nb", vec!["a", "b"], "\r\n", true),
            ("a\rb\r", vec!["a", "b"], "\r", false),
            ("a\r\r\n\nb", vec!["a", "", "", "b"], "\r", true),
            ("\u{feff}a\n", vec!["a"], "\n", false),
            ("\n", vec![""], "\n", false),
        ] {
            let split = Text::new(text);
            assert_eq!(
                (0..split.len()).map(|i| split.line(i)).collect::<Vec<_>>(),
                lines,
                "{text:?}"
            );
            assert_eq!(
                (split.newline(), split.lacks_final_newline()),
                (newline, lacks),
                "{text:?}"
            );
            assert_eq!(format!("{}{}", split.mark(), split.slice(0, split.len())), text);
        }
    }
}
