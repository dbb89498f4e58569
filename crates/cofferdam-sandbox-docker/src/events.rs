//! [`Events`]: what the engine tells of the containers of sandboxes, and [`Life`], what is known of one of them.
//!
//! A container that has ended is removed by the engine at once, so asking afterwards why it ended comes too late. The engine
//! tells it beforehand, in one stream for all.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::{Duration, Instant},
};

use bollard::{models::EventMessage, query_parameters::EventsOptions};
use cofferdam_sandbox::LossReason;
use futures::StreamExt as _;
use tokio::sync::watch;

use crate::{engine::Engine, labels};

/// The exit code of a killed process.
const KILLED: i64 = 137;

/// How long an engine may take to say that it is there.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// How often in a row a stream of events may end soon after it began, from an engine that is there.
const MAX_SHORT_STREAMS: u32 = 10;

/// A stream that ends sooner is a short one.
const SHORT_STREAM: Duration = Duration::from_secs(1);

/// What is known of a container.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Life {
    /// How often the kernel has killed a process of it for memory.
    pub(crate) out_of_memory: u64,
    /// When that was told last, in nanoseconds: an engine that is asked again tells everything again.
    out_of_memory_at: i64,
    /// The signal that somebody has asked the engine to send it.
    killed_with: Option<String>,
    exit: Option<i64>,
    pub(crate) removed: bool,
    /// The engine does not answer any more.
    engine_gone: Option<String>,
}

impl Life {
    /// Takes in what the engine tells.
    fn learn(&mut self, event: &EventMessage) {
        let attribute = |name: &str| event.actor.as_ref()?.attributes.as_ref()?.get(name);
        // Some actions carry more behind a colon.
        let action = event.action.as_deref().unwrap_or_default();
        match action.split(':').next().unwrap_or_default() {
            "oom" => match event.time_nano {
                Some(at) if at <= self.out_of_memory_at => {}
                at => {
                    self.out_of_memory += 1;
                    self.out_of_memory_at = at.unwrap_or(self.out_of_memory_at);
                }
            },
            "kill" => self.killed_with = attribute("signal").cloned(),
            "die" | "died" => {
                let code = attribute("exitCode").or_else(|| attribute("containerExitCode"));
                self.exit = Some(code.and_then(|code| code.parse().ok()).unwrap_or(0));
            }
            "destroy" | "remove" => self.removed = true,
            _ => {}
        }
    }

    /// Returns why the container has ended; none while it lives, or while that is not known yet.
    pub(crate) fn ended(&self) -> Option<LossReason> {
        if let Some(detail) = &self.engine_gone {
            return Some(LossReason::Removed { detail: detail.clone() });
        }
        if self.out_of_memory > 0 && matches!(self.exit, Some(KILLED)) {
            return Some(LossReason::OutOfMemory);
        }
        if let (Some(signal), true) = (&self.killed_with, self.exit.is_some() || self.removed) {
            let detail = format!("somebody sent its container signal {signal}");
            return Some(LossReason::Removed { detail });
        }
        match self.exit {
            // Why it was killed may be told a moment later, and before it is removed.
            Some(KILLED) if !self.removed => None,
            Some(code) => Some(LossReason::GuestEnded { detail: format!("exit code {code}") }),
            None if self.removed => {
                Some(LossReason::Removed { detail: "somebody removed its container".to_owned() })
            }
            None => None,
        }
    }
}

type Lives = Mutex<HashMap<String, watch::Sender<Life>>>;

/// Listens to the engine for as long as there is somebody to tell.
#[derive(Debug, Default)]
pub(crate) struct Events {
    lives: Arc<Lives>,
    listening: Mutex<Option<tokio::task::JoinHandle<()>>>,
}

impl Events {
    /// Follows a container that is about to be made.
    ///
    /// Whoever follows keeps the listening up, also after the backend has gone.
    pub(crate) fn follow(self: &Arc<Self>, engine: &Engine, name: &str) -> Following {
        let (sender, life) = watch::channel(Life::default());
        lock(&self.lives).insert(name.to_owned(), sender);
        self.listen(engine);
        Following { name: name.to_owned(), life, events: Arc::clone(self) }
    }

    /// Starts to listen, if nobody does; after an engine has come back, that is the case.
    fn listen(&self, engine: &Engine) {
        let mut listening = lock(&self.listening);
        if listening.as_ref().is_some_and(|task| !task.is_finished()) {
            return;
        }
        let lives = Arc::downgrade(&self.lives);
        *listening = Some(tokio::spawn(listen(engine.clone(), lives)));
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        if let Some(task) = lock(&self.listening).take() {
            task.abort();
        }
    }
}

