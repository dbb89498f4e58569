//! `cofferdam apply-patch`: the patch engine on the working directory, with the peers' output and exit codes.

use std::ffi::OsString;

use cofferdam_apply_patch::command;

use crate::{arguments::ApplyPatchArguments, exit::Exit};

pub(crate) fn apply_patch(arguments: ApplyPatchArguments) -> Exit {
    let arguments: Vec<OsString> = arguments.arguments;
    let code = command::run(
        &arguments,
        &mut std::io::stdin().lock(),
        std::path::Path::new("."),
        &mut std::io::stdout().lock(),
        &mut std::io::stderr().lock(),
    );
    Exit::Code(code)
}
