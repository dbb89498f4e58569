//! What the agent of the suite does: one turn for each kind of step that a run can be killed in.

use cofferdam_model::{ScriptError, ScriptedModel};

use crate::world::World;

/// The agent's name.
pub const AGENT: &str = "accountant";

/// The task that the agent is given.
pub const TASK: &str = "put the accounts in order";

/// Calls that reach beyond the sandbox, or nothing at all.
const OUTSIDE: &str = r#"
  - items:
      - message: looking around
      - { call: look, arguments: { what: the accounts } }
      - { call: look, arguments: { what: the letters } }
      - { call: look, arguments: { what: the seats } }
  - items:
      - { call: set, arguments: { what: the name of the month } }
  - items:
      - { call: pay, arguments: { what: 7 to the baker } }
      - { call: pay, arguments: { what: 9 to the smith } }
  - items:
      - { call: book, arguments: { what: a seat by the window } }
  - items:
      - { call: send, arguments: { what: a letter } }
      - { call: look, arguments: { what: the letters } }
  - items:
      - { call: transfer, arguments: { what: 1000 to the landlord } }
      - { call: look, arguments: { what: the receipt } }
      - { call: transfer, arguments: { what: 20 to the gardener } }
  - items:
      - { call: break, arguments: { what: a glass } }
      - { call: no_such_tool, arguments: {} }
      - { call: pay, arguments: { whom: nobody knows } }
"#;

/// Calls in the sandbox. Each command adds a line to a file, so that a repeat shows.
const INSIDE: &str = r#"
  - items:
      - { call: exec_command, arguments: { cmd: "echo one >> lines; cat lines", login: false } }
  - items:
      - call: apply_patch
        input: |
          *** Begin Patch
          *** Add File: notes/plan.txt
          +first
          +second
          *** Update File: lines
          @@
           one
          +patched
          *** Delete File: ledgers/old
          *** End Patch
  - items:
      - { call: exec_command, arguments: { cmd: "sleep 0.03; echo two >> lines; cat lines", login: false } }
      - { call: exec_command, arguments: { cmd: "ln -s lines link; mkdir -m 750 kept; exit 3", login: false } }
  - items:
      - { call: exec_command, arguments: { cmd: "echo three >> lines; rm notes/plan.txt; cat link", login: false } }
      - { call: book, arguments: { what: a seat by the door } }
"#;

/// The last answer. It comes once more if the model is told that its workspace is older than it knows, at the very end.
const END: &str = "
  - items:
      - message: the accounts are in order
  - items:
      - message: the accounts are in order
";

/// Returns the model that plays the agent of a world.
///
/// # Errors
///
/// If the script is malformed.
pub fn model(world: World) -> Result<ScriptedModel, ScriptError> {
    let inside = if world.has_sandbox() { INSIDE } else { "" };
    ScriptedModel::from_yaml(&format!("name: accounts\nturns:{OUTSIDE}{inside}{END}"))
}

#[cfg(test)]
mod tests {
    use super::{World, model};

    #[test]
    fn the_scripts_are_well_formed() {
        assert_eq!(model(World::Bare).unwrap().turns(), 9);
        assert_eq!(model(World::Sealed).unwrap().turns(), 13);
    }
}
