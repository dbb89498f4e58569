//! [`Fault`]: how an answer of the mock server goes wrong.

use serde::Deserialize;
use serde_json::{Value, json};

/// What goes wrong with one answer. Events are counted from 0; offsets are bytes of the body.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Fault {
    /// Writes the body in pieces, cut at these offsets, with a pause between them.
    Split {
        /// Where to cut.
        at: Vec<usize>,
        /// The pause.
        #[serde(default)]
        pause_ms: u64,
    },
    /// Writes the body in pieces of this size, so that every character and field name is cut somewhere.
    SplitEvery {
        /// The size of a piece.
        bytes: usize,
    },
    /// Ends lines as given instead of with line feeds.
    LineEnding(String),
    /// Closes the connection after this many events, without the end of the body.
    CutAfter {
        /// Events that are sent.
        events: usize,
    },
    /// Ends the body properly after this many events.
    EndAfter {
        /// Events that are sent.
        events: usize,
    },
    /// Resets the connection after this many events; 0: before the first byte of the answer.
    ResetAfter {
        /// Events that are sent.
        events: usize,
    },
    /// Sends nothing at all, and keeps the connection.
    HangBeforeFirstByte,
    /// Sends nothing after this many events, and keeps the connection.
    HangAfter {
        /// Events that are sent.
        events: usize,
    },
    /// Sends an event twice.
    Duplicate {
        /// Which.
        event: usize,
    },
    /// Sends every event twice.
    DuplicateAll,
    /// Leaves all events of a type out.
    Omit {
        /// The type, such as `response.output_item.done`.
        event_type: String,
    },
    /// Leaves these fields out of all events, as lenient servers do.
    OmitFields(Vec<String>),
    /// Sends another event first.
    Insert {
        /// Before which event.
        before: usize,
        /// The event; a string is sent as a line of its own, such as `: keepalive`.
        event: Value,
    },
    /// Sends another event and nothing more.
    EndWith {
        /// After how many events.
        after: usize,
        /// The event.
        event: Value,
    },
    /// Answers with a status instead.
    Status {
        /// The status.
        status: u16,
        /// Further headers.
        #[serde(default)]
        headers: Vec<(String, String)>,
        /// The body.
        #[serde(default)]
        body: Value,
    },
    /// Answers 200 with a web page, as a proxy that wants a login.
    Html,
}

impl Fault {
    /// Too many requests, with the pause to take.
    #[must_use]
    pub fn rate_limited(retry_after: &str) -> Self {
        Self::Status {
            status: 429,
            headers: vec![("retry-after".to_owned(), retry_after.to_owned())],
            body: error_body("rate_limit_exceeded", "Rate limit reached"),
        }
    }

    /// A status with an error of this code.
    #[must_use]
    pub fn error(status: u16, code: &str, message: &str) -> Self {
        Self::Status { status, headers: Vec::new(), body: error_body(code, message) }
    }

    /// An `error` event in the documented form.
    #[must_use]
    pub fn flat_error(after: usize, code: &str, message: &str) -> Self {
        let event = json!({"type": "error", "sequence_number": after, "code": code,
                           "message": message, "param": null});
        Self::EndWith { after, event }
    }

    /// An `error` event in the form that servers also send.
    #[must_use]
    pub fn nested_error(after: usize, code: &str, message: &str) -> Self {
        let event = json!({"type": "error", "sequence_number": after,
                           "error": {"type": code, "code": code, "message": message, "param": null}});
        Self::EndWith { after, event }
    }

    /// An event of a type that no client knows.
    #[must_use]
    pub fn unknown_event(before: usize) -> Self {
        Self::Insert {
            before,
            event: json!({"type": "response.hologram.delta", "delta": {"w": 1}}),
        }
    }

    /// A comment line that keeps the connection.
    #[must_use]
    pub fn keepalive(before: usize) -> Self {
        Self::Insert { before, event: json!(": keepalive") }
    }
}

/// The body of an error in OpenAI's form.
pub(super) fn error_body(code: &str, message: &str) -> Value {
    json!({"error": {"message": message, "type": code, "param": null, "code": code}})
}
