//! Turns: each channel with something to send sends one piece, one after the other.

use std::time::Instant;

use cofferdam_guest::{GuestMessage, ProtocolError};

use super::{Session, Task};
use crate::{connection::OUT_FULL, flow::Sender};

impl Session {
    /// Lets the channels send in turns until there is no room or nobody has anything. `written` tells how many bytes of
    /// `out` were written already.
    pub(crate) fn give_turns(
        &mut self,
        buffer: &mut [u8],
        out: &mut Vec<u8>,
        written: usize,
    ) -> Result<(), ProtocolError> {
        loop {
            let mut sent = false;
            let after = self.last_turn;
            let turns: Vec<u32> = self
                .channels
                .range(after.saturating_add(1)..)
                .chain(self.channels.range(..=after))
                .map(|(&id, _)| id)
                .collect();
            for id in turns {
                if out.len() - written >= OUT_FULL {
                    return Ok(());
                }
                self.last_turn = id;
                sent |= self.turn(id, buffer, out)?;
            }
            if !sent {
                return Ok(());
            }
        }
    }

    /// Gives one channel its turn; returns whether it sent something.
    fn turn(
        &mut self,
        id: u32,
        buffer: &mut [u8],
        out: &mut Vec<u8>,
    ) -> Result<bool, ProtocolError> {
        let Some(channel) = self.channels.get_mut(&id) else {
            return Ok(false);
        };
        let mut sender = Sender { channel: id, window: &mut channel.send, buffer, out };
        let mut sent = false;
        let result = match &mut channel.task {
            Task::Command(hearing) => match self.commands.get(hearing.key) {
                Some(record) => {
                    let (something, end) = hearing.turn(record, &mut sender)?;
                    sent = something;
                    if end {
                        record.channel = None;
                        self.commands.look_after(Instant::now(), sender.buffer);
                    }
                    Ok(end)
                }
                None => Ok(true),
            },
            Task::Reading(reading) if !sender.piece().is_empty() => {
                match reading.read(sender.piece()) {
                    Ok(0) => Ok(true),
                    Ok(length) => {
                        sender.send_piece(length, |piece| GuestMessage::Data(piece))?;
                        sent = true;
                        Ok(false)
                    }
                    Err(failure) => Err(failure),
                }
            }
            Task::Sending(sending) if !sender.piece().is_empty() => match sending.ready() {
                Ok([]) => Ok(true),
                Ok(ready) => {
                    let length = sender.send_data(ready)?;
                    sending.sent(length);
                    sent = true;
                    Ok(false)
                }
                Err(failure) => Err(failure),
            },
            Task::Removing(removing) => removing.advance(),
            Task::Port(port) => match port.turn(&mut sender)? {
                Ok((something, end)) => {
                    sent = something;
                    Ok(end)
                }
                Err(failure) => Err(failure),
            },
            Task::Listener(listener) => listener.turn(&mut sender).map(Ok)?,
            Task::Watching(watching) => {
                sent = watching.turn(&mut sender)?;
                Ok(false)
            }
            _ => Ok(false),
        };
        match result {
            Ok(false) => {}
            Ok(true) => {
                self.channels.remove(&id);
                GuestMessage::Done.encode(id, out)?;
            }
            Err(failure) => self.fail(id, failure, out)?,
        }
        Ok(sent)
    }
}
