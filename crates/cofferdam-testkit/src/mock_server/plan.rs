//! [`Plan`]: what is written to a connection and when, faults included.

use std::{io, time::Duration};

use serde_json::Value;
use tokio::{io::AsyncWriteExt, net::TcpStream, time::sleep};

use super::{
    fault::{Fault, error_body},
    render::Rendered,
};

/// The steps of one answer.
#[derive(Debug, Default)]
pub(super) struct Plan {
    steps: Vec<Step>,
}

#[derive(Debug)]
enum Step {
    Write(Vec<u8>),
    Pause(Duration),
    /// Keeps the connection and says no more.
    Hang,
    Close,
    Reset,
}

impl Plan {
    /// Answers with JSON.
    pub(super) fn json(status: u16, body: &Value) -> Self {
        Self::fixed(status, "application/json", &[], body.to_string().as_bytes())
    }

    /// Answers with an error in OpenAI's form.
    pub(super) fn error(status: u16, code: &str, message: &str) -> Self {
        Self::json(status, &error_body(code, message))
    }

    fn fixed(status: u16, kind: &str, headers: &[(String, String)], body: &[u8]) -> Self {
        let length = ("content-length".to_owned(), body.len().to_string());
        let kind = ("content-type".to_owned(), kind.to_owned());
        let mut bytes = head(status, [&kind, &length].into_iter().chain(headers));
        bytes.extend_from_slice(body);
        Self { steps: vec![Step::Write(bytes)] }
    }

    /// Answers with a turn, as the fault has it.
    pub(super) fn answer(answer: Rendered, streaming: bool, fault: Option<Fault>) -> Self {
        match &fault {
            Some(Fault::Status { status, headers, body }) => {
                let body = if body.is_null() { String::new() } else { body.to_string() };
                Self::fixed(*status, "application/json", headers, body.as_bytes())
            }
            Some(Fault::Html) => {
                let page = b"<!DOCTYPE html>\n<html><title>Sign in</title></html>\n";
                Self::fixed(200, "text/html; charset=utf-8", &[], page)
            }
            Some(Fault::HangBeforeFirstByte) => Self { steps: vec![Step::Hang] },
            Some(Fault::ResetAfter { events: 0 }) => Self { steps: vec![Step::Reset] },
            _ if streaming => Self::stream(answer, fault),
            _ => Self::json(200, &answer.whole),
        }
    }

    fn stream(answer: Rendered, fault: Option<Fault>) -> Self {
        let mut frames: Vec<_> =
            answer.events.into_iter().map(|event| frame(&event, answer.named)).collect();
        if !answer.named {
            frames.push("data: [DONE]\n\n".to_owned());
        }
        let mut end = None;
        let mut cut_at = Vec::new();
        let mut pause = Duration::ZERO;
        match fault {
            None => {}
            Some(Fault::CutAfter { events }) => {
                frames.truncate(events);
                end = Some(Step::Close);
            }
            Some(Fault::EndAfter { events }) => frames.truncate(events),
            Some(Fault::ResetAfter { events }) => {
                frames.truncate(events);
                end = Some(Step::Reset);
            }
            Some(Fault::HangAfter { events }) => {
                frames.truncate(events);
                end = Some(Step::Hang);
            }
            Some(Fault::Duplicate { event }) => {
                if let Some(again) = frames.get(event).cloned() {
                    frames.insert(event, again);
                }
            }
            Some(Fault::DuplicateAll) => {
                frames = frames.into_iter().flat_map(|frame| [frame.clone(), frame]).collect();
            }
            Some(Fault::Omit { event_type }) => {
                let name = format!("event: {event_type}\n");
                frames.retain(|frame| !frame.starts_with(&name));
            }
            Some(Fault::OmitFields(fields)) => {
                for frame in &mut frames {
                    *frame = without_fields(frame, &fields, answer.named);
                }
            }
            Some(Fault::Insert { before, event }) => {
                frames.insert(before.min(frames.len()), frame(&event, answer.named));
            }
            Some(Fault::EndWith { after, event }) => {
                frames.truncate(after);
                frames.push(frame(&event, answer.named));
            }
            Some(Fault::LineEnding(ending)) => {
                for frame in &mut frames {
                    *frame = frame.replace('\n', &ending);
                }
            }
            Some(Fault::Split { at, pause_ms }) => {
                cut_at = at;
                pause = Duration::from_millis(pause_ms);
            }
            Some(Fault::SplitEvery { bytes }) => {
                let length = frames.iter().map(String::len).sum();
                cut_at = (0..length).step_by(bytes.max(1)).skip(1).collect();
            }
            // Those that need no stream were answered before.
            Some(Fault::Status { .. } | Fault::Html | Fault::HangBeforeFirstByte) => {}
        }
        let event_stream = [
            ("content-type", "text/event-stream; charset=utf-8"),
            ("cache-control", "no-cache"),
            ("transfer-encoding", "chunked"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()));
        let mut steps = vec![Step::Write(head(200, &event_stream))];
        if cut_at.is_empty() {
            // One write, as a fast server's packets arrive; each event is a chunk of its own.
            let body = frames.iter().flat_map(|frame| chunk(frame.as_bytes())).collect();
            steps.push(Step::Write(body));
        } else {
            for piece in split(frames.concat().as_bytes(), &cut_at) {
                steps.push(Step::Write(chunk(piece)));
                steps.push(Step::Pause(pause));
            }
        }
        steps.push(end.unwrap_or_else(|| Step::Write(b"0\r\n\r\n".to_vec())));
        Self { steps }
    }

