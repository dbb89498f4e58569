//! Cases on cancelling: each future of the seam is dropped at each of its poll points, and the sandbox works on.
//!
//! A future that is dropped may have done its work or not; what it held (a channel, a process, a place among the
//! operations at a time) must come back. So each call is dropped far more often than there are such places.

use std::{
    future::poll_fn,
    pin::pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures::{StreamExt as _, stream};

use super::{
    CaseFailure, case_table, layout,
    layout::{directory, file, lay},
    support::{
        CaseResult, alive, closed, collect, equal, holds, names, none_named, path, pattern, read,
        read_until, refused, with_stdin, write,
    },
    trial::{Stop, Trial},
};
use crate::{
    DownloadOptions, ExecEvent, ExecRequest, ExitStatus, ListOptions, Sandbox, SandboxError,
    Signal, TerminalSize, TreeEvent, WriteOptions,
};

case_table! { "cancel":
    create: "creating, dropped anywhere, leaves nothing in the way of the next",
    exec: "starting a command, dropped anywhere, leaves no process",
    events: "waiting for an event, dropped anywhere, loses none",
    control: "controlling a command, dropped anywhere, leaves it controllable",
    write_stdin: "writing to standard input, dropped anywhere, has written a prefix",
    read_file: "reading, dropped anywhere, leaves the file and the sandbox as they were",
    write_file: "writing, dropped anywhere, leaves the old content or the new, and nothing beside it",
    changes: "making, moving and removing, dropped anywhere, are done or not done",
    listing: "listing and describing, dropped anywhere, change nothing",
    upload: "an upload, dropped anywhere, leaves a prefix of its entries",
    download: "a download, dropped anywhere, changes nothing",
    lost: "`lost`, dropped anywhere, can be asked again",
    close: "closing goes on when it is dropped anywhere",
    places: "300 operations that were dropped give back their places",
}

/// Polls a future at most so many times, then drops it; `None` if it was dropped.
async fn polled<T>(future: impl Future<Output = T>, polls: usize) -> Option<T> {
    let mut left = polls;
    let mut future = pin!(future);
    poll_fn(|context: &mut Context<'_>| match future.as_mut().poll(context) {
        Poll::Ready(value) => Poll::Ready(Some(value)),
        Poll::Pending if left <= 1 => Poll::Ready(None),
        Poll::Pending => {
            left -= 1;
            Poll::Pending
        }
    })
    .await
}

/// The most poll points that one call is dropped at; a call with more is dropped at these.
const POINTS: usize = 40;

/// Drops a call at its first, second, … poll point, until it comes to its end by itself. `after` looks each time at
/// what is left, and is told whether the call came to its end.
async fn at_each_point<T, Call, After>(
    sandbox: &dyn Sandbox,
    call: impl Fn(usize) -> Call,
    after: impl Fn(usize, Option<T>) -> After,
) -> CaseResult
where
    Call: Future<Output = Result<T, SandboxError>>,
    After: Future<Output = CaseResult>,
{
    for polls in 1..=POINTS {
        let came = polled(call(polls), polls).await.transpose()?;
        let over = came.is_some();
        after(polls, came).await?;
        if over {
            break;
        }
    }
    alive(sandbox).await
}

/// Looks at nothing.
async fn nothing<T>(_: usize, _: Option<T>) -> CaseResult {
    Ok(())
}

async fn create(trial: &Trial<'_>) -> CaseResult {
    for polls in 1..=POINTS {
        if let Some(made) = polled(trial.backend.create(trial.spec), polls).await {
            let made = made?;
            alive(&*made).await?;
            made.close().await?;
            break;
        }
    }
    alive(&*trial.sandbox().await?).await
}

async fn exec(trial: &Trial<'_>) -> CaseResult {
    let made = trial.sandbox().await?;
    let sandbox = &*made;
    let call = |_: usize| {
        let started = sandbox.exec(ExecRequest::program(["sleep", "600"]));
        // What came to its end is dropped too.
        async move { started.await.map(drop) }
    };
    for _ in 0..10 {
        at_each_point(sandbox, call, nothing).await?;
    }
    if !trial.options.shell {
        // Nobody can count processes; that the sandbox works on was looked at.
        return Ok(());
    }
    none_named(sandbox, "sleep").await
}

