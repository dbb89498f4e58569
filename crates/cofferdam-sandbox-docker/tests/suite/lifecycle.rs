//! How sandboxes end, what is told of it, and what is left on the engine.

use std::{collections::HashMap, time::Duration};

use bollard::{
    models::ContainerCreateBody,
    query_parameters::{
        CreateContainerOptions, KillContainerOptions, ListContainersOptions, RemoveContainerOptions,
    },
};
use cofferdam_sandbox::{
    ExecEvent, ExecRequest, ExitStatus, LossReason, OutputPosition, Sandbox, SandboxBackend as _,
    SandboxError, SandboxExt as _, SandboxSpec, SandboxState, exec::ExceededLimit,
};

use cofferdam_testkit::TestEngine;
use futures::StreamExt as _;

use crate::engine::TestEngineExt as _;

/// The name of a sandbox's container.
fn container(sandbox: &dyn Sandbox) -> String {
    sandbox.state().data["container"].as_str().expect("a container").to_owned()
}

/// Whether the engine has a container, running or not.
async fn is_there(engine: &TestEngine, name: &str) -> bool {
    engine.client().expect("a client").inspect_container(name, None).await.is_ok()
}

async fn wait_until_gone(engine: &TestEngine, name: &str) {
    let gone = async {
        while is_there(engine, name).await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), gone).await.expect("it is removed");
}

