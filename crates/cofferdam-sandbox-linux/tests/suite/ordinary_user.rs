//! All tests once more as an ordinary user, when they are run by root.

use cofferdam_testkit::ordinary_user;

#[test]
fn everything_holds_as_an_ordinary_user() {
    let arguments = ["--skip", "everything_holds_as_an_ordinary_user", "--test-threads=2"];
    let Some(text) = ordinary_user::run_again(&arguments) else {
        println!("this is an ordinary user already");
        return;
    };
    // All of them, not an empty selection.
    let ran =
        text.lines().filter(|line| line.starts_with("test ") && line.ends_with("... ok")).count();
    assert!(ran >= 20, "only {ran} tests ran:\n{text}");
}
