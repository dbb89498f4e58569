//! The rules on the sources: words that only some crates may write, and a heading for every file.
//!
//! Not a parser: comments and literals are blanked, and so is what stands under `#[cfg(test)]`; the rest is searched.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::rules::Rules;
use crate::metadata::Workspace;

/// Every violation in the sources of the crates under `crates/`.
pub(crate) fn check(rules: &Rules, workspace: &Workspace) -> Result<Vec<String>> {
    let mut violations = Vec::new();
    let crates = workspace.root.join("crates");
    for (_, package) in workspace
        .members()
        .into_iter()
        .filter(|(_, package)| package.directory.starts_with(&crates))
    {
        for file in rust_files(&package.directory)? {
            let text = std::fs::read_to_string(&file)
                .with_context(|| format!("could not read {}", file.display()))?;
            let shown = file.strip_prefix(&workspace.root).unwrap_or(&file);
            check_file(rules, &package.name, shown, &text, &mut violations);
        }
    }
    Ok(violations)
}

/// The sources below the crate's directories but those that are not shipped: `src`, and what a build script compiles.
fn rust_files(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() && !NOT_SHIPPED.iter().any(|name| path.ends_with(name)) {
            files.extend(rust_files_below(&path)?);
        }
    }
    files.sort();
    Ok(files)
}

const NOT_SHIPPED: &[&str] = &["benches", "examples", "fuzz", "tests"];

fn rust_files_below(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            files.extend(rust_files_below(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    Ok(files)
}

fn check_file(rules: &Rules, package: &str, file: &Path, text: &str, violations: &mut Vec<String>) {
    if !text.starts_with("//!") {
        violations.push(format!(
            "{}:1: a source file opens with `//!` and what it is for",
            file.display()
        ));
    }
    if file.components().any(|part| part.as_os_str() == "tests" || part.as_os_str() == "tests.rs") {
        return;
    }
    let code = without_tests(without_literals(text));
    for rule in rules.source.iter().filter(|rule| !rule.only.iter().any(|name| name == package)) {
        for word in &rule.words {
            for (number, _) in
                code.lines().enumerate().filter(|(_, line)| contains_word(line, word))
            {
                violations.push(format!(
                    "{}:{}: `{word}` in `{package}`: {}",
                    file.display(),
                    number + 1,
                    rule.reason
                ));
            }
        }
    }
}

/// Whether the line holds the word with no identifier character right before or after it.
fn contains_word(line: &str, word: &str) -> bool {
    let part_of_name =
        |character: Option<char>| character.is_some_and(|it| it.is_alphanumeric() || it == '_');
    line.match_indices(word).any(|(at, _)| {
        !part_of_name(line[..at].chars().next_back())
            && !part_of_name(line[at + word.len()..].chars().next())
    })
}

/// The text with comments, strings and characters blanked out, line breaks kept.
fn without_literals(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let length = literal_length(rest, code.chars().next_back());
        let (taken, kept) = if length > 0 { (length, false) } else { (first.len_utf8(), true) };
        let piece = &rest[..taken];
        if kept {
            code.push_str(piece);
        } else {
            code.extend(piece.chars().map(|character| if character == '\n' { '\n' } else { ' ' }));
        }
        rest = &rest[taken..];
    }
    code
}

/// The length of the comment or literal that `rest` opens with, or zero.
fn literal_length(rest: &str, before: Option<char>) -> usize {
    let in_name = before.is_some_and(|character| character.is_alphanumeric() || character == '_');
    if rest.starts_with("//") {
        return rest.find('\n').unwrap_or(rest.len());
    }
    if rest.starts_with("/*") {
        return block_comment_length(rest);
    }
    if rest.starts_with('"') {
        return quoted_length(rest, 1, '"');
    }
    if rest.starts_with('\'') {
        return character_length(rest);
    }
    let prefix = rest.len() - rest.trim_start_matches(['b', 'c', 'r']).len();
    if !in_name && (1..=2).contains(&prefix) && rest[..prefix].contains('r') {
        return raw_length(rest, prefix);
    }
    0
}

fn block_comment_length(rest: &str) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while at < rest.len() {
        let here = &rest[at..];
        if here.starts_with("/*") {
            depth += 1;
            at += 2;
        } else if here.starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += here.chars().next().map_or(1, char::len_utf8);
        }
    }
    rest.len()
}

fn quoted_length(rest: &str, start: usize, quote: char) -> usize {
    let mut escaped = false;
    for (at, character) in rest[start..].char_indices() {
        if escaped {
            escaped = false;
        } else if character == '\\' {
            escaped = true;
        } else if character == quote {
            return start + at + 1;
        }
    }
    rest.len()
}

/// A character literal; zero for a lifetime.
fn character_length(rest: &str) -> usize {
    let mut characters = rest.char_indices().skip(1);
    match (characters.next(), characters.next()) {
        (Some((_, '\\')), _) => quoted_length(rest, 1, '\''),
        (Some(_), Some((at, '\''))) => at + 1,
        _ => 0,
    }
}

