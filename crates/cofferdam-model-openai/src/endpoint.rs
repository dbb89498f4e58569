//! [`Endpoint`]: where a server is, how to show that one may use it, and how long to wait for it.

use std::{fmt, time::Duration};

use cofferdam_core::{BoxError, Secret};
use reqwest::{
    Url,
    header::{HeaderName, HeaderValue},
};

/// The address of a server with the credentials and the patience for it.
///
/// The zero state: no key, no further headers, no proxy (the environment's proxy variables are not read), no redirects,
/// and the default [`Timeouts`]. Its `Debug` shows neither key nor header values.
///
/// ```
/// use cofferdam_core::Secret;
/// use cofferdam_model_openai::Endpoint;
///
/// let endpoint = Endpoint::new("http://127.0.0.1:8080/v1")?.api_key(Secret::new("hunter2"));
/// assert!(!format!("{endpoint:?}").contains("hunter2"));
/// # Ok::<(), cofferdam_model_openai::EndpointError>(())
/// ```
#[derive(Clone)]
pub struct Endpoint {
    pub(crate) base_url: Url,
    pub(crate) api_key: Option<Secret>,
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    pub(crate) proxy: Option<String>,
    pub(crate) timeouts: Timeouts,
}

/// How long each step of a call may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// Making the connection, TLS included. Default: 5 s.
    pub connect: Duration,
    /// From sending the request to the first byte of the answer. Default: 120 s.
    pub first_byte: Duration,
    /// Between two arrivals of bytes in a stream; servers send something while a model thinks. Default: 120 s.
    pub idle: Duration,
    /// The whole call. Default: 30 min.
    pub whole: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            first_byte: Duration::from_secs(120),
            idle: Duration::from_secs(120),
            whole: Duration::from_secs(30 * 60),
        }
    }
}

/// Why an endpoint cannot be used: correct the configuration.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EndpointError {
    /// The address is not an absolute `http` or `https` URL without credentials.
    #[error("base url {url:?} cannot be used: {reason}; write it as `https://host/v1`")]
    BaseUrl {
        /// The address that was given; without credentials.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A header's name or value has characters that headers cannot have. The value is not shown.
    #[error("header {name:?} cannot be sent: {reason}")]
    Header {
        /// The header.
        name: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The HTTP client cannot be set up.
    #[error("cannot set up the http client")]
    Client(#[source] BoxError),
}

impl Endpoint {
    /// The address of OpenAI itself.
    pub const OPENAI: &str = "https://api.openai.com/v1";

    /// Takes the base address of a server, up to and without `/responses` or `/chat/completions`.
    ///
    /// # Errors
    ///
    /// [`EndpointError::BaseUrl`].
    pub fn new(base_url: &str) -> Result<Self, EndpointError> {
        let refuse =
            |url: &str, reason: String| Err(EndpointError::BaseUrl { url: url.to_owned(), reason });
        let mut url = match Url::parse(base_url) {
            Ok(url) => url,
            // The text may hold a password in a place that did not parse, so it is not repeated.
            Err(error) if base_url.contains('@') => return refuse("..@..", error.to_string()),
            Err(error) => return refuse(base_url, error.to_string()),
        };
        if !matches!(url.scheme(), "http" | "https") {
            let reason = format!("the scheme {:?} is not http or https", url.scheme());
            return refuse(base_url, reason);
        }
        if !url.username().is_empty() || url.password().is_some() {
            let host = url.host_str().unwrap_or_default().to_owned();
            return refuse(&host, "it holds credentials; pass them as api key or header".into());
        }
        // Without a closing slash, joining a path would replace the last part of the base.
        if !url.path().ends_with('/') {
            let path = format!("{}/", url.path());
            url.set_path(&path);
        }
        Ok(Self {
            base_url: url,
            api_key: None,
            headers: Vec::new(),
            proxy: None,
            timeouts: Timeouts::default(),
        })
    }

    /// Sends this key as a bearer token.
    #[must_use]
    pub fn api_key(mut self, key: Secret) -> Self {
        self.api_key = Some(key);
        self
    }

    /// Adds a header to each request, such as `openai-project` or a gateway's own credential.
    ///
    /// # Errors
    ///
    /// [`EndpointError::Header`].
    pub fn header(mut self, name: &str, value: &Secret) -> Result<Self, EndpointError> {
        let parsed = HeaderName::try_from(name).map_err(|_| EndpointError::Header {
            name: name.to_owned(),
            reason: "the name is not a token",
        })?;
        self.headers.push((parsed, header_value(name, value.expose())?));
        Ok(self)
    }

    /// Connects through this HTTP proxy; without one, directly.
    #[must_use]
    pub fn proxy(mut self, url: impl Into<String>) -> Self {
        self.proxy = Some(url.into());
        self
    }

    /// Waits this long.
    #[must_use]
    pub fn timeouts(mut self, timeouts: Timeouts) -> Self {
        self.timeouts = timeouts;
        self
    }
}

/// Makes a header value that the client does not print.
pub(crate) fn header_value(name: &str, value: &str) -> Result<HeaderValue, EndpointError> {
    let mut value = HeaderValue::try_from(value).map_err(|_| EndpointError::Header {
        name: name.to_owned(),
        reason: "the value has control characters, such as a line break at its end",
    })?;
    value.set_sensitive(true);
    Ok(value)
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let headers: Vec<_> = self.headers.iter().map(|(name, _)| name.as_str()).collect();
        f.debug_struct("Endpoint")
            .field("base_url", &self.base_url.as_str())
            .field("api_key", &self.api_key.as_ref().map(|_| "Secret(..)"))
            .field("headers", &headers)
            .field("timeouts", &self.timeouts)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(url: &str, expect: &str) {
        let found = Endpoint::new(url).map(|endpoint| endpoint.base_url.to_string());
        assert_eq!(found.unwrap_or_else(|error| error.to_string()), expect);
    }

    #[test]
    fn takes_base_urls() {
        check("https://api.openai.com/v1", "https://api.openai.com/v1/");
        check("http://127.0.0.1:8080/v1/", "http://127.0.0.1:8080/v1/");
        check("http://[::1]:1", "http://[::1]:1/");
        check(
            "api.openai.com/v1",
            "base url \"api.openai.com/v1\" cannot be used: relative URL without a base; \
             write it as `https://host/v1`",
        );
        check(
            "ftp://host/v1",
            "base url \"ftp://host/v1\" cannot be used: the scheme \"ftp\" is not http or https; \
             write it as `https://host/v1`",
        );
        check(
            "https://me:hunter2@host/v1",
            "base url \"host\" cannot be used: it holds credentials; pass them as api key or header; \
             write it as `https://host/v1`",
        );
    }

    #[test]
    fn no_secret_is_shown() {
        let endpoint = Endpoint::new(Endpoint::OPENAI).unwrap().api_key(Secret::new("hunter2"));
        let endpoint = endpoint.header("x-gateway", &Secret::new("hunter3")).unwrap();
        let shown = format!("{endpoint:?} {:?}", endpoint.headers);
        assert!(!shown.contains("hunter"), "{shown}");
        let error = endpoint.header("x-gateway", &Secret::new("hunter4\n")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "header \"x-gateway\" cannot be sent: \
             the value has control characters, such as a line break at its end"
        );
    }
}
