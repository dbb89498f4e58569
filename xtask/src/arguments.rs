//! The words after a task's name, taken one kind at a time; what nobody took is an error.

use anyhow::{Result, bail};

/// The command line of one task.
#[derive(Debug, Default)]
pub(crate) struct Arguments {
    words: Vec<String>,
}

impl Arguments {
    pub(crate) fn new(words: Vec<String>) -> Self {
        Self { words }
    }

    /// Takes the flag, and answers whether it was there.
    pub(crate) fn flag(&mut self, name: &str) -> bool {
        let before = self.words.len();
        self.words.retain(|word| word != name);
        self.words.len() < before
    }

    /// Takes `NAME NUMBER`, if it is there.
    pub(crate) fn number(&mut self, name: &str) -> Result<Option<u64>> {
        let Some(at) = self.words.iter().position(|word| word == name) else { return Ok(None) };
        let Some(number) = self.words.get(at + 1).and_then(|word| word.parse().ok()) else {
            bail!("`{name}` needs a number");
        };
        self.words.drain(at..=at + 1);
        Ok(Some(number))
    }

    /// Takes every `-p NAME`, `--package NAME` and `--package=NAME`.
    pub(crate) fn packages(&mut self) -> Result<Vec<String>> {
        let mut packages = Vec::new();
        let mut rest = Vec::new();
        let mut words = std::mem::take(&mut self.words).into_iter();
        while let Some(word) = words.next() {
            if word == "-p" || word == "--package" {
                match words.next() {
                    Some(name) => packages.push(name),
                    None => bail!("`{word}` needs the name of a package"),
                }
            } else if let Some(name) = word.strip_prefix("--package=") {
                packages.push(name.to_owned());
            } else {
                rest.push(word);
            }
        }
        self.words = rest;
        Ok(packages)
    }

    /// Takes what is left as names.
    ///
    /// # Errors
    ///
    /// A word that looks like an option.
    pub(crate) fn names(self) -> Result<Vec<String>> {
        if let Some(option) = self.words.iter().find(|word| word.starts_with('-')) {
            bail!("unknown option `{option}`; `cargo xtask help` shows the usage");
        }
        Ok(self.words)
    }

    /// Refuses whatever is left.
    pub(crate) fn finish(self) -> Result<()> {
        match self.names()?.first() {
            Some(word) => bail!("unexpected argument `{word}`; `cargo xtask help` shows the usage"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Arguments;

    fn arguments(line: &str) -> Arguments {
        Arguments::new(line.split_whitespace().map(str::to_owned).collect())
    }

    #[test]
    fn takes_flags_packages_and_names_in_any_order() {
        let mut words = arguments("fmt -p a --quick clippy --package b --seed 7 --package=c");
        assert_eq!(words.number("--seed").unwrap(), Some(7));
        assert_eq!(words.number("--seed").unwrap(), None);
        assert!(words.flag("--quick"));
        assert!(!words.flag("--quick"));
        assert_eq!(words.packages().unwrap(), ["a", "b", "c"]);
        assert_eq!(words.names().unwrap(), ["fmt", "clippy"]);
    }

    #[test]
    fn refuses_what_nobody_took() {
        let message = |error: anyhow::Error| error.to_string();
        assert_eq!(
            message(arguments("--fast").finish().unwrap_err()),
            "unknown option `--fast`; `cargo xtask help` shows the usage"
        );
        assert_eq!(
            message(arguments("word").finish().unwrap_err()),
            "unexpected argument `word`; `cargo xtask help` shows the usage"
        );
        assert_eq!(
            message(arguments("-p").packages().unwrap_err()),
            "`-p` needs the name of a package"
        );
        for line in ["--rounds", "--rounds many", "--rounds -1"] {
            let error = arguments(line).number("--rounds").unwrap_err();
            assert_eq!(message(error), "`--rounds` needs a number");
        }
        arguments("").finish().unwrap();
    }
}
