//! Messages: what the payload of each kind of frame means, in both directions.
//!
//! An operation opens a channel whose number the host chooses and uses only once. Every channel is ended by exactly one
//! [`GuestMessage::Done`], [`GuestMessage::Uploaded`] or [`GuestMessage::Failed`].

mod failure;
mod guest;
mod host;
mod kind;

pub use self::{
    failure::{Failure, FailureReason},
    guest::GuestMessage,
    host::HostMessage,
};
use crate::{MAX_PATH, ProtocolError, wire::Reader};

fn path(reader: &mut Reader<'_>) -> Result<Vec<u8>, ProtocolError> {
    reader.bytes("path", MAX_PATH)
}
