//! [`Recall`]: tells tools again what the journal says of their calls, before a run is gone on with.

use std::collections::BTreeMap;

use cofferdam_core::{StepId, ToolOutput};
use cofferdam_journal::RecordBody;
use cofferdam_tool::{Recalled, ToolSet};

/// Reads the records of a run from its first, and tells its tools of each result and each loss.
#[derive(Debug)]
pub(crate) struct Recall<'a> {
    tools: &'a ToolSet,
    /// The tools of calls that have no result yet.
    open: BTreeMap<StepId, String>,
}

impl<'a> Recall<'a> {
    pub(crate) fn new(tools: &'a ToolSet) -> Self {
        Self { tools, open: BTreeMap::new() }
    }

    /// Takes one record in.
    pub(crate) fn fold(&mut self, body: &RecordBody) {
        match body {
            // The calls of an answer are over before the next one, or are made again.
            RecordBody::ModelResponded { .. } => self.open.clear(),
            RecordBody::ToolIntended { step, tool, .. } => {
                self.open.insert(*step, tool.clone());
            }
            RecordBody::ToolFinished { step, output: Some(output), .. }
            | RecordBody::ToolResolved { step, output: Some(output), .. } => {
                self.result(*step, output);
            }
            RecordBody::SandboxLost { .. } | RecordBody::SandboxReplaced { .. } => self.lose(),
            _ => {}
        }
    }

    /// Tells every tool that the sandbox of before is gone.
    pub(crate) fn lose(&self) {
        for tool in self.tools.specs().iter().filter_map(|spec| self.tools.get(&spec.name)) {
            tool.recall(&Recalled::SandboxLost);
        }
    }

    fn result(&mut self, step: StepId, output: &ToolOutput) {
        let tool = self.open.remove(&step).and_then(|name| self.tools.get(&name));
        if let Some(tool) = tool {
            tool.recall(&Recalled::Result { step, output });
        }
    }
}
