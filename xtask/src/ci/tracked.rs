//! What git tracks holds no absolute path of a build machine and no big file.

use std::path::Path;

use anyhow::Result;

use crate::command::{find_program, output};
use crate::context::Context;
use crate::report::Report;

/// Above this a file is data or a program, and does not belong in a source repository.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// Where bigger files are meant to be: the records of the example.
const DATA: &str = "examples/clinical-records/";

/// Directories that are somebody's machine. A path such as `/root/.ssh/id_rsa`, which a test tries to reach from a
/// sandbox, is every machine's and is let through by [`EVERYWHERE`].
const MACHINES: &[&str] = &[concat!("/wor", "k/"), concat!("/roo", "t/")];

/// What exists, or could, under the same name on every machine.
const EVERYWHERE: &[&str] = &[concat!("/roo", "t/.ssh")];

pub(crate) fn run(context: &Context, _packages: &[String], report: &mut Report) -> Result<()> {
    let Some(git) = find_program("git") else {
        report.skip("tracked", "git is not installed; cargo xtask setup installs it");
        return Ok(());
    };
    let root = &context.workspace.root;
    if !root.join(".git").exists() {
        report.skip("tracked", "this is not a git checkout");
        return Ok(());
    }
    let names = output(std::process::Command::new(git).current_dir(root).args(["ls-files", "-z"]))?;
    let mut machines: Vec<String> = MACHINES.iter().map(|&path| path.to_owned()).collect();
    machines.push(format!("{}/", root.display()));
    let mut findings = Vec::new();
    for name in names.split('\0').filter(|name| !name.is_empty()) {
        let file = root.join(name);
        // A link is its own name, and a file removed from the worktree has no content to look at.
        if file.is_symlink() || !file.is_file() {
            continue;
        }
        findings.extend(check_file(name, &file, &machines)?);
    }
    for finding in &findings {
        println!("{finding}");
    }
    report.check(&format!("tracked: {} findings", findings.len()), findings.is_empty());
    Ok(())
}

fn check_file(name: &str, file: &Path, machines: &[String]) -> Result<Vec<String>> {
    let bytes = file.metadata()?.len();
    if bytes > MAX_FILE_BYTES && !name.starts_with(DATA) {
        return Ok(vec![format!(
            "{name}: {bytes} bytes; at most {MAX_FILE_BYTES} are tracked outside {DATA}"
        )]);
    }
    let text = String::from_utf8_lossy(&std::fs::read(file)?).into_owned();
    Ok(check_text(name, &text, machines))
}

fn check_text(name: &str, text: &str, machines: &[String]) -> Vec<String> {
    let finding = |(number, line): (usize, &str)| {
        let path = machines.iter().find(|path| names_machine(line, path))?;
        Some(format!("{name}:{}: the path `{path}` of a build machine", number + 1))
    };
    text.lines().enumerate().filter_map(finding).collect()
}

/// Whether the line holds the path as an absolute one: not as the end of a longer path or word.
fn names_machine(line: &str, path: &str) -> bool {
    let inside = |before: Option<char>| {
        before.is_some_and(|it| it.is_alphanumeric() || "._-/*}>".contains(it))
    };
    line.match_indices(path).any(|(at, _)| {
        !inside(line[..at].chars().next_back())
            && !EVERYWHERE.iter().any(|known| line[at..].starts_with(known))
    })
}

#[cfg(test)]
mod tests {
    use super::{EVERYWHERE, MACHINES, check_file, check_text};

    #[test]
    fn absolute_paths_are_found_and_relative_ones_are_not() {
        let machines: Vec<String> = MACHINES.iter().map(|&path| path.to_owned()).collect();
        let (work, root, known) = (MACHINES[0], MACHINES[1], EVERYWHERE[0]);
        let text = format!(
            "at {work}main\nsome{work}dir\n\"{root}.cargo\"\ncat {known}/id_rsa\n/workspace/a\n"
        );
        assert_eq!(
            check_text("a.md", &text, &machines),
            [
                format!("a.md:1: the path `{work}` of a build machine"),
                format!("a.md:3: the path `{root}` of a build machine")
            ]
        );
    }

    #[test]
    fn big_files_are_found_outside_the_example() {
        let file = std::env::temp_dir().join(format!("xtask-big-{}", std::process::id()));
        std::fs::write(&file, vec![b'x'; 1024 * 1024 + 1]).unwrap();
        let findings = |name| check_file(name, &file, &[]).unwrap();
        assert_eq!(
            findings("logo.png"),
            [
                "logo.png: 1048577 bytes; at most 1048576 are tracked outside examples/clinical-records/"
            ]
        );
        assert!(findings("examples/clinical-records/records.txt").is_empty());
        std::fs::remove_file(&file).unwrap();
    }
}
