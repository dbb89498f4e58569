//! Repositories, cloned from a directory of this host that the test grants.

use std::{
    fs,
    os::unix::fs::symlink,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use cofferdam_manifest::Manifest;
use cofferdam_workspace::{MaterializeError, Materialized, Materializer};
use tempfile::TempDir;

use crate::fake::FakeSandbox;

#[expect(clippy::disallowed_methods, reason = "makes the repository that the test clones")]
fn git(directory: &Path, arguments: &[&str]) -> String {
    let output = Command::new("git")
        .current_dir(directory)
        .args([
            "-c",
            "user.name=t",
            "-c",
            "user.email=t@example.com",
            "-c",
            "init.defaultBranch=main",
        ])
        .args(arguments)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_AUTHOR_DATE", "2026-01-01T00:00:00Z")
        .env("GIT_COMMITTER_DATE", "2026-01-01T00:00:00Z")
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "git {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Makes a repository with two commits: the first has the tag `v1`, the second is `main` and has a branch `side`.
fn repository() -> (TempDir, String, String) {
    let home = tempfile::tempdir().unwrap();
    let tree = home.path();
    git(tree, &["init", "-q"]);
    fs::create_dir_all(tree.join("src/inner")).unwrap();
    fs::write(tree.join("README"), "one").unwrap();
    fs::write(tree.join("src/inner/a.txt"), "hello").unwrap();
    symlink("inner/a.txt", tree.join("src/link")).unwrap();
    git(tree, &["add", "."]);
    git(tree, &["commit", "-q", "-m", "first"]);
    git(tree, &["tag", "-a", "v1", "-m", "v1"]);
    let first = git(tree, &["rev-parse", "HEAD"]);
    fs::write(tree.join("README"), "number two").unwrap();
    git(tree, &["commit", "-q", "-a", "-m", "second"]);
    git(tree, &["branch", "side"]);
    let second = git(tree, &["rev-parse", "HEAD"]);
    (home, first, second)
}

async fn clone(
    repository: &Path,
    fields: &str,
    sandbox: &FakeSandbox,
) -> Result<Materialized, MaterializeError> {
    let url = repository.display();
    let yaml = format!("version: 1\nentries: {{r: {{type: git, url: \"file://{url}\"{fields}}}}}");
    let manifest = Manifest::parse(&yaml, "m").unwrap();
    let base = tempfile::tempdir().unwrap();
    let materializer = Materializer::new(base.path()).allow_source(repository);
    materializer.materialize(&manifest, sandbox).await
}

#[tokio::test]
async fn clones_branches_tags_commits_and_parts() {
    let (repository, first, second) = repository();
    let check = async |fields: &str, revision: &str, listing: &str| {
        let sandbox = FakeSandbox::new();
        let receipt = clone(repository.path(), fields, &sandbox).await.unwrap();
        assert_eq!(receipt.entries[0].revision.as_deref(), Some(revision), "for {fields:?}");
        assert_eq!(sandbox.listing(), listing, "for {fields:?}");
    };
    let whole = |readme: usize| {
        format!(
            "0755 r/\n0644 r/README {readme}\n0755 r/src/\n0755 r/src/inner/\n0644 r/src/inner/a.txt 5\nlink r/src/link -> inner/a.txt"
        )
    };
    check("", &second, &whole(10)).await;
    check(", ref: side", &second, &whole(10)).await;
    check(", ref: v1", &first, &whole(3)).await;
    check(&format!(", ref: {first}"), &first, &whole(3)).await;
    let part = "0755 r/\n0755 r/inner/\n0644 r/inner/a.txt 5\nlink r/link -> inner/a.txt";
    check(", ref: v1, subpath: src", &first, part).await;
}

#[tokio::test]
async fn keeps_the_history_only_if_asked() {
    let (repository, ..) = repository();
    let sandbox = FakeSandbox::new();
    clone(repository.path(), ", keep_git: true", &sandbox).await.unwrap();
    assert!(sandbox.listing().contains("r/.git/HEAD"));
    assert!(!sandbox.listing().contains("hooks"));
}

#[tokio::test]
async fn refuses_what_is_not_there_or_too_large() {
    let (repository, ..) = repository();
    let refused = async |fields: &str| {
        let sandbox = FakeSandbox::new();
        let error = clone(repository.path(), fields, &sandbox).await.unwrap_err();
        assert_eq!(sandbox.listing(), "", "something was uploaded");
        error.to_string().replace(&repository.path().display().to_string(), "REPOSITORY")
    };
    insta::assert_snapshot!(refused(", ref: nowhere").await, @r#"entry r: git could not fetch file://REPOSITORY: fatal: couldn't find remote ref nowhere"#);
    insta::assert_snapshot!(refused(", subpath: lib").await, @r#"entry r: git could not find the subpath of file://REPOSITORY: fatal: Not a valid object name 53dce93dbee6950dc0018398584778b427048fa0:lib"#);
    insta::assert_snapshot!(refused(", max_files: 2").await, @r#"entry r: file://REPOSITORY holds more than 2 files (3 up to src/link); raise `max_files` or take less"#);
    insta::assert_snapshot!(refused(", max_bytes: 12B").await, @r#"entry r: file://REPOSITORY holds more than 12 bytes (15 up to src/inner/a.txt); raise `max_bytes` or take less"#);
}

#[tokio::test]
async fn a_link_in_a_repository_does_not_lead_out() {
    let (repository, ..) = repository();
    symlink("/etc/passwd", repository.path().join("evil")).unwrap();
    git(repository.path(), &["add", "."]);
    git(repository.path(), &["commit", "-q", "-m", "evil"]);
    clone(repository.path(), ", ignore: [/evil]", &FakeSandbox::new()).await.unwrap();
    let error = clone(repository.path(), "", &FakeSandbox::new()).await.unwrap_err();
    insta::assert_snapshot!(error, @r#"entry r: the symbolic link evil leads out of the source, to /etc/passwd; remove it or add it to `ignore`"#);
    let error = clone(repository.path(), ", subpath: evil", &FakeSandbox::new()).await.unwrap_err();
    assert!(matches!(error, MaterializeError::Git { step: "find the subpath of", .. }), "{error}");
}

#[tokio::test]
async fn local_repositories_need_a_grant() {
    let (repository, ..) = repository();
    let yaml = format!(
        "version: 1\nentries: {{r: {{type: git, url: \"file://{}\"}}}}",
        repository.path().display()
    );
    let manifest = Manifest::parse(&yaml, "m").unwrap();
    let base = tempfile::tempdir().unwrap();
    let materializer = Materializer::new(base.path());
    let error = materializer.materialize(&manifest, &FakeSandbox::new()).await.unwrap_err();
    let message = error
        .to_string()
        .replace(&repository.path().display().to_string(), "/REPOSITORY")
        .replace(&base.path().display().to_string(), "BASE");
    insta::assert_snapshot!(message, @r#"entry r: file:///REPOSITORY is outside of BASE, and no grant covers it; move it there, or have the caller allow the source"#);
}

#[tokio::test]
async fn hooks_and_settings_of_a_repository_do_not_run() {
    let (repository, ..) = repository();
    let marker = repository.path().join("marker");
    fs::write(repository.path().join(".gitattributes"), "* filter=evil\n").unwrap();
    git(repository.path(), &["add", "."]);
    git(repository.path(), &["commit", "-q", "-m", "filter"]);
    for hook in ["post-checkout", "pre-upload-pack", "post-index-change"] {
        let path = repository.path().join(".git/hooks").join(hook);
        fs::write(&path, format!("#!/bin/sh\ntouch {}\n", marker.display())).unwrap();
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }
    let smudge = format!("touch {}; cat", marker.display());
    git(repository.path(), &["config", "filter.evil.smudge", &smudge]);
    clone(repository.path(), "", &FakeSandbox::new()).await.unwrap();
    assert!(!marker.exists(), "code of the repository ran on the host");
}

#[tokio::test]
async fn a_git_that_hangs_or_is_missing_is_reported() {
    let (repository, ..) = repository();
    let base = tempfile::tempdir().unwrap();
    let hanging = base.path().join("git");
    let started = base.path().join("started");
    fs::write(&hanging, format!("#!/bin/sh\necho $$ > {}\nsleep 600\n", started.display()))
        .unwrap();
    fs::set_permissions(&hanging, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let yaml = format!(
        "version: 1\nentries: {{r: {{type: git, url: \"file://{}\"}}}}",
        repository.path().display()
    );
    let manifest = Manifest::parse(&yaml, "m").unwrap();
    let run = async |program: &Path| {
        Materializer::new(base.path())
            .allow_source(repository.path())
            .git_program(program)
            .git_timeout(Duration::from_millis(500))
            .materialize(&manifest, &FakeSandbox::new())
            .await
            .unwrap_err()
    };
    let error = run(&hanging).await;
    assert!(matches!(error, MaterializeError::GitTimeout { .. }), "{error}");
    let pid = fs::read_to_string(&started).unwrap();
    // The kill has been sent; the kernel carries it out when it comes to it.
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let state = fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
        if state.is_empty() || state.contains(") Z ") {
            break;
        }
        assert!(Instant::now() < deadline, "git still runs: {state}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let error = run(&base.path().join("nowhere")).await.to_string();
    assert!(
        error.contains("did not start") && error.contains("install git on the host"),
        "{error}"
    );
}
