//! Plans on a real directory: links, modes, roll-back, and no remains.
#![cfg(all(feature = "host", unix))]

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;

use cofferdam_apply_patch::host::HostDirectory;
use cofferdam_apply_patch::{FileState, Options, Plan, PlanError, commit, parse, plan};
use tempfile::TempDir;

use crate::memory::path;

fn workspace(files: &[(&str, &str)]) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (name, content) in files {
        let file = directory.path().join(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, content).unwrap();
    }
    directory
}

fn planned(directory: &HostDirectory, body: &str) -> Result<Plan, PlanError> {
    let patch = parse(&format!("*** Begin Patch\n{body}\n*** End Patch")).unwrap();
    plan(&patch, &Options::default(), &mut |path| Ok(directory.read(path)?))
}

fn apply(root: &Path, body: &str) -> Result<(), String> {
    let mut directory = HostDirectory::open(root).unwrap().durable(true);
    let plan = planned(&directory, body).map_err(|error| error.explain())?;
    commit(&plan, "t", &mut directory)
        .map(drop)
        .map_err(|error| format!("{error}: {}", error.cause))
}

/// All entries below `root`, sorted: `name=content`, `name/` or `name@`.
fn list(root: &Path) -> String {
    fn walk(root: &Path, at: &Path, found: &mut Vec<String>) {
        for entry in fs::read_dir(at).unwrap() {
            let entry = entry.unwrap();
            let name = entry.path().strip_prefix(root).unwrap().display().to_string();
            let kind = entry.file_type().unwrap();
            if kind.is_dir() {
                found.push(format!("{name}/"));
                walk(root, &entry.path(), found);
            } else if kind.is_symlink() {
                found.push(format!("{name}@"));
            } else {
                found.push(format!(
                    "{name}={}",
                    fs::read_to_string(entry.path()).unwrap().replace('\n', "|")
                ));
            }
        }
    }
    let mut found = Vec::new();
    walk(root, root, &mut found);
    found.sort();
    found.join(" ")
}

#[test]
fn a_patch_of_every_kind_is_carried_out() {
    let root = workspace(&[("a", "1\n"), ("b", "1\n"), ("c", "1\n")]);
    let body = "*** Update File: a\n-1\n+2\n*** Delete File: b\n*** Update File: c\n*** Move to: d/e/c\n-1\n+2\n*** Add File: d/f\n+1";
    apply(root.path(), body).unwrap();
    assert_eq!(list(root.path()), "a=2| d/ d/e/ d/e/c=2| d/f=1|");
}

#[test]
fn mode_bits_and_owner_are_kept() {
    let root = workspace(&[("run.sh", "1\n"), ("secret", "1\n"), ("old.sh", "1\n")]);
    let set = |name: &str, mode| {
        fs::set_permissions(root.path().join(name), fs::Permissions::from_mode(mode)).unwrap()
    };
    set("run.sh", 0o4751);
    set("secret", 0o600);
    set("old.sh", 0o755);
    let owner = fs::metadata(root.path().join("run.sh")).unwrap().uid();
    let body = "*** Update File: run.sh\n-1\n+2\n*** Update File: secret\n-1\n+2\n*** Update File: old.sh\n*** Move to: new.sh\n-1\n+2";
    apply(root.path(), body).unwrap();
    let mode = |name: &str| fs::metadata(root.path().join(name)).unwrap().mode() & 0o7777;
    assert_eq!([mode("run.sh"), mode("secret"), mode("new.sh")], [0o4751, 0o600, 0o755]);
    assert_eq!(fs::metadata(root.path().join("run.sh")).unwrap().uid(), owner);
}

