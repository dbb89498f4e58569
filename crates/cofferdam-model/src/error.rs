//! [`ModelError`]: what can go wrong with a model call, sorted by what the caller can do next.

use std::time::Duration;

use cofferdam_core::{BoxError, Retry};

/// A failure of a model call.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// Too many requests: wait.
    #[error("{model} limits the rate of requests{}", wait(*.retry_after))]
    RateLimited {
        /// The model.
        model: String,
        /// The pause that the provider asked for.
        retry_after: Option<Duration>,
    },
    /// The provider has trouble of its own: try again later.
    #[error("{model} is unavailable (status {status}): {message}{}", wait(*.retry_after))]
    Unavailable {
        /// The model.
        model: String,
        /// The HTTP status; 0 if there was none.
        status: u16,
        /// The provider's words, shortened.
        message: String,
        /// The pause that the provider asked for.
        retry_after: Option<Duration>,
    },
    /// The account has no money or quota left: add some.
    #[error("the account at {model} has no quota left: {message}")]
    QuotaExhausted {
        /// The model.
        model: String,
        /// The provider's words.
        message: String,
    },
    /// The key is missing, wrong or not allowed to do this: correct it.
    #[error("{model} refused the credentials: {message}")]
    Unauthenticated {
        /// The model.
        model: String,
        /// The provider's words.
        message: String,
    },
    /// The conversation is too long for the model: shorten it.
    #[error("the conversation is too long for {model}: {message}")]
    ContextTooLong {
        /// The model.
        model: String,
        /// The provider's words.
        message: String,
    },
    /// Encrypted reasoning that was sent back is stale: drop it and send again.
    #[error("{model} no longer accepts the reasoning that was sent back: {message}")]
    StaleReasoning {
        /// The model.
        model: String,
        /// The provider's words.
        message: String,
    },
    /// The request is wrong: correct it.
    #[error("{model} refused the request (status {status}, code {code}): {message}")]
    InvalidRequest {
        /// The model.
        model: String,
        /// The HTTP status; 0 if there was none.
        status: u16,
        /// The provider's code, or `none`.
        code: String,
        /// The provider's words.
        message: String,
    },
    /// The provider began an answer and gave up: its reason tells.
    #[error("{model} failed to answer (code {code}): {message}")]
    Failed {
        /// The model.
        model: String,
        /// The provider's code.
        code: String,
        /// The provider's words.
        message: String,
        /// Whether the provider's code says that trying again may help.
        retry: Retry,
    },
    /// The server did not answer in time: try again or allow more time.
    #[error("{model} did not answer within {limit:?} ({what})")]
    Timeout {
        /// The model.
        model: String,
        /// What took too long, such as `connecting`, `first byte`, `next event`, `whole call`.
        what: &'static str,
        /// The time that was allowed.
        limit: Duration,
    },
    /// No connection could be made or kept before the answer began.
    #[error("cannot reach {model} at {url}")]
    Unreachable {
        /// The model.
        model: String,
        /// Where it was looked for; without credentials.
        url: String,
        /// Why.
        #[source]
        source: BoxError,
    },
    /// The stream ended before the answer was whole: try again.
    #[error("the stream of {model} was cut after {events} events, before the answer was whole")]
    StreamCut {
        /// The model.
        model: String,
        /// Events that had arrived.
        events: u64,
        /// How it was cut, where that is known.
        #[source]
        source: Option<BoxError>,
    },
    /// The server speaks something else: check the address.
    #[error("{model} answered with something that is not its protocol: {detail}")]
    Protocol {
        /// The model.
        model: String,
        /// What came, shortened, such as the content type and the first words.
        detail: String,
    },
    /// A budget of the run is used up: the run ends.
    #[error("the budget of {what} is used up ({used} of {limit})")]
    BudgetExhausted {
        /// What was budgeted, such as `tokens`.
        what: &'static str,
        /// What was used.
        used: u64,
        /// What was allowed.
        limit: u64,
    },
    /// A layer refused or failed the call: its error tells.
    #[error("a layer refused the model call")]
    Layer(#[source] BoxError),
    /// The scripted model was not used as its script says: correct the script or what led to it.
    #[error(transparent)]
    Script(#[from] crate::ScriptError),
}

fn wait(retry_after: Option<Duration>) -> String {
    retry_after.map_or_else(String::new, |pause| format!("; it asks to wait {pause:?}"))
}

impl ModelError {
    /// Returns whether the same request may succeed if sent again.
    #[must_use]
    pub fn retry(&self) -> Retry {
        match self {
            Self::RateLimited { retry_after, .. } | Self::Unavailable { retry_after, .. } => {
                retry_after.map_or(Retry::Backoff, Retry::After)
            }
            Self::Failed { retry, .. } => *retry,
            Self::Timeout { .. } | Self::Unreachable { .. } | Self::StreamCut { .. } => {
                Retry::Backoff
            }
            _ => Retry::Never,
        }
    }
}
