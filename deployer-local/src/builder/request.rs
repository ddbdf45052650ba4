//! The build request and the lines of its answer.
//!
//! The client's own `build_image` reads BuildKit's progress only with a cargo feature that brings gRPC and TLS with it,
//! and fails on it without. So the request goes through the client's connection, but the answer is read here.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bollard::{BollardRequest, Docker, body_try_stream};
use futures_core::Stream;
use futures_util::{StreamExt as _, pin_mut};
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::http::uri::PathAndQuery;
use hyper::{Method, Uri};
use serde::Deserialize;

/// Builds take as long as they take; whoever waits for one has a deadline.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(24 * 60 * 60);

/// One line of the answer.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Message {
    pub(super) id: String,
    /// The classic builder's output.
    pub(super) stream: String,
    /// The state of a layer that is pulled.
    pub(super) status: String,
    #[serde(rename = "progressDetail")]
    pub(super) amount: Option<Amount>,
    pub(super) error: Option<String>,
    /// BuildKit's progress, or the image's id.
    pub(super) aux: Option<serde_json::Value>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Amount {
    pub(super) current: Option<u64>,
    pub(super) total: Option<u64>,
}

/// A build request.
#[derive(Default)]
pub(super) struct Request {
    /// The query's parameters.
    pub(super) query: Vec<(&'static str, String)>,
    /// The header with the credentials of registries.
    pub(super) credentials: Option<HeaderValue>,
}

impl Request {
    /// Sends the request with this archive, and hands each line of the answer to `take`.
    pub(super) async fn send(
        self,
        docker: &Docker,
        archive: impl Stream<Item = std::io::Result<Bytes>> + Send + 'static,
        mut take: impl FnMut(Message),
    ) -> Result<(), bollard::errors::Error> {
        let target = format!("/build?{}", encode(&self.query));
        let archive = Mutex::new(Some(body_try_stream(archive)));
        let turn_into_build = move |mut request: BollardRequest| {
            let mut parts = request.uri().clone().into_parts();
            parts.path_and_query = PathAndQuery::try_from(target.as_str()).ok();
            *request.uri_mut() = Uri::from_parts(parts).unwrap_or_default();
            *request.method_mut() = Method::POST;
            request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/x-tar"));
            if let Some(credentials) = &self.credentials {
                request.headers_mut().insert(HeaderName::from_static("x-registry-config"), credentials.clone());
            }
            if let Some(archive) = archive.lock().unwrap_or_else(PoisonError::into_inner).take() {
                *request.body_mut() = archive;
            }
            request
        };
        // The one call whose answer comes as plain bytes; the request is made into ours before it is sent.
        let docker = docker.clone().with_timeout(ANSWER_TIMEOUT).with_request_modifier(turn_into_build);
        let answer = docker.export_images(&[]);
        pin_mut!(answer);
        let mut lines = Lines::default();
        while let Some(chunk) = answer.next().await {
            for message in lines.add(&chunk?) {
                take(message);
            }
        }
        Ok(())
    }
}

/// Cuts the answer into lines.
#[derive(Default)]
struct Lines {
    begun: Vec<u8>,
}

impl Lines {
    fn add(&mut self, chunk: &[u8]) -> Vec<Message> {
        let mut messages = Vec::new();
        for piece in chunk.split_inclusive(|byte| *byte == b'\n') {
            self.begun.extend_from_slice(piece);
            if piece.ends_with(b"\n") {
                match serde_json::from_slice(&self.begun) {
                    Ok(message) => messages.push(message),
                    // A kind of line that this version does not know must not fail the build.
                    Err(error) => tracing::debug!(%error, "a line of the build's answer is not understood"),
                }
                self.begun.clear();
            }
        }
        messages
    }
}

/// Writes parameters as a query.
fn encode(parameters: &[(&str, String)]) -> String {
    let mut query = String::new();
    for (name, value) in parameters {
        if !query.is_empty() {
            query.push('&');
        }
        query.push_str(name);
        query.push('=');
        for byte in value.bytes() {
            match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => query.push(char::from(byte)),
                _ => query.push_str(&format!("%{byte:02X}")),
            }
        }
    }
    query
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_escaped() {
        let query = [("t", "a/b:c".to_owned()), ("buildargs", "{\"A\":\"ä &=+\"}".to_owned()), ("q", String::new())];
        assert_eq!(encode(&query), "t=a%2Fb%3Ac&buildargs=%7B%22A%22%3A%22%C3%A4%20%26%3D%2B%22%7D&q=");
    }

    #[test]
    fn lines_are_cut_wherever_the_chunks_end() {
        let text =
            b"{\"stream\":\"a\"}\r\n{\"new\":1}\nnonsense\n{\"error\":\"b\",\"errorDetail\":{}}\n{\"stream\":\"cut";
        for size in [1, 3, 16, text.len()] {
            let mut lines = Lines::default();
            let messages: Vec<Message> = text.chunks(size).flat_map(|chunk| lines.add(chunk)).collect();
            let seen: Vec<_> = messages.iter().map(|m| (m.stream.as_str(), m.error.as_deref())).collect();
            assert_eq!(seen, [("a", None), ("", None), ("", Some("b"))], "{size}");
        }
    }
}
