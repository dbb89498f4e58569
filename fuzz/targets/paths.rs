//! Workspace paths, secret references and image names.
#![no_main]

use cofferdam_core::{SecretRef, WorkspacePath};
use cofferdam_image::Reference;

libfuzzer_sys::fuzz_target!(|text: &str| {
    if let Ok(path) = text.parse::<WorkspacePath>() {
        let again: WorkspacePath =
            path.to_string().parse().expect("a path that was read can be read again");
        assert_eq!(path, again);
    }
    let _ = text.parse::<SecretRef>();
    let _ = text.parse::<Reference>();
});