    /// Waits before the answer.
    pub(super) fn after(mut self, delay: Duration) -> Self {
        if !delay.is_zero() {
            self.steps.insert(0, Step::Pause(delay));
        }
        self
    }

    /// Returns how many bytes are written.
    pub(super) fn len(&self) -> usize {
        self.steps
            .iter()
            .map(|step| if let Step::Write(bytes) = step { bytes.len() } else { 0 })
            .sum()
    }

    /// Writes the answer; returns whether the connection can take another request.
    pub(super) async fn write_to(self, stream: &mut TcpStream) -> io::Result<bool> {
        for step in self.steps {
            match step {
                Step::Write(bytes) => stream.write_all(&bytes).await?,
                // A pause of no time still lets the packet out and the client in.
                Step::Pause(pause) if pause.is_zero() => tokio::task::yield_now().await,
                Step::Pause(pause) => sleep(pause).await,
                Step::Hang => std::future::pending().await,
                Step::Close => return Ok(false),
                Step::Reset => {
                    stream.set_zero_linger()?;
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }
}

fn head<'a>(status: u16, headers: impl IntoIterator<Item = &'a (String, String)>) -> Vec<u8> {
    let mut head = format!("HTTP/1.1 {status} {}\r\n", if status < 300 { "OK" } else { "Error" });
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    head += "\r\n";
    head.into_bytes()
}

fn frame(event: &Value, named: bool) -> String {
    match event {
        Value::String(line) => format!("{line}\n\n"),
        event => match event["type"].as_str().filter(|_| named) {
            Some(kind) => format!("event: {kind}\ndata: {event}\n\n"),
            None => format!("data: {event}\n\n"),
        },
    }
}

fn without_fields(frame_text: &str, fields: &[String], named: bool) -> String {
    let data = frame_text.lines().find_map(|line| line.strip_prefix("data: "));
    let Some(Ok(mut event)) = data.map(serde_json::from_str::<Value>) else {
        return frame_text.to_owned();
    };
    remove_fields(&mut event, fields);
    frame(&event, named)
}

fn remove_fields(value: &mut Value, fields: &[String]) {
    match value {
        Value::Object(object) => {
            object.retain(|name, _| !fields.contains(name));
            object.values_mut().for_each(|value| remove_fields(value, fields));
        }
        Value::Array(array) => array.iter_mut().for_each(|value| remove_fields(value, fields)),
        _ => {}
    }
}

fn chunk(bytes: &[u8]) -> Vec<u8> {
    let mut chunk = format!("{:x}\r\n", bytes.len()).into_bytes();
    chunk.extend_from_slice(bytes);
    chunk.extend_from_slice(b"\r\n");
    chunk
}

/// Cuts bytes at the offsets that lie inside of them, in any order.
fn split<'a>(bytes: &'a [u8], at: &[usize]) -> Vec<&'a [u8]> {
    let mut cuts: Vec<_> =
        at.iter().copied().filter(|cut| (1..bytes.len()).contains(cut)).collect();
    cuts.extend([0, bytes.len()]);
    cuts.sort_unstable();
    cuts.dedup();
    cuts.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect()
}
