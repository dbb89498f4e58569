//! Old and new together: a host of the first release of version 1, pinned as bytes, and a guest that is newer.

#![cfg(all(feature = "program", target_os = "linux"))]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test says no more than that it failed"
)]

mod support;

use std::io::{Read as _, Write as _};

use support::spawn;

/// Bytes in hexadecimal, as they were sent before sessions, ports and watches were known; spaces are for reading.
fn bytes(text: &str) -> Vec<u8> {
    let digits: Vec<u32> = text.chars().filter_map(|digit| digit.to_digit(16)).collect();
    digits.chunks(2).map(|pair| u8::try_from(pair[0] * 16 + pair[1]).unwrap()).collect()
}

/// A greeting of version 1 without anything after the fields of its first release.
fn greeting(workspace: &str) -> Vec<u8> {
    let mut payload = bytes("4344414d 0100 0100");
    payload.extend(u32::try_from(workspace.len()).unwrap().to_le_bytes());
    payload.extend(workspace.as_bytes());
    payload.extend(bytes("40000000 10000000"));
    let mut frame = u32::try_from(payload.len()).unwrap().to_le_bytes().to_vec();
    frame.extend(bytes("00000000 01"));
    frame.extend(payload);
    frame
}

/// Every kind of frame that an old host may send, each with the answer that it must get. `..` is any byte.
const TRANSCRIPT: &[(&str, &str)] = &[
    // Ping on channel 1: Done.
    ("00000000 01000000 1d", "00000000 01000000 95"),
    // MakeDirectory "d" 0755, with parents: Done.
    ("0a000000 02000000 15 01000000 64 ed010000 01", "00000000 02000000 95"),
    // WriteFile "d/f" 0644, nothing kept, size unknown; Data "hi"; EndOfData: Done.
    (
        "17000000 03000000 12 03000000 642f66 a4010000 00 00 00 00 0000000000000000 \
         02000000 03000000 80 6869 \
         00000000 03000000 81",
        "00000000 03000000 95",
    ),
    // ReadFile "d/f" from 1: Metadata, Data "i", Done.
    (
        "17000000 04000000 11 03000000 642f66 0100000000000000 ffffffffffffffff",
        "19000000 04000000 94 01 a4010000 0200000000000000 ................ 00000000 \
         01000000 04000000 80 69 \
         00000000 04000000 95",
    ),
    // Stat "d/f": Metadata, Done.
    (
        "08000000 05000000 14 03000000 642f66 00",
        "19000000 05000000 94 01 a4010000 0200000000000000 ................ 00000000 \
         00000000 05000000 95",
    ),
    // List "d", one level, ten entries: Data with one entry and the end, Done.
    (
        "0d000000 06000000 13 01000000 64 01000000 0a000000",
        "21000000 06000000 80 01 01000000 66 01 a4010000 0200000000000000 ................ 00000000 00 00 \
         00000000 06000000 95",
    ),
    // Symlink "l" to "d/f", ReadLink "l", Remove "l".
    ("0c000000 07000000 19 01000000 6c 03000000 642f66", "00000000 07000000 95"),
    (
        "05000000 08000000 1a 01000000 6c",
        "1c000000 08000000 94 03 ff010000 0300000000000000 ................ 03000000 642f66 \
         00000000 08000000 95",
    ),
    ("06000000 09000000 17 01000000 6c 00", "00000000 09000000 95"),
    // Exec "x": sh -c "printf out; exit 3" with PATH=/usr/bin:/bin, no terminal, no input, no limits.
    (
        "52000000 0a000000 10 01000000 78 \
         03000000 02000000 7368 02000000 2d63 12000000 7072696e7466206f75743b20657869742033 \
         01000000 04000000 50415448 0d000000 2f7573722f62696e3a2f62696e \
         00000000 00 00 00000000",
        "04000000 0a000000 90 ........ \
         03000000 0a000000 91 6f7574 \
         05000000 0a000000 93 00 03000000 \
         00000000 0a000000 95",
    ),
    // Stat of nothing: Failed, of the system, number 2, with path and words.
    (
        "06000000 0b000000 14 01000000 6e 00",
        "16000000 0b000000 97 01 02000000 01000000 6e 08000000 6465736372696265",
    ),
    // An operation that no release of this version knows yet: Failed, not supported.
    (
        "00000000 0c000000 7e",
        "33000000 0c000000 97 02 00000000 00000000 26000000 \
         7468697320677565737420646f6573206e6f74206b6e6f7720746865206f7065726174696f6e",
    ),
];

/// Returns how many bytes a pattern stands for, and checks them.
fn check(pattern: &str, answer: &[u8], request: &str) {
    let pattern: Vec<char> = pattern.chars().filter(|digit| !digit.is_whitespace()).collect();
    assert_eq!(answer.len() * 2, pattern.len(), "{request}: {answer:02x?}");
    for (at, (pair, byte)) in pattern.chunks(2).zip(answer).enumerate() {
        if pair != ['.', '.'] {
            let text: String = pair.iter().collect();
            assert_eq!(text, format!("{byte:02x}"), "{request}, byte {at} of {answer:02x?}");
        }
    }
}

#[test]
fn a_host_of_the_first_release_is_answered_as_ever() {
    let workspace = tempfile::TempDir::new().unwrap();
    let (mut child, mut stream) = spawn();
    stream.write_all(&greeting(workspace.path().to_str().unwrap())).unwrap();
    let mut header = [0; 9];
    stream.read_exact(&mut header).unwrap();
    let mut hello = vec![0; u32::from_le_bytes(header[..4].try_into().unwrap()) as usize];
    stream.read_exact(&mut hello).unwrap();
    let build = env!("CARGO_PKG_VERSION");
    // Magic, version, release, number, user: and nothing after it that was not asked for.
    assert_eq!(hello[..6], bytes("4344414d 0100"));
    assert_eq!(hello.len(), 6 + 4 + build.len() + 4 + 4);
    for (request, answer) in TRANSCRIPT {
        stream.write_all(&bytes(request)).unwrap();
        let digits = answer.chars().filter(|digit| !digit.is_whitespace()).count();
        let mut got = vec![0; digits / 2];
        stream.read_exact(&mut got).expect("the whole answer, in time");
        check(answer, &got, request);
    }
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
    assert_eq!((rest.as_slice(), child.wait().unwrap().code()), (b"".as_slice(), Some(0)));
}

#[test]
fn what_a_later_host_adds_to_its_greeting_is_passed_over() {
    let workspace = tempfile::TempDir::new().unwrap();
    let (mut child, mut stream) = spawn();
    let mut frame = greeting(workspace.path().to_str().unwrap());
    // No session, and then something that this release does not know.
    frame.extend(bytes("00 c0ffee"));
    let length = u32::try_from(frame.len() - 9).unwrap();
    frame[..4].copy_from_slice(&length.to_le_bytes());
    // The newest version of that host is later; both speak 1.
    frame[9 + 6..9 + 8].copy_from_slice(&7_u16.to_le_bytes());
    stream.write_all(&frame).unwrap();
    let mut answer = [0; 15];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(answer[8..], bytes("01 4344414d 0100"));
    drop(stream);
    assert_eq!(child.wait().unwrap().code(), Some(0));
}