async fn check_end(
    test: &str,
    end: impl AsyncFnOnce(&bollard::Docker, &str),
    expect: impl Fn(&LossReason) -> bool,
) {
    let Some(engine) = TestEngine::get(test) else { return };
    let sandbox = engine.backend().create(&engine.spec()).await.expect("a sandbox");
    let name = container(&*sandbox);
    let process = sandbox.run(ExecRequest::program(["sleep", "600"]), 1024);
    let ended = async {
        end(&engine.client().expect("a client"), &name).await;
        sandbox.lost().await
    };
    let (told, lost) = tokio::join!(process, ended);
    for error in [told.expect_err("its sandbox has ended"), lost] {
        match &error {
            SandboxError::Lost { reason } if expect(reason) => {}
            other => panic!("{test}: {other}"),
        }
    }
    wait_until_gone(engine, &name).await;
    sandbox.close().await.expect("closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn removed_by_others() {
    let end = async |client: &bollard::Docker, name: &str| {
        let options = RemoveContainerOptions { force: true, ..Default::default() };
        client.remove_container(name, Some(options)).await.expect("removed");
    };
    let expect = |reason: &LossReason| matches!(reason, LossReason::Removed { .. });
    check_end("removed_by_others", end, expect).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_by_others() {
    let end = async |client: &bollard::Docker, name: &str| {
        let options = KillContainerOptions { signal: "KILL".to_owned() };
        client.kill_container(name, Some(options)).await.expect("killed");
    };
    let expect = |reason: &LossReason| matches!(reason, LossReason::Removed { detail } if detail.contains("signal 9"));
    check_end("killed_by_others", end, expect).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_is_killed_for_memory_says_so() {
    let Some(engine) = TestEngine::get("memory") else { return };
    let mut spec = engine.spec();
    (spec.limits.memory_bytes, spec.limits.disk_bytes) = (64 << 20, 16 << 20);
    let sandbox = engine.backend().create(&spec).await.expect("a sandbox");
    let script = "x=0123456789abcdef; while :; do x=$x$x; done";
    let told = sandbox.run(ExecRequest::shell(script), 1024).await.expect("it ended");
    assert_eq!(told.status, Some(ExitStatus::Limit(ExceededLimit::Memory)));
    // Another kill is none of memory.
    let told = sandbox.run(ExecRequest::shell("kill -9 $$"), 1024).await.expect("it ended");
    assert_eq!(told.status, Some(ExitStatus::Signal(9)));
    sandbox.close().await.expect("closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn dropping_leaves_nothing() {
    let Some(engine) = TestEngine::get("drop") else { return };
    let sandbox = engine.backend().create(&engine.spec()).await.expect("a sandbox");
    let name = container(&*sandbox);
    assert!(is_there(engine, &name).await);
    drop(sandbox);
    wait_until_gone(engine, &name).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_creation_that_is_dropped_leaves_nothing() {
    let Some(engine) = TestEngine::get("drop_creation") else { return };
    let mut spec = engine.spec();
    spec.labels.insert("test".to_owned(), "drop_creation".to_owned());
    let backend = engine.backend();
    // So that only the container is made then.
    backend.create(&spec).await.expect("a sandbox").close().await.expect("closed");
    for milliseconds in [1, 10, 50, 100, 200] {
        let limit = Duration::from_millis(milliseconds);
        // Whether it was in time or not, nothing is kept.
        let _ = tokio::time::timeout(limit, backend.create(&spec)).await;
    }
    let options = ListContainersOptions {
        all: true,
        filters: Some(HashMap::from([(
            "label".to_owned(),
            vec!["cofferdam.label.test=drop_creation".to_owned()],
        )])),
        ..Default::default()
    };
    let client = engine.client().expect("a client");
    let none_left = async {
        // Those under way may not have been made yet: nothing twice in a row is nothing.
        let mut empty = 0;
        while empty < 20 {
            let left = client.list_containers(Some(options.clone())).await.expect("a list");
            empty = if left.is_empty() { empty + 1 } else { 0 };
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), none_left).await.expect("nothing is left");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_dead_process_left_is_removed_and_nothing_else() {
    let Some(engine) = TestEngine::get("sweep") else { return };
    let backend = engine.backend();
    let mine = backend.create(&engine.spec()).await.expect("a sandbox");
    let client = engine.client().expect("a client");
    let of_mine = client.inspect_container(&container(&*mine), None).await.expect("a container");
    let config = of_mine.config.expect("its configuration");
    let owner = config.labels.as_ref().expect("labels")["cofferdam.owner"].clone();
    let dead = format!("{}/1", owner.rsplit_once('/').expect("an owner").0);
    let make = async |name: &str, labels: &[(&str, &str)]| {
        let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let body = ContainerCreateBody {
            image: config.image.clone(),
            labels: Some(labels.collect()),
            ..ContainerCreateBody::default()
        };
        let options = CreateContainerOptions { name: Some(name.to_owned()), ..Default::default() };
        client.create_container(Some(options), body).await.expect("a container");
    };
    make("of-the-dead", &[("cofferdam.owner", &dead), ("cofferdam.seconds", "600")]).await;
    make("of-another-host", &[("cofferdam.owner", "x/1/1"), ("cofferdam.seconds", "600")]).await;
    make("of-somebody", &[("owner", "somebody")]).await;
    make("over", &[("cofferdam.owner", "x/1/1"), ("cofferdam.seconds", "0")]).await;
    // A second of the engine's clock, which is what ages are counted in.
    let aged = async {
        loop {
            engine.backend().create(&engine.spec()).await.expect("a sandbox").close().await?;
            if !is_there(engine, "over").await {
                return Ok::<_, SandboxError>(());
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), aged).await.expect("in time").expect("closed");
    for (name, expect) in
        [("of-the-dead", false), ("of-another-host", true), ("of-somebody", true), ("over", false)]
    {
        assert_eq!(is_there(engine, name).await, expect, "{name}");
    }
    let told = mine.run(ExecRequest::program(["true"]), 1024).await.expect("it lives");
    assert_eq!(told.status, Some(ExitStatus::Code(0)));
    mine.close().await.expect("closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_ends_takes_its_sandboxes_along_and_one_that_comes_back_is_used() {
    // Its own engine, so that the others keep theirs.
    let engine = match TestEngine::start(&[]) {
        Ok(engine) => engine,
        Err(reason) => return cofferdam_testkit::skip("engine_stops", &reason),
    };
    let backend = engine.backend();
    let sandbox = backend.create(&engine.spec()).await.expect("a sandbox");
    engine.signal("KILL");
    assert!(sandbox.lost().await.is_loss());
    engine.restart().expect("it listens again");
    // The same backend goes on.
    let sandbox = backend.create(&engine.spec()).await.expect("a sandbox");
    engine.signal("TERM");
    let SandboxError::Lost { reason } = sandbox.lost().await else { panic!("it is lost") };
    assert!(matches!(reason, LossReason::Removed { .. }), "{reason}");
    let error = sandbox.exec(ExecRequest::program(["true"])).await.expect_err("it is lost");
    assert!(error.is_loss(), "{error}");
    let error = backend.create(&SandboxSpec::default()).await.expect_err("nobody answers");
    assert!(!error.to_string().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sandbox_that_lingers_is_found_again_with_its_commands() {
    let Some(engine) = TestEngine::get("linger") else { return };
    let mut spec = engine.spec();
    spec.linger = Duration::from_secs(60);
    spec.environment.insert("WORD".to_owned(), "value".to_owned());
    let sandbox = engine.backend().create(&spec).await.expect("a sandbox");
    let script = "echo one; until [ -e go ]; do sleep 0.05; done; echo $WORD; exit 7";
    let request = ExecRequest { id: Some("step".to_owned()), ..ExecRequest::shell(script) };
    let mut process = sandbox.exec(request).await.expect("started");
    while !matches!(process.next().await, Some(Ok(ExecEvent::Stdout(_)))) {}
    let state = serde_json::to_string(&sandbox.state()).expect("JSON");
    // As when the process that made it has ended.
    sandbox.sessions().expect("sessions");
    std::mem::forget(process);
    drop(sandbox);

    let backend = engine.backend();
    let state: SandboxState = serde_json::from_str(&state).expect("a state");
    let sandbox = backend.attach(&state).await.expect("found");
    let told = sandbox.run(ExecRequest::shell("touch go; echo $WORD"), 1024).await.expect("ran");
    assert_eq!(told.stdout.to_text(), "value\n");
    let sessions = sandbox.sessions().expect("sessions");
    let mut process = sessions.attach("step", OutputPosition::default()).await.expect("found");
    let (mut output, mut status) = (Vec::new(), None);
    while let Some(event) = process.next().await {
        match event.expect("an event") {
            ExecEvent::Stdout(bytes) => output.extend(bytes),
            ExecEvent::Exited(ended) => status = Some(ended),
            _ => {}
        }
    }
    assert_eq!(String::from_utf8_lossy(&output), "one\nvalue\n");
    assert_eq!(status, Some(ExitStatus::Code(7)));

    let name = container(&*sandbox);
    sandbox.close().await.expect("closed");
    assert!(!is_there(engine, &name).await);
    let error = backend.attach(&state).await.expect_err("it is gone");
    assert!(matches!(error, SandboxError::Lost { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sandbox_that_nobody_comes_back_to_ends() {
    let Some(engine) = TestEngine::get("linger_ends") else { return };
    let mut spec = engine.spec();
    spec.linger = Duration::from_secs(1);
    let sandbox = engine.backend().create(&spec).await.expect("a sandbox");
    let name = container(&*sandbox);
    drop(sandbox);
    wait_until_gone(engine, &name).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_sandbox_ends_and_says_so() {
    let Some(engine) = TestEngine::get("idle") else { return };
    let mut spec = engine.spec();
    spec.limits.idle_time = Some(Duration::from_millis(300));
    let sandbox = engine.backend().create(&spec).await.expect("a sandbox");
    let name = container(&*sandbox);
    let lost = sandbox.lost().await;
    assert!(matches!(lost, SandboxError::Lost { reason: LossReason::IdleTime }), "{lost}");
    wait_until_gone(engine, &name).await;
}
