//! All tests once more as an ordinary user, when they are run by root.

use crate::as_ordinary_user::run_again;

#[test]
fn everything_holds_as_an_ordinary_user() {
    run_again(&["--skip", "everything_holds_as_an_ordinary_user", "--test-threads=2"], 20);
}
