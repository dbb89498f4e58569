//! A container engine for whoever starts this: it prints `{"host": "unix://…"}` once the engine listens, or
//! `{"missing": "why"}` if there can be none, and ends with its standard input, when the engine and all that it had are gone.
#![forbid(unsafe_code)]

use std::io;

use cofferdam_testkit::TestEngine;
use serde_json::{Value, json};

#[expect(clippy::print_stdout, reason = "the address is this program's answer")]
fn tell(answer: &Value) {
    println!("{answer}");
}

fn main() -> io::Result<()> {
    let engine = match TestEngine::start(&[]) {
        Ok(engine) => engine,
        Err(reason) => {
            tell(&json!({ "missing": reason }));
            return Ok(());
        }
    };
    tell(&json!({ "host": engine.address() }));
    io::copy(&mut io::stdin().lock(), &mut io::sink())?;
    engine.end();
    Ok(())
}
