//! The stores of this crate keep to the seam's rules.

use std::sync::Arc;

use cofferdam_checkpoint::{CheckpointStore, ObjectCheckpoints, conformance};
use object_store::{local::LocalFileSystem, memory::InMemory};

#[tokio::test]
async fn in_memory() {
    conformance::run(async || {
        Arc::new(ObjectCheckpoints::new(Arc::new(InMemory::new()), "checkpoints"))
            as Arc<dyn CheckpointStore>
    })
    .await;
}

#[tokio::test]
async fn in_a_directory() {
    let directory = tempfile::tempdir().unwrap();
    conformance::run(async || {
        // A store for each case, and each below a prefix of its own kind.
        let place = tempfile::tempdir_in(directory.path()).unwrap().keep();
        let store = LocalFileSystem::new_with_prefix(place).unwrap();
        Arc::new(ObjectCheckpoints::new(Arc::new(store), "")) as Arc<dyn CheckpointStore>
    })
    .await;
}
