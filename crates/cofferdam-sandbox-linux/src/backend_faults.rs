//! What the backend does on hosts that refuse a step of the set-up, by making each step fail.

use std::{fs, path::PathBuf};

use cofferdam_sandbox::{ExecRequest, SandboxExt};

use super::*;

/// Held by each test that makes sandboxes, so that none sees what another left.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// Steps that this host does not take: there is nothing to give up, or nothing to join.
fn taken(backend: &LinuxBackend, step: Step) -> bool {
    let host = backend.inner.host().expect("a host");
    match step {
        Step::DropGroups => host.facts.may_map,
        // Only without namespaces; see `without_namespaces_each_step_that_fails_is_named`.
        Step::StartKeeper | Step::MakePlaces => false,
        // Only for images; see `layers_are_merged_where_the_host_does_not_stack_them`.
        Step::StackLayers => false,
        // Only for bases; see `what_fails_with_a_base_is_told_as_such`.
        Step::OpenBase | Step::MapBase | Step::MountWorkspace => false,
        Step::JoinCgroup => {
            host.cgroups.has_tree()
                || [Controller::Memory, Controller::Processes]
                    .into_iter()
                    .any(|controller| host.cgroups.version(controller).is_ok())
        }
        _ => true,
    }
}

/// Whether the backend goes without the object of a step when it fails.
fn gone_without(backend: &LinuxBackend, step: Step, errno: i32) -> bool {
    let host = backend.inner.host().expect("a host");
    let weaker = Mode::FULL.without((step, errno), host.facts.other_user(), HostSettings::read());
    weaker.is_some()
}

/// Returns the cgroups of this process, the children of its launchers, and the mounts where roots are built.
fn leftovers(backend: &LinuxBackend) -> (Vec<PathBuf>, Vec<String>, Vec<String>) {
    let host = backend.inner.host().expect("a host");
    let read = |pid: &str, file: &str| {
        fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default()
    };
    let pids: Vec<String> = fs::read_dir("/proc")
        .expect("processes")
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.parse::<u32>().is_ok())
        .collect();
    let launcher = format!("cofferdam-launcher\0{}\0", std::process::id());
    let launchers: Vec<_> = pids.iter().filter(|pid| read(pid, "cmdline") == launcher).collect();
    let parent = |pid: &String| {
        let stat = read(pid, "stat");
        let (_, after_name) = stat.rsplit_once(')')?;
        after_name.split_ascii_whitespace().nth(1).map(str::to_owned)
    };
    let children = pids
        .iter()
        .filter(|pid| parent(pid).is_some_and(|parent| launchers.contains(&&parent)))
        .cloned()
        .collect();
    let staging = host.layout.staging.to_str().expect("text");
    let mounts = read("self", "mountinfo")
        .lines()
        .filter(|line| line.split(' ').nth(4) == Some(staging))
        .map(str::to_owned)
        .collect();
    (host.cgroups.owned_by(host.owner), children, mounts)
}

#[tokio::test]
async fn each_step_that_fails_is_named_and_leaves_nothing() {
    let _alone = ALONE.lock().await;
    let before = leftovers(&LinuxBackend::new());
    assert_eq!((before.0.len(), before.1.len()), (0, 0), "{before:?}");
    for &step in Step::ALL {
        for errno in [libc::EPERM, libc::EACCES, libc::ENOSYS] {
            let backend = LinuxBackend::with_fault(step, errno);
            if !taken(&backend, step) || gone_without(&backend, step, errno) {
                continue;
            }
            let error = backend.create(&SandboxSpec::default()).await.expect_err("it failed");
            let SandboxError::HostUnable { step: named, reason, remedy, .. } = &error else {
                panic!("{step:?} with {errno}: {error}");
            };
            assert!(named.starts_with(describe(step)), "{step:?} is called {named}");
            assert_eq!(*reason, std::io::Error::from_raw_os_error(errno).to_string());
            assert!(!remedy.is_empty());
            assert_eq!(leftovers(&backend), before, "{step:?} left something");
        }
    }
}

