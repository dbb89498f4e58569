//! How an operation of the guest ends.

use std::io;

use cofferdam_guest::{Failure, FailureReason, ProtocolError};

use crate::sys;

/// The result of a step of an operation.
pub(crate) type Outcome<T> = Result<T, Failure>;

/// Makes a failure from what the system answered.
pub(crate) fn refused<'a>(
    message: &'a str,
    path: &'a [u8],
) -> impl FnOnce(io::Error) -> Failure + 'a {
    move |error| Failure {
        reason: FailureReason::System,
        errno: error.raw_os_error().unwrap_or(sys::EINVAL),
        path: path.to_vec(),
        message: message.to_owned(),
    }
}

/// Makes a failure for a bound that was reached.
pub(crate) fn limit(message: &str, path: &[u8], errno: i32) -> Failure {
    Failure {
        reason: FailureReason::Limit,
        errno,
        path: path.to_vec(),
        message: message.to_owned(),
    }
}

/// Makes a failure for a request that makes no sense.
pub(crate) fn bad_request(message: &str) -> Failure {
    Failure {
        reason: FailureReason::BadRequest,
        errno: sys::EINVAL,
        path: Vec::new(),
        message: message.to_owned(),
    }
}

/// Makes a failure for a tree stream that does not follow its format.
pub(crate) fn bad_stream(error: &ProtocolError) -> Failure {
    bad_request(&error.to_string())
}
