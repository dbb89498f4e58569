//! The arguments of the command.

use std::{ffi::OsString, path::PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};
use cofferdam::core::RunId;

use crate::{display::Price, keep::Keep, place::RootChoice};

/// Runs agents and their commands in sealed sandboxes.
#[derive(Debug, Parser)]
#[command(name = "cofferdam", version, about, max_term_width = 100)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run an agent file to its end and copy its outputs out.
    Run(RunArguments),
    /// Go on with a run that was cut off, waits for somebody, failed or was cancelled.
    Resume(ResumeArguments),
    /// Show what is recorded of runs.
    #[command(subcommand)]
    Runs(RunsCommand),
    /// Show and end the sandboxes that live on this host.
    #[command(subcommand)]
    Sandboxes(SandboxesCommand),
    /// Run one command, or a shell, in a sealed sandbox.
    Exec(ExecArguments),
    /// Open an interactive shell in a sealed sandbox.
    Shell(ShellArguments),
    /// Check and show agent files and manifests.
    #[command(subcommand)]
    Manifest(ManifestCommand),
    /// Apply a V4A patch to the working directory, all of it or nothing.
    ApplyPatch(ApplyPatchArguments),
    /// Show what sandboxes on this host enforce, and how to enable what is missing.
    Doctor {
        /// Look at this backend only. Default: at all of them.
        #[arg(long)]
        backend: Option<String>,
        /// Print JSON instead of a table.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Args)]
pub(crate) struct RunArguments {
    /// The agent file.
    pub(crate) file: PathBuf,
    /// The task, instead of the file's.
    pub(crate) task: Option<String>,
    /// The model: `scripted:FILE`, `openai:NAME` or `chat:NAME`. Default: the file's live model if OPENAI_API_KEY is
    /// set, else its default.
    #[arg(long)]
    pub(crate) model: Option<String>,
    /// Address of the model's API, such as `http://127.0.0.1:8000/v1`.
    #[arg(long)]
    pub(crate) base_url: Option<String>,
    /// Directory below which the run's outputs go, in one named after the run.
    #[arg(long, default_value = "out")]
    pub(crate) out: PathBuf,
    /// Prices of a million input and output tokens, such as `1.25:10`, to show what the run costs.
    #[arg(long, value_name = "INPUT:OUTPUT")]
    pub(crate) price: Option<Price>,
    /// Print events as JSON Lines on standard output.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) place: PlaceArguments,
    #[command(flatten)]
    pub(crate) state: StateArguments,
    /// Do not record the run: it cannot be resumed.
    #[arg(long, conflicts_with_all = ["state", "chaos"])]
    pub(crate) no_state: bool,
    /// Kill the harness and the sandbox at random while the run goes on, and resume it each time. A seed repeats the choice.
    #[arg(long, value_name = "SEED", num_args = 0..=1, require_equals = true)]
    pub(crate) chaos: Option<Option<u64>>,
    /// How often `--chaos` strikes.
    #[arg(long, value_name = "N", default_value_t = 6, requires = "chaos")]
    pub(crate) chaos_blows: u32,
    /// The name of the run, chosen by the process that watches it.
    #[arg(long, hide = true, value_parser = parse_run)]
    pub(crate) run_id: Option<RunId>,
}

/// Where runs are recorded.
#[derive(Debug, Args)]
pub(crate) struct StateArguments {
    /// Directory in which runs are recorded. Default: `COFFERDAM_STATE`, else `cofferdam` in `XDG_STATE_HOME` or
    /// `~/.local/state`.
    #[arg(long, value_name = "DIR")]
    pub(crate) state: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct ResumeArguments {
    /// The run, as `cofferdam runs list` names it.
    #[arg(value_parser = parse_run)]
    pub(crate) run: RunId,
    /// Allow the calls that wait for approval.
    #[arg(long, conflicts_with_all = ["refuse", "decide"])]
    pub(crate) approve: bool,
    /// Refuse the calls that wait for approval.
    #[arg(long, conflicts_with = "decide")]
    pub(crate) refuse: bool,
    /// Decide what becomes of a call whose outcome is unknown, or of a workspace that is older than the conversation.
    #[arg(long)]
    pub(crate) decide: Option<DecisionChoice>,
    /// Why, for the record; the model is told where a call is refused.
    #[arg(long, default_value = "")]
    pub(crate) reason: String,
    /// Tell the model something more; `-` reads it from standard input. A run that the model had finished goes on with it. The
    /// same words again, because nobody knows whether they were taken, are taken once.
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub(crate) input: Option<String>,
    /// What tells the input apart: the run takes each key once, whenever it is given. Default: the words, and where the run stands.
    #[arg(long, value_name = "KEY", requires = "input")]
    pub(crate) input_key: Option<String>,
    /// Take the run back to this checkpoint of it: the record that it is of, as `runs show` names it, or its whole name.
    #[arg(long, value_name = "CHECKPOINT")]
    pub(crate) back_to: Option<String>,
    /// If the agent file is not what it was, go on as a new run.
    #[arg(long)]
    pub(crate) fork: bool,
    /// Print events as JSON Lines on standard output.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) state: StateArguments,
}

/// What somebody may decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum DecisionChoice {
    /// Run the call again.
    RunAgain,
    /// Tell the model that the outcome is unknown.
    TellModel,
    /// Go on with the workspace as it is.
    AcceptWorkspace,
    /// End the run.
    Abort,
}

#[derive(Debug, Subcommand)]
pub(crate) enum RunsCommand {
    /// List runs.
    List {
        /// Print an object for each run.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        state: StateArguments,
    },
    /// Show one run, a line for each record; all of them are verified.
    Show {
        /// The run.
        #[arg(value_parser = parse_run)]
        run: RunId,
        /// Print what the list tells of it as an object.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        state: StateArguments,
    },
    /// Show the last records of a run.
    Tail {
        /// The run.
        #[arg(value_parser = parse_run)]
        run: RunId,
        /// How many.
        #[arg(short = 'n', long, default_value_t = 10)]
        lines: u64,
        /// Go on until the run ends.
        #[arg(short, long)]
        follow: bool,
        /// Print the records themselves.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        state: StateArguments,
    },
    /// Forget runs: their records and checkpoints.
    Rm {
        /// The runs.
        #[arg(required = true, value_parser = parse_run)]
        runs: Vec<RunId>,
        #[command(flatten)]
        state: StateArguments,
    },
    /// Remove what is not to be kept, and free what no run needs any more. What one call marks, a later one deletes, a day after.
    Gc {
        /// What is kept, such as `checkpoints=10,runs-for=30d,runs=100,bytes=20GiB`, or `all`. Default: `COFFERDAM_KEEP`, else
        /// every run, and 32 checkpoints of each.
        #[arg(long, value_name = "WHAT")]
        keep: Option<Keep>,
        /// Say what would be done, and do nothing.
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        state: StateArguments,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum SandboxesCommand {
    /// List sandboxes, also those of processes that have died.
    List {
        /// Of this backend only. Default: of all that this build has.
        #[arg(long)]
        backend: Option<String>,
        /// Print an object for each sandbox.
        #[arg(long)]
        json: bool,
    },
    /// End sandboxes: those that are named, else those that nobody is connected to and whose time is over.
    Reap {
        /// The sandboxes.
        names: Vec<String>,
        /// End every sandbox that nobody is connected to, also if somebody may still come back.
        #[arg(long, conflicts_with = "names")]
        all: bool,
        /// Of this backend only. Default: of all that this build has.
        #[arg(long)]
        backend: Option<String>,
        #[command(flatten)]
        state: StateArguments,
    },
}

/// Reads the name of a run: letters and digits, as they are generated.
fn parse_run(text: &str) -> Result<RunId, String> {
    let fits =
        (1..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if fits {
        Ok(RunId::new(text))
    } else {
        Err("the name of a run is made of letters and digits".to_owned())
    }
}

/// Where sandboxes come from, and how strong they must be.
#[derive(Debug, Args)]
pub(crate) struct PlaceArguments {
    /// Who makes the sandbox: `linux` (no daemon) or `docker`. Default: the first that this build has.
    #[arg(long, value_name = "NAME")]
    pub(crate) backend: Option<String>,
    /// Where programs and libraries come from: an image such as `debian:bookworm`, `oci:DIR`, `archive:FILE` (as `docker
    /// save` writes), `dir:DIR` or `tar:FILE`. Default: what the file says, else the host's own system directories.
    #[arg(long)]
    pub(crate) image: Option<RootChoice>,
    /// Refuse to run where any wall of the sandbox is weaker than it can be.
    #[arg(long)]
    pub(crate) strict: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ShellArguments {
    /// Fill the workspace from this agent file or manifest. Default: an empty workspace.
    pub(crate) manifest: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) place: PlaceArguments,
}

#[derive(Debug, Args)]
pub(crate) struct ExecArguments {
    /// Fill the workspace from this agent file or manifest. Default: an empty workspace.
    #[arg(long)]
    pub(crate) manifest: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) place: PlaceArguments,
    /// The command and its arguments. Default: a shell.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) command: Vec<OsString>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ManifestCommand {
    /// Check a file and report every problem with its line.
    Check {
        /// The agent file or manifest.
        file: PathBuf,
    },
    /// Show the workspace that a file declares, and everything that it opens.
    Show {
        /// The agent file or manifest.
        file: PathBuf,
    },
    /// Print the JSON Schema of agent files.
    Schema,
}

#[derive(Debug, Args)]
pub(crate) struct ApplyPatchArguments {
    /// The patch. Default: read from standard input.
    #[arg(allow_hyphen_values = true)]
    pub(crate) arguments: Vec<OsString>,
}
