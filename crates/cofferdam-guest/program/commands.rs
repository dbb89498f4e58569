//! The commands that the guest knows: those that run, and in a session those that have ended and may be asked for.
//!
//! A command belongs to no channel. A channel may hear it, and another may later; what nobody hears goes into its rings,
//! so that it does not stand still, and the oldest of it is lost.

use std::{collections::BTreeMap, time::Instant};

use cofferdam_guest::{
    CommandInfo, CommandState, Failure, GuestMessage, MAX_LISTED, ProtocolError,
};

use crate::{
    exec::{Command, Stream},
    flow::Sender,
    poll::Waiting,
    ring::Ring,
    sys,
};

/// Commands that have ended and are kept; the one that ended first goes beyond.
const MAX_KEPT: usize = 64;

/// Bytes of output of ended commands that are kept.
const MAX_KEPT_BYTES: usize = 16 << 20;

/// Names a command within the guest.
pub(crate) type Key = u64;

#[derive(Debug)]
pub(crate) struct Commands {
    records: BTreeMap<Key, Record>,
    last: Key,
    /// Those that have ended, in the order of their ends.
    kept: Vec<Key>,
    /// Bytes of each output to keep.
    replay: usize,
    /// Whether to keep those that have ended.
    keep: bool,
}

#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) command: Command,
    /// The channel that hears it.
    pub(crate) channel: Option<u32>,
    rings: [Ring; 2],
    /// Bytes for standard input that came over an earlier channel and were not taken yet.
    stale_input: usize,
    /// Nobody wants it any more: it goes when its tree is dead.
    doomed: bool,
    finished: bool,
}

/// How far a channel has heard a command.
#[derive(Debug)]
pub(crate) struct Hearing {
    pub(crate) key: Key,
    started: bool,
    exited: bool,
    next: [u64; 2],
}

impl Commands {
    /// Returns no commands. `replay` bytes of each output will be kept, and those that have ended if `keep` says so.
    pub(crate) fn new(replay: usize, keep: bool) -> Self {
        Self { records: BTreeMap::new(), last: 0, kept: Vec::new(), replay, keep }
    }

    pub(crate) fn replay(&self) -> usize {
        self.replay
    }

    /// Takes in a command that a channel hears from its start.
    pub(crate) fn add(&mut self, command: Command, channel: u32) -> Hearing {
        self.last += 1;
        let rings = [Ring::new(self.replay), Ring::new(self.replay)];
        let record = Record {
            command,
            channel: Some(channel),
            rings,
            stale_input: 0,
            doomed: false,
            finished: false,
        };
        self.records.insert(self.last, record);
        Hearing { key: self.last, started: false, exited: false, next: [0; 2] }
    }

    /// Lets a channel hear a command from these positions on; returns the channel that heard it before.
    pub(crate) fn attach(
        &mut self,
        exec_id: &[u8],
        channel: u32,
        from: [u64; 2],
    ) -> Option<(Hearing, Option<u32>)> {
        let (&key, record) = self
            .records
            .iter_mut()
            .find(|(_, record)| !record.doomed && record.command.exec_id == exec_id)?;
        let before = record.channel.replace(channel);
        record.stale_input = record.command.stdin_held();
        Some((Hearing { key, started: false, exited: false, next: from }, before))
    }

    pub(crate) fn get(&mut self, key: Key) -> Option<&mut Record> {
        self.records.get_mut(&key)
    }

    pub(crate) fn knows(&self, exec_id: &[u8]) -> bool {
        self.records.values().any(|record| record.command.exec_id == exec_id)
    }

    /// Returns how many commands, or trees of commands, live.
    pub(crate) fn live(&self) -> usize {
        self.records.values().filter(|record| !record.finished).count()
    }