/// `r"…"`, `r#"…"#`, `br"…"`; zero for a raw identifier or a plain name.
fn raw_length(rest: &str, prefix: usize) -> usize {
    let after = &rest[prefix..];
    let hashes = after.len() - after.trim_start_matches('#').len();
    if !after[hashes..].starts_with('"') {
        return 0;
    }
    let start = prefix + hashes + 1;
    let close = format!("\"{}", "#".repeat(hashes));
    rest[start..].find(&close).map_or(rest.len(), |at| start + at + close.len())
}

/// Blanks the item after each `#[cfg(test)]`, in text that has no literals any more.
fn without_tests(mut code: String) -> String {
    const MARK: &str = "#[cfg(test)]";
    while let Some(start) = code.find(MARK) {
        let end = item_end(&code, start + MARK.len());
        let blank: String =
            code[start..end].chars().map(|it| if it == '\n' { '\n' } else { ' ' }).collect();
        code.replace_range(start..end, &blank);
    }
    code
}

/// The end of the item from `start` on: its closing brace, or a semicolon before any brace.
fn item_end(code: &str, start: usize) -> usize {
    let mut depth = 0_usize;
    for (at, character) in code[start..].char_indices() {
        match character {
            '{' => depth += 1,
            '}' if depth <= 1 => return start + at + 1,
            '}' => depth -= 1,
            ';' if depth == 0 => return start + at + 1,
            _ => {}
        }
    }
    code.len()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{check_file, without_literals, without_tests};
    use crate::layers::rules::Rules;

    const RULES: &str = "
        crates = {}
        [[source]]
        words = ['unsafe']
        only = ['guest']
        reason = 'the walls are elsewhere'
        [[source]]
        words = ['process::Command', 'tokio::process']
        only = []
        reason = 'only backends start programs'
    ";

    fn check(package: &str, file: &str, text: &str, expect: &[&str]) {
        let mut violations = Vec::new();
        check_file(&Rules::parse(RULES).unwrap(), package, Path::new(file), text, &mut violations);
        assert_eq!(violations, expect, "{text}");
    }

    #[test]
    fn words_in_code_are_found() {
        let text = "//! Doc.\nfn f() { unsafe { g() } }\nuse std::process::Command;\n";
        check(
            "core",
            "src/lib.rs",
            text,
            &[
                "src/lib.rs:2: `unsafe` in `core`: the walls are elsewhere",
                "src/lib.rs:3: `process::Command` in `core`: only backends start programs",
            ],
        );
        check(
            "guest",
            "src/lib.rs",
            text,
            &["src/lib.rs:3: `process::Command` in `guest`: only backends start programs"],
        );
    }

    #[test]
    fn words_elsewhere_are_not() {
        for line in [
            "#![forbid(unsafe_code)]",
            "// unsafe",
            "/* a /* nested */ unsafe */",
            "let s = \"unsafe \\\" unsafe\";",
            "let s = r#\"unsafe \" unsafe\"#;",
            "let s = br\"unsafe\";",
            "let c = ('\"', '\\'', \"unsafe\", '\"');",
            "use std::process::exit;",
            "#[cfg(test)]\nmod tests { fn f() { unsafe { g() } } }",
            "#[cfg(test)]\nuse tokio::process::Child;",
        ] {
            check("core", "src/lib.rs", &format!("//! Doc.\n{line}\n"), &[]);
        }
        check("core", "src/path/tests.rs", "//! Tests.\nunsafe {}", &[]);
    }

    #[test]
    fn lifetimes_and_raw_names_are_no_literals() {
        let text = "//! Doc.\nfn f<'a>(r#type: &'a str, bar: u8) { unsafe {} }\n";
        check(
            "core",
            "src/lib.rs",
            text,
            &["src/lib.rs:2: `unsafe` in `core`: the walls are elsewhere"],
        );
    }

    #[test]
    fn code_after_a_test_module_counts_again() {
        let text = "//! Doc.\n#[cfg(test)]\nmod tests {\n  fn f() {}\n}\nfn g() { unsafe {} }\n";
        check(
            "core",
            "src/lib.rs",
            text,
            &["src/lib.rs:6: `unsafe` in `core`: the walls are elsewhere"],
        );
    }

    #[test]
    fn a_file_says_what_it_is_for() {
        check(
            "core",
            "src/a.rs",
            "use std::fmt;\n",
            &["src/a.rs:1: a source file opens with `//!` and what it is for"],
        );
    }

    #[test]
    fn blanking_keeps_the_lines() {
        let text = "a /* b\nc */ d \"e\nf\" // é\n#[cfg(test)] fn x() {\n}\ng";
        let blanked = without_tests(without_literals(text));
        assert_eq!(blanked.lines().count(), text.lines().count());
        assert_eq!(blanked.split_whitespace().collect::<Vec<_>>(), ["a", "d", "g"]);
    }

    #[test]
    fn unfinished_literals_end_with_the_file() {
        for text in ["\"open", "/* open", "r#\"open", "'\\", "'", "#[cfg(test)] mod a {", "b'"] {
            let blanked = without_tests(without_literals(text));
            assert!(!blanked.contains("open"), "{text}: {blanked}");
        }
    }
}
