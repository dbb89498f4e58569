//! [`Keep`]: what is kept of runs, in the words of the command.

use std::str::FromStr;

use cofferdam::{
    AutomaticCleanUp,
    checkpoint::Retention,
    manifest::{ByteSize, HumanDuration},
};

use crate::exit::Failure;

/// The words for what is kept, where no `--keep` says it.
pub(crate) const VARIABLE: &str = "COFFERDAM_KEEP";

/// `checkpoints=N`, `runs=N`, `runs-for=TIME` and `bytes=SIZE` between commas, or `all`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Keep(pub(crate) Retention);

impl FromStr for Keep {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut keep = Retention::never();
        if text == "all" {
            return Ok(Self(keep));
        }
        keep.checkpoints = Retention::default().checkpoints;
        for word in text.split(',') {
            let (name, value) = word.split_once('=').unwrap_or((word, ""));
            let number = || value.parse::<usize>().map_err(|_| format!("{word:?} needs a number"));
            match name {
                "checkpoints" => keep.checkpoints = Some(number()?),
                "runs" => keep.runs = Some(number()?),
                "runs-for" => {
                    let time = value.parse::<HumanDuration>();
                    let time = time.map_err(|error| format!("{word:?}: {error}"))?;
                    keep.runs_for = Some(time.as_duration());
                }
                "bytes" => {
                    let size = value.parse::<ByteSize>();
                    let size = size.map_err(|error| format!("{word:?}: {error}"))?;
                    keep.max_bytes = Some(size.bytes());
                }
                _ => {
                    return Err(format!(
                        "{word:?} is none of `checkpoints=N`, `runs=N`, `runs-for=TIME`, `bytes=SIZE`; `all` stands alone"
                    ));
                }
            }
        }
        Ok(Self(keep))
    }
}

/// Returns what the environment says is to be done beside runs: nothing with `off`.
pub(crate) fn automatic(
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Option<AutomaticCleanUp>, Failure> {
    match variable(VARIABLE).as_deref() {
        None => Ok(Some(AutomaticCleanUp::default())),
        Some("off") => Ok(None),
        Some(text) => {
            let Keep(keep) = text.parse().map_err(|error: String| {
                Failure::usage(anyhow::anyhow!("{VARIABLE} is wrong: {error}"))
            })?;
            Ok(Some(keep.into()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expect: Result<&str, &str>) {
        match (text.parse::<Keep>(), expect) {
            (Err(error), Err(expect)) => assert!(error.contains(expect), "{error}"),
            (Ok(Keep(keep)), Ok(expect)) => {
                let days = keep.runs_for.map(|time| time.as_secs() / (24 * 60 * 60));
                let got = (keep.checkpoints, keep.runs, days, keep.max_bytes);
                assert_eq!(format!("{got:?}").replace("Some", ""), expect, "{text}");
            }
            (got, expect) => panic!("{text}: {got:?}, and {expect:?} was expected"),
        }
    }

    #[test]
    fn words_say_what_is_kept() {
        check("all", Ok("(None, None, None, None)"));
        check("runs=7", Ok("((32), (7), None, None)"));
        check(
            "checkpoints=3,runs=100,runs-for=30d,bytes=2GiB",
            Ok("((3), (100), (30), (2147483648))"),
        );
        check("", Err("is none of"));
        check("all,runs=1", Err("`all` stands alone"));
        check("runs=", Err("needs a number"));
        check("runs=-1", Err("needs a number"));
        check("runs-for=soon", Err("\"runs-for=soon\""));
        check("bytes=lots", Err("\"bytes=lots\""));
    }

    #[test]
    fn the_environment_decides_what_happens_beside_runs() {
        let said = |text: &'static str| move |_: &str| Some(text.to_owned());
        assert_eq!(automatic(|_| None).ok(), Some(Some(AutomaticCleanUp::default())));
        assert_eq!(automatic(said("off")).ok(), Some(None));
        assert_eq!(automatic(said("all")).ok(), Some(Some(Retention::never().into())));
        let error = automatic(said("some")).err().map(|failure| failure.error.to_string());
        assert!(error.is_some_and(|error| error.starts_with("COFFERDAM_KEEP is wrong: ")));
    }
}
