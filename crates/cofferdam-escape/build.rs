//! Compiles `program/` to one static executable and leaves it in `OUT_DIR`, where `src/lib.rs` embeds it.

use cofferdam_static_program::{Program, is_for_linux, rerun_if_changed};

fn main() -> Result<(), String> {
    rerun_if_changed(&["program", "build.rs"]);
    // The crate is empty elsewhere.
    if is_for_linux()? {
        Program::new("the static probe program", "program/main.rs", "cofferdam_probe")
            .compile("cofferdam-probe")?;
    }
    Ok(())
}
