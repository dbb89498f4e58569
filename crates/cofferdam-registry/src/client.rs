//! [`Client`]: requests to one registry, with a way in, bounded redirects, and answers sorted into errors.

use std::{
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use cofferdam_image::{ImageError, Reference};
use reqwest::{
    Response, StatusCode, Url,
    header::{ACCEPT, AUTHORIZATION, HeaderValue, LOCATION, WWW_AUTHENTICATE},
};
use serde::Deserialize;

use crate::{
    Login,
    challenge::{self, Challenge},
};

const MAX_REDIRECTS: usize = 5;
/// The largest answer of a token service, in bytes.
const MAX_TOKEN: u64 = 1 << 20;

/// The registry behind a name of Docker's.
const HUB: (&str, &str) = ("docker.io", "registry-1.docker.io");

/// Every form of index and manifest that `cofferdam-image` reads.
pub(crate) const MANIFESTS: &str = "application/vnd.oci.image.index.v1+json, \
     application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, \
     application/vnd.docker.distribution.manifest.v2+json";

/// Speaks to the registry of one image.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) http: reqwest::Client,
    pub(crate) name: Reference,
    pub(crate) login: Option<Login>,
    pub(crate) timeout: Duration,
    /// The header that the registry took last. Marked as sensitive, so that no log shows it.
    pub(crate) entry: Arc<Mutex<Option<HeaderValue>>>,
}

#[derive(Deserialize)]
struct Token {
    #[serde(alias = "access_token")]
    token: String,
}

impl Client {
    /// Asks for a part of the image, such as `blobs/sha256:…`.
    pub(crate) async fn get(&self, part: &str, accept: &str) -> Result<Response, ImageError> {
        let what = format!("{part} of {}", self.name);
        let url = self.address(part, &what)?;
        let known = self.entry.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut answer = self.follow(url.clone(), accept, known, &what).await?;
        if answer.status() == StatusCode::UNAUTHORIZED
            && let Some(entry) = self.way_in(&answer, &what).await?
        {
            *self.entry.lock().unwrap_or_else(PoisonError::into_inner) = Some(entry.clone());
            answer = self.follow(url, accept, Some(entry), &what).await?;
        }
        self.sort(answer, what)
    }

    /// Returns the address of a part.
    fn address(&self, part: &str, what: &str) -> Result<Url, ImageError> {
        let host = match self.name.registry.as_str() {
            host if host == HUB.0 => HUB.1,
            host => host,
        };
        let scheme = if is_loopback_host(host) { "http" } else { "https" };
        let text = format!("{scheme}://{host}/v2/{}/{part}", self.name.repository);
        Url::parse(&text).map_err(|error| failed(what, false, error))
    }

    /// Sends a request and follows redirects, on which no credentials are sent.
    async fn follow(
        &self,
        mut url: Url,
        accept: &str,
        mut entry: Option<HeaderValue>,
        what: &str,
    ) -> Result<Response, ImageError> {
        for _ in 0..=MAX_REDIRECTS {
            let mut request = self.http.get(url.clone()).header(ACCEPT, accept);
            if let Some(entry) = entry.take() {
                request = request.header(AUTHORIZATION, entry);
            }
            let answer = self.send(request, what).await?;
            if !answer.status().is_redirection() {
                return Ok(answer);
            }
            let target = answer.headers().get(LOCATION).and_then(|value| value.to_str().ok());
            let target = target.and_then(|target| url.join(target).ok());
            url = target.filter(|target| may_reach(&url, target)).ok_or_else(|| {
                failed(what, false, "it was redirected to where nothing is fetched")
            })?;
        }
        Err(failed(what, false, "it was redirected too often"))
    }

    /// Sends a request and waits for the head of the answer.
    async fn send(
        &self,
        request: reqwest::RequestBuilder,
        what: &str,
    ) -> Result<Response, ImageError> {
        match tokio::time::timeout(self.timeout, request.send()).await {
            Ok(Ok(answer)) => Ok(answer),
            // The address in the error would repeat what the message says.
            Ok(Err(error)) => Err(failed(what, !error.is_builder(), error.without_url())),
            Err(_) => Err(failed(what, true, "no answer in time")),
        }
    }

    /// Does what the registry wants of somebody who asks without credentials, or with ones that are over.
    async fn way_in(
        &self,
        answer: &Response,
        what: &str,
    ) -> Result<Option<HeaderValue>, ImageError> {
        let headers = answer.headers().get_all(WWW_AUTHENTICATE);
        let challenge =
            headers.iter().find_map(|value| value.to_str().ok().and_then(challenge::parse));
        let text = match challenge {
            None => return Ok(None),
            Some(Challenge::Basic) => match &self.login {
                Some(login) => basic(login),
                None => return Ok(None),
            },
            Some(Challenge::Bearer { realm, service }) => {
                let token = self.token(answer.url(), &realm, service.as_deref(), what).await?;
                format!("Bearer {token}")
            }
        };
        let mut value = HeaderValue::from_str(&text)
            .map_err(|_| failed(what, false, "the token has characters that no header can hold"))?;
        value.set_sensitive(true);
        Ok(Some(value))
    }

