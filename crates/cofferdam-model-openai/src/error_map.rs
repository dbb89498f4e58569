//! From what a server says went wrong to a [`ModelError`]: one place for HTTP statuses, error bodies, error events and
//! the retry rule.
//!
//! The rule is that of OpenAI's own clients: the header `x-should-retry` decides; then 408, 409, 429 and 5xx may be tried
//! again, after the pause that `retry-after-ms` or `retry-after` ask for; a pause of more than two minutes means "do not".
//! A "no" is a [`ModelError::Failed`] with [`Retry::Never`], so that no layer needs to know headers.

use std::time::{Duration, SystemTime};

use cofferdam_core::Retry;
use cofferdam_model::ModelError;
use reqwest::{StatusCode, header::HeaderMap};
use serde_json::Value;

/// A server that asks for a longer pause is not worth waiting for.
const LONGEST_PAUSE: Duration = Duration::from_secs(120);

/// Most characters of the provider's words that an error keeps.
const MAX_MESSAGE_CHARS: usize = 500;

/// What a provider says of a failure, in a body or an event.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct ProviderError {
    pub(crate) code: Option<String>,
    pub(crate) kind: Option<String>,
    pub(crate) message: String,
}

impl ProviderError {
    /// Reads `{error: {…}}`, `{error: "…"}`, or an object that is the error itself; `None` if there is nothing of the kind.
    pub(crate) fn from_value(value: &Value) -> Option<Self> {
        let inner = match value.get("error") {
            Some(Value::Null) | None => value,
            Some(inner) => inner,
        };
        if let Value::String(message) = inner {
            return Some(Self { message: shorten(message), ..Self::default() });
        }
        let text = |key: &str| match inner.get(key) {
            Some(Value::String(text)) => Some(text.clone()),
            Some(Value::Number(number)) => Some(number.to_string()),
            _ => None,
        };
        let message = text("message").or_else(|| text("detail"));
        let (code, kind) = (text("code"), text("type"));
        (message.is_some() || code.is_some()).then(|| Self {
            code,
            kind,
            message: shorten(&message.unwrap_or_default()),
        })
    }

    /// Returns the code, or else the type, by which errors are told apart.
    fn name(&self) -> &str {
        // llama.cpp and vLLM repeat the HTTP status as code and put the name in the type.
        let code = self.code.as_deref().filter(|code| code.parse::<u16>().is_err());
        code.or(self.kind.as_deref()).unwrap_or("none")
    }
}

/// Maps an HTTP answer that is not a success.
pub(crate) fn from_http(
    model: &str,
    status: StatusCode,
    headers: &HeaderMap,
    body: &str,
) -> ModelError {
    let said = serde_json::from_str(body).ok().and_then(|body| ProviderError::from_value(&body));
    let mut said = said.unwrap_or_else(|| ProviderError {
        message: describe_body(headers, body),
        ..ProviderError::default()
    });
    if let Some(id) = header(headers, "x-request-id") {
        said.message = format!("{} [request {}]", said.message, shorten(id));
    }
    if let Some(error) = by_name(model, &said) {
        return error;
    }
    let model = model.to_owned();
    let code = said.name().to_owned();
    let message = said.message;
    let wish = header(headers, "x-should-retry");
    let may_retry = match wish {
        Some("true") => true,
        Some("false") => false,
        _ => matches!(status.as_u16(), 408 | 409 | 429 | 500..),
    };
    let pause = pause(headers);
    if may_retry && pause.is_some_and(|pause| pause > LONGEST_PAUSE) {
        let message = format!("{message} (it asks to wait longer than {LONGEST_PAUSE:?})");
        return ModelError::Failed { model, code, message, retry: Retry::Never };
    }
    let retry_after = pause;
    match status.as_u16() {
        429 if may_retry => ModelError::RateLimited { model, retry_after },
        408 | 409 | 500.. if may_retry => {
            ModelError::Unavailable { model, status: status.as_u16(), message, retry_after }
        }
        408 | 409 | 429 | 500.. => ModelError::Failed { model, code, message, retry: Retry::Never },
        _ if may_retry => {
            let retry = pause.map_or(Retry::Backoff, Retry::After);
            ModelError::Failed { model, code, message, retry }
        }
        401 | 403 => ModelError::Unauthenticated { model, message },
        300..=399 => ModelError::Protocol {
            model,
            detail: format!(
                "a redirect to {}; redirects are not followed, correct the base url",
                shorten(header(headers, "location").unwrap_or("nowhere"))
            ),
        },
        status => ModelError::InvalidRequest { model, status, code, message },
    }
}

