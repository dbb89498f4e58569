//! [`Thread`]: the thread that a connection lives on, and the commit that all who wait share.
//!
//! A call is put in a queue and told its result when the transaction that did it has been committed. The thread takes
//! what is queued, up to a bound, does it in one transaction, commits once, and tells everybody. A call that is refused
//! has changed nothing and does not disturb the others. If SQLite itself fails in the middle because of one of them,
//! each is tried again in a transaction of its own, so that only those fail that must.

use std::{
    fmt, hint,
    sync::mpsc::{Receiver, Sender, TryRecvError, channel},
    thread,
    time::{Duration, Instant},
};

use futures::channel::oneshot;

use super::{
    failure::{Failure, Location},
    tables::Tables,
};
use crate::JournalError;

/// Most calls of one transaction.
const MAX_CALLS: usize = 256;

/// Bytes of records after which a transaction takes no further call.
const MAX_BYTES: usize = 8 << 20;

/// How long a thread looks out for the next call after it has answered one, before it sleeps. A run that appends record after
/// record asks again within that, and is spared the time that a sleeping thread takes to wake.
const LOOK_OUT: Duration = Duration::from_micros(30);

/// The way to a thread. It ends when this is dropped and its queue is empty.
pub(super) struct Thread {
    queue: Sender<Message>,
    location: Location,
}

enum Message {
    Call(Box<dyn Call>),
    Close(oneshot::Sender<()>),
}

/// One call, which may have to be done again after a rollback.
trait Call: Send {
    fn operation(&self) -> &'static str;
    fn bytes(&self) -> usize;
    /// False if the caller has gone, so that nobody waits for it.
    fn is_wanted(&self) -> bool;
    /// Does it and keeps what came of it.
    fn act(&mut self, tables: &Tables) -> Result<(), rusqlite::Error>;
    /// Forgets what came of it.
    fn undo(&mut self);
    /// Tells the caller what came of it, or this error instead.
    fn tell(self: Box<Self>, error: Option<JournalError>);
}

struct CallOf<T, F> {
    operation: &'static str,
    bytes: usize,
    act: F,
    result: Option<Result<T, JournalError>>,
    tell: oneshot::Sender<Result<T, JournalError>>,
}

impl<T, F> Call for CallOf<T, F>
where
    T: Send,
    F: FnMut(&Tables) -> Result<T, Failure> + Send,
{
    fn operation(&self) -> &'static str {
        self.operation
    }

    fn bytes(&self) -> usize {
        self.bytes
    }

    fn is_wanted(&self) -> bool {
        !self.tell.is_canceled()
    }

    fn act(&mut self, tables: &Tables) -> Result<(), rusqlite::Error> {
        self.result = Some(match (self.act)(tables) {
            Ok(result) => Ok(result),
            Err(Failure::Refused(error)) => Err(error),
            Err(Failure::Sqlite(error)) => return Err(error),
        });
        Ok(())
    }

    fn undo(&mut self) {
        self.result = None;
    }

    fn tell(self: Box<Self>, error: Option<JournalError>) {
        let result = match error {
            Some(error) => Some(Err(error)),
            None => self.result,
        };
        if let Some(result) = result {
            // A caller that has gone does not want to know.
            let _ = self.tell.send(result);
        }
    }
}

impl Thread {
    /// Starts a thread that does calls in transactions.
    pub(super) fn writing(tables: Tables) -> Result<Self, JournalError> {
        Self::start("cofferdam-journal-write", tables, commit)
    }

    /// Starts a thread that does calls one by one, for those that write nothing.
    pub(super) fn reading(tables: Tables) -> Result<Self, JournalError> {
        Self::start("cofferdam-journal-read", tables, |tables, calls| {
            for mut call in calls {
                let operation = call.operation();
                let failed = call.act(tables).err();
                call.tell(failed.map(|error| tables.location.sqlite(operation, error)));
            }
        })
    }

