//! A sandbox in whose place another comes: the conformance suite runs through it, and what was under way is lost.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use cofferdam_core::{SandboxId, WorkspacePath};
use cofferdam_sandbox::{
    ExecRequest, Guarantees, ListedSandbox, ReplaceableSandbox, Sandbox, SandboxBackend,
    SandboxError, SandboxExt, SandboxSpec, SandboxState, WriteOptions,
    conformance::{self, Options},
};
use cofferdam_testkit::MemoryBackend;
use futures::StreamExt;

/// Makes two sandboxes for each that is asked for, and gives out the second in the place of the first.
#[derive(Debug)]
struct ReplacingBackend(MemoryBackend);

#[async_trait]
impl SandboxBackend for ReplacingBackend {
    fn name(&self) -> &str {
        self.0.name()
    }

    async fn guarantees(&self) -> Result<Guarantees, SandboxError> {
        self.0.guarantees().await
    }

    async fn create(&self, spec: &SandboxSpec) -> Result<Arc<dyn Sandbox>, SandboxError> {
        let sandbox = ReplaceableSandbox::new(self.0.create(spec).await?);
        sandbox.replace(self.0.create(spec).await?).close().await?;
        Ok(Arc::new(sandbox))
    }

    async fn attach(&self, state: &SandboxState) -> Result<Arc<dyn Sandbox>, SandboxError> {
        Ok(Arc::new(ReplaceableSandbox::new(self.0.attach(state).await?)))
    }

    async fn list(&self) -> Result<Vec<ListedSandbox>, SandboxError> {
        self.0.list().await
    }

    async fn remove(&self, id: &SandboxId) -> Result<(), SandboxError> {
        self.0.remove(id).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn conformance_through_a_replaced_sandbox() {
    let backend = ReplacingBackend(MemoryBackend::default());
    let options = Options { shell: false, parallel: 8, ..Options::default() };
    let report = conformance::run(&backend, &options).await;
    println!("{report}");
    report.assert_passed();
    assert_eq!(backend.0.open_sandboxes(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_under_way_is_lost_and_what_begins_afterwards_is_not() {
    let backend = MemoryBackend::default();
    let spec = SandboxSpec::default();
    let sandbox = ReplaceableSandbox::new(backend.create(&spec).await.unwrap());
    let first = sandbox.id().clone();
    let waiting = ExecRequest { stdin: true, ..ExecRequest::program(["cat"]) };
    let mut under_way = sandbox.exec(waiting).await.unwrap();
    let files = sandbox.files();
    let path = WorkspacePath::new("note").unwrap();
    files.write(&path, Bytes::from_static(b"old"), &WriteOptions::default()).await.unwrap();

    let former = sandbox.replace(backend.create(&spec).await.unwrap());
    former.close().await.unwrap();

    let ended = tokio::time::timeout(Duration::from_secs(10), async {
        while let Some(event) = under_way.next().await {
            if let Err(error) = event {
                return error;
            }
        }
        panic!("the command of a lost sandbox ended well");
    });
    assert!(ended.await.unwrap().is_loss());
    assert_eq!(former.id(), &first);
    assert_ne!(sandbox.id(), &first);
    assert_eq!(sandbox.state().id, *sandbox.id());
    // The part that was taken before works in the new one, whose workspace is its own.
    let missing = files.read(&path, 0, 16).await.unwrap_err();
    assert!(matches!(missing, SandboxError::File { errno: 2, .. }), "{missing}");
    let output = sandbox.run(ExecRequest::program(["echo", "here"]), 64).await.unwrap();
    assert_eq!(output.stdout.to_text(), "here\n");
    sandbox.close().await.unwrap();
    assert_eq!(backend.open_sandboxes(), 0);
}
