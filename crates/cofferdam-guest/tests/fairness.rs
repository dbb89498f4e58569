//! Turns: nobody who wants much keeps those waiting who want little. Counted in frames, since time depends on the machine.

#![cfg(all(feature = "program", target_os = "linux"))]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test says no more than that it failed"
)]

mod support;

use cofferdam_guest::{ExitStatus, HostHello, HostMessage, INITIAL_WINDOW, ReadFile};
use support::{Event, Guest, exec, host_hello, spawn};

/// Frames of a transfer that may be under way when a request arrives: in the guest's buffer and in the socket's.
const UNDER_WAY: usize = 16;

fn read_all(path: &str) -> HostMessage<'static> {
    HostMessage::ReadFile(ReadFile {
        path: path.as_bytes().to_vec(),
        offset: 0,
        max_bytes: u64::MAX,
    })
}

/// Follows everything until this event of a channel; returns how many frames of another came before it.
fn frames_before(guest: &mut Guest, channel: u32, last: &Event, other: u32) -> usize {
    let mut frames = 0;
    loop {
        match guest.next_of_any() {
            (id, event) if id == channel && event == *last => return frames,
            (id, Event::Data(_)) if id == other => frames += 1,
            (id, Event::Failed(failure)) => panic!("{id} failed: {failure:?}"),
            _ => {}
        }
    }
}

#[test]
fn small_requests_pass_beside_a_gibibyte() {
    let mut guest = Guest::start();
    let file = std::fs::File::create(guest.path("big")).unwrap();
    file.set_len(1 << 30).unwrap();
    std::fs::write(guest.path("small"), "x").unwrap();
    let big = guest.open(&read_all("big"));
    assert!(matches!(guest.next(big), Event::Metadata(_)));
    for _ in 0..50 {
        let ping = guest.open(&HostMessage::Ping);
        let frames = frames_before(&mut guest, ping, &Event::Done, big);
        assert!(frames <= UNDER_WAY, "{frames} frames before a ping");
        let small = guest.open(&read_all("small"));
        let frames = frames_before(&mut guest, small, &Event::Done, big);
        assert!(frames <= UNDER_WAY, "{frames} frames before a small file");
    }
    // A command takes the time of a process, and then its end passes as quickly.
    let command = guest.open(&HostMessage::Exec(exec(["true"])));
    let exited = Event::Exited(ExitStatus::Code(0));
    let frames = frames_before(&mut guest, command, &exited, big);
    let whole = (1 << 30) / (64 << 10);
    assert!(frames < whole / 4, "{frames} frames of {whole} before a command ended");
    guest.send(big, &HostMessage::Close);
}

#[test]
fn a_hundred_and_twenty_eight_floods_share_the_stream() {
    const FLOODS: usize = 128;
    let workspace = tempfile::TempDir::new().unwrap();
    let hello = HostHello { max_channels: 200, max_execs: 200, ..host_hello(workspace.path()) };
    let mut guest = Guest::greet_with(spawn(), hello);
    guest.generous = false;
    let channels: Vec<u32> =
        (0..FLOODS).map(|_| guest.open(&HostMessage::Exec(exec(["yes"])))).collect();
    // Each gets all of its credit, and no byte more, whatever the others do.
    let mut heard = std::collections::BTreeMap::<u32, usize>::new();
    let window = INITIAL_WINDOW as usize;
    while heard.values().sum::<usize>() < FLOODS * window {
        if let (id, Event::Stdout(bytes)) = guest.next_of_any() {
            *heard.entry(id).or_default() += bytes.len();
        }
    }
    assert!(channels.iter().all(|channel| heard[channel] == window));
    // Now all of them want to go on, and a small command passes.
    assert_eq!(guest.run("echo small").text(), "small\n");
    for &channel in &channels {
        guest.send(channel, &HostMessage::Window(INITIAL_WINDOW));
    }
    assert_eq!(guest.run("echo small").text(), "small\n");
    assert!(guest.resident_bytes() < 24 << 20, "{} bytes resident", guest.resident_bytes());
}