    fn start(
        name: &str,
        tables: Tables,
        serve: fn(&Tables, Vec<Box<dyn Call>>),
    ) -> Result<Self, JournalError> {
        let (queue, calls) = channel();
        let location = tables.location.clone();
        thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || run(tables, &calls, serve))
            .map_err(|error| location.io("start a thread", error))?;
        Ok(Self { queue, location })
    }

    /// Does something on the thread.
    ///
    /// If the future is dropped before its turn has come, it is not done.
    pub(super) async fn call<T: Send + 'static>(
        &self,
        operation: &'static str,
        bytes: usize,
        act: impl FnMut(&Tables) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, JournalError> {
        let (tell, told) = oneshot::channel();
        let call = CallOf { operation, bytes, act, result: None, tell };
        // If the thread has ended, the sender of the result was dropped with the call.
        let _ = self.queue.send(Message::Call(Box::new(call)));
        told.await.unwrap_or_else(|_| {
            Err(JournalError::store(operation, "it was closed, or its thread has ended"))
        })
    }

    /// Lets the thread do what is queued, close its connection and end.
    pub(super) async fn close(&self) {
        let (tell, told) = oneshot::channel();
        let _ = self.queue.send(Message::Close(tell));
        // If it has ended already, it is closed.
        let _ = told.await;
    }
}

impl fmt::Debug for Thread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Thread").field("location", &self.location).finish_non_exhaustive()
    }
}

fn run(tables: Tables, queue: &Receiver<Message>, serve: fn(&Tables, Vec<Box<dyn Call>>)) {
    // On one processor it would only keep the next caller from asking.
    let several = thread::available_parallelism().is_ok_and(|processors| processors.get() > 1);
    let look_out = if several { LOOK_OUT } else { Duration::ZERO };
    let mut awake_until = Instant::now();
    let mut closing = None;
    while closing.is_none() {
        let Some(first) = receive(queue, awake_until) else { return };
        let (mut calls, mut bytes) = (Vec::new(), 0);
        let mut message = Some(first);
        while let Some(next) = message {
            match next {
                Message::Close(tell) => {
                    closing = Some(tell);
                    break;
                }
                Message::Call(call) if call.is_wanted() => {
                    bytes += call.bytes();
                    calls.push(call);
                }
                Message::Call(_) => {}
            }
            let full = calls.len() == MAX_CALLS || bytes >= MAX_BYTES;
            message = if full { None } else { queue.try_recv().ok() };
        }
        if !calls.is_empty() {
            serve(&tables, calls);
            awake_until = Instant::now() + look_out;
        }
    }
    drop(tables);
    if let Some(tell) = closing {
        // Who asked may have gone.
        let _ = tell.send(());
    }
}

/// Waits for a message, until then without sleeping; `None` if there will be none.
fn receive(queue: &Receiver<Message>, awake_until: Instant) -> Option<Message> {
    while Instant::now() < awake_until {
        match queue.try_recv() {
            Ok(message) => return Some(message),
            Err(TryRecvError::Disconnected) => return None,
            // Giving way instead would cost a whole turn of whoever else wants this processor.
            Err(TryRecvError::Empty) => hint::spin_loop(),
        }
    }
    queue.recv().ok()
}

/// Does all in one transaction; if that fails because of one of them, each in its own.
fn commit(tables: &Tables, mut calls: Vec<Box<dyn Call>>) {
    let error = match attempt(tables, &mut calls) {
        Ok(()) => return calls.into_iter().for_each(|call| call.tell(None)),
        Err(error) => error,
    };
    let of_one = matches!(error, JournalError::Full { .. } | JournalError::Damaged { .. });
    if calls.len() == 1 || !of_one {
        return calls.into_iter().for_each(|call| call.tell(Some(error.clone())));
    }
    for call in calls {
        let mut alone = [call];
        let error = attempt(tables, &mut alone).err();
        let [call] = alone;
        call.tell(error);
    }
}

fn attempt(tables: &Tables, calls: &mut [Box<dyn Call>]) -> Result<(), JournalError> {
    let transaction = |sql, operation| {
        let done = tables.statement(sql).and_then(|mut statement| statement.execute([]).map(drop));
        done.map_err(|error| tables.location.sqlite(operation, error))
    };
    let mut all = || {
        transaction("BEGIN IMMEDIATE", "begin a transaction")?;
        for call in calls.iter_mut() {
            call.act(tables).map_err(|error| tables.location.sqlite(call.operation(), error))?;
        }
        transaction("COMMIT", "commit")
    };
    let done = all();
    if done.is_err() {
        calls.iter_mut().for_each(|call| call.undo());
        tables.forget();
        if !tables.connection.is_autocommit() {
            // Should it fail, the next transaction cannot begin and says so.
            let _ = tables.connection.execute_batch("ROLLBACK");
        }
    }
    done
}
