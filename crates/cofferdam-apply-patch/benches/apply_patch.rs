//! How long patches take, beside reading and writing the same bytes: one JSON object per line.
//!
//! `median_ms` and `min_ms` are for the work named by the case. Library cases are parsing and applying in memory; cases on
//! disk also read, write temporary files and rename. The floor is the time to read the same files and write them anew with
//! `std::fs`, without a patch: `floor_read_write_ms` is its median, and `ratio` compares the medians. `bar_ms` is the
//! most that the median may be, where a bar is set.
//!
//! An argument that is no option chooses the cases whose name has it.

use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write as _};
use std::path::Path;
use std::time::Instant;

use cofferdam_apply_patch::{Operation, Options, apply_hunks, command, parse};

const LINES: usize = 100_000;

/// What hunks of the unicode cases have in ASCII.
const NOTE: &str = " \u{2014} \u{201c}note\u{201d}";
const REPEATS: usize = 21;
const WARM_UP: usize = 2;
/// The bars for one file of 100,000 lines, as library calls.
const ONE_HUNK_MS: f64 = 10.0;
const THOUSAND_HUNKS_MS: f64 = 25.0;

fn main() -> io::Result<()> {
    let chosen = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    let chosen = chosen.unwrap_or_default();
    let directory = tempfile::tempdir()?;
    in_memory_cases(directory.path(), &chosen)?;
    one_file_on_disk(directory.path(), &chosen)?;
    many_files_on_disk(directory.path(), &chosen)
}

/// A file and a diff for it, which applies unless it is `not found`.
struct Case<'a> {
    name: &'static str,
    file: &'a str,
    diff: String,
    bar_ms: Option<f64>,
}

fn in_memory_cases(directory: &Path, chosen: &str) -> io::Result<()> {
    let ten = file_of(10, "");
    let plain = file_of(LINES, "");
    let spaced = file_of(LINES, "  ");
    let typographic = file_of(LINES, NOTE);
    // Around the places that hunks change, as in a text that a person wrote here and there.
    let some = |number: usize| if number / 10 % 10 == 5 { NOTE } else { "" };
    let partly = file_with(LINES, some);
    let missing = "@@\n-    let missing = compute(0, 0); // nowhere\n".to_owned();
    let ascii = " - \"note\"";
    let one = |name, file, diff| Case { name, file, diff, bar_ms: Some(ONE_HUNK_MS) };
    let thousand = |name, file, diff| Case { name, file, diff, bar_ms: Some(THOUSAND_HUNKS_MS) };
    let cases = [
        Case { name: "10 lines, 1 hunk", file: &ten, diff: hunks([5], ""), bar_ms: None },
        one("100k lines, 1 hunk at the start", &plain, hunks([10], "")),
        one("100k lines, 1 hunk in the middle", &plain, hunks([LINES / 2], "")),
        one("100k lines, 1 hunk at the end", &plain, hunks([LINES - 10], "")),
        one("100k lines, 1 hunk, trailing space fuzz", &spaced, hunks([LINES / 2], "")),
        one("100k lines, 1 hunk, unicode fuzz", &partly, hunks([LINES / 2 + 50], ascii)),
        Case {
            name: "100k lines, 1 hunk, unicode fuzz on every line",
            file: &typographic,
            diff: hunks([LINES / 2], ascii),
            bar_ms: None,
        },
        Case { name: "100k lines, 1 hunk, not found", file: &plain, diff: missing, bar_ms: None },
        thousand("100k lines, 1000 hunks", &plain, hunks(every_hundredth(), "")),
        thousand(
            "100k lines, 1000 hunks, trailing space fuzz",
            &spaced,
            hunks(every_hundredth(), ""),
        ),
        thousand("100k lines, 1000 hunks, unicode fuzz", &partly, hunks(every_hundredth(), ascii)),
        thousand("100k lines, 1000 hunks, context everywhere alike", &plain, alike()),
    ];
    for Case { name, file, diff, bar_ms } in cases.iter().filter(|case| case.name.contains(chosen))
    {
        let patch = format!("*** Begin Patch\n*** Update File: f\n{diff}*** End Patch\n");
        let path = directory.join("floor");
        fs::write(&path, file)?;
        let floor = measure(|_| rewrite(&path))?;
        let applies = !name.ends_with("not found");
        let times = measure(|_| {
            if in_memory(&patch, file) == applies {
                Ok(())
            } else {
                Err(io::Error::other(format!("{name}: unexpected outcome")))
            }
        })?;
        report(name, &times, &floor, *bar_ms)?;
    }
    Ok(())
}

fn one_file_on_disk(directory: &Path, chosen: &str) -> io::Result<()> {
    let big = directory.join("big");
    fs::create_dir(&big)?;
    fs::write(big.join("f"), file_of(LINES, ""))?;
    let cases = [
        ("100k lines, 1 hunk, on disk", vec![LINES / 2]),
        ("100k lines, 1000 hunks, on disk", every_hundredth()),
    ];
    for (name, positions) in cases.into_iter().filter(|(name, _)| name.contains(chosen)) {
        let diff = hunks(positions, "");
        let update =
            |diff: &str| format!("*** Begin Patch\n*** Update File: f\n{diff}*** End Patch\n");
        let patches = [update(&diff), update(&undo(&diff))];
        let floor = measure(|_| rewrite(&big.join("f")))?;
        let times = measure(|turn| run(&big, &patches[turn % 2]))?;
        // An odd number of turns leaves the file changed.
        run(&big, &patches[1])?;
        report(name, &times, &floor, None)?;
    }
    Ok(())
}

