//! The conformance suite on the sandbox in memory, and the suite itself on the same with one planted defect at a time.

use std::{sync::Arc, time::Duration};

use cofferdam_sandbox::conformance::{self, Options};
use cofferdam_testkit::{Defect, FaultyBackend, MemoryBackend};

fn options() -> Options {
    Options { shell: false, parallel: 8, ..Options::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn conformance() {
    let backend = MemoryBackend::default();
    let report = conformance::run(&backend, &options()).await;
    println!("{report}");
    report.assert_passed();
    assert_eq!(backend.open_sandboxes(), 0);
}

/// Runs cases on a backend with a defect, and demands that each of them fails.
async fn check(rows: &[(Defect, &[&str])]) {
    for (defect, cases) in rows {
        assert!(!cases.is_empty(), "{defect:?} is found by nothing");
        for case in *cases {
            // What hangs is found too.
            let case_timeout = Duration::from_secs(3);
            let options = Options { filter: Some((*case).to_owned()), case_timeout, ..options() };
            let backend = FaultyBackend::new(Arc::new(MemoryBackend::default()), *defect);
            let report = conformance::run(&backend, &options).await;
            assert!(
                report.failed().any(|failed| failed.name == *case),
                "{defect:?} is not found by {case}: {report}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn defects_of_commands_are_found() {
    check(&[
        (Defect::CloseStdinIsIgnored, &["exec::stdin_echo"]),
        (Defect::DirectoryIsIgnored, &["exec::directory"]),
        (Defect::DroppedCommandRunsOn, &["limits::processes"]),
        (Defect::EnvironmentLeaks, &["exec::environment"]),
        (Defect::EnvironmentOfRequestIsLost, &["exec::environment", "start::large_environment"]),
        (Defect::ExitCodeIsZero, &["exec::exit_code_of_a_program"]),
        (Defect::ExitedTwice, &["streams::events_in_order"]),
        (Defect::ImpossibleVariablesAreDropped, &["start::impossible_variables"]),
        (Defect::ImpossibleSignalKills, &["signals::impossible_ones"]),
        (Defect::NotStartedIsExit127, &["exec::program_not_found", "exec::program_not_executable"]),
        (
            Defect::NotStartedIsAlwaysMissing,
            &["start::directory_is_no_program", "start::no_format", "start::odd_directories"],
        ),
        (Defect::OutputIsText, &["exec::large_output"]),
        (Defect::OutputLosesAPiece, &["exec::large_output"]),
        (Defect::SignalIsExitCode, &["signals::every_deadly_one", "exec::signal_ends"]),
        (Defect::SignalsAreIgnored, &["exec::signal_ends"]),
        (Defect::StartedIsMissing, &["streams::events_in_order"]),
        (Defect::StderrIsStdout, &["streams::errors_apart"]),
        (Defect::StdinIsAlwaysOpen, &["exec::stdin_closed"]),
        (Defect::StdinIsCut, &["exec::stdin_large"]),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn defects_of_files_are_found() {
    check(&[
        (Defect::DroppedCallsKeepPlaces, &["cancel::places"]),
        (Defect::ListingGoesDeeper, &["files::listing_sorted"]),
        (Defect::ListingIsCutInSilence, &["files::listing_truncated"]),
        (Defect::ListingIsUnsorted, &["files::odd_names", "files::listing_sorted"]),
        (Defect::MakeDirectoryIsAlwaysOk, &["files::make_directory", "paths::below_a_file"]),
        (Defect::MissingIsEmpty, &["files::missing"]),
        (Defect::NamesAreText, &["paths::invalid_utf8"]),
        (Defect::NamesHaveNoCase, &["paths::no_normalisation"]),
        (Defect::NewFileReplaces, &["files::must_be_new", "files::one_is_first"]),
        (Defect::ParentsAreAlwaysMade, &["files::parents", "generated::operations"]),
        (Defect::ReadIgnoresBound, &["files::ranges"]),
        (Defect::ReadIgnoresOffset, &["files::ranges"]),
        (Defect::ReadPanics, &["files::must_be_new"]),
        (Defect::RemoveIsRecursive, &["files::remove", "generated::operations"]),
        (Defect::RenameCopies, &["files::rename", "generated::operations"]),
        (Defect::RenameReplaces, &["files::rename", "files::rename_directories"]),
        (Defect::StatFollowsLinks, &["files::rename_links"]),
        (Defect::TimesAreZero, &["clock::stamps"]),
        (Defect::WriteIsNotAtomic, &["files::replace_is_atomic", "cancel::write_file"]),
        (Defect::WriteIgnoresModes, &["files::modes", "generated::operations"]),
        (Defect::WriteIgnoresKeepMode, &["files::modes"]),
        (Defect::WriteLeavesAFileBeside, &["files::last_wins", "files::refused_leaves_nothing"]),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn defects_of_trees_are_found() {
    check(&[
        (Defect::DownloadEndsEarly, &["tree::round_trip"]),
        (Defect::DownloadHasNoBound, &["tree::bounds"]),
        (Defect::DownloadIsUnsorted, &["tree::order"]),
        (Defect::DownloadLosesLinks, &["tree::round_trip", "tree::download_of_links"]),
        (Defect::ScanHasNoBound, &["scan::bound"]),
        (Defect::ScanLosesLinks, &["scan::hard_links", "scan::tells_what_is_there"]),
        (Defect::ScanTrustsForgedTimes, &["scan::tells_what_is_forged"]),
        (Defect::UploadCleansPaths, &["tree::leaving_paths_are_refused"]),
        (Defect::UploadCountsFiles, &["tree::root_entry", "tree::missing_parents"]),
        (Defect::UploadIgnoresHardLinks, &["scan::hard_links", "scan::hard_links_stay_inside"]),
        (Defect::UploadLosesModes, &["tree::root_entry", "tree::sticky_stays"]),
        (Defect::UploadLosesSticky, &["tree::sticky_stays"]),
        (Defect::UploadLosesTimes, &["generated::trees"]),
        (
            Defect::UploadSwallowsErrors,
            &["tree::source_error_is_passed_on", "tree::unfinished_source"],
        ),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn defects_of_life_and_limits_are_found() {
    check(&[
        (
            Defect::AttachMakesANewOne,
            &["lifecycle::attach_after_close", "lifecycle::attach_to_nonsense"],
        ),
        (Defect::CapabilitiesBoast, &["base::refused_by_name"]),
        (Defect::ClosedStaysUsable, &["lifecycle::closed_is_lost"]),
        (Defect::DiskLimitIsIgnored, &["limits::inodes", "limits::tree_too_large"]),
        (Defect::DroppedCloseStops, &["cancel::close"]),
        (Defect::GuaranteesBoast, &["lifecycle::demanded_walls", "lifecycle::strict"]),
        (Defect::GuaranteesAreUnsorted, &["lifecycle::guarantees"]),
        (Defect::IdsRepeat, &["lifecycle::many"]),
        (Defect::ListForgetsLabels, &["listing::listed"]),
        (Defect::ListNamesAnother, &["listing::listed"]),
        (Defect::LossHasNoReason, &["lifecycle::closed_is_lost"]),
        (Defect::OneWorkspaceForAll, &["lifecycle::many"]),
        (Defect::OutputLimitIsIgnored, &["limits::output"]),
        (Defect::ProcessLimitIsIgnored, &["limits::processes"]),
        (Defect::RemoveDoesNothing, &["listing::removed"]),
        (Defect::RemoveOfNobodyFails, &["listing::nobody", "listing::removed"]),
        (Defect::SecondCloseFails, &["lifecycle::close_is_idempotent"]),
        (Defect::StateNamesAnother, &["lifecycle::state"]),
        (Defect::StrictIsIgnored, &["lifecycle::demanded_walls", "lifecycle::strict"]),
        (Defect::WallTimeIsIgnored, &["lifecycle::wall_time"]),
        (Defect::ZeroIsUnlimited, &["lifecycle::nonsense_limits"]),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_is_a_failure_of_its_case() {
    let options = Options { filter: Some("files::ranges".to_owned()), ..options() };
    let backend = FaultyBackend::new(Arc::new(MemoryBackend::default()), Defect::ReadPanics);
    let text = conformance::run(&backend, &options).await.to_string();
    assert!(text.contains("panicked: a defect that was planted"), "{text}");
}