/// Listens until nobody is there to be told, or the engine has stopped.
async fn listen(engine: Engine, lives: Weak<Lives>) {
    let mut short_streams = 0;
    let end = loop {
        let began = Instant::now();
        let Some(end) = hear(&engine, &lives).await else { return };
        short_streams = if began.elapsed() < SHORT_STREAM { short_streams + 1 } else { 0 };
        // A stream may end while its engine goes on: that of Podman does when it begins a new log.
        if short_streams > MAX_SHORT_STREAMS || !is_there(&engine).await {
            break end;
        }
        tracing::debug!(end, "the engine's events are asked for again");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    let Some(lives) = lives.upgrade() else { return };
    for life in lock(&lives).values() {
        life.send_modify(|life| life.engine_gone = Some(format!("the engine has stopped: {end}")));
    }
}

async fn is_there(engine: &Engine) -> bool {
    tokio::time::timeout(ANSWER_TIMEOUT, engine.client().ping()).await.is_ok_and(|it| it.is_ok())
}

/// Tells what one stream of events says, and returns why it ended; `None` if there is nobody to be told.
async fn hear(engine: &Engine, lives: &Weak<Lives>) -> Option<String> {
    let options = EventsOptions {
        // Everything that the engine still knows, so that no moment is lost between asking and listening. A container that is
        // new is in none of it, and hearing something twice changes nothing.
        since: Some("0".to_owned()),
        filters: Some(HashMap::from([
            ("type".to_owned(), vec!["container".to_owned()]),
            ("label".to_owned(), vec![labels::SANDBOX.to_owned()]),
        ])),
        until: None,
    };
    let mut events = Box::pin(engine.client().events(Some(options)));
    loop {
        match events.next().await {
            Some(Ok(event)) => {
                let lives = lives.upgrade()?;
                tell(&lives, &event);
            }
            Some(Err(error)) => return Some(error.to_string()),
            None => return Some("it ended its stream of events".to_owned()),
        }
    }
}

fn tell(lives: &Lives, event: &EventMessage) {
    let attributes = event.actor.as_ref().and_then(|actor| actor.attributes.as_ref());
    let Some(name) = attributes.and_then(|attributes| attributes.get("name")) else { return };
    if let Some(life) = lock(lives).get(name) {
        life.send_modify(|life| life.learn(event));
    }
}

/// What is learnt of one container, until this is dropped.
#[derive(Debug)]
pub(crate) struct Following {
    name: String,
    life: watch::Receiver<Life>,
    events: Arc<Events>,
}

impl Following {
    /// What is known now.
    pub(crate) fn now(&self) -> Life {
        self.life.borrow().clone()
    }

    /// Waits until the container has ended, and says why.
    pub(crate) async fn ended(&self) -> LossReason {
        self.until(|life| life.ended().is_some())
            .await
            .and_then(|life| life.ended())
            .unwrap_or_else(|| LossReason::Removed { detail: "nobody listens any more".to_owned() })
    }

    /// Waits until the container was removed, or nobody can know.
    pub(crate) async fn removed(&self) {
        self.until(|life| life.removed || life.engine_gone.is_some()).await;
    }

    /// Waits for a time until the kernel has killed more for memory than before.
    pub(crate) async fn out_of_memory_since(&self, before: u64, patience: Duration) -> bool {
        let killed = self.until(|life| life.out_of_memory > before);
        tokio::time::timeout(patience, killed).await.is_ok_and(|life| life.is_some())
    }

    async fn until(&self, condition: impl FnMut(&Life) -> bool) -> Option<Life> {
        self.life.clone().wait_for(condition).await.ok().map(|life| life.clone())
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        lock(&self.events.lives).remove(&self.name);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // Nothing that holds the lock can be left half done.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use bollard::models::EventActor;

    use super::*;

    fn event(words: &str) -> EventMessage {
        let mut words = words.split(' ');
        let action = words.next().map(str::to_owned);
        let attributes = words.filter_map(|word| word.split_once('='));
        let attributes = attributes.map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
        let actor = EventActor { attributes: Some(attributes), ..EventActor::default() };
        EventMessage { action, actor: Some(actor), ..EventMessage::default() }
    }

    fn check(events: &[&str], expect: Option<&str>) {
        let mut life = Life::default();
        for words in events {
            life.learn(&event(words));
        }
        let found = life.ended().map(|reason| reason.to_string());
        assert_eq!(found.as_deref(), expect, "{events:?}");
    }

    #[test]
    fn what_is_told_twice_counts_once() {
        let mut life = Life::default();
        for at in [5, 5, 7, 5, 7] {
            life.learn(&EventMessage { time_nano: Some(at), ..event("oom") });
        }
        assert_eq!(life.out_of_memory, 2);
    }

    #[test]
    fn why_a_container_has_ended() {
        check(&[], None);
        check(&["oom"], None);
        check(&["die exitCode=1"], Some("its first process ended (exit code 1)"));
        check(&["oom", "die exitCode=137"], Some("it exceeded its memory limit"));
        check(&["die exitCode=137"], None);
        check(&["die exitCode=137", "oom"], Some("it exceeded its memory limit"));
        check(&["die exitCode=137", "destroy"], Some("its first process ended (exit code 137)"));
        check(
            &["kill signal=9", "die exitCode=137"],
            Some("it was removed (somebody sent its container signal 9)"),
        );
        check(
            &["die exitCode=137", "kill signal=9"],
            Some("it was removed (somebody sent its container signal 9)"),
        );
        check(&["kill signal=28"], None);
        check(&["kill signal=28", "kill signal=28"], None);
        check(&["destroy"], Some("it was removed (somebody removed its container)"));
        check(&["exec_start: /bin/sh -c true", "health_status: healthy"], None);
    }
}
