//! What is found on each kind of host, from canned texts; and groups of the host that runs the tests.

use std::{
    process::{Child, Command, Stdio},
    time::Duration,
};

use super::*;

/// A directory that stands for cgroup mounts. `$` in texts is its path.
struct Host(tempfile::TempDir);

impl Host {
    fn new(files: &[(&str, &str)]) -> Self {
        let host = Self(tempfile::tempdir().expect("a directory"));
        for (path, content) in files {
            let path = host.path(path);
            fs::create_dir_all(path.parent().expect("a parent")).expect("make");
            fs::write(path, content).expect("write");
        }
        host
    }

    fn path(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    fn find(&self, mounts: &str, own: &str, parent: Option<&str>) -> Cgroups {
        let mounts = mounts.replace('$', &self.0.path().display().to_string());
        find::find(&mounts, own, parent.map(Path::new))
    }

    fn tell(&self, found: &Cgroups) -> String {
        let limits = Controller::ALL.map(|controller| {
            let place = found.places.get(&controller);
            let text = place.map_or_else(
                || found.absences[&controller].clone(),
                |place| format!("{} at {}", place.version, place.directory.display()),
            );
            format!("{}: {text}", controller.name())
        });
        let tree = found.tree.as_ref().map_or("none".to_owned(), |tree| tree.display().to_string());
        format!("{}\ntree: {tree}", limits.join("\n"))
            .replace(&self.0.path().display().to_string(), "$")
    }

    fn check(&self, mounts: &str, own: &str, parent: Option<&str>) -> String {
        self.tell(&self.find(mounts, own, parent))
    }
}

const V1: &str = "33 31 0:1 / $/memory rw - cgroup cgroup rw,memory\n\
                  34 31 0:2 / $/pids rw - cgroup cgroup rw,pids\n\
                  35 31 0:3 / $/cpu rw - cgroup cgroup rw,cpu,cpuacct\n";
const V2: &str = "41 31 0:4 / $ rw - cgroup2 cgroup2 rw\n";
const ALL: &str = "cpuset cpu io memory pids\n";

#[test]
fn version_1_is_used_below_the_own_group() {
    let host = Host::new(&[
        ("memory/jobs/a/cgroup.procs", ""),
        ("pids/cgroup.procs", ""),
        ("cpu/cgroup.procs", ""),
    ]);
    insta::assert_snapshot!(host.check(V1, "4:memory:/jobs/a\n8:pids:/\n1:cpu,cpuacct:/\n", None), @"
    memory: cgroup v1 at $/memory/jobs/a
    pids: cgroup v1 at $/pids
    cpu: cgroup v1 at $/cpu
    tree: none
    ");
}

#[test]
fn a_hybrid_host_has_its_limits_on_version_1_and_its_tree_on_version_2() {
    let host = Host::new(&[
        ("memory/cgroup.procs", ""),
        ("pids/cgroup.procs", ""),
        ("cpu/cgroup.procs", ""),
        ("unified/cgroup.controllers", "hugetlb\n"),
        ("unified/cgroup.procs", ""),
    ]);
    let mounts = format!("41 31 0:4 / $/unified rw - cgroup2 cgroup2 rw\n{V1}");
    insta::assert_snapshot!(host.check(&mounts, "4:memory:/\n8:pids:/\n1:cpu:/\n0::/\n", None), @"
    memory: cgroup v1 at $/memory
    pids: cgroup v1 at $/pids
    cpu: cgroup v1 at $/cpu
    tree: $/unified
    ");
}

#[test]
fn systemd_as_root_makes_them_beside_the_session() {
    // The session's own group has processes: it cannot hand down what it has, and writing says so.
    let host = Host::new(&[
        ("user.slice/cgroup.controllers", ALL),
        ("user.slice/cgroup.subtree_control", ALL),
        ("user.slice/cgroup.procs", ""),
        ("user.slice/session-1.scope/cgroup.controllers", ALL),
        ("user.slice/session-1.scope/cgroup.procs", "1\n"),
    ]);
    insta::assert_snapshot!(host.check(V2, "0::/user.slice/session-1.scope\n", None), @"
    memory: cgroup v2 at $/user.slice
    pids: cgroup v2 at $/user.slice
    cpu: cgroup v2 at $/user.slice
    tree: $/user.slice
    ");
}

#[test]
fn a_delegated_group_is_used_by_name() {
    let host = Host::new(&[
        ("system.slice/agents.service/cgroup.controllers", "memory pids\n"),
        ("system.slice/agents.service/cgroup.subtree_control", "\n"),
        ("system.slice/agents.service/cgroup.procs", ""),
    ]);
    let own = "0::/system.slice/agents.service/main\n";
    let parent = Some("/system.slice/agents.service");
    insta::assert_snapshot!(host.check(V2, own, parent), @"
    memory: cgroup v2 at $/system.slice/agents.service
    pids: cgroup v2 at $/system.slice/agents.service
    cpu: cgroup v2 at $/system.slice/agents.service: the cpu controller is not available
    tree: $/system.slice/agents.service
    ");
}

#[test]
fn one_directory_of_version_2_has_all_its_controllers() {
    // The own group could give memory, and the one above memory and pids: never one here and the other there.
    let host = Host::new(&[
        ("top/cgroup.controllers", "memory pids\n"),
        ("top/cgroup.subtree_control", "memory pids\n"),
        ("top/cgroup.procs", ""),
        ("top/own/cgroup.controllers", "memory\n"),
        ("top/own/cgroup.subtree_control", "memory\n"),
        ("top/own/cgroup.procs", ""),
    ]);
    insta::assert_snapshot!(host.check(V2, "0::/top/own\n", None), @"
    memory: cgroup v2 at $/top
    pids: cgroup v2 at $/top
    cpu: cgroup v2 at $/top/own: the cpu controller is not available; cgroup v2 at $/top: the cpu controller is not available
    tree: $/top
    ");
}

#[test]
fn a_container_shows_its_part_as_the_top() {
    let host = Host::new(&[
        ("memory/cgroup.procs", ""),
        ("pids/cgroup.procs", ""),
        ("cpu/cgroup.procs", ""),
    ]);
    let mounts = V1.replace(" / $", " /docker/0a1b $");
    let own = "4:memory:/docker/0a1b\n8:pids:/docker/0a1b\n1:cpu,cpuacct:/docker/0a1b\n";
    insta::assert_snapshot!(host.check(&mounts, own, None), @"
    memory: cgroup v1 at $/memory
    pids: cgroup v1 at $/pids
    cpu: cgroup v1 at $/cpu
    tree: none
    ");
}

#[test]
fn a_group_above_what_is_shown_is_not_used() {
    let host = Host::new(&[("cgroup.procs", ""), ("cgroup.controllers", ALL)]);
    insta::assert_snapshot!(host.check(V2, "0::/../other\n", None), @"
    memory: no cgroup with the memory controller is shown here
    pids: no cgroup with the pids controller is shown here
    cpu: no cgroup with the cpu controller is shown here
    tree: none
    ");
}

#[test]
fn blanks_in_mount_points_are_understood() {
    let host = Host::new(&[("a b/cgroup.procs", ""), ("a b/cgroup.controllers", "memory\n")]);
    fs::write(host.path("a b/cgroup.subtree_control"), "memory\n").expect("write");
    let mounts = "41 31 0:4 / $/a\\040b rw - cgroup2 cgroup2 rw\n";
    insta::assert_snapshot!(host.check(mounts, "0::/\n", None), @"
    memory: cgroup v2 at $/a b
    pids: cgroup v2 at $/a b: the pids controller is not available
    cpu: cgroup v2 at $/a b: the cpu controller is not available
    tree: $/a b
    ");
}

#[test]
fn absences_are_named() {
    insta::assert_snapshot!(Host::new(&[]).check("", "", None), @"
    memory: no cgroup with the memory controller is shown here
    pids: no cgroup with the pids controller is shown here
    cpu: no cgroup with the cpu controller is shown here
    tree: none
    ");
    let host = Host::new(&[("memory/cgroup.procs", ""), ("cpu/cgroup.procs", "")]);
    let own = "4:memory:/gone\n8:pids:/\n1:cpu:/\n";
    insta::assert_snapshot!(host.check(V1, own, Some("/given")), @"
    memory: cgroup v1 at $/memory/given: $/memory/given is not writable: No such file or directory (os error 2)
    pids: cgroup v1 at $/pids/given: $/pids/given is not writable: No such file or directory (os error 2)
    cpu: cgroup v1 at $/cpu/given: $/cpu/given is not writable: No such file or directory (os error 2)
    tree: none
    ");
}

/// A mount that stays as long as this lives. Only root can make one.
struct ReadOnly(PathBuf);

impl ReadOnly {
    fn over(directory: PathBuf) -> rustix::io::Result<Self> {
        use rustix::mount::{MountFlags, mount_bind, mount_remount};
        mount_bind(&directory, &directory)?;
        let mounted = Self(directory);
        mount_remount(&mounted.0, MountFlags::BIND | MountFlags::RDONLY, "")?;
        Ok(mounted)
    }
}

impl Drop for ReadOnly {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH);
    }
}

#[test]
fn a_read_only_mount_is_an_absence() {
    let host = Host::new(&[("cgroup.procs", ""), ("cgroup.controllers", ALL)]);
    let Ok(_mounted) = ReadOnly::over(host.path("")) else {
        return cofferdam_testkit::skip("a_read_only_mount_is_an_absence", "only root can mount");
    };
    insta::assert_snapshot!(host.check(V2, "0::/\n", None), @"
    memory: cgroup v2 at $: $ is not writable: Read-only file system (os error 30)
    pids: cgroup v2 at $: $ is not writable: Read-only file system (os error 30)
    cpu: cgroup v2 at $: $ is not writable: Read-only file system (os error 30)
    tree: none
    ");
}

/// A host with version 1 memory alone, of plain files.
fn plain() -> (Host, Cgroups) {
    let host = Host::new(&[("memory/cgroup.procs", "")]);
    let place = Place { version: Version::V1, directory: host.path("memory") };
    let places = [(Controller::Memory, place)].into();
    (host, Cgroups { places, ..Cgroups::default() })
}

#[test]
fn a_group_that_cannot_be_made_leaves_nothing() {
    let (host, cgroups) = plain();
    // A plain directory has no limit files.
    let error = cgroups.create("cofferdam-1.1.1-x", &SandboxLimits::default());
    assert_eq!(error.expect_err("no files").kind(), io::ErrorKind::NotFound);
    assert!(!host.path("memory/cofferdam-1.1.1-x").exists());
}

#[test]
fn sweeping_removes_the_directories_of_the_dead_only() {
    let (host, cgroups) = plain();
    let own = Owner::current();
    let dead = Owner { start_time: own.start_time + 1, ..own };
    let elsewhere = Owner { namespace: own.namespace + 1, ..dead };
    let names = [
        own.directory_name("a"),
        dead.directory_name("b"),
        elsewhere.directory_name("c"),
        "cofferdam-1.1-d".to_owned(),
        "other".to_owned(),
    ];
    for name in &names {
        fs::create_dir(host.path("memory").join(name)).expect("make");
    }
    assert_eq!(cgroups.sweep(), 1);
    let left = names.map(|name| host.path("memory").join(name).exists());
    assert_eq!(left, [true, false, true, true, true]);
}

#[test]
fn a_process_that_nobody_waited_for_is_dead() {
    let mut child = sleeper("0");
    let stat = format!("/proc/{}/stat", child.id());
    let alive = Owner { pid: child.id(), ..Owner::current() };
    let start: u64 = {
        let stat = fs::read_to_string(&stat).expect("it is there");
        let (_, fields) = stat.rsplit_once(')').expect("a name");
        fields.split_whitespace().nth(19).and_then(|field| field.parse().ok()).expect("a time")
    };
    let child_owner = Owner { start_time: start, ..alive };
    // It stays in the table of processes until the `wait` below.
    while !fs::read_to_string(&stat).expect("it is there").contains(") Z ") {
        std::thread::yield_now();
    }
    assert!(child_owner.is_dead());
    assert!(!Owner::current().is_dead());
    child.wait().expect("ended");
}

#[expect(clippy::disallowed_methods, reason = "something must live in the groups")]
fn sleeper(seconds: &str) -> Child {
    Command::new("sleep").arg(seconds).stdin(Stdio::null()).spawn().expect("sleep")
}

/// An owner whose directories no other test looks at and no sweep removes.
fn nobody() -> Owner {
    Owner { namespace: 0, ..Owner::current() }
}

/// Groups of this host, or why there are none here.
fn real(test: &str) -> Option<Cgroups> {
    let cgroups = Cgroups::detect(None).expect("this host");
    if cgroups.parents().is_empty() {
        cofferdam_testkit::skip(test, "this user has no cgroup to make others in");
        return None;
    }
    Some(cgroups)
}

/// Moves a process to all cgroups of a group.
fn enter(group: &Group, child: &Child) {
    for directory in &group.directories {
        settings::write_file(&directory.join("cgroup.procs"), &child.id().to_string())
            .expect("it enters");
    }
}

#[tokio::test]
async fn killing_ends_all_and_removing_waits_for_it() {
    let Some(cgroups) = real("killing_ends_all_and_removing_waits_for_it") else { return };
    let name = nobody().directory_name("kill");
    let group = cgroups.create(&name, &SandboxLimits::default()).expect("groups");
    let mut children: Vec<_> = (0..8).map(|_| sleeper("600")).collect();
    children.iter().for_each(|child| enter(&group, child));
    let busy = group.remove_when_empty(Duration::from_millis(20)).await;
    assert_eq!(busy.expect_err("they live").kind(), io::ErrorKind::ResourceBusy);
    group.kill().expect("killed");
    group.remove_when_empty(Duration::from_secs(10)).await.expect("removed");
    assert!(!group.directories.iter().any(|directory| directory.exists()));
    for child in &mut children {
        assert!(!child.wait().expect("ended").success());
    }
    group.remove().expect("again is nothing to do");
    group.kill().expect("and nothing to kill");
}

/// Stops a process in a group of these, and lets it go on.
async fn freeze_and_thaw(cgroups: &Cgroups, name: &str) {
    let group = cgroups.create(&nobody().directory_name(name), &SandboxLimits::default());
    let group = group.expect("groups");
    if !group.can_freeze() {
        assert_eq!(group.freeze().expect_err("no tree").kind(), io::ErrorKind::Unsupported);
        return group.remove().expect("removed");
    }
    let mut child = sleeper("600");
    enter(&group, &child);
    let stopped = |wanted| async move {
        tokio::time::timeout(Duration::from_secs(10), wanted).await.expect("within 10 seconds")
    };
    group.freeze().expect("freezing");
    stopped(group.frozen()).await.expect("frozen");
    group.thaw().expect("thawed");
    let early = tokio::time::timeout(Duration::from_millis(20), group.frozen()).await;
    assert!(early.is_err(), "still frozen");
    // What is killed while it stands still ends, too.
    group.freeze().expect("freezing");
    stopped(group.frozen()).await.expect("frozen");
    group.kill().expect("killed");
    child.wait().expect("ended");
    group.remove_when_empty(Duration::from_secs(10)).await.expect("removed");
    let gone = group.frozen().await.expect_err("it is gone");
    assert_eq!(gone.kind(), io::ErrorKind::NotFound);
}

#[tokio::test]
async fn a_group_is_frozen_and_thawed() {
    let Some(cgroups) = real("a_group_is_frozen_and_thawed") else { return };
    freeze_and_thaw(&cgroups, "freeze").await;
}

#[tokio::test]
async fn a_group_of_version_1_is_frozen_and_thawed() {
    let name = "a_group_of_version_1_is_frozen_and_thawed";
    let Some(all) = real(name) else { return };
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mounts");
    let own = fs::read_to_string("/proc/self/cgroup").expect("groups");
    let is_v1 = |line: &&str| !line.contains(" - cgroup2 ");
    let mounts: Vec<&str> = mounts.lines().filter(is_v1).collect();
    let found = find::find(&mounts.join("\n"), &own, None);
    if found.freezer.is_none() {
        cofferdam_testkit::skip(name, "no freezer of version 1 can be used here");
        return;
    }
    assert!(all.freezer.is_none() || all.tree.is_none(), "one of them is enough");
    freeze_and_thaw(&Cgroups { freezer: found.freezer, ..Cgroups::default() }, "freeze-v1").await;
}

#[test]
fn a_freezer_of_version_1_is_used_where_there_is_nothing_of_version_2() {
    let host = Host::new(&[("freezer/jobs/cgroup.procs", ""), ("cgroup.procs", "")]);
    let v1 = "36 31 0:5 / $/freezer rw - cgroup cgroup rw,freezer\n";
    let own = "9:freezer:/jobs\n0::/\n";
    let found = host.find(v1, own, None);
    assert_eq!(found.freezer, Some(host.path("freezer/jobs")));
    assert_eq!(host.find(&format!("{v1}{V2}"), own, None).freezer, None);
}

#[test]
fn sweeping_ends_what_lives_on_after_its_owner() {
    let Some(cgroups) = real("sweeping_ends_what_lives_on_after_its_owner") else { return };
    let dead = Owner { pid: 1, ..nobody() };
    let mut children = Vec::new();
    let groups: Vec<_> = (0..20)
        .map(|number| {
            let name = dead.directory_name(&number.to_string());
            let group = cgroups.create(&name, &SandboxLimits::default()).expect("groups");
            let child = sleeper("600");
            enter(&group, &child);
            children.push(child);
            group
        })
        .collect();
    assert_eq!(cgroups.owned_by(dead).len(), groups.len() * groups[0].directories.len());
    let directories = cgroups.owned_by(dead).len();
    assert_eq!(cgroups.sweep_of(|owner| owner == dead), directories);
    assert_eq!(cgroups.owned_by(dead), Vec::<PathBuf>::new());
    for child in &mut children {
        assert!(!child.wait().expect("ended").success());
    }
}

#[tokio::test]
async fn five_hundred_groups_are_made_and_removed_quickly() {
    let Some(cgroups) = real("five_hundred_groups_are_made_and_removed_quickly") else { return };
    let owner = nobody();
    let started = std::time::Instant::now();
    let groups: Vec<_> = (0..500)
        .map(|number| {
            let name = owner.directory_name(&format!("bulk{number}"));
            cgroups.create(&name, &SandboxLimits::default()).expect("groups")
        })
        .collect();
    let made = started.elapsed();
    let removed = groups.iter().map(|group| group.remove_when_empty(Duration::from_secs(5)));
    for result in futures::future::join_all(removed).await {
        result.expect("removed");
    }
    let all = started.elapsed();
    println!("500 groups: made in {made:?}, removed in {:?}", all - made);
    // Far above what it takes, far below what waiting for each would.
    assert!(all < Duration::from_secs(5), "{all:?}");
    let left = cgroups.owned_by(owner);
    assert!(!left.iter().any(|path| path.to_string_lossy().contains("-bulk")), "{left:?}");
}