    pub(crate) fn reapers(&self) -> Vec<sys::Pid> {
        self.records.values().map(|record| record.command.reaper()).collect()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Record> {
        self.records.values()
    }

    /// Feeds standard inputs; returns which channels may send how many bytes again.
    pub(crate) fn feed(&mut self) -> Vec<(u32, usize)> {
        let mut credits = Vec::new();
        for record in self.records.values_mut() {
            let fed = record.feed_stdin();
            if let (Some(channel), true) = (record.channel, fed > 0) {
                credits.push((channel, fed));
            }
        }
        credits
    }

    /// Describes all of them, the newest first if there are too many.
    pub(crate) fn list(&self) -> Vec<CommandInfo> {
        let wanted = self.records.values().rev().filter(|record| !record.doomed);
        let mut list: Vec<_> = wanted.take(MAX_LISTED).map(Record::describe).collect();
        list.reverse();
        list
    }

    /// Gives up what is kept of a command; false if there is none that has ended.
    pub(crate) fn forget(&mut self, exec_id: &[u8]) -> bool {
        let found = self
            .kept
            .iter()
            .position(|key| self.records[key].command.exec_id == exec_id)
            .map(|at| self.kept.remove(at));
        if let Some(record) = found.and_then(|key| self.records.get_mut(&key)) {
            record.doomed = true;
        }
        self.sweep();
        found.is_some()
    }

    /// Kills a command that nobody wants any more, with its tree.
    pub(crate) fn doom(&mut self, key: Key) {
        if let Some(record) = self.records.get_mut(&key) {
            record.channel = None;
            record.doomed = true;
            record.command.close_pipes();
            record.command.kill_tree();
        }
        self.kept.retain(|kept| *kept != key);
        self.sweep();
    }

    /// Lets nobody hear any of them from now on.
    pub(crate) fn detach_all(&mut self) {
        for record in self.records.values_mut() {
            record.channel = None;
        }
    }

    /// Hears the reapers; returns which channels' commands could not be started.
    pub(crate) fn hear(&mut self) -> Vec<(Option<u32>, Failure)> {
        let mut failed = Vec::new();
        for record in self.records.values_mut() {
            if let Some(failure) = record.command.hear() {
                // Its reaper ends by itself.
                record.doomed = true;
                failed.push((record.channel.take(), failure));
            }
        }
        self.sweep();
        failed
    }

    /// Reads what nobody hears, goes on with killing, and notes the ends.
    pub(crate) fn look_after(&mut self, now: Instant, buffer: &mut [u8]) {
        for (&key, record) in &mut self.records {
            record.command.advance_killing(now);
            record.command.advance_patience(now);
            if record.channel.is_none() && !record.doomed && !record.finished {
                record.absorb(buffer);
            }
            if !record.finished && !record.doomed && record.command.finished() {
                record.finished = true;
                record.command.close_pipes();
                self.kept.push(key);
            }
        }
        // What a channel still hears is kept until it has heard the end.
        let mut bytes: usize = self.kept.iter().map(|key| self.records[key].held()).sum();
        let (most, most_bytes) = if self.keep { (MAX_KEPT, MAX_KEPT_BYTES) } else { (0, 0) };
        let mut count = self.kept.len();
        self.kept.retain(|key| {
            let Some(record) = self.records.get_mut(key) else {
                return false;
            };
            let over = count > most || (bytes > most_bytes && count > 1);
            if !over || record.channel.is_some() {
                return true;
            }
            count -= 1;
            bytes -= record.held();
            record.doomed = true;
            false
        });
        self.sweep();
    }

    /// Drops those that nobody wants and of which nothing is left.
    fn sweep(&mut self) {
        self.records.retain(|_, record| !record.doomed || record.command.report_fd().is_some());
    }
}

impl Record {
    fn held(&self) -> usize {
        self.rings.iter().map(Ring::len).sum()
    }

    fn describe(&self) -> CommandInfo {
        let status = self.command.status();
        CommandInfo {
            exec_id: self.command.exec_id.clone(),
            pid: self.command.pid().unwrap_or(0),
            state: match status {
                _ if self.finished => CommandState::Finished,
                Some(_) => CommandState::Exited,
                None => CommandState::Running,
            },
            status,
            stdout_bytes: self.rings[0].end(),
            stderr_bytes: self.rings[1].end(),
        }
    }

