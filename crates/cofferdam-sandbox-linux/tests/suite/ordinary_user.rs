//! All tests once more as an ordinary user, when they are run by root.

use crate::as_ordinary_user::run_again;

#[test]
fn everything_holds_as_an_ordinary_user() {
    let mut arguments = vec!["--test-threads=2", "--skip", "everything_holds_as_an_ordinary_user"];
    // They start an engine, which only root can.
    for test in ["in_a_container_what_is_missing_is_said", "an_image_that_docker_saved_is_a_root"] {
        arguments.extend(["--skip", test]);
    }
    run_again(&arguments, 20);
}
