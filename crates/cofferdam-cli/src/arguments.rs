//! The arguments of the command.

use std::{ffi::OsString, path::PathBuf};

use clap::{Args, Parser, Subcommand};

use crate::{display::Price, place::RootChoice};

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
