//! [`BudgetLayer`]: bounds what a run may use in all. A budget is shared by all clones of its layer.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
};

use cofferdam_core::ToolOutput;
use cofferdam_model::{ModelCall, ModelError, ModelResponse};
use cofferdam_tool::{ToolError, ToolRequest};
use tower::{Layer, Service};

use crate::service::BoxFuture;

/// An amount that calls use up, shared by its clones.
#[derive(Debug, Clone)]
pub struct Budget {
    what: &'static str,
    limit: u64,
    used: Arc<AtomicU64>,
}

impl Budget {
    /// Makes a budget; `what` names it in errors, such as `tokens`.
    #[must_use]
    pub fn new(what: &'static str, limit: u64) -> Self {
        Self { what, limit, used: Arc::default() }
    }

    /// Counts what was used before, by an earlier process of the run.
    #[must_use]
    pub fn after(self, used: u64) -> Self {
        self.spend(used);
        self
    }

    /// Returns what has been used; it may exceed the limit by what calls that had begun still cost.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    fn spend(&self, amount: u64) {
        self.used.fetch_add(amount, Ordering::Relaxed);
    }
}

/// A request that uses a budget: something before it starts, the rest when it ends.
pub trait Budgeted {
    /// What a successful call answers.
    type Response;
    /// The error of the seam.
    type Error;

    /// What a call costs by being started.
    const UPFRONT: u64;

    /// Returns what a call cost besides [`Budgeted::UPFRONT`].
    fn cost(response: &Self::Response) -> u64;

    /// Makes the error for a budget that is used up.
    fn exhausted(what: &'static str, used: u64, limit: u64) -> Self::Error;
}

/// Model calls cost tokens, known when they end.
impl Budgeted for ModelCall {
    type Response = ModelResponse;
    type Error = ModelError;

    const UPFRONT: u64 = 0;

    fn cost(response: &ModelResponse) -> u64 {
        response.usage.total_tokens()
    }

    fn exhausted(what: &'static str, used: u64, limit: u64) -> ModelError {
        ModelError::BudgetExhausted { what, used, limit }
    }
}

/// Tool calls cost one each, by being started.
impl Budgeted for ToolRequest {
    type Response = ToolOutput;
    type Error = ToolError;

    const UPFRONT: u64 = 1;

    fn cost(_: &ToolOutput) -> u64 {
        0
    }

    fn exhausted(what: &'static str, used: u64, limit: u64) -> ToolError {
        ToolError::BudgetExhausted { what, used, limit }
    }
}

/// Refuses calls once a budget is used up.
#[derive(Debug, Clone)]
pub struct BudgetLayer(Budget);

impl BudgetLayer {
    /// Makes a layer that spends from `budget`.
    #[must_use]
    pub fn new(budget: Budget) -> Self {
        Self(budget)
    }
}

impl<S> Layer<S> for BudgetLayer {
    type Service = BudgetService<S>;

    fn layer(&self, inner: S) -> BudgetService<S> {
        BudgetService { inner, budget: self.0.clone() }
    }
}

/// The service of [`BudgetLayer`].
#[derive(Debug, Clone)]
pub struct BudgetService<S> {
    inner: S,
    budget: Budget,
}

impl<S, R> Service<R> for BudgetService<S>
where
    S: Service<R>,
    S::Future: Send + 'static,
    S::Response: Send + 'static,
    S::Error: Send + 'static,
    R: Budgeted<Response = S::Response, Error = S::Error>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = BoxFuture<S::Response, S::Error>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: R) -> Self::Future {
        let budget = self.budget.clone();
        // Taken before the check, so that of two calls at once only one gets the last unit.
        let before = budget.used.fetch_add(R::UPFRONT, Ordering::Relaxed);
        if before >= budget.limit {
            budget.used.fetch_sub(R::UPFRONT, Ordering::Relaxed);
            let error = R::exhausted(budget.what, before, budget.limit);
            return Box::pin(std::future::ready(Err(error)));
        }
        let call = self.inner.call(request);
        Box::pin(async move {
            let response = call.await?;
            budget.spend(R::cost(&response));
            Ok(response)
        })
    }
}
