//! The answers to system calls as a program: a binary search over their numbers.
//!
//! A library compiles a list of calls to a comparison each, some two thousand instructions, and checking and translating
//! those was the largest single cost of starting a sandbox. The numbers come in few runs, so a search needs a tenth of
//! them. It has three kinds of instruction, and a test runs it for every number beside the list that it came from.

use std::collections::BTreeMap;

use seccompiler::{TargetArch, sock_filter};

/// Load the word at an offset of the call's data.
const LOAD: u16 = code(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS);
/// Jump if the loaded word equals a constant.
const IF_EQUAL: u16 = code(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K);
/// Jump if the loaded word is at least a constant, without a sign.
const IF_AT_LEAST: u16 = code(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K);
/// Answer.
const RETURN: u16 = code(libc::BPF_RET | libc::BPF_K);

#[expect(
    clippy::cast_possible_truncation,
    reason = "codes of instructions have 16 bits, in constants of 32"
)]
const fn code(bits: u32) -> u16 {
    bits as u16
}

/// Offsets in `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;

/// Returns a program that gives each call its answer and all others another one, and kills the process for a call of
/// another architecture. `None` if the numbers are too scattered for jumps of a byte.
pub(crate) fn program(
    answers: &BTreeMap<u32, u32>,
    others: u32,
    architecture: TargetArch,
) -> Option<Vec<sock_filter>> {
    let audit = match architecture {
        TargetArch::x86_64 => 0xc000_003e,
        TargetArch::aarch64 => 0xc000_00b7,
        TargetArch::riscv64 => 0xc000_00f3,
    };
    let mut program = vec![
        instruction(LOAD, ARCHITECTURE),
        sock_filter { code: IF_EQUAL, jt: 1, jf: 0, k: audit },
        instruction(RETURN, libc::SECCOMP_RET_KILL_PROCESS),
        instruction(LOAD, NUMBER),
    ];
    program.extend(search(&runs(answers, others))?);
    Some(program)
}

/// Numbers from the first of a run up to the first of the next have the same answer.
struct Run {
    first: u32,
    answer: u32,
}

/// Returns the runs in order; the first begins with 0, and the last has no end.
fn runs(answers: &BTreeMap<u32, u32>, others: u32) -> Vec<Run> {
    let mut runs: Vec<Run> = vec![Run { first: 0, answer: others }];
    let mut begin = |first: u32, answer: u32| {
        // A run without a number is replaced by the next.
        if runs.last().is_some_and(|last| last.first == first) {
            runs.pop();
        }
        if runs.last().is_none_or(|last| last.answer != answer) {
            runs.push(Run { first, answer });
        }
    };
    for (&call, &answer) in answers {
        begin(call, answer);
        begin(call + 1, others);
    }
    runs
}

/// Searches the runs, of which there is at least one.
fn search(runs: &[Run]) -> Option<Vec<sock_filter>> {
    if let [only] = runs {
        return Some(vec![instruction(RETURN, only.answer)]);
    }
    let (below, above) = runs.split_at(runs.len() / 2);
    let first = above.first()?.first;
    let (below, above) = (search(below)?, search(above)?);
    let over_below = u8::try_from(below.len()).ok()?;
    let mut program = vec![sock_filter { code: IF_AT_LEAST, jt: over_below, jf: 0, k: first }];
    program.extend(below);
    program.extend(above);
    Some(program)
}

fn instruction(code: u16, k: u32) -> sock_filter {
    sock_filter { code, jt: 0, jf: 0, k }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const X86: u32 = 0xc000_003e;

    /// Runs a program as the kernel does.
    fn answer(program: &[sock_filter], architecture: u32, number: u32) -> u32 {
        let (mut at, mut loaded) = (0, 0);
        loop {
            let step = &program[at];
            at += 1;
            let holds = match step.code {
                LOAD => {
                    loaded = if step.k == NUMBER { number } else { architecture };
                    continue;
                }
                RETURN => return step.k,
                IF_EQUAL => loaded == step.k,
                IF_AT_LEAST => loaded >= step.k,
                other => panic!("unknown instruction {other}"),
            };
            at += usize::from(if holds { step.jt } else { step.jf });
        }
    }

    const OTHERS: u32 = libc::SECCOMP_RET_ERRNO | 38;

    fn check(answers: &BTreeMap<u32, u32>) {
        let program = program(answers, OTHERS, TargetArch::x86_64).unwrap();
        let last = answers.last_key_value().map_or(0, |(last, _)| *last) + 3;
        // The x32 ABI sets bit 30.
        for number in (0..last).chain([0x4000_0000, 0x4000_0001, u32::MAX]) {
            let expect = answers.get(&number).copied().unwrap_or(OTHERS);
            assert_eq!(answer(&program, X86, number), expect, "call {number}");
        }
        assert_eq!(answer(&program, 0x4000_0003, 0), libc::SECCOMP_RET_KILL_PROCESS);
    }

    /// A few answers, one of them that of all others.
    fn some_answer() -> impl Strategy<Value = u32> {
        prop_oneof![Just(libc::SECCOMP_RET_ALLOW), Just(libc::SECCOMP_RET_ERRNO | 1), Just(OTHERS)]
    }

    proptest! {
        #[test]
        fn gives_exactly_its_answers(
            answers in proptest::collection::btree_map(0..600_u32, some_answer(), 0..80),
        ) {
            check(&answers);
        }
    }

    #[test]
    fn edges() {
        check(&BTreeMap::new());
        check(&BTreeMap::from([(0, libc::SECCOMP_RET_ALLOW)]));
        check(&BTreeMap::from([(0, libc::SECCOMP_RET_ALLOW), (1, OTHERS), (2, OTHERS | 1)]));
        check(&(0..450).map(|call| (call, libc::SECCOMP_RET_ALLOW)).collect());
    }
}