    /// Gets a token for reading the repository.
    async fn token(
        &self,
        asked: &Url,
        realm: &str,
        service: Option<&str>,
        what: &str,
    ) -> Result<String, ImageError> {
        let mut url = Url::parse(realm)
            .ok()
            .filter(|url| may_reach(asked, url))
            .ok_or_else(|| failed(what, false, "its token service is not one that is asked"))?;
        let scope = format!("repository:{}:pull", self.name.repository);
        url.query_pairs_mut().append_pair("scope", &scope);
        if let Some(service) = service {
            url.query_pairs_mut().append_pair("service", service);
        }
        let mut request = self.http.get(url);
        if let Some(login) = &self.login {
            let mut value = HeaderValue::from_str(&basic(login))
                .map_err(|_| failed(what, false, "the login cannot be sent"))?;
            value.set_sensitive(true);
            request = request.header(AUTHORIZATION, value);
        }
        let answer = self.send(request, what).await?;
        let answer = self.sort(answer, format!("a token for {what}"))?;
        let bytes = read(answer, MAX_TOKEN, what, self.timeout).await?;
        let token: Token = serde_json::from_slice(&bytes)
            .map_err(|_| failed(what, false, "its token service answers no token"))?;
        Ok(token.token)
    }

    /// Returns the answer if it is one, and what can be done about it otherwise.
    fn sort(&self, answer: Response, what: String) -> Result<Response, ImageError> {
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        Err(match status {
            StatusCode::NOT_FOUND => ImageError::NotFound {
                what: "image in its registry, or a part of it is gone:",
                name: what,
                known: Vec::new(),
            },
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => ImageError::Denied {
                what,
                keeper: self.name.registry.clone(),
                reason: match &self.login {
                    Some(login) => format!("{status} for the user {:?}", login.user),
                    None => format!("{status} without credentials"),
                },
            },
            _ => {
                let passing = status.is_server_error()
                    || matches!(
                        status,
                        StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT
                    );
                failed(&what, passing, format!("the answer is {status}"))
            }
        })
    }
}

/// Reads an answer whole, if it is not above the limit.
pub(crate) async fn read(
    mut answer: Response,
    limit: u64,
    what: &str,
    timeout: Duration,
) -> Result<Vec<u8>, ImageError> {
    let mut bytes = Vec::new();
    while let Some(chunk) = chunk(&mut answer, what, timeout).await? {
        if (bytes.len() + chunk.len()) as u64 > limit {
            return Err(ImageError::TooLarge { what: "a document of an image, in bytes,", limit });
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

/// Waits for the next bytes of an answer; `None` at its end.
pub(crate) async fn chunk(
    answer: &mut Response,
    what: &str,
    timeout: Duration,
) -> Result<Option<Bytes>, ImageError> {
    match tokio::time::timeout(timeout, answer.chunk()).await {
        Ok(read) => read.map_err(|error| failed(what, true, error.without_url())),
        Err(_) => Err(failed(what, true, "no bytes in time")),
    }
}

fn basic(login: &Login) -> String {
    format!("Basic {}", STANDARD.encode(format!("{}:{}", login.user, login.password.expose())))
}

/// Returns true if one address may lead to the other: over HTTPS to anywhere, and from loopback to loopback.
fn may_reach(from: &Url, to: &Url) -> bool {
    let is_loopback = |url: &Url| url.host_str().is_some_and(is_loopback_host);
    to.scheme() == "https" || (to.scheme() == "http" && is_loopback(from) && is_loopback(to))
}

/// Returns true if a host, with or without a port, is this machine by its spelling.
fn is_loopback_host(host: &str) -> bool {
    let host = match host.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|c| c.is_ascii_digit()) => host,
        _ => host,
    };
    let address = host.trim_matches(['[', ']']);
    host == "localhost" || address.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn failed(what: &str, passing: bool, source: impl Into<cofferdam_core::BoxError>) -> ImageError {
    ImageError::Fetch { what: what.to_owned(), passing, source: source.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_stays_on_loopback() {
        let cases = [
            ("https://a/", "https://b/", true),
            ("https://a/", "http://a/", false),
            ("https://a/", "http://127.0.0.1/", false),
            ("http://127.0.0.1:5000/", "http://127.0.0.1:80/", true),
            ("http://localhost/", "http://[::1]:80/", true),
            ("http://127.0.0.1/", "http://169.254.169.254/", false),
            ("http://127.0.0.1/", "http://127.0.0.1.example/", false),
            ("http://127.0.0.1/", "file:///etc/passwd", false),
        ];
        for (from, to, expect) in cases {
            let url = |text| Url::parse(text).expect("an address");
            assert_eq!(may_reach(&url(from), &url(to)), expect, "{from} to {to}");
        }
    }
}
