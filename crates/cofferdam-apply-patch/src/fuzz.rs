//! How far a line may differ from the patch and still be the line that is meant.

use std::borrow::Cow;
use std::fmt;

/// How closely lines of the file match lines of the patch, closest first.
///
/// The levels are tried in this order over the whole rest of the file, and the first that matches anywhere is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Fuzz {
    /// Byte for byte.
    #[default]
    Exact,
    /// But for white space at the end of lines.
    TrailingSpace,
    /// But for white space at both ends of lines.
    Whitespace,
    /// But for white space at both ends, and typographic dashes, quotes and spaces read as their ASCII forms.
    Unicode,
}

impl Fuzz {
    pub(crate) const LEVELS: [Self; 4] =
        [Self::Exact, Self::TrailingSpace, Self::Whitespace, Self::Unicode];

    /// Returns the form in which two lines that match at this level are equal.
    pub(crate) fn fold(self, line: &str) -> Cow<'_, str> {
        let mut buffer = String::new();
        match self.fold_in(line, &mut buffer) {
            Some(part) => Cow::Borrowed(part),
            None => Cow::Owned(buffer),
        }
    }

    /// As [`Fuzz::fold`], but a form that is not a part of the line is left in `buffer`.
    pub(crate) fn fold_in<'l>(self, line: &'l str, buffer: &mut String) -> Option<&'l str> {
        match self {
            Self::Exact => Some(line),
            Self::TrailingSpace => Some(line.trim_end()),
            Self::Whitespace => Some(trim(line)),
            Self::Unicode => {
                let mut rest = unicode_trim(line);
                if rest.is_ascii() {
                    return Some(rest);
                }
                buffer.clear();
                while let Some(at) = rest.bytes().position(|byte| !byte.is_ascii()) {
                    buffer.push_str(&rest[..at]);
                    let mut chars = rest[at..].chars();
                    buffer.extend(chars.next().map(ascii_form));
                    rest = chars.as_str();
                }
                buffer.push_str(rest);
                None
            }
        }
    }
}

/// As [`str::trim`], but by bytes where the ends of the line are printable ASCII, as they mostly are.
fn trim(line: &str) -> &str {
    let line = line.trim_ascii();
    match line.as_bytes() {
        [b'!'..=b'~', .., b'!'..=b'~'] => line,
        _ => line.trim(),
    }
}

/// Trims white space and a byte order mark. Folding a character makes no new white space, so this is the final extent.
pub(crate) fn unicode_trim(line: &str) -> &str {
    let line = trim(line);
    line.strip_prefix('\u{feff}').map_or(line, str::trim_start)
}

impl fmt::Display for Fuzz {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Exact => "exact",
            Self::TrailingSpace => "trailing white space differs",
            Self::Whitespace => "indentation or trailing white space differs",
            Self::Unicode => "typographic characters differ",
        })
    }
}

fn ascii_form(character: char) -> char {
    match character {
        '\u{2010}'..='\u{2015}' | '\u{2212}' => '-',
        '\u{2018}'..='\u{201b}' => '\'',
        '\u{201c}'..='\u{201f}' => '"',
        '\u{a0}' | '\u{2002}'..='\u{200a}' | '\u{202f}' | '\u{205f}' | '\u{3000}' => ' ',
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_level_allows_what_the_one_before_refuses() {
        for (line, level, folded) in [
            ("\u{b}\u{a0}a\u{2003}\u{b}", Fuzz::Whitespace, "a"),
            (" ab\t", Fuzz::Whitespace, "ab"),
            ("\u{3000}", Fuzz::Whitespace, ""),
            ("  a \u{2014} b\t ", Fuzz::Exact, "  a \u{2014} b\t "),
            ("  a \u{2014} b\t ", Fuzz::TrailingSpace, "  a \u{2014} b"),
            ("  a \u{2014} b\t ", Fuzz::Whitespace, "a \u{2014} b"),
            ("  a \u{2014} b\t ", Fuzz::Unicode, "a - b"),
            ("\u{feff}\u{201c}x\u{201d}\u{3000}", Fuzz::Unicode, "\"x\""),
            ("\u{2018}\u{2212}\u{a0}y\u{2019}", Fuzz::Unicode, "'- y'"),
        ] {
            assert_eq!(level.fold(line), folded, "{line:?} at {level:?}");
        }
    }
}
