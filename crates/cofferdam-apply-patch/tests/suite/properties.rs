//! What holds for every input: no panic, round trips, apply then reverse, all or nothing, and linear work.

use std::time::{Duration, Instant};

use cofferdam_apply_patch::{
    Hunk, HunkError, HunkLine, Operation, Options, Patch, PathRules, apply_hunks, commit, parse,
    plan,
};
use proptest::prelude::*;
use proptest::sample::{Index, select};

use crate::memory::{Memory, path};

/// A line without line breaks, often one that means something elsewhere in the format.
fn line() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => "[a-c ]{0,6}",
        1 => select(vec!["", " ", "@@", "@@ x", "-1,2 +1,2 @@", "+", "-", "*** End Patch", "*** End of File", "\\ No newline at end of file"])
            .prop_map(str::to_owned),
        1 => "[^\r\n]{0,12}",
    ]
}

fn hunk_line() -> impl Strategy<Value = HunkLine> {
    prop_oneof![
        line().prop_map(HunkLine::Context),
        line().prop_map(HunkLine::Remove),
        line().prop_map(HunkLine::Insert),
    ]
}

fn hunk() -> impl Strategy<Value = Hunk> {
    let anchors = prop::collection::vec("[a-z(]{1,5}", 0..3);
    (anchors, prop::collection::vec(hunk_line(), 1..6), any::<bool>())
        .prop_map(|(anchors, lines, at_end_of_file)| Hunk { anchors, lines, at_end_of_file })
}

fn operation() -> impl Strategy<Value = Operation> {
    let file = || "[a-d]{1,2}(/[a-d]{1,2}){0,2}".prop_map(|name: String| path(&name));
    let content = (prop::collection::vec(line(), 0..5), any::<bool>()).prop_map(|(lines, ends)| {
        let content = lines.join("\n");
        if ends && !lines.is_empty() { content + "\n" } else { content }
    });
    prop_oneof![
        (file(), content).prop_map(|(path, content)| Operation::Create { path, content }),
        file().prop_map(|path| Operation::Delete { path }),
        (file(), prop::option::of(file()), prop::collection::vec(hunk(), 1..4))
            .prop_map(|(path, move_to, hunks)| Operation::Update { path, move_to, hunks }),
    ]
}

fn patch() -> impl Strategy<Value = Patch> {
    prop::collection::vec(operation(), 1..5).prop_map(Patch::from_iter)
}

/// A text that the parser should nearly accept: lines of the format in any order, or a valid patch with lines changed.
fn near_patch() -> impl Strategy<Value = String> {
    let format_line = prop_oneof![
        select(vec![
            "*** Begin Patch",
            "*** End Patch",
            "*** Add File: a",
            "*** Delete File: b",
            "*** Update File: c",
            "*** Move to: d",
            "*** End of File",
            "*** Environment ID: x",
            "@@",
            "@@ x",
            "+a",
            "-a",
            " a",
            "",
            "<<EOF",
            "EOF",
            "```",
            "*** Update File: ",
            "*** Update File: ../x",
        ])
        .prop_map(str::to_owned),
        line(),
    ];
    let soup = prop::collection::vec(format_line.clone(), 0..20)
        .prop_map(|lines| format!("*** Begin Patch\n{}\n*** End Patch", lines.join("\n")));
    let mutated =
        (patch(), any::<Index>(), format_line, 0..3u8).prop_map(|(patch, at, line, how)| {
            let text = patch.to_string();
            let mut lines: Vec<&str> = text.lines().collect();
            let at = at.index(lines.len());
            match how {
                0 => lines.insert(at, &line),
                1 => lines[at] = &line,
                _ => drop(lines.remove(at)),
            }
            lines.join("\n")
        });
    prop_oneof![soup, mutated, any::<String>(), "(?s).{0,200}"]
}

/// A file with its line endings, and edits to it: each line stays, goes, or is followed by new ones.
#[derive(Debug, Clone)]
struct Edited {
    lines: Vec<(bool, usize)>,
    newline: &'static str,
    mark: &'static str,
    lacks_final_newline: bool,
    context: usize,
}