async fn events(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    let content = pattern(200_000);
    write(&*sandbox, "file", content.clone()).await?;
    let mut process = sandbox.exec(ExecRequest::program(["cat", "file"])).await?;
    let (mut found, mut status) = (Vec::new(), None);
    let mut polls = 0;
    loop {
        polls = polls % 3 + 1;
        match polled(process.next(), polls).await {
            None => tokio::task::yield_now().await,
            Some(None) => break,
            Some(Some(event)) => match event? {
                ExecEvent::Stdout(bytes) => found.extend(bytes),
                ExecEvent::Exited(ended) => status = Some(ended),
                _ => {}
            },
        }
    }
    equal("the number of bytes", found.len(), content.len())?;
    holds("the bytes", found == content, "those of the file", &"others")?;
    equal("the status", status, Some(ExitStatus::Code(0)))
}

async fn control(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    let mut process = sandbox.exec(with_stdin(ExecRequest::program(["cat"]))).await?;
    let control = process.control();
    for polls in 1..=10 {
        polled(control.signal(Signal(18)), polls).await;
        polled(control.resize(TerminalSize::default()), polls).await;
        control.write_stdin(Bytes::from_static(b"line\n")).await?;
        equal("the echo", read_until(&mut process, "\n").await?, "line\n")?;
    }
    for polls in 1..=10 {
        polled(control.kill_tree(), polls).await;
    }
    control.kill_tree().await?;
    let status = collect(process).await?.status;
    equal("the status", status, Some(ExitStatus::Signal(9)))?;
    alive(&*sandbox).await
}

async fn write_stdin(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    let content = Bytes::from(pattern(600_000));
    for polls in 1..=20 {
        let process = sandbox.exec(with_stdin(ExecRequest::program(["cat"]))).await?;
        let control = process.control();
        let reading = collect(process);
        let writing = async {
            let came = polled(control.write_stdin(content.clone()), polls).await;
            control.close_stdin().await?;
            came.transpose().map_err(Stop::from)
        };
        let (came, told) = futures::future::try_join(writing, reading).await?;
        let length = told.stdout.len();
        let prefix = content.get(..length).is_some_and(|part| told.stdout == part);
        holds("what arrived", prefix, "a prefix of what was written", &length)?;
        if came.is_some() {
            equal("all of it", length, content.len())?;
        }
    }
    Ok(())
}

async fn read_file(trial: &Trial<'_>) -> CaseResult {
    let made = trial.sandbox().await?;
    let sandbox = &*made;
    write(sandbox, "file", pattern(3 << 20)).await?;
    let at = path("file")?;
    let call = |_: usize| {
        let at = at.clone();
        async move { sandbox.files().read(&at, 0, 4 << 20).await.map(drop) }
    };
    at_each_point(sandbox, call, nothing).await?;
    holds("the file", read(sandbox, "file").await? == pattern(3 << 20), "as it was", &"other")
}

