//! The table in `SECURITY.md`: written by a run, and compared with the next.
//!
//! What is compared is whether an attack works on this project's backends, for those that ran here, and that there is a row
//! for each attack. Whether a denial is *proven* depends on the host (a kernel without modules shows nothing of modules), and
//! peers are as good as the version that is installed; neither is compared.

use std::{collections::BTreeMap, fmt::Write as _};

use anyhow::{Context as _, Result};

use crate::report::{Attack, Cell, Column, Kind, Report};

const BEGIN: &str = "<!-- escape suite: written by `cargo xtask suite security --update` -->";
const END: &str = "<!-- escape suite: end -->";

/// The line above the heads of the columns, by which the table is found again.
const CORNER: &str = "attack";

fn shown(cell: Cell) -> &'static str {
    match cell {
        Cell::Open => "**open**",
        Cell::Denied => "·",
        Cell::NotProven => "(·)",
        Cell::Broken => "broken",
        Cell::NotTried => "",
    }
}

/// Cells by attack and column, as a table shows them.
type Cells = BTreeMap<(String, String), String>;

/// What the file has between the marks.
#[derive(Debug, Default, PartialEq, Eq)]
struct Committed {
    columns: Vec<String>,
    cells: Cells,
    attacks: Vec<String>,
}

fn parse(section: &str) -> Committed {
    let mut committed = Committed::default();
    for line in section.lines().filter_map(|line| line.strip_prefix("| ")) {
        let fields: Vec<&str> = line.trim_end_matches('|').split('|').map(str::trim).collect();
        let [first, rest @ ..] = fields.as_slice() else { continue };
        if *first == CORNER {
            committed.columns = rest.iter().map(|&head| head.to_owned()).collect();
        } else if let Some((id, _)) = first.strip_prefix('`').and_then(|it| it.split_once('`')) {
            committed.attacks.push(id.to_owned());
            for (column, cell) in committed.columns.iter().zip(rest) {
                committed.cells.insert((id.to_owned(), column.clone()), (*cell).to_owned());
            }
        }
    }
    committed
}

/// Returns the part of the file between the marks, and where it begins and ends.
fn section(text: &str) -> Result<(usize, usize)> {
    let begin = text.find(BEGIN).with_context(|| format!("the file has no line {BEGIN}"))?;
    let begin = begin + BEGIN.len();
    let end = text[begin..].find(END).with_context(|| format!("the file has no line {END}"))?;
    Ok((begin, begin + end))
}

/// Returns the file's text with the table of this run. Columns that did not run here stay as they are.
///
/// # Errors
///
/// If the file lacks the marks.
pub fn update(text: &str, report: &Report, not_built: &[Attack]) -> Result<String> {
    let (begin, end) = section(text)?;
    let old = parse(&text[begin..end]);
    let fresh = render(report, not_built, &old);
    Ok(format!("{}\n\n{fresh}\n{}", &text[..begin], &text[end..]))
}

fn render(report: &Report, not_built: &[Attack], old: &Committed) -> String {
    let mut text = String::new();
    let mut heads = Vec::new();
    let mut rows: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for column in &report.columns {
        let kept = column.skipped.is_some();
        if kept && !old.columns.contains(&column.name) {
            continue;
        }
        heads.push(&column.name);
        for attack in &report.attacks {
            let cell = if kept {
                let key = (attack.id.clone(), column.name.clone());
                old.cells.get(&key).cloned().unwrap_or_default()
            } else {
                shown(report.cell(column, &attack.id)).to_owned()
            };
            rows.entry(&attack.id).or_default().push(cell);
        }
    }
    let mut line = |first: &str, cells: &[String]| {
        let _ = writeln!(text, "| {first} | {} |", cells.join(" | "));
    };
    let rule = vec!["---".to_owned(); heads.len()];
    line("", &heads.iter().map(|&head| head.clone()).collect::<Vec<_>>());
    line("---", &rule);
    for (word, wanted) in [
        ("**open**", "**open**"),
        ("denied, and works outside (`·`)", "·"),
        ("denied, and not shown to work outside on that host (`(·)`)", "(·)"),
        ("broken", "broken"),
    ] {
        let counts: Vec<String> = (0..heads.len())
            .map(|at| rows.values().filter(|row| row[at] == wanted).count().to_string())
            .collect();
        line(word, &counts);
    }
    let mut group = "";
    for attack in &report.attacks {
        if attack.group != group {
            group = &attack.group;
            let _ = write!(text, "\n**{}**\n\n", capitalised(group));
            let mut line = |first: &str, cells: &[String]| {
                let _ = writeln!(text, "| {first} | {} |", cells.join(" | "));
            };
            line(CORNER, &heads.iter().map(|&head| head.clone()).collect::<Vec<_>>());
            line("---", &rule);
        }
        if let Some(cells) = rows.get(attack.id.as_str()) {
            let _ = writeln!(text, "| `{}` {} | {} |", attack.id, attack.name, cells.join(" | "));
        }
    }
    if !not_built.is_empty() {
        let _ = write!(text, "\n**Not built yet**, so not attacked and not counted: ");
        let names: Vec<&str> = not_built.iter().map(|attack| attack.name.as_str()).collect();
        let _ = writeln!(text, "{}.", names.join("; "));
    }
    text
}

fn capitalised(text: &str) -> String {
    let mut characters = text.chars();
    let first = characters.next().map(|first| first.to_uppercase().to_string());
    first.unwrap_or_default() + characters.as_str()
}

