//! [`Transport`]: sends one request and turns the answer's bytes into model events, within the endpoint's timeouts.
//!
//! What the bytes mean is a [`Decoder`]'s business; this module knows HTTP, server-sent events and time.

use std::{collections::VecDeque, time::Duration};

use bytes::Bytes;
use cofferdam_core::{BoxError, Secret};
use cofferdam_model::{ModelError, ModelEvent};
use futures::stream::{self, BoxStream, StreamExt};
use reqwest::{
    Client, Response, Url,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue},
    redirect::Policy,
};
use serde_json::Value;
use tokio::time::{Instant, timeout};

use crate::{
    endpoint::{Endpoint, EndpointError, Timeouts, header_value},
    error_map::{describe_body, from_http},
    sse::{SseEvent, SseParser},
    tls,
};

/// Most bytes of a whole answer.
const MAX_ANSWER_BYTES: usize = 64 << 20;

/// Most bytes that are read of an answer that is an error.
const MAX_ERROR_BYTES: usize = 64 << 10;

/// Understands the events of one answer.
pub(crate) trait Decoder: Send + 'static {
    /// Takes one event and adds what it means; the last thing it adds is [`ModelEvent::Completed`].
    fn event(&mut self, event: SseEvent, out: &mut VecDeque<ModelEvent>) -> Result<(), ModelError>;

    /// Takes an answer that came whole, from a server that does not stream.
    fn whole(&mut self, answer: Value, out: &mut VecDeque<ModelEvent>) -> Result<(), ModelError>;

    /// Learns that the stream has ended, and may complete the answer if it can tell that it is whole.
    fn end(&mut self, out: &mut VecDeque<ModelEvent>) -> Result<(), ModelError>;
}

/// Sends requests to one address.
#[derive(Debug, Clone)]
pub(crate) struct Transport {
    client: Client,
    url: Url,
    headers: HeaderMap,
    key: Option<Secret>,
    timeouts: Timeouts,
}

impl Transport {
    pub(crate) fn new(endpoint: &Endpoint, path: &str) -> Result<Self, EndpointError> {
        let client_error = |error: BoxError| EndpointError::Client(error);
        let url = endpoint.base_url.join(path).map_err(|error| client_error(error.into()))?;
        let tls = tls::client_config(url.scheme() == "https")
            .map_err(|error| client_error(error.into()))?;
        let mut builder = Client::builder()
            // The environment is not ours to read, and a redirect would take the key elsewhere.
            .no_proxy()
            .redirect(Policy::none())
            .connect_timeout(endpoint.timeouts.connect)
            .tcp_nodelay(true)
            .tls_backend_preconfigured(tls);
        if let Some(proxy) = &endpoint.proxy {
            let proxy = reqwest::Proxy::all(proxy).map_err(|error| client_error(error.into()))?;
            builder = builder.proxy(proxy);
        }
        let client = builder.build().map_err(|error| client_error(error.into()))?;
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(ACCEPT, HeaderValue::from_static("text/event-stream"));
        if let Some(key) = &endpoint.api_key {
            let bearer = format!("Bearer {}", key.expose());
            headers.insert(AUTHORIZATION, header_value("authorization", &bearer)?);
        }
        headers.extend(endpoint.headers.iter().cloned());
        let key = endpoint.api_key.clone();
        Ok(Self { client, url, headers, key, timeouts: endpoint.timeouts })
    }

    /// Sends a request and streams what the decoder makes of the answer.
    ///
    /// Returns as soon as the server has begun a successful answer.
    pub(crate) async fn stream(
        &self,
        model: &str,
        body: &Value,
        decoder: impl Decoder,
    ) -> Result<BoxStream<'static, Result<ModelEvent, ModelError>>, ModelError> {
        let deadline = Deadline::new(model, self.timeouts);
        let request = self
            .client
            .post(self.url.clone())
            .headers(self.headers.clone())
            .body(body.to_string())
            .send();
        let response = deadline
            .bound("first byte", self.timeouts.first_byte, request)
            .await?
            .map_err(|error| self.send_error(model, error))?;
        let mut answer = Answer { deadline, response, bytes: 0 };
        if !answer.response.status().is_success() {
            let body = answer.text(MAX_ERROR_BYTES).await;
            let body = self.without_key(&body);
            let (status, headers) = (answer.response.status(), answer.response.headers());
            return Err(from_http(model, status, headers, &body));
        }
        let reading = match answer.content_type() {
            // Some gateways forget to say so.
            "text/event-stream" | "" => Reading::events(answer, decoder),
            "application/json" => Reading::whole(answer, decoder).await?,
            _ => {
                let body = self.without_key(&answer.text(MAX_ERROR_BYTES).await);
                let detail = describe_body(answer.response.headers(), &body);
                return Err(ModelError::Protocol { model: model.to_owned(), detail });
            }
        };
        Ok(stream::unfold(reading, Reading::next).boxed())
    }

    fn send_error(&self, model: &str, error: reqwest::Error) -> ModelError {
        let model = model.to_owned();
        if error.is_connect() && error.is_timeout() {
            return ModelError::Timeout { model, what: "connecting", limit: self.timeouts.connect };
        }
        // The address is a field of its own; the client's error would repeat it.
        let source = Box::new(error.without_url());
        ModelError::Unreachable { model, url: self.url.to_string(), source }
    }

    /// Takes the key out of a server's words, as some servers repeat what they refuse.
    fn without_key(&self, text: &str) -> String {
        match &self.key {
            Some(key) if !key.expose().is_empty() => text.replace(key.expose(), "[api key]"),
            _ => text.to_owned(),
        }
    }
}

