//! Bounds on text that goes to a model, counted in tokens. Pure.
//!
//! A token is taken as four bytes, as the peers do: cheap, the same for every model, and wrong by little for code and
//! logs. What is over the budget is cut from the middle, since the beginning of an output says what ran and the end says
//! how it went.

use std::borrow::Cow;

/// The bytes that count as one token.
pub const BYTES_PER_TOKEN: usize = 4;

/// Returns the approximate number of tokens of this many bytes, rounded up.
///
/// ```
/// assert_eq!(cofferdam_shell::truncate::approximate_tokens(9), 3);
/// ```
#[must_use]
pub fn approximate_tokens(bytes: u64) -> u64 {
    bytes.div_ceil(BYTES_PER_TOKEN as u64)
}

/// Text of a command, and how much was already lost of it before it came here.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OutputText {
    /// What was kept.
    pub text: String,
    /// Lines of the whole output, those that were not kept included.
    pub lines: u64,
    /// Bytes of the whole output, those that were not kept included.
    pub original_bytes: u64,
}

impl OutputText {
    /// Wraps text of which nothing was lost.
    pub fn whole(text: impl Into<String>) -> Self {
        let text = text.into();
        Self { lines: text.lines().count() as u64, original_bytes: text.len() as u64, text }
    }

    /// Returns the text within a budget of tokens, and whether it had to be cut.
    ///
    /// A cut text begins with `Total output lines: N` and an empty line, then come the head, `…N tokens truncated…` and
    /// the tail, all within the budget together. A budget too small for the first line goes without it, and one too small
    /// for the marker gets the head alone. No character is broken.
    #[must_use]
    pub fn truncate(&self, max_tokens: usize) -> (Cow<'_, str>, bool) {
        self.truncate_bytes(max_tokens.saturating_mul(BYTES_PER_TOKEN))
    }

    /// Returns the text within a budget of bytes, as [`OutputText::truncate`] does.
    #[must_use]
    pub fn truncate_bytes(&self, budget: usize) -> (Cow<'_, str>, bool) {
        if self.text.len() <= budget {
            return (Cow::Borrowed(&self.text), false);
        }
        let header = format!("Total output lines: {}\n\n", self.lines);
        // The widest marker is the one that counts all; the final one is never wider.
        let all = self.original_bytes.max(self.text.len() as u64);
        let marker_bytes = marker(all).len();
        let header =
            if header.len() + marker_bytes < budget { header.as_str() } else { Default::default() };
        let Some(room) = budget.checked_sub(header.len() + marker_bytes) else {
            return (Cow::Borrowed(head(&self.text, budget)), true);
        };
        let head = head(&self.text, room.div_ceil(2).min(self.text.len()));
        let rest = &self.text[head.len()..];
        let tail = tail(rest, room / 2);
        let cut = all - (head.len() + tail.len()) as u64;
        (Cow::Owned(format!("{header}{head}{}{tail}", marker(cut))), true)
    }
}

fn marker(cut_bytes: u64) -> String {
    format!("…{} tokens truncated…", approximate_tokens(cut_bytes))
}

/// The longest beginning of at most `max_bytes` that breaks no character.
pub(crate) fn head(text: &str, max_bytes: usize) -> &str {
    &text[..text.floor_char_boundary(max_bytes)]
}

/// The longest end of at most `max_bytes` that breaks no character.
fn tail(text: &str, max_bytes: usize) -> &str {
    &text[text.ceil_char_boundary(text.len().saturating_sub(max_bytes))..]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(text: &str, max_tokens: usize, expect: &str) {
        let output = OutputText::whole(text);
        let (got, cut) = output.truncate(max_tokens);
        assert_eq!(got, expect, "for {text:?} in {max_tokens}");
        assert_eq!(cut, text.len() > 4 * max_tokens);
    }

    #[test]
    fn cuts_from_the_middle() {
        check("", 0, "");
        check("abcd", 1, "abcd");
        check("abcde", 1, "abcd");
        check("abcde", 0, "");
        let numbers: String = (1..=30).map(|n| format!("line {n}\n")).collect();
        check(&numbers, 100, &numbers);
        check(
            &numbers,
            20,
            "Total output lines: 30\n\nline 1\nline 2\nli…50 tokens truncated…ine 29\nline 30\n",
        );
        check(&numbers, 8, "line…56 tokens truncated…30\n");
        check(&numbers, 5, "line 1\nline 2\nline 3");
        check(&"ü".repeat(50), 10, "üüüü…22 tokens truncated…üüü");
    }

    #[test]
    fn counts_what_was_lost_before() {
        let text = "begin\n".repeat(20);
        let output = OutputText { text, lines: 5_000, original_bytes: 40_000 };
        let (text, cut) = output.truncate(20);
        assert!(cut);
        assert_eq!(
            text,
            "Total output lines: 5000\n\nbegin\nbegin\nb…9994 tokens truncated…\nbegin\nbegin\n"
        );
    }

    proptest! {
        #[test]
        fn stays_within_the_budget(text in "(?s).{0,300}", max_tokens in 0usize..90, original in 0u64..3) {
            let output = OutputText { original_bytes: original * 1000, ..OutputText::whole(text.clone()) };
            let (got, cut) = output.truncate(max_tokens);
            prop_assert!(got.len() <= 4 * max_tokens);
            prop_assert_eq!(cut, text.len() > 4 * max_tokens);
            if !cut {
                prop_assert_eq!(got, text);
            }
        }
    }
}
