//! Cases on the start of commands: what they are given, and what is refused with which number.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    case_table,
    layout::lay,
    support::{
        CaseResult, alive, equal, errno, holds, not_started, path, run, senseless, shell, write,
    },
    trial::{Stop, Trial},
};
use crate::{ExecRequest, Sandbox, SandboxError, WriteOptions};

case_table! { "start":
    directory_is_no_program: "a directory is `NotStarted` with EACCES",
    missing_interpreter: "a script whose interpreter is not there is `NotStarted` with ENOENT",
    no_format: "an executable file of no known format is `NotStarted` with ENOEXEC",
    below_a_file: "a program below a file is `NotStarted`",
    no_program: "a request without a program is refused",
    nul_bytes: "NUL bytes in arguments and variables are refused",
    impossible_variables: "variables whose name no environment can hold are refused, not mangled",
    long_argument: "an argument of 128 KiB arrives",
    many_arguments: "10 000 arguments arrive",
    too_long_arguments: "arguments that no system takes are refused with a typed error",
    large_environment: "a variable of 100 000 bytes arrives",
    lookup: "a program is looked up in `PATH` and not in the working directory, unless it has a `/`",
    odd_directories: "a working directory is a directory inside of the workspace",
    umask: "commands make files of mode 644 and directories of mode 755",
    descriptors: "a command has no open descriptors but its three",
    own_session: "a command leads a session and a process group of its own",
    signal_state: "a command starts with no signal blocked or ignored",
}

/// Writes a file that can be executed.
async fn program(trial: &Trial<'_>, content: &'static str) -> Result<Arc<dyn Sandbox>, Stop> {
    let sandbox = trial.sandbox().await?;
    let options = WriteOptions { mode: 0o755, ..WriteOptions::default() };
    sandbox.files().write(&path("program")?, content.into(), &options).await?;
    Ok(sandbox)
}

async fn directory_is_no_program(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    lay(&*sandbox, &["dir/"]).await?;
    let result = sandbox.exec(ExecRequest::program(["./dir"])).await;
    not_started("a directory", result, &[errno::EACCES])
}

async fn missing_interpreter(trial: &Trial<'_>) -> CaseResult {
    let sandbox = program(trial, "#!/no/such/interpreter\n").await?;
    let result = sandbox.exec(ExecRequest::program(["./program"])).await;
    not_started("the script", result, &[errno::ENOENT])
}

async fn no_format(trial: &Trial<'_>) -> CaseResult {
    let sandbox = program(trial, "neither script nor program\n").await?;
    let result = sandbox.exec(ExecRequest::program(["./program"])).await;
    not_started("the file", result, &[errno::ENOEXEC])
}

async fn below_a_file(trial: &Trial<'_>) -> CaseResult {
    let sandbox = program(trial, "x").await?;
    let result = sandbox.exec(ExecRequest::program(["./program/below"])).await;
    not_started("a program below a file", result, &[errno::ENOENT, errno::ENOTDIR])
}

async fn no_program(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    let result = sandbox.exec(ExecRequest::program(Vec::<Vec<u8>>::new())).await;
    let expected = matches!(result, Err(SandboxError::InvalidRequest { .. }));
    holds("no arguments at all", expected, "SandboxError::InvalidRequest", &result)?;
    senseless("an empty name", sandbox.exec(ExecRequest::program([""])).await)?;
    alive(&*sandbox).await
}

async fn nul_bytes(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    senseless("in the program", sandbox.exec(ExecRequest::program(["ec\0ho"])).await)?;
    senseless("in an argument", sandbox.exec(ExecRequest::program(["echo", "a\0b"])).await)?;
    for (name, value) in [("A\0B", "x"), ("A", "x\0y")] {
        let environment = BTreeMap::from([(name.to_owned(), value.to_owned())]);
        let request = ExecRequest { environment, ..ExecRequest::program(["echo"]) };
        senseless(&format!("in {name:?}={value:?}"), sandbox.exec(request).await)?;
    }
    alive(&*sandbox).await
}

async fn impossible_variables(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    for name in ["", "A=B", "=A"] {
        let environment = BTreeMap::from([(name.to_owned(), "x".to_owned())]);
        let request = ExecRequest { environment, ..ExecRequest::program(["echo"]) };
        senseless(&format!("{name:?} of the request"), sandbox.exec(request).await)?;
        let made = trial
            .sandbox_with(|spec| drop(spec.environment.insert(name.to_owned(), "x".to_owned())))
            .await;
        let what = format!("{name:?} of the specification");
        match made {
            // The latest that it can be refused.
            Ok(made) => senseless(&what, made.exec(ExecRequest::program(["echo"])).await)?,
            refused => senseless(&what, refused.map(drop))?,
        }
    }
    alive(&*sandbox).await
}

