//! Asking instances from outside, past the proxy.

use std::collections::HashMap;
use std::error::Error as StdError;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use deployer_core::{InstanceId, Probe, Readiness, Timestamp};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::record::Record;
use crate::keeper::Status;

/// The longest that one probe holds up an observation, whatever the release allows: the engine looks again soon.
const LONGEST: Duration = Duration::from_millis(500);
/// So many failures in a row make one that has passed count as failing.
const FALL: u32 = 2;

/// What a probe said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Probed {
    Passes,
    /// It has not passed since the instance was started.
    NotYet(String),
    Fails(String),
}

/// Probes instances, those that have passed not more often than their interval says.
#[derive(Debug, Default)]
pub(super) struct Prober {
    passed: Mutex<HashMap<InstanceId, Passed>>,
}

#[derive(Clone, Debug)]
struct Passed {
    /// Of which start. What is known of one says nothing about the next.
    started: Option<Timestamp>,
    asked: Instant,
    failures: u32,
    detail: String,
}

impl Passed {
    fn probed(&self) -> Probed {
        if self.failures >= FALL { Probed::Fails(self.detail.clone()) } else { Probed::Passes }
    }
}

impl Prober {
    pub(super) async fn ask(&self, record: &Record, status: &Status, probe: &Probe, readiness: &Readiness) -> Probed {
        let started = status.started_at;
        let passed = self.lock().get(&record.id).filter(|passed| passed.started == started).cloned();
        if let Some(passed) = passed.as_ref().filter(|passed| passed.asked.elapsed() < readiness.interval) {
            return passed.probed();
        }
        let (asked, limit) = (Instant::now(), readiness.timeout.min(LONGEST));
        let answer = match timeout(limit, once((record.address, probe.port()).into(), probe)).await {
            Ok(answer) => answer,
            Err(_) => Err(format!("no answer within {} ms", limit.as_millis())),
        };
        let (failures, detail) = match (answer, passed) {
            (Ok(()), _) => (0, String::new()),
            (Err(detail), Some(passed)) => (passed.failures + 1, detail),
            (Err(detail), None) => return Probed::NotYet(detail),
        };
        let passed = Passed { started, asked, failures, detail };
        let probed = passed.probed();
        self.lock().insert(record.id.clone(), passed);
        probed
    }

    /// Forgets an instance that is gone.
    pub(super) fn forget(&self, id: &InstanceId) {
        self.lock().remove(id);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<InstanceId, Passed>> {
        self.passed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn once(at: SocketAddr, probe: &Probe) -> Result<(), String> {
    match probe {
        Probe::Tcp { .. } => TcpStream::connect(at).await.map(|_| ()).map_err(|error| reason(&error)),
        Probe::Http { path, .. } => match get(at, path, 0).await? {
            (200..=399, _) => Ok(()),
            (status, _) => Err(format!("GET {path} answered {status}")),
        },
    }
}

/// The status and so many bytes of the body that a GET request is answered with, or why there is no answer.
pub(super) async fn get(at: SocketAddr, path: &str, limit: usize) -> Result<(u16, Vec<u8>), String> {
    let stream = TcpStream::connect(at).await.map_err(|error| reason(&error))?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| reason(&error))?;
    let request = hyper::Request::get(path).header(hyper::header::HOST, at.to_string());
    let request = request.header(hyper::header::CONNECTION, "close").body(Empty::<Bytes>::new());
    let request = request.map_err(|error| reason(&error))?;
    let exchange = async move {
        let mut response = sender.send_request(request).await.map_err(|error| reason(&error))?;
        let mut body = Vec::new();
        while body.len() < limit {
            let Some(frame) = response.frame().await else { break };
            let frame = frame.map_err(|error| reason(&error))?;
            let data = frame.data_ref().map(|data| &data[..data.len().min(limit - body.len())]);
            body.extend_from_slice(data.unwrap_or_default());
        }
        Ok((response.status().as_u16(), body))
    };
    // Within this future, so that they end with it.
    tokio::pin!(exchange, connection);
    tokio::select! {
        answer = &mut exchange => answer,
        // The other end is done. What it has sent is still to be read.
        _ = &mut connection => exchange.await,
    }
}

/// The innermost reason: `connection refused` rather than what could not be done because of it.
fn reason(error: &(dyn StdError + 'static)) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    match innermost.downcast_ref::<std::io::Error>() {
        Some(error) if error.raw_os_error().is_some() => error.kind().to_string(),
        _ => innermost.to_string(),
    }
}
