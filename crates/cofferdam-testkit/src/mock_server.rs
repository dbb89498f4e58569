//! [`MockModelServer`]: a model server on loopback that plays a script, with faults down to single bytes.
//!
//! It speaks the Responses API and Chat Completions at `/v1/responses` and `/v1/chat/completions`, streaming and not.
//!
//! - [`script`]: [`MockScript`], what it answers, turn by turn.
//! - [`fault`]: [`Fault`], how it goes wrong.
//! - [`recorded`]: [`RecordedRequest`], what it was asked, and the check that calls and outputs are paired.
//! - `render` and `plan`: the wire form of an answer, and what of it is written when.
//!
//! The turn is a function of the request alone: every id that the server hands out carries its turn (`call_t3_0`,
//! `msg_t3_0`, `resp_t3_0`), and the answer is the turn after the last such id in the conversation. So any number of runs
//! can share a server, also with `previous_response_id`. A Chat Completions message without a tool call carries no id and
//! does not advance a script. After the last turn the server says `end of script`.
//!
//! As the real one, it refuses a conversation in which a tool call has no output, or an output no call.
//!
//! `GET /stats` gives counts and bytes; `GET /log` a list of `[monotonic ns, script, turn, bytes in, bytes out]` with the
//! system-wide clock; `GET /reset` clears both.
//!
//! ```
//! use cofferdam_testkit::mock_server::{Fault, MockItem, MockModelServer, MockScript, MockTurn};
//! use serde_json::json;
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! let script = MockScript::new([
//!     MockTurn::new([MockItem::function_call("exec_command", json!({"cmd": "true"}))]),
//!     MockTurn::new([MockItem::message("done")]).fault(Fault::CutAfter { events: 3 }),
//! ]);
//! let server = MockModelServer::start(script).await?;
//! assert!(server.base_url().starts_with("http://127.0.0.1:"));
//! server.assert_paired();
//! # Ok::<(), std::io::Error>(()) }).unwrap();
//! ```

pub mod fault;
mod http;
mod plan;
pub mod recorded;
mod render;
pub mod script;

use std::{
    collections::HashMap,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde_json::{Value, json};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

pub use self::{
    fault::Fault,
    recorded::RecordedRequest,
    script::{MockItem, MockScript, MockTurn},
};
use self::{
    http::HttpRequest,
    plan::Plan,
    recorded::{pairing_error, turn_of},
};

/// Requests that are kept; later ones are only counted.
const MAX_RECORDED: usize = 100_000;

/// A running server; it stops when dropped.
#[derive(Debug)]
pub struct MockModelServer {
    port: u16,
    state: Arc<State>,
    accepting: JoinHandle<()>,
}

#[derive(Debug)]
struct State {
    script: MockScript,
    played: Mutex<Played>,
}

#[derive(Debug, Default)]
struct Played {
    connections: u64,
    bytes_in: u64,
    bytes_out: u64,
    requests: Vec<RecordedRequest>,
    answered: u64,
    /// Faults that were used up, by script and turn.
    faults: HashMap<(String, usize), usize>,
}

/// Which of the two interfaces a request uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Api {
    /// `/v1/responses`.
    Responses,
    /// `/v1/chat/completions`.
    ChatCompletions,
}

impl MockModelServer {
    /// Starts a server on a free port.
    ///
    /// # Errors
    ///
    /// If no port can be had.
    pub async fn start(script: MockScript) -> io::Result<Self> {
        Self::start_on(script, 0).await
    }

    /// Starts a server on this port of the loopback interface.
    ///
    /// # Errors
    ///
    /// If the port cannot be had.
    pub async fn start_on(script: MockScript, port: u16) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", port)).await?;
        let port = listener.local_addr()?.port();
        let state = Arc::new(State { script, played: Mutex::default() });
        let accepting = tokio::spawn(accept(listener, Arc::clone(&state)));
        Ok(Self { port, state, accepting })
    }

    /// Returns the port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns the address that clients take as base, for the default script.
    #[must_use]
    pub fn base_url(&self) -> String {
        format!("http://127.0.0.1:{}/v1", self.port)
    }

    /// Returns the address for the script of this name.
    #[must_use]
    pub fn base_url_of(&self, script: &str) -> String {
        format!("http://127.0.0.1:{}/{script}/v1", self.port)
    }

    /// Returns what the server was asked so far, in order, those that it refused or failed included.
    #[must_use]
    pub fn requests(&self) -> Vec<RecordedRequest> {
        self.state.played().requests.clone()
    }

    /// Checks that in every request each tool call had exactly one output, and each output its call.
    ///
    /// # Panics
    ///
    /// If not; the message names the request and the calls.
    pub fn assert_paired(&self) {
        for (index, request) in self.requests().iter().enumerate() {
            if let Some(error) = pairing_error(request.api, &request.body) {
                panic!("request {index} is not paired: {error}");
            }
        }
    }

    /// Waits until the server is stopped, that is for ever.
    pub async fn serve(&mut self) {
        // The task ends by being aborted only, and then nobody waits here.
        let _ = (&mut self.accepting).await;
    }
}

impl Drop for MockModelServer {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, state: Arc<State>) {
    // Ends the connections together with the server.
    let mut connections = tokio::task::JoinSet::new();
    loop {
        tokio::select! {
            Ok((stream, _)) = listener.accept() => {
                state.played().connections += 1;
                connections.spawn(serve_connection(stream, Arc::clone(&state)));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn serve_connection(mut stream: TcpStream, state: Arc<State>) {
    // A client that goes away in the middle is nothing that the server could report to anybody.
    let _ = async {
        stream.set_nodelay(true)?;
        let mut buffer = Vec::new();
        while let Some(request) = http::read_request(&mut stream, &mut buffer).await? {
            let plan = state.answer(&request);
            if !plan.write_to(&mut stream).await? {
                break;
            }
        }
        io::Result::Ok(())
    }
    .await;
}

impl State {
    fn played(&self) -> MutexGuard<'_, Played> {
        self.played.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer(&self, request: &HttpRequest) -> Plan {
        let path = request.path.split('?').next().unwrap_or_default().trim_end_matches('/');
        match (request.method.as_str(), path) {
            ("GET", "/stats") => {
                let played = self.played();
                Plan::json(
                    200,
                    &json!({"requests": played.answered, "connections": played.connections,
                                        "bytes_in": played.bytes_in, "bytes_out": played.bytes_out}),
                )
            }
            ("GET", "/log") => {
                let log: Value =
                    self.played().requests.iter().map(RecordedRequest::log_line).collect();
                Plan::json(200, &log)
            }
            ("GET", "/reset") => {
                *self.played() = Played::default();
                Plan::json(200, &json!({}))
            }
            ("GET", path) if path.ends_with("/v1/models") => Plan::json(
                200,
                &json!({"object": "list", "data": [
                    {"id": "mock", "object": "model", "created": render::CREATED, "owned_by": "test"}]}),
            ),
            ("POST", path) => match route(path) {
                Some((script, api)) => self.play(script, api, request),
                None => Plan::error(404, "not_found", &format!("no route POST {path}")),
            },
            (method, path) => Plan::error(404, "not_found", &format!("no route {method} {path}")),
        }
    }

    fn play(&self, script: &str, api: Api, request: &HttpRequest) -> Plan {
        let body: Value = match serde_json::from_slice(&request.body) {
            Ok(body) => body,
            Err(error) => return Plan::error(400, "invalid_json", &error.to_string()),
        };
        let Some(turns) = self.script.turns(script) else {
            return Plan::error(404, "not_found", &format!("no script {script:?}"));
        };
        let turn = turn_of(api, &body);
        let refusal = pairing_error(api, &body);
        let plan = match &refusal {
            Some(error) => Plan::error(400, "invalid_request_error", error),
            None => {
                let fault = self.next_fault(script, turn, turns.get(turn));
                let end = [MockItem::message("end of script")];
                let items = turns.get(turn).map_or(&end[..], |turn| &turn.items);
                let streaming = body["stream"] == true;
                let answer = render::answer(api, turn, items, self.script.delta_chars);
                Plan::answer(answer, streaming, fault).after(self.script.delay)
            }
        };
        let mut played = self.played();
        played.answered += 1;
        played.bytes_in += request.body.len() as u64;
        played.bytes_out += plan.len() as u64;
        if played.requests.len() < MAX_RECORDED {
            played.requests.push(RecordedRequest {
                monotonic_nanos: recorded::monotonic_nanos(),
                script: script.to_owned(),
                turn,
                api,
                headers: request.headers.clone(),
                bytes_in: request.body.len(),
                bytes_out: plan.len(),
                body,
            });
        }
        plan
    }

    /// The faults of a turn happen one after the other, one a request; after them the turn is answered well.
    fn next_fault(&self, script: &str, turn: usize, planned: Option<&MockTurn>) -> Option<Fault> {
        let mut played = self.played();
        let used = played.faults.entry((script.to_owned(), turn)).or_default();
        let fault = planned?.faults.get(*used).cloned();
        *used += usize::from(fault.is_some());
        fault
    }
}

/// Reads `/v1/responses` and `/NAME/v1/responses`.
fn route(path: &str) -> Option<(&str, Api)> {
    let (rest, api) = match path.strip_suffix("/v1/responses") {
        Some(rest) => (rest, Api::Responses),
        None => (path.strip_suffix("/v1/chat/completions")?, Api::ChatCompletions),
    };
    Some((rest.strip_prefix('/').unwrap_or(script::DEFAULT), api))
}