async fn write_file(trial: &Trial<'_>) -> CaseResult {
    const LENGTH: usize = 1 << 20;
    let made = trial.sandbox().await?;
    let sandbox = &*made;
    write(sandbox, "file", vec![0; LENGTH]).await?;
    let call = |polls: usize| {
        let content = Bytes::from(vec![u8::try_from(polls).unwrap_or(0); LENGTH]);
        async move { sandbox.files().write(&path("file")?, content, &WriteOptions::default()).await }
    };
    at_each_point(sandbox, call, |polls, came| async move {
        let found = read(sandbox, "file").await?;
        let first = found.first().copied().unwrap_or_default();
        let whole = found.len() == LENGTH && found.iter().all(|byte| *byte == first);
        holds("the content", whole, "of one writing", &found.len())?;
        let new = usize::from(first) == polls;
        holds("what was written to the end", new || came.is_none(), "there", &first)
    })
    .await?;
    // What a dropped writing had begun beside the file is removed soon.
    for _ in 0..200 {
        if names(sandbox, ".").await? == ["file"] {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    equal("the names", names(sandbox, ".").await?, ["file"])
}

async fn changes(trial: &Trial<'_>) -> CaseResult {
    let made = trial.sandbox().await?;
    let sandbox = &*made;
    let call = |polls: usize| async move {
        let (files, one) = (sandbox.files(), path(&format!("d{polls}/sub"))?);
        files.make_directory(&one, 0o755).await?;
        files.rename(&one, &path(&format!("m{polls}"))?, false).await?;
        files.remove(&path(&format!("m{polls}"))?, true).await
    };
    at_each_point(sandbox, call, |polls, came| {
        async move {
            let files = sandbox.files();
            // Dropped work that was sent may still be done; this comes after it, whichever it is.
            let moved = path(&format!("m{polls}"))?;
            if came.is_some() {
                refused("removed", files.stat(&moved).await, None)?;
            }
            files.make_directory(&moved, 0o755).await?;
            files.remove(&moved, true).await?;
            Ok(())
        }
    })
    .await
}

async fn listing(trial: &Trial<'_>) -> CaseResult {
    let made = trial.sandbox().await?;
    let sandbox = &*made;
    let events = (0..500).flat_map(|n| file(format!("dir/{n}"), 0o644, b"x")).collect();
    layout::upload(sandbox, ".", events).await?;
    let call = |_: usize| async move {
        sandbox.files().stat(&path("dir/1")?).await?;
        let options = ListOptions { depth: 2, ..ListOptions::default() };
        sandbox.files().list(&path(".")?, &options).await
    };
    at_each_point(sandbox, call, |_, came| async move {
        came.map_or(Ok(()), |listing| equal("the entries", listing.entries.len(), 501))
    })
    .await
}

async fn upload(trial: &Trial<'_>) -> CaseResult {
    let made = trial.sandbox().await?;
    let sandbox = &*made;
    let call = |polls: usize| {
        let mut events = vec![directory("dir")];
        events.extend((100..200).flat_map(|n| file(format!("dir/{n}"), 0o644, &pattern(4000))));
        let entries = stream::iter(events.into_iter().map(Ok)).boxed();
        async move { sandbox.tree().upload(&path(&format!("t{polls}"))?, entries).await }
    };
    at_each_point(sandbox, call, |polls, came| async move {
        let found = match names(sandbox, &format!("t{polls}/dir")).await {
            Ok(names) => names,
            Err(Stop::Failed(CaseFailure::Call(SandboxError::File { .. }))) => Vec::new(),
            Err(other) => return Err(other),
        };
        let expected: Vec<_> = (100..100 + found.len()).map(|n| n.to_string()).collect();
        equal("the names", &found, &expected)?;
        holds("all of a whole upload", came.is_none() || found.len() == 100, "100", &found.len())
    })
    .await
}

async fn download(trial: &Trial<'_>) -> CaseResult {
    let made = trial.sandbox().await?;
    let sandbox = &*made;
    lay(sandbox, &["tree/", "tree/a: one", "tree/b: two"]).await?;
    write(sandbox, "tree/large", pattern(2 << 20)).await?;
    let call = |_: usize| async move {
        let mut events =
            sandbox.tree().download(&path("tree")?, &DownloadOptions::default()).await?;
        let mut count = 0;
        while let Some(event) = events.next().await {
            count += usize::from(matches!(event?, TreeEvent::Entry(_)));
        }
        Ok(count)
    };
    at_each_point(sandbox, call, |_, came| async move {
        came.map_or(Ok(()), |count| equal("the entries", count, 4))
    })
    .await
}

async fn lost(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    for polls in 1..=5 {
        let early = polled(
            async {
                // Woken once more each time, so that each poll is one of `lost` itself.
                futures::future::select(
                    Box::pin(sandbox.lost()),
                    Box::pin(tokio::task::yield_now()),
                )
                .await
            },
            polls,
        )
        .await;
        drop(early);
    }
    alive(&*sandbox).await?;
    sandbox.close().await?;
    closed("lost", Err::<(), _>(sandbox.lost().await))
}

async fn close(trial: &Trial<'_>) -> CaseResult {
    for polls in 1..=POINTS {
        let sandbox = trial.sandbox().await?;
        let mut process = sandbox.exec(ExecRequest::program(["sleep", "600"])).await?;
        let came = polled(sandbox.close(), polls).await.transpose()?;
        closed("lost", Err::<(), _>(sandbox.lost().await))?;
        while let Some(event) = process.next().await {
            if event.is_err() {
                break;
            }
        }
        sandbox.close().await?;
        if came.is_some() {
            break;
        }
    }
    Ok(())
}

async fn places(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    write(&*sandbox, "file", pattern(200_000)).await?;
    let at = path("file")?;
    for turn in 0..300 {
        polled(sandbox.files().read(&at, 0, 1 << 20), turn % 4 + 1).await;
        polled(sandbox.files().stat(&at), turn % 2 + 1).await;
        polled(sandbox.tree().download(&at, &DownloadOptions::default()), 1).await;
        polled(sandbox.exec(ExecRequest::program(["sleep", "600"])), turn % 3 + 1).await;
        // Many at a time that nobody waits for, but not so many that the limit of processes is met.
        if turn % 20 == 19 {
            alive(&*sandbox).await?;
        }
    }
    let reads = (0..50).map(|_| read(&*sandbox, "file"));
    let found = futures::future::try_join_all(reads).await?;
    equal("reads at a time afterwards", found.len(), 50)?;
    alive(&*sandbox).await
}
