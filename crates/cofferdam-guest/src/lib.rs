//! The guest protocol and the static program that serves it inside every sandbox.
//!
//! A sandbox runs one small program as its first process: the guest. It starts commands, reads and writes files, and
//! sends and receives trees, all over one duplex byte stream. This crate has both halves of that contract:
//!
//! - the protocol: [`FrameDecoder`] cuts the stream to frames, [`HostMessage`] and [`GuestMessage`] give them meaning,
//!   [`TreeDecoder`] reads the stream of a tree, [`SendWindow`] and [`ReceiveWindow`] bound what is under way;
//! - with the feature `program` (on by default), `PROGRAM`: the program itself as bytes, a static executable for the
//!   target, which a backend writes to a memory file and starts.
//!
//! `PROTOCOL.md` beside this crate's manifest describes the bytes and the order of messages.
//!
//! # Why not gRPC?
//!
//! The program is compiled by this crate's build script with a bare `rustc`, so that whoever adds the crate to a
//! `Cargo.toml` has it: it can use only the standard library. An HTTP/2 stack would multiply its size, its start time
//! and the code that faces untrusted processes; what is needed of it (channels and credit) is small.
#![forbid(unsafe_code)]

mod change;
mod error;
mod exec;
mod file;
mod flow;
mod frame;
mod hello;
mod message;
mod port;
mod scan;
mod session;
mod tree;
mod wire;

pub use change::{Change, Watch};
pub use error::ProtocolError;
pub use exec::{
    Exec, ExitStatus, MAX_ARGUMENT_BYTES, MAX_ARGUMENTS, MAX_EXEC_ID, ResourceLimit, TerminalSize,
};
pub use file::{
    DownloadTree, FileKind, FileRequest, ListDirectory, MAX_PATH, Metadata, ReadFile, UploadTree,
    WriteFile,
};
pub use flow::{INITIAL_WINDOW, MAX_WINDOW, ReceiveWindow, SendWindow, WIDE_WINDOW};
pub use frame::{Frame, FrameDecoder, HEADER_LENGTH, MAX_PAYLOAD};
pub use hello::{GuestHello, HostHello, OLDEST_VERSION, PROTOCOL_VERSION, Refusal, Versions};
pub use message::{Failure, FailureReason, GuestMessage, HostMessage};
pub use port::Address;
pub use scan::{ScanEntry, ScanTree};
pub use session::{
    Attach, CommandInfo, CommandState, MAX_LISTED, SessionGrant, SessionRequest, TOKEN_LENGTH,
    Token,
};
pub use tree::{
    NO_TIME, SkipReason, TreeDecoder, TreeEntry, TreeRecord, encode_end, encode_entry,
    encode_hard_link, encode_scanned, encode_skipped,
};

/// The guest program: a static executable for the target that this crate was built for.
///
/// Its contract: descriptor 0 is the stream (and descriptor 1 its writing half when 0 is not a socket), descriptor 2
/// takes diagnostics, and descriptor 3 may be a listening socket at which a host comes back. It serves until the stream
/// ends (or, in a session, until nobody has come back in time), kills every process that it started, and exits. Its
/// arguments are none, `--listen PATH` or `--relay PATH`: see `PROTOCOL.md`.
#[cfg(all(feature = "program", target_os = "linux"))]
pub const PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/cofferdam-guest"));
