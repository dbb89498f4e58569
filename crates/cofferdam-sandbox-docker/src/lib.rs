//! Sealed sandboxes as containers of a Docker or Podman engine, local or remote, in any Linux image.
//!
//! ```no_run
//! use cofferdam_sandbox::{ExecRequest, SandboxBackend, SandboxExt, SandboxSpec};
//! use cofferdam_sandbox_docker::DockerBackend;
//!
//! # async fn example() -> Result<(), cofferdam_sandbox::SandboxError> {
//! let backend = DockerBackend::builder().default_image("debian:bookworm").build();
//! let sandbox = backend.create(&SandboxSpec::default()).await?;
//! let output = sandbox.run(ExecRequest::shell("id -un; ls -A"), 64 * 1024).await?;
//! assert_eq!(output.stdout.to_text(), "sandbox\n");
//! sandbox.close().await?;
//! # Ok(())
//! # }
//! ```
//!
//! # What a command finds
//!
//! | Place | What it is |
//! |---|---|
//! | `/` | the image, read-only, with a layer that has the guest and the names of users |
//! | `/workspace`, `/tmp`, `/home/sandbox`, `/dev/shm` | writable, in memory; 12, 2, 1 and 1 sixteenths of the bound on bytes and files |
//! | `/proc` | of its own processes only, with parts that tell of the host masked |
//! | `/sys` | empty |
//! | places that the image declares as volumes | empty and read-only |
//! | environment | `PATH`, `LANG`, `TERM`, then the image's, `HOME`, and what the specification names |
//! | network | loopback of its own; the host's only if [`NetworkAccess::Host`] opened it |
//!
//! # What stands in the way
//!
//! | Wall | Mechanism |
//! |---|---|
//! | files | mount namespace, no directory of the host, read-only root, `nosuid,nodev` on what is writable |
//! | network | network namespace without an interface but loopback |
//! | processes | pid and ipc namespaces, masked `/proc` |
//! | privileges | a user of its own for each sandbox, which no image uses; no capabilities, `no_new_privs`; a user namespace if the engine has one |
//! | system calls | a seccomp profile of this crate: an allow-list, narrower than the engine's own |
//! | memory, processes, processors | control groups of the engine |
//! | disk | sized in-memory file systems |
//! | end | the engine ends the guest when its stream is cut, and removes the container |
//!
//! [`SandboxBackend::guarantees`] says which of them stand on an engine, and in words what is weaker. A limit that was asked
//! for and that the engine would pass over is refused by name.
//!
//! # How it works
//!
//! The guest ([`cofferdam_guest::PROGRAM`]) is put into an image once, as a layer on top of it (`prepare`); the engine keeps
//! the layered image. A sandbox is a container of that image with the guest as its first process, which is spoken to over one
//! attached stream: no process is started by the engine for a command, and no directory of the host is needed, so a remote
//! engine and an image without a shell are like any other. What becomes of the containers is learnt from one stream of the
//! engine's events (`events`).
//!
//! # Why no `docker exec`?
//!
//! It costs a new process of the engine for each command, tens of milliseconds, and gives each backend semantics of its own
//! for signals, process trees and files. The guest has one, for all of them.
//!
//! # What it does not do
//!
//! - It shares the kernel of the engine's machine, and trusts the engine, which is usually root there.
//! - A sandbox ends with the process that made it, unless [`SandboxSpec::linger`] says otherwise; then
//!   [`SandboxBackend::attach`] finds it, by a relay that the engine starts beside the guest.
//! - [`SandboxBackend::list`] says of a sandbox that somebody is connected while the process that made it lives on this host
//!   or a relay runs in it: an engine does not tell who is at the other end of a container's streams.
//! - Images with the guest, and roots that were imported for them, stay on the engine: the 16 that were used last, for a week
//!   ([`DockerBackendBuilder::keep_images`]). `docker image ls 'cofferdam/*'` lists them, and they can be removed at any time.
//!   Images that were pulled, and the names that an image file brings, are the engine's and stay.
//!
//! [`NetworkAccess::Host`]: cofferdam_core::NetworkAccess::Host
//! [`SandboxBackend::guarantees`]: cofferdam_sandbox::SandboxBackend::guarantees
//! [`SandboxSpec::linger`]: cofferdam_sandbox::SandboxSpec::linger
//! [`SandboxBackend::attach`]: cofferdam_sandbox::SandboxBackend::attach
//! [`SandboxBackend::list`]: cofferdam_sandbox::SandboxBackend::list
#![forbid(unsafe_code)]

mod archive;
mod attach;
mod backend;
mod container;
mod endpoint;
mod engine;
mod events;
mod held;
mod image;
mod labels;
mod layout;
mod list;
mod prepare;
mod prepared;
mod sandbox;
mod seccomp;
mod ssh;
mod stream;
mod sweep;
mod time;
mod users;
mod walls;

pub use backend::{DockerBackend, DockerBackendBuilder};
pub use endpoint::{DockerEndpoint, TlsCertificates};
pub use image::{PullPolicy, PullProgress};
