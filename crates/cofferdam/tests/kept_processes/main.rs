//! Runs that survive the death of the process that drives them, with real sandboxes and a scripted model.
//!
//! The process that dies is this program, started again with `drive SCENARIO STATE`: it must be one that a test can kill.
#![expect(clippy::expect_used, clippy::unwrap_used, reason = "helpers of tests fail as tests do")]
#![expect(
    clippy::disallowed_methods,
    reason = "the processes that die are processes of this program"
)]

#[path = "../common/mod.rs"]
mod common;
mod deaths;
mod driver;
mod leases;
mod terminals;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let [act, scenario, state] = words.as_slice()
        && act == "drive"
    {
        return driver::drive(scenario, state);
    }
    libtest_mimic::run(&Arguments::from_args(), trials()).exit_code()
}

/// Makes a test of each function.
macro_rules! trials {
    ($($module:ident :: $name:ident),* $(,)?) => {
        vec![$(Trial::test(concat!(stringify!($module), "::", stringify!($name)), || {
            driver::runtime().block_on($module::$name());
            Ok(())
        })),*]
    };
}

fn trials() -> Vec<Trial> {
    trials![
        deaths::a_command_goes_on_while_its_process_is_dead,
        deaths::a_run_whose_process_and_sandbox_are_dead_is_restored,
        deaths::a_run_is_taken_back_to_a_checkpoint,
        leases::a_run_that_is_reopened_is_nobody_elses,
        terminals::a_terminal_goes_on_while_its_process_is_dead,
        terminals::a_terminal_outlives_a_run_that_fails,
        terminals::a_terminal_that_died_with_its_sandbox_is_said_to_have,
    ]
}
