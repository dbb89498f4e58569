//! Compiles `launcher/` to one static executable and leaves it in `OUT_DIR`, where `src/programs.rs` embeds it.

use cofferdam_static_program::{Program, is_for_linux, rerun_if_changed};

fn main() -> Result<(), String> {
    rerun_if_changed(&["launcher", "build.rs"]);
    // The crate is empty elsewhere.
    if is_for_linux()? {
        Program::new("the static launcher", "launcher/main.rs", "cofferdam_launcher")
            .compile("cofferdam-launcher")?;
    }
    Ok(())
}
