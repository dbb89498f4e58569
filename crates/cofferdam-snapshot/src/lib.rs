//! Snapshots of directory trees: incremental, content-addressed, verified on every read, over any object store.
#![forbid(unsafe_code)]