    /// Adds what is to be waited for. `hears` tells whether the channel that hears it can take some.
    pub(crate) fn wait_for(&self, waiting: &mut Waiting, hears: bool) {
        if let Some(fd) = self.command.report_fd() {
            waiting.readable(fd);
        }
        if let Some(fd) = self.command.stdin_fd() {
            waiting.writable(fd);
        }
        if hears || self.channel.is_none() {
            for fd in Stream::BOTH.into_iter().filter_map(|stream| self.command.output_fd(stream)) {
                waiting.readable(fd);
            }
        }
        waiting.until(self.command.due());
    }

    fn absorb(&mut self, buffer: &mut [u8]) {
        for (stream, ring) in Stream::BOTH.into_iter().zip(&mut self.rings) {
            let length = self.command.read(stream, buffer);
            ring.push(&buffer[..length]);
        }
    }

    /// Takes bytes for standard input; returns how many the channel may send again at once.
    pub(crate) fn take_stdin(&mut self, bytes: &[u8]) -> usize {
        let held = self.command.stdin_held();
        self.command.take_stdin(bytes);
        // Dropped by a command that does not read any more, or passed on below.
        (held + bytes.len() - self.command.stdin_held()) + self.feed_stdin()
    }

    /// Notes that no more comes for standard input.
    pub(crate) fn end_stdin(&mut self) {
        self.command.end_stdin();
    }

    /// Feeds standard input; returns the bytes that the channel may send again.
    fn feed_stdin(&mut self) -> usize {
        let fed = self.command.feed_stdin();
        let stale = fed.min(self.stale_input);
        self.stale_input -= stale;
        fed - stale
    }
}

impl Hearing {
    /// Returns whether bytes that were kept wait to be sent.
    pub(crate) fn is_behind(&self, record: &Record) -> bool {
        record.command.pid().is_some()
            && self.next.iter().zip(&record.rings).any(|(next, ring)| *next < ring.end())
    }

    /// Sends what there is; returns whether that was something, and whether it was the end.
    pub(crate) fn turn(
        &mut self,
        record: &mut Record,
        sender: &mut Sender<'_>,
    ) -> Result<(bool, bool), ProtocolError> {
        // The command may be faster than the reaper, but the host hears first that it started.
        let Some(pid) = record.command.pid() else {
            return Ok((false, false));
        };
        if !self.started {
            self.started = true;
            sender.send(&GuestMessage::Started { pid })?;
            let mut lost = [0; 2];
            for ((next, ring), lost) in self.next.iter_mut().zip(&record.rings).zip(&mut lost) {
                // A position that was never reached is the end.
                *next = (*next).min(ring.end());
                *lost = ring.start().saturating_sub(*next);
                *next += *lost;
            }
            if lost != [0; 2] {
                sender.send(&GuestMessage::OutputLost { stdout: lost[0], stderr: lost[1] })?;
            }
        }
        let mut sent = false;
        for (at, stream) in Stream::BOTH.into_iter().enumerate() {
            let (next, ring) = (&mut self.next[at], &mut record.rings[at]);
            let piece = sender.piece();
            if piece.is_empty() {
                break;
            }
            let length = if *next < ring.end() {
                ring.read(*next, piece)
            } else {
                let length = record.command.read(stream, piece);
                ring.push(&piece[..length]);
                length
            };
            if length > 0 {
                *next += length as u64;
                sender.send_piece(length, |piece| match stream {
                    Stream::Stdout => GuestMessage::Stdout(piece),
                    Stream::Stderr => GuestMessage::Stderr(piece),
                })?;
                sent = true;
            }
        }
        // The end of a command that has nothing more to say needs no turn of its own.
        if self.is_behind(record) {
            return Ok((sent, false));
        }
        if !self.exited
            && let Some(status) = record.command.exited()
        {
            self.exited = true;
            sender.send(&GuestMessage::Exited(status))?;
        }
        Ok((sent, self.exited && (record.finished || record.command.finished())))
    }
}
