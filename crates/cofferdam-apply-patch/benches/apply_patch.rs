//! How long patches take, beside reading and writing the same bytes: one JSON object per line.
//!
//! `median_ms` and `min_ms` are for the work named by the case. Library cases are parsing and applying in memory; cases on
//! disk also read, write temporary files and rename. `floor_read_write_ms` is the median time to read the same files and
//! write them anew with `std::fs`, without a patch.

use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write as _};
use std::path::Path;
use std::time::Instant;

use cofferdam_apply_patch::{Operation, Options, apply_hunks, parse};

const LINES: usize = 100_000;

fn main() -> io::Result<()> {
    let directory = tempfile::tempdir()?;
    let ten = file_of(10, "");
    let plain = file_of(LINES, "");
    let spaced = file_of(LINES, "  ");
    let typographic = file_of(LINES, " \u{2014} \u{201c}note\u{201d}");

    let cases: [(&str, &str, String); 11] = [
        ("10 lines, 1 hunk", &ten, hunks([5], "")),
        ("100k lines, 1 hunk at the start", &plain, hunks([10], "")),
        ("100k lines, 1 hunk in the middle", &plain, hunks([LINES / 2], "")),
        ("100k lines, 1 hunk at the end", &plain, hunks([LINES - 10], "")),
        ("100k lines, 1 hunk, trailing space fuzz", &spaced, hunks([LINES / 2], "")),
        ("100k lines, 1 hunk, unicode fuzz", &typographic, hunks([LINES / 2], " - \"note\"")),
        (
            "100k lines, 1 hunk, not found",
            &plain,
            "@@\n-    let missing = compute(0, 0); // nowhere\n".to_owned(),
        ),
        ("100k lines, 1000 hunks", &plain, hunks(every_hundredth(), "")),
        ("100k lines, 1000 hunks, trailing space fuzz", &spaced, hunks(every_hundredth(), "")),
        (
            "100k lines, 1000 hunks, unicode fuzz",
            &typographic,
            hunks(every_hundredth(), " - \"note\""),
        ),
        ("100k lines, 1000 hunks, context everywhere alike", &plain, alike()),
    ];
    for (name, file, diff) in &cases {
        let patch = format!("*** Begin Patch\n*** Update File: f\n{diff}*** End Patch\n");
        let path = directory.path().join("floor");
        fs::write(&path, file)?;
        let floor = measure(|| rewrite(&path))?;
        let expects_failure = name.ends_with("not found");
        let library = measure(|| {
            let outcome = in_memory(&patch, file);
            if outcome == expects_failure {
                Err(io::Error::other(format!("{name}: unexpected outcome")))
            } else {
                Ok(())
            }
        })?;
        report(name, &library, &floor)?;
    }
    on_disk(directory.path(), &plain)?;
    Ok(())
}

fn on_disk(directory: &Path, plain: &str) -> io::Result<()> {
    let big = directory.join("big");
    fs::create_dir(&big)?;
    fs::write(big.join("f"), plain)?;
    let floor = measure(|| rewrite(&big.join("f")))?;
    for (name, positions) in [("1 hunk", vec![LINES / 2]), ("1000 hunks", every_hundredth())] {
        let diff = hunks(positions, "");
        let update =
            |diff: &str| format!("*** Begin Patch\n*** Update File: f\n{diff}*** End Patch\n");
        let patches = [update(&diff), update(&undo(&diff))];
        let times = measure_in_turn(|turn| run(&big, &patches[turn % 2]))?;
        report(&format!("100k lines, {name}, on disk"), &times, &floor)?;
    }

    let many = directory.join("many");
    fs::create_dir(&many)?;
    let mut forth = "*** Begin Patch\n".to_owned();
    let mut back = forth.clone();
    for number in 0..500 {
        fs::write(many.join(format!("f{number}")), file_of(50, ""))?;
        let diff = hunks([25], "");
        let _ = write!(forth, "*** Update File: f{number}\n{diff}");
        let _ = write!(back, "*** Update File: f{number}\n{}", undo(&diff));
    }
    let patches = [forth + "*** End Patch\n", back + "*** End Patch\n"];
    let floor =
        measure(|| (0..500).try_for_each(|number| rewrite(&many.join(format!("f{number}")))))?;
    let times = measure_in_turn(|turn| run(&many, &patches[turn % 2]))?;
    report("500 files of 50 lines, 1 hunk each, on disk", &times, &floor)
}

fn run(directory: &Path, patch: &str) -> io::Result<()> {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let code = cofferdam_apply_patch::command::run(
        &[],
        &mut patch.as_bytes(),
        directory,
        &mut out,
        &mut err,
    );
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
    (0..lines).fold(String::new(), |mut text, number| {
        // Every tenth line is a common one.
        let line = if number % 10 == 9 { "    }".to_owned() } else { line(number) };
        let _ = writeln!(text, "{line}{suffix}");
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

fn measure(mut work: impl FnMut() -> io::Result<()>) -> io::Result<Vec<f64>> {
    measure_in_turn(|_| work())
}

/// Runs the work 2 times to warm up and 21 times to measure; returns milliseconds, sorted.
fn measure_in_turn(mut work: impl FnMut(usize) -> io::Result<()>) -> io::Result<Vec<f64>> {
    let mut times = Vec::new();
    for turn in 0..23 {
        let started = Instant::now();
        work(turn)?;
        if turn >= 2 {
            times.push(started.elapsed().as_secs_f64() * 1e3);
        }
    }
    times.sort_by(f64::total_cmp);
    Ok(times)
}

fn report(case: &str, times: &[f64], floor: &[f64]) -> io::Result<()> {
    let median = |times: &[f64]| times[times.len() / 2];
    writeln!(
        io::stdout(),
        "{{\"case\":\"{case}\",\"median_ms\":{:.3},\"min_ms\":{:.3},\"floor_read_write_ms\":{:.3}}}",
        median(times),
        times[0],
        median(floor)
    )
}
