//! What git tracks holds no absolute path of the machine that built it and no big file.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::command::{find_program, output};
use crate::context::Context;
use crate::report::Report;

/// Above this a file is data or a program, and does not belong in a source repository.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// Where bigger files are meant to be: the records of the example.
const DATA: &str = "examples/clinical-records/";

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
    let machine = machine_paths(context);
    let mut findings = Vec::new();
    for name in names.split('\0').filter(|name| !name.is_empty()) {
        let file = root.join(name);
        // A link is its own name, and a file removed from the worktree has no content to look at.
        if file.is_symlink() || !file.is_file() {
            continue;
        }
        findings.extend(check_file(name, &file, &machine)?);
    }
    for finding in &findings {
        println!("{finding}");
    }
    report.check(&format!("tracked: {} findings", findings.len()), findings.is_empty());
    Ok(())
}

/// Where this checkout and its tools are: what a pasted message or a generated file would give away.
fn machine_paths(context: &Context) -> Vec<String> {
    let home = |variable: &str, directory: &str| {
        let fallback = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(directory));
        std::env::var_os(variable).map(PathBuf::from).or_else(fallback)
    };
    let workspace = &context.workspace;
    let places = [Some(workspace.root.clone()), Some(workspace.target.clone())];
    let tools = [home("CARGO_HOME", ".cargo"), home("RUSTUP_HOME", ".rustup")];
    places.into_iter().chain(tools).flatten().map(|path| format!("{}/", path.display())).collect()
}

fn check_file(name: &str, file: &Path, machine: &[String]) -> Result<Vec<String>> {
    let bytes = file.metadata()?.len();
    if bytes > MAX_FILE_BYTES && !name.starts_with(DATA) {
        return Ok(vec![format!(
            "{name}: {bytes} bytes; at most {MAX_FILE_BYTES} are tracked outside {DATA}"
        )]);
    }
    let text = String::from_utf8_lossy(&std::fs::read(file)?).into_owned();
    Ok(check_text(name, &text, machine))
}

fn check_text(name: &str, text: &str, machine: &[String]) -> Vec<String> {
    let finding = |(number, line): (usize, &str)| {
        let path = machine.iter().find(|path| line.contains(path.as_str()))?;
        Some(format!("{name}:{}: the path `{path}` of this machine", number + 1))
    };
    text.lines().enumerate().filter_map(finding).collect()
}

#[cfg(test)]
mod tests {
    use super::{check_file, check_text};

    #[test]
    fn paths_of_the_machine_are_found() {
        let machine = ["/home/ada/cofferdam/".to_owned(), "/home/ada/.cargo/".to_owned()];
        let text = "in /home/ada/cofferdam/crates\nin ~/cofferdam\nat /home/ada/.cargo/registry\n/home/ada/.ssh\n";
        assert_eq!(
            check_text("a.md", text, &machine),
            [
                "a.md:1: the path `/home/ada/cofferdam/` of this machine",
                "a.md:3: the path `/home/ada/.cargo/` of this machine"
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