/// Maps a failure that came inside of a stream: an `error` event, or a failed response.
pub(crate) fn from_stream(model: &str, said: &ProviderError) -> ModelError {
    by_name(model, said).unwrap_or_else(|| {
        let (model, message) = (model.to_owned(), said.message.clone());
        match said.name() {
            "rate_limit_exceeded" | "slow_down" => {
                ModelError::RateLimited { model, retry_after: None }
            }
            code => {
                let retry = match code {
                    "server_error"
                    | "server_is_overloaded"
                    | "vector_store_timeout"
                    | "overloaded_error" => Retry::Backoff,
                    _ => Retry::Never,
                };
                ModelError::Failed { model, code: code.to_owned(), message, retry }
            }
        }
    })
}

/// The names that say it all, wherever they come.
fn by_name(model: &str, said: &ProviderError) -> Option<ModelError> {
    let (model, message) = (model.to_owned(), said.message.clone());
    Some(match said.name() {
        "insufficient_quota" | "credit_balance_exhausted" => {
            ModelError::QuotaExhausted { model, message }
        }
        "context_length_exceeded" | "exceed_context_size_error" => {
            ModelError::ContextTooLong { model, message }
        }
        "invalid_encrypted_content" => ModelError::StaleReasoning { model, message },
        _ => return None,
    })
}

