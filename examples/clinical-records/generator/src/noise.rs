//! What a scanner and its character recognition do to a page.
//!
//! Noise is applied to finished pages, after the ground truth has been taken from them.

use crate::prng::Prng;

/// How well a page was scanned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Quality {
    /// No noise at all; tests use it to look at what lies under the noise.
    Perfect,
    Clean,
    Ordinary,
    /// A fax of a copy.
    Poor,
}

impl Quality {
    pub(crate) fn draw(prng: &mut Prng) -> Self {
        [Self::Clean, Self::Ordinary, Self::Poor][prng.weighted(&[35, 52, 13])]
    }

    /// One character in this many is misread.
    fn rarity(self) -> Option<usize> {
        match self {
            Self::Perfect => None,
            Self::Clean => Some(2500),
            Self::Ordinary => Some(350),
            Self::Poor => Some(90),
        }
    }
}

/// What a character, or a pair, is read as. Letters and digits of the same shape come first and are taken most often.
const CONFUSIONS: [(&str, &[&str]); 26] = [
    ("rn", &["m"]),
    ("cl", &["d"]),
    ("0", &["O", "O", "o", "O", "8"]),
    ("1", &["l", "l", "I", "|", "7"]),
    ("2", &["Z", "Z", "z", "7"]),
    ("3", &["8", "B"]),
    ("5", &["S", "S", "s", "6"]),
    ("6", &["b", "G", "8"]),
    ("8", &["B", "B", "B", "3"]),
    ("9", &["g", "q", "4"]),
    ("O", &["0"]),
    ("o", &["0", "c"]),
    ("l", &["1", "I", "|"]),
    ("I", &["l", "1", "|"]),
    ("i", &["l", ";", "1"]),
    ("S", &["5"]),
    ("B", &["8"]),
    ("m", &["rn"]),
    ("d", &["cl"]),
    ("e", &["c", "o"]),
    ("c", &["e", "o"]),
    ("h", &["b", "li"]),
    ("n", &["ri", "u"]),
    ("t", &["f", "+"]),
    (",", &["."]),
    (" ", &["", "", "  "]),
];
const SPECKS: [char; 8] = ['\'', '`', '.', '~', '^', '*', '_', ';'];

/// Reads one line as a scanner would.
pub(crate) fn line(prng: &mut Prng, quality: Quality, text: &str) -> String {
    let Some(rarity) = quality.rarity() else { return text.to_owned() };
    let mut read = String::with_capacity(text.len() + 4);
    let mut rest = text;
    while let Some(next) = rest.chars().next() {
        let mut taken = next.len_utf8();
        if prng.one_in(rarity) {
            let confused = CONFUSIONS.iter().find(|(from, _)| rest.starts_with(from));
            match confused {
                // One accident in eight is a speck of dust, and so is each at a character with no likeness.
                Some((from, to)) if !prng.one_in(8) => {
                    read.push_str(prng.pick(to));
                    taken = from.len();
                }
                _ => {
                    read.push(*prng.pick_ref(&SPECKS));
                    read.push(next);
                }
            }
        } else {
            read.push(next);
        }
        rest = &rest[taken..];
    }
    if quality == Quality::Poor && read.len() > 70 && prng.one_in(60) {
        // The right margin lay outside the glass.
        let cut = read.len() - prng.between(4, 24);
        read.truncate(cut);
    }
    read.truncate(read.trim_end().len());
    read
}

/// Returns a line that was never on the page: dust, a fold, a stamp.
pub(crate) fn dust(prng: &mut Prng, quality: Quality) -> Option<String> {
    let rarity = match quality {
        Quality::Perfect => return None,
        Quality::Clean => 900,
        Quality::Ordinary => 200,
        Quality::Poor => 60,
    };
    prng.one_in(rarity).then(|| {
        let length = prng.between(1, 9);
        let marks: String = (0..length).map(|_| *prng.pick_ref(&SPECKS)).collect();
        let indent = prng.below(60);
        format!("{}{marks}", " ".repeat(indent))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str =
        "Date of service: 2024-03-07      Provider: Dr. Anna Lindqvist, modern clinic";

    #[test]
    fn a_perfect_scan_changes_nothing() {
        let mut prng = Prng::new(1);
        assert_eq!(line(&mut prng, Quality::Perfect, TEXT), TEXT);
        assert!((0..1000).all(|_| dust(&mut prng, Quality::Perfect).is_none()));
    }

    #[test]
    fn worse_pages_have_more_damaged_lines() {
        let damaged = |quality| {
            let mut prng = Prng::new(1);
            (0..1000).filter(|_| line(&mut prng, quality, TEXT) != TEXT).count()
        };
        let [clean, ordinary, poor] =
            [Quality::Clean, Quality::Ordinary, Quality::Poor].map(damaged);
        assert!(0 < clean && clean < 60, "{clean}");
        assert!((100..350).contains(&ordinary), "{ordinary}");
        assert!((400..800).contains(&poor), "{poor}");
    }
}
