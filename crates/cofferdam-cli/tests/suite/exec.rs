//! `cofferdam exec`: a command in a sealed sandbox behaves as a command, and sees nothing of the host.

use crate::support::{Place, can_seal};

fn check(arguments: &[&str], input: &str, code: i32, stdout: &str) {
    let done = Place::new(&[]).run_with_input(&[&["exec", "--"], arguments].concat(), input);
    assert_eq!((done.code, done.stdout.as_str()), (code, stdout), "{done:?}");
}

#[test]
fn behaves_as_the_command() {
    if !can_seal("behaves_as_the_command") {
        return;
    }
    check(&["printf", "%s-%s", "a b", "c"], "", 0, "a b-c");
    check(&["sh", "-c", "exit 42"], "", 42, "");
    check(&["sh", "-c", "kill -9 $$"], "", 137, "");
    check(&["sort"], "b\na\n", 0, "a\nb\n");
    check(&[], "echo from a shell\n", 0, "from a shell\n");
}

#[test]
fn sees_nothing_of_the_host() {
    if !can_seal("sees_nothing_of_the_host") {
        return;
    }
    let place = Place::new(&[("secret.txt", "hunter2")]);
    let script = format!(
        "id -u; env | grep -c CANARY; cat {}/secret.txt 2>&1 | grep -c hunter2; ls /root /home/*/.ssh 2>/dev/null | wc -l",
        place.path().display()
    );
    let output = place
        .command()
        .args(["exec", "--", "sh", "-c", &script])
        .env("CANARY", "x")
        .output()
        .unwrap();
    let done = place.done(&output);
    assert_eq!(done.stdout, "1000\n0\n0\n0\n", "{done:?}");
}

#[test]
fn a_program_that_is_not_there() {
    if !can_seal("a_program_that_is_not_there") {
        return;
    }
    let done = Place::new(&[]).run(&["exec", "--", "no-such-program"]);
    assert_eq!(done.code, 1);
    assert!(
        done.stderr.starts_with("error: cannot start \"no-such-program\" in the sandbox: "),
        "{done:?}"
    );
}

#[test]
fn fills_the_workspace_from_a_manifest() {
    if !can_seal("fills_the_workspace_from_a_manifest") {
        return;
    }
    let place = Place::new(&[(
        "workspace.yaml",
        "version: 1\nentries:\n  notes/a.txt: {type: file, content: \"hello\\n\", mode: \"0640\"}\n",
    )]);
    let done = place.run(&[
        "exec",
        "--manifest",
        "workspace.yaml",
        "--",
        "sh",
        "-c",
        "cat notes/a.txt; stat -c %a notes/a.txt",
    ]);
    assert_eq!((done.code, done.stdout.as_str()), (0, "hello\n640\n"), "{done:?}");
}
