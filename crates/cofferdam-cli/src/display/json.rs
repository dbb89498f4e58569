//! Events as JSON Lines on standard output, for programs.

use std::io::Write as _;

use async_trait::async_trait;
use cofferdam::harness::{RunEvent, RunObserver};

/// Writes each event as one line.
#[derive(Debug)]
pub(super) struct JsonObserver;

#[async_trait]
impl RunObserver for JsonObserver {
    async fn event(&self, event: RunEvent) {
        if let Ok(line) = serde_json::to_string(&event) {
            // A reader that has gone away is seen when the command writes its result.
            let _ = writeln!(std::io::stdout().lock(), "{line}");
        }
    }
}
