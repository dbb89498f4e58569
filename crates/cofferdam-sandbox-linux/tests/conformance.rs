//! The conformance suite on this backend, as whoever runs it and as an ordinary user, and the suite itself on the same
//! backend with planted defects that only a kernel shows. The others are planted in the sandbox in memory of
//! `cofferdam-testkit`.
#![expect(clippy::expect_used, reason = "helpers of tests fail as tests do")]
#![expect(
    clippy::disallowed_methods,
    reason = "the ordinary user's tests are a process of their own"
)]

use std::{sync::Arc, time::Duration};

use cofferdam_sandbox::{
    SandboxBackend as _,
    conformance::{self, Options},
};
use cofferdam_sandbox_linux::LinuxBackend;
use cofferdam_testkit::{Defect, FaultyBackend};

#[path = "suite/as_ordinary_user.rs"]
mod as_ordinary_user;

/// Long enough for a machine that does other work, such as the same suite for another user.
fn options() -> Options {
    Options { case_timeout: Duration::from_secs(120), ..Options::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn conformance() {
    let place = tempfile::tempdir().expect("a directory");
    let backend = LinuxBackend::default().with_state_directory(place.path().join("state"));
    let report = conformance::run(&backend, &options()).await;
    println!("{report}");
    report.assert_passed();
    assert_eq!(backend.list().await.expect("a list"), Vec::new(), "what lingers is left");
}

#[test]
fn conformance_as_an_ordinary_user() {
    as_ordinary_user::run_again(&["conformance", "--exact"], 1);
}

/// Cases that change modes by path, or the times of links, which have no descriptor. Without namespaces this is refused to a
/// sandbox that is the user of this process, whose files are everywhere; it can be seen in no capability.
const BY_PATH: [&str; 4] =
    ["base::host_sees_whole", "files::stat_kinds", "generated::trees", "generated::trees_again"];

/// What takes a wall or a capability that is not there is skipped by the suite, which says so.
#[tokio::test(flavor = "multi_thread")]
async fn conformance_without_namespaces() {
    let backend = LinuxBackend::default().without_namespaces();
    // The kernel counts the processes of all sandboxes of an ordinary user together.
    let options = Options { at_once: 16, ..options() };
    let report = conformance::run(&backend, &options).await;
    println!("{report}");
    let mut failed: Vec<_> = report.failed().map(|case| case.name).collect();
    failed.sort_unstable();
    let shared_user = !rustix::process::geteuid().is_root();
    assert_eq!(failed, if shared_user { &BY_PATH[..] } else { &[] }, "{report}");
}

#[test]
fn conformance_without_namespaces_as_an_ordinary_user() {
    as_ordinary_user::run_again(&["conformance_without_namespaces", "--exact"], 1);
}

/// Runs a case on a backend with a defect, and demands that it fails.
async fn check(defect: Defect, case: &str) {
    let options = Options { filter: Some(case.to_owned()), ..options() };
    let backend = FaultyBackend::new(Arc::new(LinuxBackend::default()), defect);
    let report = conformance::run(&backend, &options).await;
    assert!(report.failed().any(|failed| failed.name == case), "{defect:?}: {report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn defects_of_bases_and_freezing_are_found() {
    let found = LinuxBackend::default().capabilities().await.expect("a report");
    for (defect, case, shows) in [
        (Defect::BaseIsIgnored, "base::seen", found.workspace_base),
        (Defect::BaseIsIgnored, "base::host_sees_changes", found.workspace_base),
        (Defect::OneWorkspaceForAll, "base::apart", found.workspace_base),
        (Defect::FreezeIsNothing, "freeze::stands_still", found.freeze),
        (Defect::FreezeIsNothing, "freeze::operations_wait", found.freeze),
        (Defect::FreezeAlwaysLasts, "freeze::bound", found.freeze),
    ] {
        if shows {
            check(defect, case).await;
        } else {
            cofferdam_testkit::skip(
                case,
                "this host cannot do it, so nothing can be wrong with it",
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn defects_that_only_a_kernel_shows_are_found() {
    for (defect, case) in [
        (Defect::ArgumentsAreText, "exec::arguments_are_bytes"),
        (Defect::DroppedCommandRunsOn, "exec::drop_kills_tree"),
        (Defect::ExitCodeIsZero, "exec::exit_codes"),
        (Defect::NetworkIsOpen, "limits::network_none"),
        (Defect::OneWorkspaceForAll, "lifecycle::workspaces_apart"),
        (Defect::OutputIsText, "exec::binary_output"),
        (Defect::ReadsAreCommands, "races::reading"),
        (Defect::StderrIsStdout, "exec::streams_apart"),
        (Defect::TreeIsNotKilled, "exec::kill_tree"),
        (Defect::WritesAreCommands, "files::final_link_is_replaced"),
        (Defect::WritesAreCommands, "races::writing"),
    ] {
        check(defect, case).await;
    }
}
