//! The file in which tests say that they cannot run here, one `name<TAB>reason` per line.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::report::Skip;

/// An empty log for one run, gone when this value is.
#[derive(Debug)]
pub(crate) struct SkipLog {
    directory: PathBuf,
    file: PathBuf,
}

impl SkipLog {
    /// The variable that tells tests where the log is.
    pub(crate) const VARIABLE: &str = "COFFERDAM_SKIP_LOG";

    pub(crate) fn create() -> Result<Self> {
        // Not in the target directory: some tests run as another user, who may not reach it and must be able to write.
        let directory =
            std::env::temp_dir().join(format!("cofferdam-skipped-{}", std::process::id()));
        std::fs::create_dir(&directory)
            .with_context(|| format!("could not create {}", directory.display()))?;
        let log = Self { file: directory.join("skipped.tsv"), directory };
        std::fs::write(&log.file, "")?;
        std::fs::set_permissions(&log.directory, PermissionsExt::from_mode(0o755))?;
        std::fs::set_permissions(&log.file, PermissionsExt::from_mode(0o666))?;
        Ok(log)
    }

    pub(crate) fn file(&self) -> &Path {
        &self.file
    }

    pub(crate) fn read(&self) -> Result<Vec<Skip>> {
        let text = std::fs::read_to_string(&self.file);
        Ok(parse(&text.with_context(|| format!("could not read {}", self.file.display()))?))
    }
}

impl Drop for SkipLog {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.directory) {
            println!("note: could not remove {}: {error}", self.directory.display());
        }
    }
}

/// One skip per line, `name<TAB>reason`.
pub(crate) fn parse(text: &str) -> Vec<Skip> {
    let skip = |line: &str| {
        let (what, why) = line.split_once('\t').unwrap_or((line, "no reason given"));
        Skip { what: what.to_owned(), why: why.to_owned() }
    };
    text.lines().filter(|line| !line.is_empty()).map(skip).collect()
}

#[cfg(test)]
mod tests {
    use super::{Skip, SkipLog};

    #[test]
    fn reads_what_tests_wrote_and_leaves_nothing() {
        let log = SkipLog::create().unwrap();
        let file = log.file().to_owned();
        assert_eq!(log.read().unwrap(), []);
        std::fs::write(&file, "a::b\tno user namespaces\n\nc\n").unwrap();
        let skip = |what: &str, why: &str| Skip { what: what.to_owned(), why: why.to_owned() };
        assert_eq!(
            log.read().unwrap(),
            [skip("a::b", "no user namespaces"), skip("c", "no reason given")]
        );
        drop(log);
        assert!(!file.exists());
    }
}