/// Returns what the committed table says otherwise than this run.
///
/// # Errors
///
/// If the file lacks the marks.
pub fn differences(text: &str, report: &Report) -> Result<Vec<String>> {
    let (begin, end) = section(text)?;
    let committed = parse(&text[begin..end]);
    let mut found = Vec::new();
    let ids: Vec<&str> = report.attacks.iter().map(|attack| attack.id.as_str()).collect();
    if ids != committed.attacks.iter().map(String::as_str).collect::<Vec<_>>() {
        found.push("the table's rows are not the suite's attacks".to_owned());
    }
    for column in own(report) {
        for attack in &report.attacks {
            let key = (attack.id.clone(), column.name.clone());
            let said = committed.cells.get(&key).map_or("", String::as_str);
            let is = report.cell(column, &attack.id);
            let open = |cell: &str| cell == shown(Cell::Open);
            let tried = |cell: &str| !cell.is_empty();
            if open(said) != open(shown(is)) || tried(said) != tried(shown(is)) {
                found.push(format!(
                    "`{}` on {}: the table says `{said}`, this run `{}`",
                    attack.id,
                    column.name,
                    shown(is)
                ));
            }
        }
    }
    Ok(found)
}

/// The columns of this project that ran.
pub(crate) fn own(report: &Report) -> impl Iterator<Item = &Column> {
    report.columns.iter().filter(|column| column.kind == Kind::Own && column.skipped.is_none())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::{differences, parse, section, update};
    use crate::report::{Answer, Attack, Column, Kind, Outcome, Report};

    const EMPTY: &str = "# Security\n\n<!-- escape suite: written by `cargo xtask suite security --update` -->\n<!-- escape suite: end -->\n\nafter\n";

    fn attack(id: &str, group: &str) -> Attack {
        Attack { id: id.to_owned(), group: group.to_owned(), name: format!("do {id}") }
    }

    fn column(name: &str, kind: Kind, answers: &[(&str, Outcome)]) -> Column {
        let answers = answers
            .iter()
            .map(|(id, outcome)| ((*id).to_owned(), Answer::new(*id, *outcome, "seen")));
        Column {
            name: name.to_owned(),
            kind,
            root: true,
            answers: answers.collect::<BTreeMap<_, _>>(),
            skipped: None,
        }
    }

    fn report() -> Report {
        use Outcome::{Broken, Denied, Open};
        Report {
            attacks: vec![attack("a", "files"), attack("b", "files"), attack("c", "kernel")],
            columns: vec![
                column("none", Kind::Control, &[("a", Open), ("b", Denied), ("c", Open)]),
                column("ours", Kind::Own, &[("a", Denied), ("b", Denied), ("c", Open)]),
                column("theirs", Kind::Peer, &[("a", Open), ("c", Broken)]),
            ],
        }
    }

    #[test]
    fn a_table() {
        let text = update(EMPTY, &report(), &[attack("d", "later")]).unwrap();
        insta::assert_snapshot!(text, @"
        # Security

        <!-- escape suite: written by `cargo xtask suite security --update` -->

        |  | none | ours | theirs |
        | --- | --- | --- | --- |
        | **open** | 2 | 1 | 1 |
        | denied, and works outside (`·`) | 0 | 1 | 0 |
        | denied, and not shown to work outside on that host (`(·)`) | 1 | 1 | 0 |
        | broken | 0 | 0 | 1 |

        **Files**

        | attack | none | ours | theirs |
        | --- | --- | --- | --- |
        | `a` do a | **open** | · | **open** |
        | `b` do b | (·) | (·) |  |

        **Kernel**

        | attack | none | ours | theirs |
        | --- | --- | --- | --- |
        | `c` do c | **open** | **open** | broken |

        **Not built yet**, so not attacked and not counted: do d.

        <!-- escape suite: end -->

        after
        ");
        assert_eq!(differences(&text, &report()).unwrap(), [""; 0]);
        // Writing it again changes nothing.
        assert_eq!(update(&text, &report(), &[attack("d", "later")]).unwrap(), text);
    }

    #[test]
    fn what_did_not_run_stays_and_is_not_compared() {
        let text = update(EMPTY, &report(), &[]).unwrap();
        let mut later = report();
        for column in &mut later.columns[1..] {
            column.skipped = Some("not here".to_owned());
            column.answers.clear();
        }
        assert_eq!(update(&text, &later, &[]).unwrap(), text);
        assert_eq!(differences(&text, &later).unwrap(), [""; 0]);
    }

    #[test]
    fn tells_what_opened_and_what_closed() {
        let text = update(EMPTY, &report(), &[]).unwrap();
        let mut later = report();
        later.columns[1] =
            column("ours", Kind::Own, &[("a", Outcome::Open), ("b", Outcome::Denied)]);
        assert_eq!(
            differences(&text, &later).unwrap(),
            [
                "`a` on ours: the table says `·`, this run `**open**`",
                "`c` on ours: the table says `**open**`, this run ``",
            ]
        );
        later.attacks.pop();
        assert_eq!(
            differences(&text, &later).unwrap()[0],
            "the table's rows are not the suite's attacks"
        );
    }

    #[test]
    fn a_file_without_marks_is_refused() {
        let error = section("# Security\n").unwrap_err().to_string();
        assert!(error.starts_with("the file has no line <!-- escape suite: written"), "{error}");
        assert_eq!(parse("").attacks.len(), 0);
    }
}
