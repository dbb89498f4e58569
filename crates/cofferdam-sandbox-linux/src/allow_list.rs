//! The allow-list as a program: a binary search over the numbers of the allowed calls.
//!
//! A library compiles a list of calls to a comparison each, some two thousand instructions, and checking and translating
//! those was the largest single cost of starting a sandbox. The numbers come in few runs, so a search needs a tenth of
//! them. It has three kinds of instruction, and a test runs it for every number beside the list that it came from.

use std::collections::BTreeSet;

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

/// Returns a program that allows these calls, answers others with an error number, and kills the process for a call of
/// another architecture. `None` if the numbers are too scattered for jumps of a byte.
pub(crate) fn program(
    calls: &BTreeSet<u32>,
    errno: u16,
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
    let answers = [libc::SECCOMP_RET_ERRNO | u32::from(errno), libc::SECCOMP_RET_ALLOW];
    program.extend(search(&boundaries(calls), false, answers)?);
    Some(program)
}

/// Returns the numbers at which allowed and not allowed change places; below the first, nothing is allowed.
fn boundaries(calls: &BTreeSet<u32>) -> Vec<u32> {
    let mut boundaries = Vec::new();
    for &call in calls {
        if boundaries.last() == Some(&call) {
            boundaries.pop();
        } else {
            boundaries.push(call);
        }
        boundaries.push(call + 1);
    }
    boundaries
}

/// Searches the boundaries; `allowed` is what holds below the first of them.
fn search(boundaries: &[u32], allowed: bool, answers: [u32; 2]) -> Option<Vec<sock_filter>> {
    if boundaries.is_empty() {
        return Some(vec![instruction(RETURN, answers[usize::from(allowed)])]);
    }
    let middle = boundaries.len() / 2;
    let below = search(&boundaries[..middle], allowed, answers)?;
    // Each boundary turns the answer over.
    let allowed_above = allowed ^ middle.is_multiple_of(2);
    let above = search(&boundaries[middle + 1..], allowed_above, answers)?;
    let over_below = u8::try_from(below.len()).ok()?;
    let mut program =
        vec![sock_filter { code: IF_AT_LEAST, jt: over_below, jf: 0, k: boundaries[middle] }];
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

    fn check(calls: &BTreeSet<u32>) {
        let program = program(calls, 38, TargetArch::x86_64).unwrap();
        let last = calls.last().copied().unwrap_or(0) + 3;
        // The x32 ABI sets bit 30.
        for number in (0..last).chain([0x4000_0000, 0x4000_0001, u32::MAX]) {
            let expect = if calls.contains(&number) {
                libc::SECCOMP_RET_ALLOW
            } else {
                libc::SECCOMP_RET_ERRNO | 38
            };
            assert_eq!(answer(&program, X86, number), expect, "call {number}");
        }
        assert_eq!(answer(&program, 0x4000_0003, 0), libc::SECCOMP_RET_KILL_PROCESS);
    }

    proptest! {
        #[test]
        fn allows_exactly_its_calls(calls in proptest::collection::btree_set(0..600_u32, 0..80)) {
            check(&calls);
        }
    }

    #[test]
    fn edges() {
        check(&BTreeSet::new());
        check(&BTreeSet::from([0]));
        check(&(0..450).collect());
    }
}