async fn long_argument(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    // The byte that is left out is the NUL that ends it.
    let argument = "x".repeat((128 << 10) - 1);
    let told = run(&*sandbox, ExecRequest::program(["echo", &argument])).await?;
    equal("the length", told.stdout.len(), argument.len() + 1)?;
    holds("the bytes", told.stdout[..argument.len()] == *argument.as_bytes(), "x", &"others")
}

async fn many_arguments(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    let arguments: Vec<String> = (0..10_000).map(|number| number.to_string()).collect();
    let argv = std::iter::once("echo").chain(arguments.iter().map(String::as_str));
    let told = run(&*sandbox, ExecRequest::program(argv)).await?;
    holds("what was echoed", told.text().trim() == arguments.join(" "), "all of them", &told)
}

async fn too_long_arguments(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    for length in [128 << 10, 1 << 20, 16 << 20] {
        let result = sandbox.exec(ExecRequest::program(["echo", &*"x".repeat(length)])).await;
        let expected = matches!(
            result,
            Err(SandboxError::NotStarted { errno: errno::E2BIG, .. }
                | SandboxError::InvalidRequest { .. })
        );
        let what = format!("an argument of {length} bytes");
        holds(&what, expected, "NotStarted with E2BIG, or InvalidRequest", &result)?;
    }
    alive(&*sandbox).await
}

async fn large_environment(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    let value = "y".repeat(100_000);
    let environment = BTreeMap::from([("LARGE".to_owned(), value.clone())]);
    let request = ExecRequest { environment, ..ExecRequest::program(["env"]) };
    let text = run(&*sandbox, request).await?.text();
    let found = text.lines().find_map(|line| line.strip_prefix("LARGE="));
    equal("its length", found.map(str::len), Some(value.len()))?;
    holds("its bytes", found == Some(&value), "y", &"others")
}

async fn lookup(trial: &Trial<'_>) -> CaseResult {
    let sandbox = program(trial, "#!/bin/sh\necho found\n").await?;
    let result = sandbox.exec(ExecRequest::program(["program"])).await;
    not_started("without a `/`", result, &[errno::ENOENT])?;
    write(&*sandbox, "dir/file", "").await?;
    equal("with a `/`", shell(&*sandbox, "./program").await?, "found\n")?;
    sandbox.files().rename(&path("program")?, &path("dir/program")?, false).await?;
    let request = ExecRequest { directory: path("dir")?, ..ExecRequest::program(["./program"]) };
    equal("from its directory", run(&*sandbox, request).await?.text(), "found\n")
}

async fn odd_directories(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    lay(&*sandbox, &["file: x", "dir/", "dir/name: inside", "in -> dir", "out -> /tmp"]).await?;
    let at = |directory: &str| {
        let directory = path(directory)?;
        Ok::<_, Stop>(ExecRequest { directory, ..ExecRequest::program(["cat", "name"]) })
    };
    not_started("a file", sandbox.exec(at("file")?).await, &[errno::ENOTDIR])?;
    not_started("a link that leads out", sandbox.exec(at("out")?).await, &[])?;
    equal("a link that stays inside", run(&*sandbox, at("in")?).await?.text(), "inside")
}

async fn umask(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    shell(&*sandbox, "umask > mask; mkdir dir").await?;
    equal("the mask", shell(&*sandbox, "cat mask").await?.trim_end_matches('\n'), "0022")?;
    equal("a file", sandbox.files().stat(&path("mask")?).await?.mode, 0o644)?;
    equal("a directory", sandbox.files().stat(&path("dir")?).await?.mode, 0o755)
}

async fn descriptors(trial: &Trial<'_>) -> CaseResult {
    trial.sees_processes().await?;
    let sandbox = trial.sandbox().await?;
    // The fourth is that of the directory which `ls` reads.
    let found = shell(&*sandbox, "exec ls /proc/self/fd").await?;
    equal("the descriptors", found, "0\n1\n2\n3\n")
}

async fn own_session(trial: &Trial<'_>) -> CaseResult {
    trial.sees_processes().await?;
    let sandbox = trial.sandbox().await?;
    let text = shell(&*sandbox, "exec cat /proc/self/stat").await?;
    // `pid (cat) state parent group session …`
    let fields: Vec<_> = text.split(' ').collect();
    let [pid, _, _, _, group, session, ..] = fields[..] else {
        return holds("the fields", false, "six at least", &text);
    };
    equal("group and session", (group, session), (pid, pid))
}

async fn signal_state(trial: &Trial<'_>) -> CaseResult {
    trial.sees_processes().await?;
    let sandbox = trial.sandbox().await?;
    let text = shell(&*sandbox, "exec cat /proc/self/status").await?;
    for name in ["SigBlk:", "SigIgn:"] {
        let mask = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        equal(name, mask.trim(), "0000000000000000")?;
    }
    Ok(())
}
