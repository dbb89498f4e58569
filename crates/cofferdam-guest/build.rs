//! Compiles the guest program to one static executable and leaves it in `OUT_DIR` for `PROGRAM`: first this package's library,
//! then `program/main.rs` with it. Neither has dependencies.

use cofferdam_static_program::{Program, has_feature, is_for_linux, rerun_if_changed};

const WHAT: &str = "the static guest program (the feature `program` of cofferdam-guest; the protocol alone builds without it)";

fn main() -> Result<(), String> {
    rerun_if_changed(&["src", "program", "build.rs"]);
    if has_feature("program") && is_for_linux()? {
        let library = Program::new(WHAT, "src/lib.rs", "cofferdam_guest")
            .compile_library("libcofferdam_guest.rlib")?;
        Program::new(WHAT, "program/main.rs", "cofferdam_guest_program")
            .library("cofferdam_guest", &library)
            .compile("cofferdam-guest")?;
    }
    Ok(())
}
