//! Generates the synthetic clinical records of the example, and their ground truth, from a seed.
//!
//! `prng` makes every choice. `encounter` plans who saw whom and when, with names of `people` and words of
//! `vocabulary`; `note`, `opening` and `bulk` write that down on a `sheet`; `page` prints, shuffles and scans it with
//! the `noise` of a scanner; `truth` records what really happened. `corpus` puts the parts together.

mod bulk;
mod corpus;
mod date;
mod encounter;
mod noise;
mod note;
mod opening;
mod page;
mod people;
mod prng;
mod sheet;
mod truth;
mod vocabulary;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{fs, io};

const USAGE: &str =
    "usage: clinical-records-generator [--seed <number>] (--out <dir> | --check <dir>)";
const DEFAULT_SEED: u64 = 20_260_101;

/// What the command line asks for.
#[derive(Debug, PartialEq, Eq)]
struct Request {
    seed: u64,
    directory: PathBuf,
    check: bool,
}

fn main() -> ExitCode {
    let outcome = parse(std::env::args().skip(1)).and_then(|request| run(&request));
    // A report that cannot be written, to a closed pipe for instance, changes nothing in the outcome.
    let code = match outcome {
        Ok(report) => writeln!(io::stdout(), "{report}").map(|()| ExitCode::SUCCESS),
        Err(problem) => writeln!(io::stderr(), "clinical-records-generator: {problem}")
            .map(|()| ExitCode::FAILURE),
    };
    code.unwrap_or(ExitCode::FAILURE)
}

fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Request, String> {
    let (mut seed, mut target) = (DEFAULT_SEED, None);
    while let Some(name) = arguments.next() {
        let value = arguments.next().ok_or_else(|| format!("{name} needs a value; {USAGE}"))?;
        match name.as_str() {
            "--seed" => {
                seed = value
                    .parse()
                    .map_err(|_| format!("seed {value:?} is not a whole number; {USAGE}"))?
            }
            "--out" | "--check" if target.is_none() => {
                target = Some((PathBuf::from(value), name == "--check"))
            }
            _ => return Err(format!("unexpected argument {name:?}; {USAGE}")),
        }
    }
    let (directory, check) = target.ok_or(USAGE)?;
    Ok(Request { seed, directory, check })
}

fn run(request: &Request) -> Result<String, String> {
    let files = corpus::generate(request.seed);
    let directory = &request.directory;
    if request.check {
        check(&files, directory)?;
    } else {
        write(&files, directory)
            .map_err(|error| format!("cannot write below {}: {error}", directory.display()))?;
    }
    let bytes: usize = files.values().map(String::len).sum();
    let encounters = files[corpus::TRUTH].lines().count();
    let verb = if request.check { "verified" } else { "wrote" };
    Ok(format!(
        "{verb} {} files, {bytes} bytes, {encounters} encounters in {}",
        files.len(),
        directory.display()
    ))
}

fn write(files: &BTreeMap<String, String>, directory: &Path) -> io::Result<()> {
    for (name, text) in files {
        let path = directory.join(name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(path, text)?;
    }
    Ok(())
}

/// Compares the files below `directory` with what they should be, and names the first difference.
fn check(files: &BTreeMap<String, String>, directory: &Path) -> Result<(), String> {
    for (name, expected) in files {
        let path = directory.join(name);
        let found =
            fs::read(&path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
        if found == expected.as_bytes() {
            continue;
        }
        let same = found.iter().zip(expected.as_bytes()).take_while(|(left, right)| left == right);
        let line = same.filter(|(byte, _)| **byte == b'\n').count() + 1;
        return Err(format!(
            "{} differs from what the seed gives, first on line {line}",
            path.display()
        ));
    }
    let records = directory.join("records");
    let listing = fs::read_dir(&records)
        .map_err(|error| format!("cannot read {}: {error}", records.display()))?;
    for entry in listing {
        let entry = entry.map_err(|error| format!("cannot read {}: {error}", records.display()))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !files.contains_key(&format!("records/{name}")) {
            return Err(format!("{} is not one of the generated files", entry.path().display()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(line: &str) -> Result<Request, String> {
        parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn arguments_are_read_in_any_order() {
        let request = |seed, check| Request { seed, directory: PathBuf::from("d"), check };
        assert_eq!(arguments("--seed 5 --out d"), Ok(request(5, false)));
        assert_eq!(arguments("--check d --seed 5"), Ok(request(5, true)));
        assert_eq!(arguments("--out d"), Ok(request(DEFAULT_SEED, false)));
    }

    #[test]
    fn wrong_arguments_are_named() {
        let check = |line, expect: &str| {
            let problem = arguments(line).unwrap_err();
            assert!(problem.contains(expect) && problem.contains("usage:"), "{problem}");
        };
        check("", "usage:");
        check("--seed five --out d", "\"five\"");
        check("--out", "--out needs a value");
        check("--out d --check e", "\"--check\"");
        check("--verbose yes --out d", "\"--verbose\"");
    }

    #[test]
    fn check_accepts_what_was_written_and_names_the_first_difference() {
        let directory =
            std::env::temp_dir().join(format!("clinical-records-{}", std::process::id()));
        let files: BTreeMap<String, String> = [
            ("records/a.txt".to_owned(), "one\ntwo\n".to_owned()),
            (corpus::TRUTH.to_owned(), "{}\n".to_owned()),
        ]
        .into();
        write(&files, &directory).unwrap();
        assert_eq!(check(&files, &directory), Ok(()));

        fs::write(directory.join("records/b.txt"), "").unwrap();
        assert!(
            check(&files, &directory)
                .unwrap_err()
                .ends_with("b.txt is not one of the generated files")
        );

        fs::write(directory.join("records/a.txt"), "one\ntoo\n").unwrap();
        let problem = check(&files, &directory).unwrap_err();
        assert!(problem.contains("a.txt") && problem.ends_with("first on line 2"), "{problem}");

        fs::remove_dir_all(&directory).unwrap();
        assert!(check(&files, &directory).unwrap_err().starts_with("cannot read"));
    }

    #[test]
    fn the_checked_in_files_are_what_the_default_seed_gives() {
        let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        assert_eq!(check(&corpus::generate(DEFAULT_SEED), &example), Ok(()));
    }
}
