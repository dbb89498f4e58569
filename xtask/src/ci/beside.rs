//! [`Beside`]: builds that are done beside the tests, which wait more than they compute.

use std::io;
use std::process::{Command, Output};
use std::thread::{self, JoinHandle};

use crate::command::shown;
use crate::report::Report;

/// Commands that run one after another, with what the tests leave of the processors.
#[derive(Debug)]
pub(super) struct Beside(JoinHandle<Vec<(String, io::Result<Output>)>>);

impl Beside {
    pub(super) fn start(commands: Vec<Command>) -> Self {
        let run = |command: Command| (shown(&command), at_low_priority(&command).output());
        Self(thread::spawn(move || commands.into_iter().map(run).collect()))
    }

    /// Waits for the end, shows what was said, and counts each command.
    pub(super) fn finish(self, report: &mut Report) {
        let Ok(done) = self.0.join() else {
            return report.fail("what runs beside the tests: its thread panicked");
        };
        for (shown, output) in done {
            println!("$ {shown}");
            let good = match output {
                Ok(output) => {
                    print!("{}", String::from_utf8_lossy(&output.stdout));
                    print!("{}", String::from_utf8_lossy(&output.stderr));
                    output.status.success()
                }
                Err(error) => {
                    println!("{error}");
                    false
                }
            };
            report.check(&format!("beside the tests: {shown}"), good);
        }
    }
}

/// The command at the lowest priority.
fn at_low_priority(command: &Command) -> Command {
    let mut low = Command::new("nice");
    low.args(["-n", "19"]).arg(command.get_program()).args(command.get_args());
    if let Some(directory) = command.get_current_dir() {
        low.current_dir(directory);
    }
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => low.env(name, value),
            None => low.env_remove(name),
        };
    }
    low
}

#[cfg(test)]
mod tests {
    use super::{Beside, Command, Report};

    fn sh(script: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]).current_dir("/").env("WORD", "given");
        command
    }

    #[test]
    fn each_command_is_counted_and_keeps_its_place_and_environment() {
        let mut report = Report::default();
        let good = sh("test $(nice) = 19 && test $PWD = / && test $WORD = given");
        Beside::start(vec![good, sh("exit 3"), Command::new("/no/such/program")])
            .finish(&mut report);
        assert_eq!(report.passed, 1);
        let failed = ["beside the tests: sh -c exit 3", "beside the tests: program"];
        assert_eq!(report.failures, failed);
    }
}