#[test]
fn no_link_is_followed() {
    let outside = workspace(&[("victim", "1\n"), ("dir/victim", "1\n")]);
    let root = workspace(&[("a", "1\n")]);
    symlink(outside.path().join("victim"), root.path().join("leaf")).unwrap();
    symlink(outside.path().join("dir"), root.path().join("ancestor")).unwrap();
    symlink("a", root.path().join("inside")).unwrap();
    let before = (list(outside.path()), list(root.path()));
    for body in [
        "*** Update File: leaf\n-1\n+2",
        "*** Add File: leaf\n+2",
        "*** Update File: a\n*** Move to: leaf",
        "*** Update File: inside\n-1\n+2",
        "*** Update File: ancestor/victim\n-1\n+2",
        "*** Add File: ancestor/new\n+2",
        "*** Add File: ancestor/deep/new\n+2",
        "*** Delete File: ancestor/victim",
        "*** Update File: a\n*** Move to: ancestor/a",
    ] {
        let error = apply(root.path(), body).expect_err(body);
        assert!(error.contains("symbolic link"), "{error}");
        assert_eq!((list(outside.path()), list(root.path())), before, "{body}");
    }
    apply(root.path(), "*** Delete File: leaf").unwrap();
    assert_eq!(list(outside.path()), before.0);
    assert_eq!(list(root.path()), "a=1| ancestor@ inside@");
}

#[test]
fn a_link_put_in_place_after_planning_is_not_followed_either() {
    let outside = workspace(&[("victim", "1\n")]);
    let root = workspace(&[("d/a", "1\n"), ("b", "1\n")]);
    let mut directory = HostDirectory::open(root.path()).unwrap();
    let plan =
        planned(&directory, "*** Update File: b\n-1\n+2\n*** Update File: d/a\n-1\n+2").unwrap();
    fs::rename(root.path().join("d"), root.path().join("was-d")).unwrap();
    symlink(outside.path(), root.path().join("d")).unwrap();
    commit(&plan, "t", &mut directory).expect_err("the directory is a link now");
    assert_eq!(list(outside.path()), "victim=1|");
    assert_eq!(list(root.path()), "b=1| d@ was-d/ was-d/a=1|");
}

#[test]
fn a_failure_rolls_back_and_leaves_no_remains() {
    let root = workspace(&[("a", "1\n"), ("b", "1\n"), ("z", "1\n")]);
    let before = list(root.path());
    let mut directory = HostDirectory::open(root.path()).unwrap();
    let body = "*** Update File: a\n-1\n+2\n*** Delete File: b\n*** Add File: new/deep/x\n+1\n*** Add File: late\n+1";
    let plan = planned(&directory, body).unwrap();
    // Somebody makes the last file in the meantime: it must not be overwritten.
    fs::write(root.path().join("late"), "other\n").unwrap();
    let error = commit(&plan, "t", &mut directory).expect_err("the file exists");
    insta::assert_snapshot!(error, @"could not rename .patch-t-3.new to late; nothing was changed");
    assert_eq!(error.path, path("late"));
    assert_eq!(list(root.path()), before.replace(" z=", " late=other| z="));
}

#[test]
fn what_is_not_a_file_is_refused() {
    let root = workspace(&[("dir/x", "1\n"), ("big", "12345")]);
    let directory = HostDirectory::open(root.path()).unwrap().max_file_bytes(4);
    assert_eq!(directory.read(&path("dir")).unwrap(), Some(FileState::Directory));
    assert_eq!(directory.read(&path("none")).unwrap(), None);
    assert_eq!(directory.read(&path("none/none")).unwrap(), None);
    assert_eq!(directory.read(&path("big")).unwrap_err().kind(), std::io::ErrorKind::FileTooLarge);
    assert!(directory.read(&path("big/x")).is_err());
    let error =
        apply(root.path(), "*** Add File: dir/x/y\n+1").expect_err("a file is no directory");
    assert!(error.contains("or a file"), "{error}");
}

#[test]
fn a_reversed_plan_restores_the_files() {
    let root = workspace(&[("a", "1\n"), ("b", "1\n"), ("c", "1\n")]);
    let before = list(root.path());
    let mut directory = HostDirectory::open(root.path()).unwrap();
    let plan = planned(&directory, "*** Update File: a\n-1\n+2\n*** Delete File: b\n*** Update File: c\n*** Move to: d\n*** Add File: e\n+1").unwrap();
    commit(&plan, "t", &mut directory).unwrap();
    assert_ne!(list(root.path()), before);
    commit(&plan.reverse().unwrap(), "t", &mut directory).unwrap();
    assert_eq!(list(root.path()), before);
}