/// Returns a backend that makes sandboxes without namespaces, in a directory of its own, and fails a step.
fn confined(step: Step, errno: i32, place: &std::path::Path) -> LinuxBackend {
    LinuxBackend::with_fault(step, errno).without_namespaces().with_private_directory(place)
}

/// Waits until a directory is empty: the last to know of a sandbox removes its files in the background.
async fn empties(place: &std::path::Path) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while fs::read_dir(place).expect("a directory").next().is_some() {
        assert!(std::time::Instant::now() < deadline, "files are left");
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn without_namespaces_each_step_that_fails_is_named() {
    let _alone = ALONE.lock().await;
    let place = tempfile::tempdir().expect("a directory");
    // A sandbox that is a user of its own has to get to its directory.
    fs::set_permissions(place.path(), std::os::unix::fs::PermissionsExt::from_mode(0o711))
        .expect("open");
    let before = leftovers(&LinuxBackend::new());
    let mut failed = Vec::new();
    for &step in Step::ALL {
        for errno in [libc::EPERM, libc::EACCES, libc::ENOSYS] {
            let backend = confined(step, errno, place.path());
            match backend.create(&SandboxSpec::default()).await {
                Ok(sealed) => sealed.close().await.expect("closes"),
                Err(SandboxError::HostUnable { step: named, reason, remedy, .. }) => {
                    assert!(named.starts_with(describe(step)), "{step:?} is called {named}");
                    assert_eq!(reason, std::io::Error::from_raw_os_error(errno).to_string());
                    assert!(!remedy.is_empty());
                    failed.push(step);
                }
                Err(other) => panic!("{step:?} with {errno}: {other}"),
            }
            assert_eq!(leftovers(&backend), before, "{step:?} left something");
            empties(place.path()).await;
        }
    }
    failed.dedup();
    failed.sort_by_key(|step| Step::ALL.iter().position(|known| known == step));
    let other_user = LinuxBackend::new().inner.host().expect("a host").facts.other_user();
    let mut expected = vec![Step::ReadPlan];
    expected.extend(other_user.then_some(Step::DropGroups));
    expected.extend(taken(&LinuxBackend::new(), Step::JoinCgroup).then_some(Step::JoinCgroup));
    expected.extend([Step::StartKeeper, Step::MakePlaces]);
    expected.extend(other_user.then_some(Step::BecomeUser));
    expected.extend([
        Step::ResourceLimit,
        Step::DropCapabilities,
        Step::NoNewPrivileges,
        Step::Landlock,
        Step::Descriptors,
        Step::Seccomp,
        Step::StartGuest,
    ]);
    expected.sort_by_key(|step| Step::ALL.iter().position(|known| known == step));
    assert_eq!(failed, expected);
}

#[tokio::test]
async fn where_there_are_no_namespaces_there_is_landlock_and_it_is_said() {
    let _alone = ALONE.lock().await;
    for (step, errno) in [
        (Step::CreateNamespaces, libc::EPERM),
        (Step::CreateNamespaces, libc::ENOSYS),
        (Step::PrivateMounts, libc::EACCES),
    ] {
        let script =
            "echo x > f && cat f; ls /proc/self/. 2>&- || echo none; ls /etc/. 2>&- || echo none";
        let text =
            weaker(step, errno, &[Wall::Filesystem, Wall::Processes], Wall::Network, script).await;
        assert_eq!(text, "x\nnone\nnone\n", "{step:?}");
    }
    // Who may become another user does so first.
    if !LinuxBackend::new().inner.host().expect("a host").facts.other_user() {
        let text =
            weaker(Step::MapUser, libc::EACCES, &[Wall::Privileges], Wall::Network, "id -u").await;
        assert_eq!(text.trim(), rustix::process::geteuid().as_raw().to_string());
    }
}

#[tokio::test]
async fn where_landlock_is_too_old_it_is_said_with_what_was_wrong_before() {
    let _alone = ALONE.lock().await;
    let refused = Mode::confined(Cause::Refused(Step::CreateNamespaces, libc::EPERM));
    let backend = LinuxBackend::with_fault(Step::Landlock, libc::EOPNOTSUPP);
    *backend.inner.mode.lock().expect("a mode") = Some(refused);
    let error = backend.create(&SandboxSpec::default()).await.expect_err("refused").to_string();
    for part in ["set up Landlock (version)", "Landlock version 6", "or, for namespaces: "] {
        assert!(error.contains(part), "{error}");
    }
    let guarantees = backend.guarantees().await.expect("a report");
    assert_eq!(guarantees.weaknesses().count(), 15);
}

#[tokio::test]
async fn a_fault_of_the_hosts_resources_may_pass() {
    let _alone = ALONE.lock().await;
    let backend = LinuxBackend::with_fault(Step::CreateNamespaces, libc::EAGAIN);
    let error = backend.create(&SandboxSpec::default()).await.expect_err("it failed");
    assert_eq!(error.to_string(), "the host could not create namespaces");
    assert_eq!(error.retry(), cofferdam_core::Retry::Backoff);
}

#[tokio::test]
async fn a_host_that_cannot_build_reports_every_wall_as_missing() {
    let _alone = ALONE.lock().await;
    let backend = LinuxBackend::with_fault(Step::PivotRoot, libc::EPERM);
    let guarantees = backend.guarantees().await.expect("a report");
    assert_eq!(guarantees.weaknesses().count(), 15);
    let spec = SandboxSpec { strict: true, ..SandboxSpec::default() };
    let error = backend.create(&spec).await.expect_err("refused");
    assert!(matches!(error, SandboxError::Unenforceable { wall: Wall::Filesystem, .. }), "{error}");
}

/// Runs a script in a sandbox of a host that refuses a step, checks that the wall is reported as weak and refused where it
/// was demanded, and returns what the script printed.
async fn weaker(step: Step, errno: i32, weak: &[Wall], stands: Wall, script: &str) -> String {
    let backend = LinuxBackend::with_fault(step, errno);
    // Without having asked for the guarantees before.
    let sandbox = backend.create(&SandboxSpec::default()).await.expect("a weaker sandbox");
    let output = sandbox.run(ExecRequest::shell(script), 1 << 16).await.expect("it ran");
    sandbox.close().await.expect("closes");

    let guarantees = backend.guarantees().await.expect("a report");
    for &wall in weak {
        assert!(
            matches!(guarantees.enforcement(wall), cofferdam_sandbox::Enforcement::Weak { .. }),
            "{guarantees:?}"
        );
    }
    let strict = SandboxSpec { strict: true, ..SandboxSpec::default() };
    let required = SandboxSpec { require: [weak[0]].into(), ..SandboxSpec::default() };
    let other = SandboxSpec { require: [stands].into(), ..SandboxSpec::default() };
    for spec in [strict, required] {
        let error = backend.create(&spec).await.expect_err("refused");
        assert!(matches!(error, SandboxError::Unenforceable { .. }), "{error}");
        // Also by a backend that finds out only when it builds.
        let error = LinuxBackend::with_fault(step, errno).create(&spec).await.expect_err("refused");
        assert!(matches!(error, SandboxError::Unenforceable { .. }), "{error}");
    }
    let sandbox = backend.create(&other).await.expect("what is demanded stands");
    sandbox.close().await.expect("closes");
    output.stdout.to_text().into_owned()
}

#[tokio::test]
async fn where_proc_cannot_be_mounted_there_is_none_and_it_is_said() {
    let _alone = ALONE.lock().await;
    let script = "ls -A /proc | wc -l; id -un; echo x > f && cat f";
    let text =
        weaker(Step::MountProc, libc::EPERM, &[Wall::Processes], Wall::Filesystem, script).await;
    assert_eq!(text, "0\nsandbox\nx\n");
}

#[tokio::test]
async fn where_there_are_no_user_namespaces_root_makes_another_user() {
    let _alone = ALONE.lock().await;
    if !LinuxBackend::new().inner.host().expect("a host").facts.other_user() {
        cofferdam_testkit::skip(
            "backend::faults::where_there_are_no_user_namespaces_root_makes_another_user",
            "only root can become another user without a user namespace",
        );
        return;
    }
    let script = "[ $(id -u) -gt 60000 ] && id -G | grep -qx $(id -u) && echo another; \
                  for d in /workspace /tmp ~ /dev/shm; do echo x > $d/f && rm $d/f || echo $d; done; \
                  awk '/^Cap/ && $2 != 0 || /^NoNewPrivs/ && $2 != 1' /proc/self/status; \
                  awk '{print $1, $2, $3}' /proc/self/uid_map; ps -o pid= -p 1 | tr -d ' '; \
                  cat /proc/1/environ /etc/shadow 2>&1 | grep -c denied; touch /x 2>/dev/null || echo sealed";
    let text =
        weaker(Step::MapUser, libc::EPERM, &[Wall::Privileges], Wall::Filesystem, script).await;
    assert_eq!(text, "another\n0 0 4294967295\n1\n1\nsealed\n");
}

#[tokio::test]
async fn layers_are_merged_where_the_host_does_not_stack_them() {
    use cofferdam_testkit::{ImageBuilder, LayerBuilder, image::write_layout};
    let _alone = ALONE.lock().await;
    let place = tempfile::tempdir().expect("a directory");
    let directory = place.path().join("image");
    let layer = |name: &str| LayerBuilder::new().file(name, b"");
    let image = ImageBuilder::new().layer(layer("one/file")).layer(layer("two/file"));
    write_layout(&directory, &[(None, &image)]);
    let source = cofferdam_sandbox::ImageSource::Layout { directory, name: None };
    let spec = SandboxSpec { root: RootFilesystem::Image(source), ..SandboxSpec::default() };
    let cache = place.path().join("cache");
    let merged = || std::fs::read_dir(cache.join("v1/roots")).expect("a directory").count();
    let backend = LinuxBackend::with_fault(Step::StackLayers, libc::EINVAL)
        .with_image_cache(&cache, ImageCacheOptions::default());
    for _ in 0..2 {
        let sandbox = backend.create(&spec).await.expect("a sandbox");
        assert_eq!(merged(), 1);
        sandbox.close().await.expect("closes");
    }
    assert_eq!(leftovers(&backend).0, Vec::<PathBuf>::new());
}

#[tokio::test]
async fn what_fails_with_a_base_is_told_as_such() {
    let _alone = ALONE.lock().await;
    let place = tempfile::tempdir().expect("a directory");
    let base = Some(WorkspaceBase::new(place.path()));
    let spec = SandboxSpec { base, ..SandboxSpec::default() };
    let other_user = LinuxBackend::new().inner.host().expect("a host").facts.other_user();
    for step in [Step::OpenBase, Step::MapBase, Step::MountWorkspace] {
        for errno in [libc::EPERM, libc::EACCES, libc::EINVAL, libc::EOPNOTSUPP, libc::ENODEV] {
            if step == Step::MapBase && !other_user {
                // Who is the base's owner has nothing to map.
                continue;
            }
            let backend = LinuxBackend::with_fault(step, errno);
            let error = backend.create(&spec).await.expect_err("it failed");
            let SandboxError::Base { directory, reason, remedy } = &error else {
                panic!("{step:?} with {errno}: {error}");
            };
            assert_eq!(*directory, place.path().display().to_string());
            assert!(reason.starts_with(describe(step)) && !remedy.is_empty(), "{error}");
            assert_eq!(leftovers(&backend), Default::default(), "{step:?} left something");

            let found = backend.capabilities().await.expect("a report");
            assert!(!found.workspace_base && found.host_workspace, "{found:?}");
            assert!(found.notes[0].contains(describe(step)), "{found:?}");
            let empty = backend.create(&SandboxSpec::default()).await.expect("without a base");
            empty.close().await.expect("closes");
        }
    }
}

#[tokio::test]
async fn a_host_that_cannot_build_can_do_nothing_and_says_why() {
    let _alone = ALONE.lock().await;
    let backend = LinuxBackend::with_fault(Step::PivotRoot, libc::EPERM);
    let found = backend.capabilities().await.expect("a report");
    assert!(!found.workspace_base && !found.host_workspace && !found.freeze, "{found:?}");
    assert!(found.notes.iter().any(|note| note.contains("change to the new root")), "{found:?}");
}