/// The end of a whole call, and the name for errors.
#[derive(Debug)]
struct Deadline {
    model: String,
    end: Instant,
    timeouts: Timeouts,
}

impl Deadline {
    fn new(model: &str, timeouts: Timeouts) -> Self {
        Self { model: model.to_owned(), end: Instant::now() + timeouts.whole, timeouts }
    }

    async fn bound<T>(
        &self,
        what: &'static str,
        limit: Duration,
        work: impl Future<Output = T>,
    ) -> Result<T, ModelError> {
        let left = self.end.saturating_duration_since(Instant::now());
        timeout(limit.min(left), work).await.map_err(|_| {
            let (what, limit) =
                if limit <= left { (what, limit) } else { ("whole call", self.timeouts.whole) };
            ModelError::Timeout { model: self.model.clone(), what, limit }
        })
    }
}

/// An answer whose head has arrived.
#[derive(Debug)]
struct Answer {
    deadline: Deadline,
    response: Response,
    bytes: usize,
}

impl Answer {
    fn content_type(&self) -> &str {
        let value = self.response.headers().get(CONTENT_TYPE);
        let text = value.and_then(|value| value.to_str().ok()).unwrap_or_default();
        text.split(';').next().unwrap_or_default().trim()
    }

    /// Returns the next bytes, or `None` at the end; errors of the connection are `Ok(Err)`.
    async fn chunk(&mut self) -> Result<Result<Option<Bytes>, reqwest::Error>, ModelError> {
        let idle = self.deadline.timeouts.idle;
        let chunk = self.deadline.bound("next event", idle, self.response.chunk()).await?;
        if let Ok(Some(bytes)) = &chunk {
            self.bytes += bytes.len();
            if self.bytes > MAX_ANSWER_BYTES {
                return Err(ModelError::Protocol {
                    model: self.deadline.model.clone(),
                    detail: format!("an answer of more than {MAX_ANSWER_BYTES} bytes"),
                });
            }
        }
        Ok(chunk)
    }

    /// Reads the beginning of a body that says what went wrong; what cannot be read is left out.
    async fn text(&mut self, limit: usize) -> String {
        let mut body = Vec::new();
        while let Ok(Ok(Some(bytes))) = self.chunk().await {
            body.extend_from_slice(&bytes);
            if body.len() >= limit {
                body.truncate(limit);
                break;
            }
        }
        String::from_utf8_lossy(&body).into_owned()
    }
}

/// The state of a stream of model events.
struct Reading<D> {
    answer: Answer,
    decoder: D,
    parser: SseParser,
    parsed: VecDeque<SseEvent>,
    ready: VecDeque<ModelEvent>,
    events: u64,
    ended: bool,
}

impl<D: Decoder> Reading<D> {
    fn events(answer: Answer, decoder: D) -> Self {
        Self {
            answer,
            decoder,
            parser: SseParser::default(),
            parsed: VecDeque::new(),
            ready: VecDeque::new(),
            events: 0,
            ended: false,
        }
    }

    async fn whole(mut answer: Answer, mut decoder: D) -> Result<Self, ModelError> {
        let mut body = Vec::new();
        loop {
            match answer.chunk().await? {
                Ok(Some(bytes)) => body.extend_from_slice(&bytes),
                Ok(None) => break,
                Err(error) => return Err(cut(&answer.deadline.model, 0, Some(error))),
            }
        }
        let value = serde_json::from_slice(&body).map_err(|error| ModelError::Protocol {
            model: answer.deadline.model.clone(),
            detail: format!("an answer that is not JSON: {error}"),
        })?;
        let mut ready = VecDeque::new();
        decoder.whole(value, &mut ready)?;
        let mut reading = Self::events(answer, decoder);
        reading.ready = ready;
        Ok(reading)
    }

    /// Returns the next event and the state after it; after the answer or an error there is nothing more.
    async fn next(mut self) -> Option<(Result<ModelEvent, ModelError>, Self)> {
        if self.ended {
            return None;
        }
        let event = self.advance().await;
        self.ended = matches!(event, Err(_) | Ok(ModelEvent::Completed(_)));
        Some((event, self))
    }

    async fn advance(&mut self) -> Result<ModelEvent, ModelError> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Ok(event);
            }
            if let Some(event) = self.parsed.pop_front() {
                self.events += 1;
                self.decoder.event(event, &mut self.ready)?;
                continue;
            }
            match self.answer.chunk().await? {
                Ok(Some(bytes)) => {
                    self.parser.push(&bytes, &mut self.parsed).map_err(|error| {
                        ModelError::Protocol {
                            model: self.answer.deadline.model.clone(),
                            detail: error.to_string(),
                        }
                    })?;
                }
                Ok(None) => {
                    self.decoder.end(&mut self.ready)?;
                    if self.ready.is_empty() {
                        return Err(cut(&self.answer.deadline.model, self.events, None));
                    }
                }
                Err(error) => {
                    return Err(cut(&self.answer.deadline.model, self.events, Some(error)));
                }
            }
        }
    }
}

fn cut(model: &str, events: u64, source: Option<reqwest::Error>) -> ModelError {
    let source = source.map(|error| -> BoxError { Box::new(error.without_url()) });
    ModelError::StreamCut { model: model.to_owned(), events, source }
}