/// Says what a body is that is not the protocol's: its type and its first words.
pub(crate) fn describe_body(headers: &HeaderMap, body: &str) -> String {
    let kind = header(headers, "content-type").unwrap_or("no content type");
    match shorten(body.trim()) {
        text if text.is_empty() => format!("{kind}, with an empty body"),
        text => format!("{kind}, beginning {text:?}"),
    }
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// Reads the pause that the headers ask for: milliseconds, seconds, or a date that is measured from the answer's own.
fn pause(headers: &HeaderMap) -> Option<Duration> {
    let number = |name, unit: f64| {
        let value: f64 = header(headers, name)?.trim().parse().ok()?;
        Duration::try_from_secs_f64(value * unit).ok()
    };
    number("retry-after-ms", 0.001).or_else(|| number("retry-after", 1.0)).or_else(|| {
        let date =
            |name| -> Option<SystemTime> { httpdate::parse_http_date(header(headers, name)?).ok() };
        date("retry-after")?.duration_since(date("date")?).ok()
    })
}

fn shorten(text: &str) -> String {
    let mut short: String = text.chars().take(MAX_MESSAGE_CHARS).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests {
    use reqwest::header::{HeaderName, HeaderValue};
    use serde_json::json;

    use super::*;

    fn headers(lines: &[(&str, &str)]) -> HeaderMap {
        lines
            .iter()
            .map(|(name, value)| {
                (HeaderName::try_from(*name).unwrap(), HeaderValue::try_from(*value).unwrap())
            })
            .collect()
    }

    fn check(status: u16, lines: &[(&str, &str)], body: &str, expect: &str, retry: Retry) {
        let status = StatusCode::from_u16(status).unwrap();
        let error = from_http("m", status, &headers(lines), body);
        assert_eq!(error.to_string(), expect, "{status} {body}");
        assert_eq!(error.retry(), retry, "{status} {lines:?} {body}");
    }

    fn error(code: &str) -> String {
        json!({"error": {"message": "words", "type": "t", "code": code, "param": null}}).to_string()
    }

    #[test]
    fn maps_http_answers() {
        use Retry::{After, Backoff, Never};
        let rate = error("rate_limit_exceeded");
        let limited = "m limits the rate of requests";
        check(429, &[], &rate, limited, Backoff);
        check(429, &[], &error("slow_down"), limited, Backoff);
        check(
            429,
            &[("retry-after", "2")],
            &rate,
            "m limits the rate of requests; it asks to wait 2s",
            After(Duration::from_secs(2)),
        );
        check(
            429,
            &[("retry-after-ms", "1500"), ("retry-after", "9")],
            &rate,
            "m limits the rate of requests; it asks to wait 1.5s",
            After(Duration::from_millis(1500)),
        );
        check(
            429,
            &[
                ("date", "Wed, 21 Oct 2015 07:28:00 GMT"),
                ("retry-after", "Wed, 21 Oct 2015 07:28:07 GMT"),
            ],
            &rate,
            "m limits the rate of requests; it asks to wait 7s",
            After(Duration::from_secs(7)),
        );
        check(429, &[("retry-after", "soon")], &rate, limited, Backoff);
        check(429, &[("retry-after", "-1")], &rate, limited, Backoff);
        check(
            429,
            &[("retry-after", "121")],
            &rate,
            "m failed to answer (code rate_limit_exceeded): words (it asks to wait longer than 120s)",
            Never,
        );
        check(
            429,
            &[("x-should-retry", "false")],
            &rate,
            "m failed to answer (code rate_limit_exceeded): words",
            Never,
        );
        let quota = "the account at m has no quota left: words";
        check(429, &[("retry-after", "1")], &error("insufficient_quota"), quota, Never);
        check(429, &[], &error("credit_balance_exhausted"), quota, Never);
        check(
            401,
            &[("x-request-id", "req_7")],
            &error("invalid_api_key"),
            "m refused the credentials: words [request req_7]",
            Never,
        );
        check(403, &[], &error("x"), "m refused the credentials: words", Never);
        check(
            400,
            &[],
            &error("context_length_exceeded"),
            "the conversation is too long for m: words",
            Never,
        );
        check(
            400,
            &[],
            r#"{"error":{"code":400,"message":"words","type":"exceed_context_size_error"}}"#,
            "the conversation is too long for m: words",
            Never,
        );
        check(
            400,
            &[],
            &error("invalid_encrypted_content"),
            "m no longer accepts the reasoning that was sent back: words",
            Never,
        );
        check(
            400,
            &[],
            r#"{"error":{"message":"words","type":"invalid_request_error","code":null}}"#,
            "m refused the request (status 400, code invalid_request_error): words",
            Never,
        );
        check(
            400,
            &[("x-should-retry", "true")],
            &error("odd"),
            "m failed to answer (code odd): words",
            Backoff,
        );
        check(
            404,
            &[("content-type", "text/html")],
            "<html>not here</html>",
            "m refused the request (status 404, code none): text/html, beginning \"<html>not here</html>\"",
            Never,
        );
        check(
            422,
            &[],
            r#"{"detail":"words"}"#,
            "m refused the request (status 422, code none): words",
            Never,
        );
        check(500, &[], r#"{"error":"words"}"#, "m is unavailable (status 500): words", Backoff);
        check(
            503,
            &[("retry-after", "1")],
            &error("server_is_overloaded"),
            "m is unavailable (status 503): words; it asks to wait 1s",
            After(Duration::from_secs(1)),
        );
        check(
            502,
            &[("content-type", "text/html")],
            "",
            "m is unavailable (status 502): text/html, with an empty body",
            Backoff,
        );
        check(
            503,
            &[("x-should-retry", "false")],
            &error("x"),
            "m failed to answer (code x): words",
            Never,
        );
        check(
            307,
            &[("location", "https://elsewhere/v1")],
            "",
            "m answered with something that is not its protocol: a redirect to https://elsewhere/v1; \
             redirects are not followed, correct the base url",
            Never,
        );
    }

    #[test]
    fn maps_failures_in_streams() {
        let check = |value: Value, expect: &str, retry: Retry| {
            let error = from_stream("m", &ProviderError::from_value(&value).unwrap());
            assert_eq!((error.to_string().as_str(), error.retry()), (expect, retry), "{value}");
        };
        let overloaded = "m failed to answer (code server_error): w";
        check(json!({"code": "server_error", "message": "w"}), overloaded, Retry::Backoff);
        check(
            json!({"error": {"code": "server_error", "message": "w"}}),
            overloaded,
            Retry::Backoff,
        );
        check(
            json!({"type": "error", "error": {"type": "server_error", "code": null, "message": "w"}}),
            overloaded,
            Retry::Backoff,
        );
        check(
            json!({"code": "rate_limit_exceeded", "message": "w"}),
            "m limits the rate of requests",
            Retry::Backoff,
        );
        check(
            json!({"code": "invalid_prompt", "message": "w"}),
            "m failed to answer (code invalid_prompt): w",
            Retry::Never,
        );
        check(
            json!({"code": "insufficient_quota", "message": "w"}),
            "the account at m has no quota left: w",
            Retry::Never,
        );
        assert_eq!(ProviderError::from_value(&json!({"ok": 1})), None);
        assert_eq!(ProviderError::from_value(&json!([1])), None);
    }

    #[test]
    fn long_words_are_shortened() {
        let said = ProviderError::from_value(&json!({"message": "é".repeat(9000)})).unwrap();
        assert_eq!(said.message.chars().count(), MAX_MESSAGE_CHARS + 1);
    }
}
