//! A loopback model server that plays a script: `mock-model-server --script FILE [--port N] [--delta CHARS]
//! [--delay-ms MS]`. It prints `{"port": N}` once it listens, and runs until it is killed.
#![forbid(unsafe_code)]

use std::{error::Error, path::PathBuf, process::ExitCode, time::Duration};

use cofferdam_testkit::mock_server::{MockModelServer, MockScript};

const USAGE: &str =
    "usage: mock-model-server --script FILE [--port N] [--delta CHARS] [--delay-ms MS]";

struct Options {
    script: PathBuf,
    port: u16,
    delta_chars: usize,
    delay: Duration,
}

fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Options, Box<dyn Error>> {
    let (mut script, mut port, mut delta_chars, mut delay_ms) = (None, 0, 16, 0);
    while let Some(name) = arguments.next() {
        let value = arguments.next().ok_or_else(|| format!("{name} needs a value; {USAGE}"))?;
        let number =
            || value.parse::<u64>().map_err(|error| format!("{name} {value}: {error}; {USAGE}"));
        match name.as_str() {
            "--script" => script = Some(PathBuf::from(&value)),
            "--port" => port = u16::try_from(number()?)?,
            "--delta" => delta_chars = usize::try_from(number()?)?,
            "--delay-ms" => delay_ms = number()?,
            _ => return Err(format!("no option {name}; {USAGE}").into()),
        }
    }
    Ok(Options {
        script: script.ok_or(USAGE)?,
        port,
        delta_chars,
        delay: Duration::from_millis(delay_ms),
    })
}

#[expect(clippy::print_stdout, reason = "the port is this program's answer")]
async fn run() -> Result<(), Box<dyn Error>> {
    let options = parse(std::env::args().skip(1))?;
    let text = std::fs::read_to_string(&options.script)
        .map_err(|error| format!("cannot read {}: {error}", options.script.display()))?;
    let script = MockScript::from_json(&text)
        .map_err(|error| format!("{} is no script: {error}", options.script.display()))?
        .delta_chars(options.delta_chars)
        .delay(options.delay);
    let mut server = MockModelServer::start_on(script, options.port).await?;
    println!("{{\"port\": {}}}", server.port());
    server.serve().await;
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
#[expect(clippy::print_stderr, reason = "a command says why it failed")]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mock-model-server: {error}");
            ExitCode::FAILURE
        }
    }
}
