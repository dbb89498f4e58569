//! [`ModelRetryLayer`]: tries a model call again as the typed error says.

use std::{
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use cofferdam_core::{Entropy, Retry};
use cofferdam_model::{ModelCall, ModelError, ModelResponse};
use tower::{Layer, Service, ServiceExt};

use crate::service::BoxFuture;

/// How often and how patiently to try.
///
/// The defaults are those of the vendor's own client with one attempt more: 4 attempts, pauses of 0.5 s doubling up to
/// 8 s less a quarter of jitter, and no retry where the server asks for more than 120 s.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RetryPolicy {
    /// Attempts in all; 1 never retries.
    pub attempts: u32,
    /// The first pause.
    pub first_pause: Duration,
    /// The longest pause of our own choice.
    pub longest_pause: Duration,
    /// The longest pause that a server may ask for; a longer one ends the call.
    pub longest_asked: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            attempts: 4,
            first_pause: Duration::from_millis(500),
            longest_pause: Duration::from_secs(8),
            longest_asked: Duration::from_secs(120),
        }
    }
}

impl RetryPolicy {
    /// Returns the pause before the attempt after `attempt`, or `None` to give up. `random` in 0 to 1 is the jitter.
    #[must_use]
    pub fn pause(&self, attempt: u32, retry: Retry, random: f64) -> Option<Duration> {
        if attempt >= self.attempts {
            return None;
        }
        match retry {
            Retry::Never => None,
            Retry::After(asked) => (asked <= self.longest_asked).then_some(asked),
            Retry::Backoff => {
                let doubled = self.first_pause.saturating_mul(1 << (attempt - 1).min(16));
                Some(doubled.min(self.longest_pause).mul_f64(1.0 - 0.25 * random))
            }
        }
    }
}

/// Tries model calls again.
#[derive(Debug, Clone)]
pub struct ModelRetryLayer {
    policy: RetryPolicy,
    entropy: Arc<dyn Entropy>,
}

impl ModelRetryLayer {
    /// Makes a layer; `entropy` spreads the pauses of many runs.
    pub fn new(policy: RetryPolicy, entropy: Arc<dyn Entropy>) -> Self {
        Self { policy, entropy }
    }
}

impl<S> Layer<S> for ModelRetryLayer {
    type Service = ModelRetry<S>;

    fn layer(&self, inner: S) -> ModelRetry<S> {
        ModelRetry { inner, layer: self.clone() }
    }
}

/// The service of [`ModelRetryLayer`].
#[derive(Debug, Clone)]
pub struct ModelRetry<S> {
    inner: S,
    layer: ModelRetryLayer,
}

impl<S> Service<ModelCall> for ModelRetry<S>
where
    S: Service<ModelCall, Response = ModelResponse, Error = ModelError> + Clone + Send + 'static,
    S::Future: Send + 'static,
{
    type Response = ModelResponse;
    type Error = ModelError;
    type Future = BoxFuture<ModelResponse, ModelError>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ModelError>> {
        // Readiness is awaited in the call: what is inside must not hold a place while this layer waits.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, call: ModelCall) -> Self::Future {
        let mut service = self.inner.clone();
        let ModelRetryLayer { policy, entropy } = self.layer.clone();
        Box::pin(async move {
            let mut attempt = 1;
            loop {
                let this = ModelCall { attempt, ..call.clone() };
                let error = match service.ready().await?.call(this).await {
                    Ok(response) => return Ok(response),
                    Err(error) => error,
                };
                let random = (entropy.next_u64() >> 11) as f64 / (1_u64 << 53) as f64;
                let Some(pause) = policy.pause(attempt, error.retry(), random) else {
                    return Err(error);
                };
                tracing::warn!(attempt, ?pause, %error, "model call failed, trying again");
                tokio::time::sleep(pause).await;
                attempt += 1;
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_follow_the_rule() {
        let policy = RetryPolicy::default();
        let seconds = Duration::from_secs_f64;
        let check = |attempt, retry, random, expect: Option<f64>| {
            assert_eq!(policy.pause(attempt, retry, random), expect.map(seconds));
        };
        check(1, Retry::Backoff, 0.0, Some(0.5));
        check(2, Retry::Backoff, 0.0, Some(1.0));
        check(3, Retry::Backoff, 1.0, Some(1.5));
        check(4, Retry::Backoff, 0.0, None);
        check(1, Retry::Never, 0.0, None);
        check(1, Retry::After(seconds(120.0)), 0.0, Some(120.0));
        check(1, Retry::After(seconds(121.0)), 0.0, None);
        let patient = RetryPolicy { attempts: 40, ..policy };
        assert_eq!(patient.pause(30, Retry::Backoff, 0.0), Some(seconds(8.0)));
    }
}
