//! The text of a chart while it is being written: lines, wrapped paragraphs, and where each encounter begins.

use crate::date::{Date, DateStyle};
use crate::people::Provider;
use crate::prng::Prng;

const WIDTH: usize = 92;

/// One line of body text.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    pub(crate) text: String,
    /// The encounter that begins with this line, by its position in the folder.
    pub(crate) opens: Option<usize>,
}

/// The growing body text of one folder.
#[derive(Debug)]
pub(crate) struct Sheet {
    pub(crate) lines: Vec<Line>,
    pub(crate) prng: Prng,
    /// The style that this office uses for most of its dates.
    house_style: DateStyle,
    opening: Option<usize>,
}

impl Sheet {
    pub(crate) fn new(mut prng: Prng) -> Self {
        let house_style = DateStyle::draw(&mut prng);
        Self { lines: Vec::new(), prng, house_style, opening: None }
    }

    /// Makes the next line the first of encounter `index`.
    pub(crate) fn open(&mut self, index: usize) {
        self.opening = Some(index);
    }

    pub(crate) fn line(&mut self, text: impl Into<String>) {
        self.lines.push(Line { text: text.into(), opens: self.opening.take() });
    }

    pub(crate) fn blank(&mut self) {
        self.lines.push(Line { text: String::new(), opens: None });
    }

    /// Adds a paragraph, wrapped, with long words broken at the margin.
    ///
    /// One broken word in six has lost its hyphen, as happens when a scan is cut close.
    pub(crate) fn paragraph(&mut self, text: &str) {
        let mut current = String::new();
        for word in text.split_whitespace() {
            let room = WIDTH.saturating_sub(current.len() + 1);
            if word.len() <= room {
                if !current.is_empty() {
                    current.push(' ');
                }
                current.push_str(word);
                continue;
            }
            let breakable =
                word.len() >= 8 && room >= 5 && word.bytes().all(|byte| byte.is_ascii_alphabetic());
            let mut rest = word;
            if breakable && self.prng.one_in(3) {
                let (head, tail) = word.split_at((word.len() / 2).min(room - 1));
                current.push(' ');
                current.push_str(head);
                if !self.prng.one_in(6) {
                    current.push('-');
                }
                rest = tail;
            }
            self.line(std::mem::replace(&mut current, rest.to_owned()));
        }
        if !current.is_empty() {
            self.line(current);
        }
    }

    /// Writes a date, most often in the style of the house.
    pub(crate) fn date(&mut self, date: Date) -> String {
        let style =
            if self.prng.percent(60) { self.house_style } else { DateStyle::draw(&mut self.prng) };
        date.written(style)
    }

    /// Writes the name of a provider in one of its forms.
    pub(crate) fn name(&mut self, provider: &Provider) -> String {
        provider.written(&mut self.prng)
    }

    /// Draws `count` different sentences and joins them.
    pub(crate) fn sentences(&mut self, choices: &[&'static str], count: usize) -> String {
        let mut left = choices.to_vec();
        let mut drawn = String::new();
        for _ in 0..count.min(left.len()) {
            let index = self.prng.below(left.len());
            drawn.push_str(left.swap_remove(index));
            drawn.push_str(". ");
        }
        drawn.truncate(drawn.trim_end().len());
        drawn
    }
}

/// Writes minutes after midnight as a time of day.
pub(crate) fn clock(minute: usize) -> String {
    format!("{:02}:{:02}", minute / 60 % 24, minute % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paragraphs_are_wrapped_without_losing_a_letter() {
        let text = "Immunizations are documented as complete in the registry ".repeat(40);
        let mut sheet = Sheet::new(Prng::new(1));
        sheet.paragraph(&text);
        assert!(sheet.lines.iter().all(|line| line.text.len() <= WIDTH));
        let letters =
            |text: &str| text.chars().filter(char::is_ascii_alphabetic).collect::<String>();
        let written: String = sheet.lines.iter().map(|line| line.text.as_str()).collect();
        assert_eq!(letters(&written), letters(&text));
    }

    #[test]
    fn only_the_next_line_opens_an_encounter() {
        let mut sheet = Sheet::new(Prng::new(1));
        sheet.open(4);
        sheet.blank();
        sheet.line("a");
        sheet.line("b");
        let opens: Vec<_> = sheet.lines.iter().map(|line| line.opens).collect();
        assert_eq!(opens, [None, Some(4), None]);
    }

    #[test]
    fn clock_counts_past_midnight() {
        assert_eq!(clock(14 * 60 + 5), "14:05");
        assert_eq!(clock(25 * 60), "01:00");
    }
}
