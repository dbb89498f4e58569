//! All or nothing: every step is made to fail in turn.

use cofferdam_apply_patch::{Mode, Options, Plan, Transaction, commit, parse, plan};

use crate::memory::Memory;

fn files() -> Memory {
    Memory::new(&[("a", "1\n"), ("b", "1\n"), ("c", "1\n"), ("d/e", "1\n")])
}

fn planned(files: &Memory, mode: Mode) -> Plan {
    let text = "\
*** Begin Patch
*** Update File: a
-1
+2
*** Delete File: b
*** Add File: new/deep/x
+1
*** Update File: c
*** Move to: new/c
-1
+2
*** Update File: d/e
-1
+2
*** End Patch";
    let options = Options { mode, ..Options::default() };
    plan(&parse(text).unwrap(), &options, &mut |path| files.read(path)).unwrap()
}

#[test]
fn the_steps_stage_then_rename_then_clean_up() {
    let plan = planned(&files(), Mode::Atomic);
    let mut transaction = Transaction::new(&plan, "t/../!");
    let mut steps = Vec::new();
    while let Some(step) = transaction.step() {
        steps.push(step.to_string());
        transaction.record(Ok(Default::default()));
    }
    transaction.finish().unwrap();
    insta::assert_snapshot!(steps.join("\n"), @"
    write the new content of a
    make the directories of new/deep/x
    write the new content of new/deep/x
    make the directories of new/c
    write the new content of new/c
    write the new content of d/e
    keep a copy of a
    rename .patch-t-0.new to a
    rename b to .patch-t-1.old
    rename new/deep/.patch-t-2.new to new/deep/x
    rename new/.patch-t-3.new to new/c
    rename c to .patch-t-4.old
    rename d/.patch-t-5.new to d/e
    remove .patch-t-0.old
    remove .patch-t-1.old
    remove .patch-t-4.old
    ");
}

#[test]
fn a_failure_at_any_step_leaves_everything_as_it_was() {
    let before = files();
    let plan = planned(&before, Mode::Atomic);
    let mut failures = 0;
    for at in 0.. {
        let mut target = Memory { fails_after: Some(at), ..before.clone() };
        let outcome = commit(&plan, "t", &mut target);
        let never_failed = target.fails_after.take().is_some();
        match outcome {
            Err(error) => {
                failures += 1;
                assert_eq!(target, before, "step {at}: {error}");
                assert_eq!((error.published, error.leftovers.len()), (0, 0));
                assert!(error.to_string().ends_with("; nothing was changed"), "{error}");
            }
            // After the last rename the patch holds; a kept file that stays is told.
            Ok(committed) => {
                assert_eq!(committed.leftovers.len(), usize::from(!never_failed), "step {at}");
                assert!(target.list().contains("d/e=2|"), "{}", target.list());
            }
        }
        if never_failed {
            break;
        }
    }
    assert!(failures > 10, "only {failures} steps could fail");
}

#[test]
fn a_roll_back_that_fails_is_told() {
    let before = files();
    let plan = planned(&before, Mode::Atomic);
    let mut target = Memory { fails_after: Some(3), stays_broken: true, ..before.clone() };
    let error = commit(&plan, "t", &mut target).unwrap_err();
    assert!(!error.leftovers.is_empty());
    assert!(error.to_string().contains("rolling back failed too"), "{error}");
}

#[test]
fn the_peers_mode_leaves_the_earlier_changes() {
    let before = files();
    let plan = planned(&before, Mode::Partial);
    let mut seen = Vec::new();
    for at in 0..20 {
        let mut target = Memory { fails_after: Some(at), ..before.clone() };
        match commit(&plan, "t", &mut target) {
            Err(error) => {
                assert!(!target.list().contains(".patch-"), "{}", target.list());
                seen.push(error.published);
            }
            Ok(_) => break,
        }
    }
    assert_eq!(seen, [0, 0, 1, 2, 2, 2, 3, 3, 3, 4, 5, 5]);
}

#[test]
fn a_transaction_that_is_ended_early_says_so() {
    let plan = planned(&files(), Mode::Atomic);
    let error = Transaction::new(&plan, "t").finish().unwrap_err();
    insta::assert_snapshot!(error, @"could not write the new content of a; nothing was changed");
    insta::assert_snapshot!(error.cause, @"the transaction was ended before its last step");
}

#[test]
fn a_plan_without_changes_has_no_steps() {
    let files = files();
    let patch = parse("*** Begin Patch\n*** Update File: a\n 1\n*** End Patch").unwrap();
    let plan = plan(&patch, &Options::default(), &mut |path| files.read(path)).unwrap();
    assert!(Transaction::new(&plan, "t").step().is_none());
    assert_eq!(plan.outcomes.len(), 1);
}