fn edited() -> impl Strategy<Value = Edited> {
    (
        prop::collection::vec(
            (prop::bool::weighted(0.8), prop_oneof![8 => Just(0usize), 2 => 1..3usize]),
            2..60,
        ),
        select(vec!["\n", "\r\n", "\r"]),
        select(vec!["", "\u{feff}"]),
        any::<bool>(),
        0..4usize,
    )
        .prop_map(|(mut lines, newline, mark, lacks_final_newline, context)| {
            // One line that stays, so that neither side is empty and both keep their state of the final newline.
            lines[0] = (true, lines[0].1);
            Edited { lines, newline, mark, lacks_final_newline, context }
        })
}

impl Edited {
    fn text(&self, lines: Vec<String>) -> String {
        let end = if self.lacks_final_newline { "" } else { self.newline };
        format!("{}{}{end}", self.mark, lines.join(self.newline))
    }

    fn before(&self) -> String {
        self.text((0..self.lines.len()).map(|index| format!("line {index}")).collect())
    }

    fn after(&self) -> String {
        let new = |(index, (stays, added)): (usize, &(bool, usize))| {
            let kept = stays.then(|| format!("line {index}"));
            kept.into_iter().chain((0..*added).map(move |number| format!("new {index}.{number}")))
        };
        self.text(self.lines.iter().enumerate().flat_map(new).collect())
    }

    /// The edits as hunks: a hunk ends where more lines stay than twice the context.
    fn hunks(&self) -> Vec<Hunk> {
        let mut all: Vec<(HunkLine, bool)> = Vec::new();
        for (index, (stays, added)) in self.lines.iter().enumerate() {
            let text = format!("line {index}");
            all.push(if *stays {
                (HunkLine::Context(text), false)
            } else {
                (HunkLine::Remove(text), true)
            });
            all.extend(
                (0..*added).map(|number| (HunkLine::Insert(format!("new {index}.{number}")), true)),
            );
        }
        // At least the line above is kept as context, so that no hunk is without old lines.
        let near = |at: usize| {
            let from = at.saturating_sub(self.context);
            let to = (at + self.context.max(1) + 1).min(all.len());
            all[from..to].iter().any(|(_, changes)| *changes)
        };
        let mut hunks = vec![Hunk::default()];
        for (at, (line, _)) in all.iter().enumerate() {
            match hunks.last_mut() {
                Some(hunk) if near(at) => hunk.lines.push(line.clone()),
                Some(hunk) if !hunk.lines.is_empty() => hunks.push(Hunk::default()),
                _ => {}
            }
        }
        hunks.retain(|hunk| !hunk.lines.is_empty());
        hunks
    }
}

