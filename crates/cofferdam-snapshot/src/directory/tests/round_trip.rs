//! What a source tells, a target makes again.

use std::{
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::Path,
    process::Command,
};

use super::support::{Collected, Place, collect, restore, sh, stream_of};
use crate::{DirectoryOptions, DirectorySource};

/// Restores what was collected beside the tree, collects that, and holds the two against each other.
async fn round_trip(place: &Place, found: &Collected) -> std::path::PathBuf {
    let target = place.directory.path().join("restored");
    let (plan, entries) = stream_of(found);
    let totals = restore(&target, &plan, entries).await.unwrap();
    assert_eq!(totals, plan.totals);
    let again =
        collect(&DirectorySource::open(&target, DirectoryOptions::default()).unwrap(), None)
            .await
            .unwrap();
    let (again_plan, again_entries) = stream_of(&again);
    let (plan, entries) = stream_of(found);
    assert_eq!(again_plan, plan);
    assert_eq!(again_entries.len(), entries.len());
    for (again, first) in again_entries.iter().zip(&entries) {
        assert_eq!(again, first);
    }
    let names: Vec<_> = std::fs::read_dir(place.directory.path())
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert!(
        names.iter().all(|name| !name.to_string_lossy().contains("restoring")),
        "left over: {names:?}"
    );
    target
}

#[tokio::test]
async fn names_modes_times_links_and_holes() {
    let mut place = Place::new();
    place.sh(
        r#"
        mkdir -p a/b/c empty sticky read-only
        printf one > a/one; printf two > a/b/two; : > a/b/c/nothing
        ln -s ../a/one empty/relative; ln -s /etc/passwd absolute; ln -s gone dangling; ln -s . loop
        ln a/one a/b/second; ln a/one third
        printf x > "$(printf 'odd\nname\377')"; printf y > ' -rf '; printf z > .hidden
        truncate -s 64M sparse; printf end | dd of=sparse bs=1 seek=40000000 conv=notrunc status=none
        head -c 3000000 /dev/urandom > large
        printf x > read-only/file
        chmod 640 a/one; chmod 755 a/b/two; chmod 400 read-only/file; chmod 555 read-only; chmod 1777 sticky
        touch -d '2001-02-03 04:05:06.789012345' a/b a/b/two; touch -hd 1999-01-01 dangling
        touch -d 1960-01-01 .hidden
        chmod 750 .
        "#,
    );
    let found = place.take().await;
    assert!(found.holes > 60 << 20, "{} bytes of holes", found.holes);
    assert_eq!(found.skipped, []);
    let restored = round_trip(&place, &found).await;
    let of = |name: &str| std::fs::symlink_metadata(restored.join(name)).unwrap();
    assert!(of("sparse").blocks() * 512 < 1 << 20);
    assert_eq!(of("a/one").nlink(), 3);
    assert_eq!(of("a/one").ino(), of("third").ino());
    assert_eq!(of("dangling").mtime(), 915_148_800);
    assert_eq!(restored.metadata().unwrap().permissions().mode() & 0o7777, 0o750);
}

#[tokio::test]
async fn attributes_of_the_user_and_no_others() {
    let mut place = Place::new();
    place.sh("mkdir directory; echo x > file; echo y > plain");
    let of_file = place.tree().join("file");
    let of_directory = place.tree().join("directory");
    let set = |path: &Path, name: &str, value: &[u8]| {
        rustix::fs::setxattr(path, name, value, rustix::fs::XattrFlags::empty())
    };
    if set(&of_file, "user.comment", b"kept").is_err() {
        // A file system of this machine, not of the product.
        println!("skipped: the file system of temporary files keeps no extended attributes");
        return;
    }
    set(&of_file, "user.overlay.opaque", b"y").unwrap();
    set(&of_directory, "user.a", b"\0\xff").unwrap();
    let trusted = set(&of_file, "trusted.secret", b"s").is_ok();
    let found = place.take().await;
    let restored = round_trip(&place, &found).await;
    let list = |path: &Path| {
        let mut list = [0; 1000];
        let length = rustix::fs::listxattr(path, &mut list[..]).unwrap();
        String::from_utf8_lossy(&list[..length]).into_owned()
    };
    assert_eq!(list(&restored.join("file")), "user.comment\0", "trusted was there: {trusted}");
    assert_eq!(list(&restored.join("directory")), "user.a\0");
    // What is not read again keeps what it has.
    place.settle();
    place.take().await;
    let third = place.take().await;
    assert_eq!(third.read, Vec::<String>::new());
    let of = |found: &Collected, name: &str| found.entries[&super::support::path(name)].0.clone();
    assert_eq!(of(&third, "file"), of(&found, "file"));
}

#[tokio::test]
async fn set_id_bits_are_left_out() {
    let mut place = Place::new();
    place.sh("mkdir d; echo x > f; echo y > s; chmod 6755 f; chmod 7777 d; chmod 1644 s");
    let found = place.take().await;
    let target = place.directory.path().join("restored");
    let (plan, entries) = stream_of(&found);
    restore(&target, &plan, entries).await.unwrap();
    let mode = |name: &str| target.join(name).metadata().unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode("f"), mode("d"), mode("s")), (0o755, 0o1777, 0o644));
}

#[tokio::test]
async fn a_virtual_environment_works_where_it_was() {
    let mut place = Place::new();
    let made = Command::new("python3")
        .args(["-m", "venv", "--without-pip", ".venv"])
        .current_dir(place.tree())
        .output();
    match made {
        Ok(output) if output.status.success() => {}
        other => {
            println!("skipped: python3 makes no virtual environment here: {other:?}");
            return;
        }
    }
    let found = place.take().await;
    assert_eq!(found.skipped, []);
    let restored = round_trip(&place, &found).await;
    // Its links are absolute, and its programs know where they lie.
    std::fs::remove_dir_all(place.tree()).unwrap();
    std::fs::rename(restored, place.tree()).unwrap();
    sh(
        &place.tree(),
        "test \"$(.venv/bin/python -c 'import sys; print(sys.prefix)')\" = \"$PWD/.venv\"",
    );
}

#[tokio::test]
async fn many_files_come_back() {
    let mut place = Place::new();
    place.sh(
        "for d in $(seq 40); do mkdir d$d; for f in $(seq 50); do echo $d $f > d$d/f$f; done; done",
    );
    let found = place.take().await;
    assert_eq!(found.entries.len(), 40 * 51);
    round_trip(&place, &found).await;
}
