//! Cases on time as commands see it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{
    case_table,
    support::{CaseResult, alive, equal, holds, path, run, shell, write},
    trial::{Stop, Trial},
};
use crate::{ExecRequest, ExitStatus, Sandbox};

case_table! { "clock":
    near_the_hosts: "a command's time of day is the host's within 5 s",
    monotonic: "time since boot does not go back",
    not_settable: "a command cannot set the time of day",
    time_zone: "without being told another, a command is in UTC; it may choose its own",
    stamps: "a file's time is that of its writing, and later writing has a later one",
}

#[expect(
    clippy::disallowed_methods,
    reason = "the case compares the sandbox's clock with the host's real one"
)]
fn host_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

fn number(text: &str) -> u64 {
    text.trim().parse().unwrap_or(u64::MAX)
}

async fn near(sandbox: &dyn Sandbox, what: &str) -> CaseResult {
    let found = number(&shell(sandbox, "date +%s").await?);
    let distance = found.abs_diff(host_seconds());
    holds(what, distance <= 5, "5 s from the host's at most", &distance)
}

async fn near_the_hosts(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    near(&*sandbox, "the time of day").await
}

async fn monotonic(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    let script =
        "i=0; while [ $i -lt 50 ]; do cut -d' ' -f1 /proc/uptime | tr -d .; i=$((i+1)); done";
    let found: Vec<u64> = shell(&*sandbox, script).await?.lines().map(number).collect();
    equal("the number of looks", found.len(), 50)?;
    holds("the times", found.is_sorted(), "none before the one before it", &found)
}

async fn not_settable(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    let told = run(&*sandbox, ExecRequest::shell("date -s @1000000000")).await?;
    holds("the status", told.status != Some(ExitStatus::Code(0)), "a failure", &told.status)?;
    near(&*sandbox, "the time of day afterwards").await?;
    alive(&*sandbox).await
}

async fn time_zone(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    equal("the offset", shell(&*sandbox, "date +%z").await?, "+0000\n")?;
    // As POSIX writes it: west of Greenwich is positive.
    equal("an offset of its own", shell(&*sandbox, "TZ=XXX-3 date +%z").await?, "+0300\n")
}

async fn stamps(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    let stamp = |name: &'static str| {
        let sandbox = &sandbox;
        async move {
            let found = sandbox.files().stat(&path(name)?).await?.modified_ns;
            Ok::<_, Stop>(u64::try_from(found).unwrap_or_default())
        }
    };
    write(&*sandbox, "first", "x").await?;
    let first = stamp("first").await?;
    let distance = (first / 1_000_000_000).abs_diff(host_seconds());
    holds("the time of a file", distance <= 5, "5 s from the host's at most", &distance)?;
    // Longer than any kernel's tick.
    tokio::time::sleep(Duration::from_millis(30)).await;
    write(&*sandbox, "second", "x").await?;
    let second = stamp("second").await?;
    holds("the later time", second > first, "later", &(first, second))?;
    tokio::time::sleep(Duration::from_millis(30)).await;
    write(&*sandbox, "first", "y").await?;
    let again = stamp("first").await?;
    holds("the time of a rewritten file", again > second, "later still", &(second, again))
}