fn many_files_on_disk(directory: &Path, chosen: &str) -> io::Result<()> {
    let name = "500 files of 50 lines, 1 hunk each, on disk";
    if !name.contains(chosen) {
        return Ok(());
    }
    let many = directory.join("many");
    fs::create_dir(&many)?;
    let diff = hunks([25], "");
    let mut patches = ["*** Begin Patch\n".to_owned(), "*** Begin Patch\n".to_owned()];
    for number in 0..500 {
        fs::write(many.join(format!("f{number}")), file_of(50, ""))?;
        for (patch, diff) in patches.iter_mut().zip([&diff, &undo(&diff)]) {
            let _ = write!(patch, "*** Update File: f{number}\n{diff}");
        }
    }
    patches.iter_mut().for_each(|patch| patch.push_str("*** End Patch\n"));
    let floor =
        measure(|_| (0..500).try_for_each(|number| rewrite(&many.join(format!("f{number}")))))?;
    let times = measure(|turn| run(&many, &patches[turn % 2]))?;
    report(name, &times, &floor, None)
}

fn run(directory: &Path, patch: &str) -> io::Result<()> {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let code = command::run(&[], &mut patch.as_bytes(), directory, &mut out, &mut err);
    if code == 0 {
        Ok(())
    } else {
        Err(io::Error::other(String::from_utf8_lossy(&err).into_owned()))
    }
}

/// Whether the patch applies.
fn in_memory(patch: &str, file: &str) -> bool {
    parse(patch).is_ok_and(|patch| {
        patch.operations.iter().all(|operation| match operation {
            Operation::Update { hunks, .. } => {
                apply_hunks(file.as_bytes(), hunks, &Options::default()).is_ok()
            }
            _ => false,
        })
    })
}

fn line(number: usize) -> String {
    format!("    let v{number} = f({});", number * 7)
}

fn file_of(lines: usize, suffix: &str) -> String {
    file_with(lines, |_| suffix)
}

fn file_with<'a>(lines: usize, suffix: impl Fn(usize) -> &'a str) -> String {
    (0..lines).fold(String::new(), |mut text, number| {
        // Every tenth line is a common one.
        let line = if number % 10 == 9 { "    }".to_owned() } else { line(number) };
        let _ = writeln!(text, "{line}{}", suffix(number));
        text
    })
}

fn every_hundredth() -> Vec<usize> {
    (0..LINES / 100).map(|number| number * 100 + 50).collect()
}

/// One hunk at each position: a line of context, a changed line, a line of context.
fn hunks(positions: impl IntoIterator<Item = usize>, suffix: &str) -> String {
    positions.into_iter().fold(String::new(), |mut text, at| {
        let at = at - at % 10 + 4;
        let _ = writeln!(text, "@@\n {}{suffix}\n-{}{suffix}", line(at - 1), line(at));
        let _ = writeln!(text, "+    changed({at});\n {}{suffix}", line(at + 1));
        text
    })
}

/// A thousand hunks whose lines are in ten thousand places.
fn alike() -> String {
    "@@\n     }\n+    also();\n".repeat(1_000)
}

fn undo(diff: &str) -> String {
    diff.lines().fold(String::new(), |mut text, line| {
        let _ = match line.split_at_checked(1) {
            Some(("-", rest)) => writeln!(text, "+{rest}"),
            Some(("+", rest)) => writeln!(text, "-{rest}"),
            _ => writeln!(text, "{line}"),
        };
        text
    })
}

fn rewrite(path: &Path) -> io::Result<()> {
    fs::write(path, fs::read(path)?)
}

/// Runs the work some times to warm up and then to measure; returns milliseconds, sorted.
fn measure(mut work: impl FnMut(usize) -> io::Result<()>) -> io::Result<Vec<f64>> {
    let mut times = Vec::with_capacity(REPEATS);
    for turn in 0..WARM_UP + REPEATS {
        let started = Instant::now();
        work(turn)?;
        if turn >= WARM_UP {
            times.push(started.elapsed().as_secs_f64() * 1e3);
        }
    }
    times.sort_by(f64::total_cmp);
    Ok(times)
}

fn report(case: &str, times: &[f64], floor: &[f64], bar_ms: Option<f64>) -> io::Result<()> {
    let (median, floor) = (times[REPEATS / 2], floor[REPEATS / 2]);
    let bar = bar_ms.map(|bar| format!(",\"bar_ms\":{bar}")).unwrap_or_default();
    writeln!(
        io::stdout(),
        "{{\"case\":\"{case}\",\"median_ms\":{median:.3},\"min_ms\":{:.3},\"n\":{REPEATS},\
         \"floor\":\"read and write\",\"floor_read_write_ms\":{floor:.3},\"ratio\":{:.3}{bar}}}",
        times[0],
        median / floor,
    )
}