fn reversed(hunks: &[Hunk]) -> Vec<Hunk> {
    let turn = |line: &HunkLine| match line {
        HunkLine::Context(text) => HunkLine::Context(text.clone()),
        HunkLine::Remove(text) => HunkLine::Insert(text.clone()),
        HunkLine::Insert(text) => HunkLine::Remove(text.clone()),
    };
    hunks
        .iter()
        .map(|hunk| Hunk { lines: hunk.lines.iter().map(turn).collect(), ..hunk.clone() })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn a_written_patch_is_read_back(patch in patch()) {
        let text = patch.to_string();
        prop_assert_eq!(parse(&text), Ok(patch.clone()), "{}", text);
        // The same with CRLF line ends, as some transports make them.
        prop_assert_eq!(parse(&text.replace('\n', "\r\n")), Ok(patch));
    }

    #[test]
    fn the_parser_takes_any_text(text in near_patch()) {
        if let Ok(patch) = parse(&text) {
            let canonical = patch.to_string();
            let again = parse(&canonical);
            // A lone CR at the end of a line is taken for a line end when the text is read again.
            if !text.contains('\r') {
                prop_assert_eq!(again, Ok(patch), "{}", canonical);
            }
        }
    }

    #[test]
    fn the_diff_parsers_take_any_text(text in near_patch()) {
        let rules = PathRules::default();
        if let Ok(operation) = Operation::update("f", &text, None, &rules) {
            let Operation::Update { hunks, .. } = &operation else { unreachable!() };
            // Nor does the engine panic on what came out.
            let _ = apply_hunks(text.as_bytes(), hunks, &Options::default());
        }
        if let Ok(Operation::Create { content, .. }) = Operation::create("f", &text, &rules) {
            prop_assert!(content.len() <= text.len());
        }
    }

    #[test]
    fn hunks_give_the_edited_text_and_reversed_hunks_the_original(edited in edited()) {
        let hunks = edited.hunks();
        let (before, after) = (edited.before(), edited.after());
        // Where no ending is in the file there is none to take over.
        prop_assume!(before.contains(edited.newline) && after.contains(edited.newline));
        let forth = apply_hunks(before.as_bytes(), &hunks, &Options::default());
        prop_assert_eq!(forth.map(|applied| String::from_utf8(applied.content).unwrap()), Ok(after.clone()));
        let back = apply_hunks(after.as_bytes(), &reversed(&hunks), &Options::default());
        prop_assert_eq!(back.map(|applied| String::from_utf8(applied.content).unwrap()), Ok(before));
    }

    #[test]
    fn a_plan_and_its_reverse_are_identity(
        operations in prop::collection::vec((0..4u8, 0..5usize, 0..5usize, 0..4u8), 1..8),
        fails_after in 0..40usize,
    ) {
        let names = ["a", "b", "d/c", "d/e", "f/g/h"];
        let before = Memory::new(&[("a", "1\n2\n"), ("b", "1\r\n2"), ("d/c", ""), ("f/g/h", "x\n1\n")]);
        let patch: Patch = operations.into_iter().map(|(kind, at, to, text)| match kind {
            0 => Operation::Create { path: path(names[at]), content: format!("{text}\n1\n") },
            1 => Operation::Delete { path: path(names[at]) },
            2 => Operation::Update { path: path(names[at]), move_to: Some(path(names[to])), hunks: Vec::new() },
            _ => Operation::Update {
                path: path(names[at]),
                move_to: None,
                hunks: vec![Hunk { lines: vec![HunkLine::Insert(format!("{text}")) , HunkLine::Context("1".into())], ..Hunk::default() }],
            },
        }).collect();
        // In the peers' mode most such patches apply in part, so much is planned; it is carried out as a whole.
        let mut plan = plan(&patch, &Options::peer_compatible(), &mut |path| before.read(path)).unwrap();
        plan.mode = cofferdam_apply_patch::Mode::Atomic;

        let mut files = before.clone();
        commit(&plan, "t", &mut files).unwrap();
        for change in &plan.changes {
            prop_assert_eq!(files.files.get(&change.path), change.after.as_ref());
        }
        commit(&plan.reverse().unwrap(), "t", &mut files).unwrap();
        prop_assert_eq!(&files.files, &before.files);

        let mut files = Memory { fails_after: Some(fails_after), ..before.clone() };
        if commit(&plan, "t", &mut files).is_err() {
            prop_assert_eq!(files, before);
        }
    }
}

/// Inputs on which a search that tries every place takes hours.
#[test]
fn work_stays_linear_on_hostile_files() {
    let lines = 100_000;
    let file = "a\nb\n".repeat(lines / 2);
    let started = Instant::now();
    let hunk = |old: String| {
        let lines = old.lines().map(|line| HunkLine::Context(line.to_owned())).collect();
        vec![Hunk { lines, ..Hunk::default() }]
    };
    let almost = hunk("a\nb\n".repeat(lines / 4) + "a\na\n");
    assert!(matches!(
        apply_hunks(file.as_bytes(), &almost, &Options::default()),
        Err(HunkError::LinesNotFound { .. })
    ));
    let at_end = hunk("b\n".to_owned() + &"a\nb\n".repeat(lines / 2 - 1));
    assert_eq!(
        apply_hunks(file.as_bytes(), &at_end, &Options::default()).unwrap().hunks[0].line,
        2
    );
    let many: Vec<Hunk> = (0..1_000).flat_map(|_| hunk("b\na\nb\n".to_owned())).collect();
    assert_eq!(
        apply_hunks(file.as_bytes(), &many, &Options::default()).unwrap().hunks.len(),
        1_000
    );
    // Seconds even without optimisation on a busy machine; the naive search needs billions of comparisons.
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
}
