//! What a run works in: its checkpoints, its loss, and going back to where it is restored to.

use std::time::Duration;

use cofferdam_core::BoxError;
use cofferdam_journal::{PauseReason, RecordBody, Seq};

use super::Run;
use crate::{CheckpointPoint, KeeperError, RunError, RunEvent};

/// The longest pause before a lost sandbox is replaced.
const MAX_BACKOFF: Duration = Duration::from_secs(60);

impl Run<'_> {
    /// Returns the place of a checkpoint, if one is due.
    pub(super) fn due_checkpoint(&self) -> Option<CheckpointPoint> {
        self.parts.keeper.as_ref()?;
        let when = self.request.options.checkpoints;
        let asked = self.request.checkpoint.take();
        self.state.with(|state| {
            state.is_checkpoint_due(when, asked).then(|| CheckpointPoint {
                run: self.journal.run().clone(),
                at: state.seq(),
                turn: state.turns(),
            })
        })
    }

    /// Takes a checkpoint and records it. A sandbox that turns out to be lost is recorded as that.
    pub(super) async fn take_checkpoint(
        &self,
        due: Option<CheckpointPoint>,
    ) -> Result<(), RunError> {
        let (Some(keeper), Some(point)) = (&self.parts.keeper, due) else { return Ok(()) };
        match keeper.checkpoint(point).await {
            Ok(taken) => {
                let (checkpoint, turn) = (taken.checkpoint.clone(), taken.turn);
                self.append(RecordBody::CheckpointTaken {
                    checkpoint: taken.checkpoint,
                    at: taken.at,
                    turn: taken.turn,
                    snapshot: taken.snapshot,
                    sandbox: taken.sandbox,
                    receipt: taken.receipt,
                    running: taken.running,
                })
                .await?;
                self.observe(RunEvent::CheckpointTaken { checkpoint, turn }).await;
                Ok(())
            }
            Err(KeeperError::Lost { reason }) => self.record_loss(reason).await,
            Err(error) => match keeper.is_lost().await {
                Some(reason) => self.record_loss(reason).await,
                None => Err(self.pause(PauseReason::Keeper { error: in_full(&error) }).await),
            },
        }
    }

    /// Takes a tool's word that its sandbox is lost to the keeper. The step stays open.
    pub(super) async fn suspect_loss(
        &mut self,
        tool: &str,
        source: BoxError,
    ) -> Result<(), RunError> {
        let lost = match &self.parts.keeper {
            Some(keeper) => keeper.is_lost().await,
            None => None,
        };
        if let Some(reason) = lost {
            self.false_alarms = 0;
            return self.record_loss(reason).await;
        }
        self.false_alarms += 1;
        if self.parts.keeper.is_none() || self.false_alarms > self.request.options.max_losses {
            let source = cofferdam_tool::ToolError::SandboxLost(source);
            return Err(RunError::Tool { tool: tool.to_owned(), source });
        }
        Ok(())
    }

    async fn record_loss(&self, reason: String) -> Result<(), RunError> {
        self.append(RecordBody::SandboxLost { reason: reason.clone() }).await?;
        self.observe(RunEvent::SandboxLost { reason }).await;
        Ok(())
    }

    /// Puts a fresh sandbox in the place of the lost one, after a pause; gives up after some losses.
    pub(super) async fn recover(&self, reason: &str) -> Result<(), RunError> {
        let losses = self.state.with(|state| state.losses());
        let options = self.request.options;
        let pause = PauseReason::Losses { losses, last: reason.to_owned() };
        let Some(keeper) = &self.parts.keeper else { return Err(self.pause(pause).await) };
        if losses > options.max_losses {
            return Err(self.pause(pause).await);
        }
        let doubled = 2_u32.saturating_pow(losses.saturating_sub(1));
        let wait = options.loss_backoff.saturating_mul(doubled).min(MAX_BACKOFF);
        let last = self.state.with(|state| state.checkpoint().cloned());
        let replaced = tokio::select! {
            biased;
            () = self.request.cancel.cancelled() => return Err(RunError::Cancelled),
            replaced = async {
                tokio::time::sleep(wait).await;
                keeper.recover(last.as_ref(), losses).await
            } => replaced,
        };
        match replaced {
            Ok(recovered) => {
                let checkpoint = recovered.checkpoint.clone();
                self.append(RecordBody::SandboxReplaced {
                    state: recovered.sandbox,
                    checkpoint: recovered.checkpoint,
                    attempt: losses,
                })
                .await?;
                self.observe(RunEvent::SandboxReplaced { checkpoint }).await;
                Ok(())
            }
            Err(error) => {
                self.record_loss(format!("it could not be replaced: {}", in_full(&error))).await
            }
        }
    }

    /// Goes back to the record whose workspace this is.
    pub(super) async fn rewind(&self, to: Seq, checkpoint: Option<String>) -> Result<(), RunError> {
        let reason = "the workspace was restored to this place".to_owned();
        self.append(RecordBody::RunRewound { to, checkpoint, reason }).await?;
        self.observe(RunEvent::RunRewound { to }).await;
        Ok(())
    }
}

/// An error with its causes, for a record.
fn in_full(error: &KeeperError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
