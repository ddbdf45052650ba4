//! Asking an instance from outside, past every proxy.

use std::collections::HashMap;
use std::error::Error as StdError;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use deployer_core::{Probe, Readiness};
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::time::{Instant, timeout};

use super::state::Probed;
use crate::reach::Path;
use crate::time::EngineTime;

/// The longest that one probe holds up an observation.
const LONGEST: Duration = Duration::from_millis(250);

/// How much longer it may take where it is a program that the engine has to start first.
const RELAYING: Duration = Duration::from_secs(2);

/// How long one that has not passed yet is left alone then.
const PAUSE_RELAYED: Duration = Duration::from_millis(300);

/// How many failures in a row make one that has passed count as failing.
const FALL: u32 = 2;

/// Probes instances, and remembers those that passed so as not to ask them more often than their interval says.
#[derive(Default)]
pub(super) struct Prober {
    // By container. What is remembered of one start says nothing about the next.
    seen: Mutex<HashMap<String, Seen>>,
    // What relayed probes said of containers that have not passed yet.
    waiting: Mutex<HashMap<String, (Instant, String)>>,
}

#[derive(Clone)]
struct Seen {
    started: Option<EngineTime>,
    asked: Instant,
    failures: u32,
    answer: Result<(), String>,
}

impl Seen {
    fn probed(&self) -> Probed {
        match &self.answer {
            Err(detail) if self.failures >= FALL => Probed::Fails(detail.clone()),
            _ => Probed::Passes,
        }
    }
}

impl Prober {
    /// Asks a container, or answers what is remembered of this start of it.
    pub(super) async fn ask(
        &self,
        path: &Path,
        container: &str,
        started: Option<EngineTime>,
        address: IpAddr,
        probe: &Probe,
        readiness: &Readiness,
    ) -> Probed {
        let passed = self.lock().get(container).filter(|seen| seen.started == started).cloned();
        if let Some(seen) = passed.as_ref().filter(|seen| seen.asked.elapsed() < readiness.interval) {
            return seen.probed();
        }
        let (more, pause) = match path {
            Path::Direct => (Duration::ZERO, Duration::ZERO),
            Path::Relayed(_) => (RELAYING, PAUSE_RELAYED),
        };
        if passed.is_none()
            && let Some(detail) = self.waiting(container, pause)
        {
            return Probed::NotYet(detail);
        }
        let asked = Instant::now();
        let limit = readiness.timeout.min(LONGEST) + more;
        let answer = match timeout(limit, once(path, address, probe)).await {
            Ok(answer) => answer,
            Err(_) => Err(format!("no answer within {} ms", limit.as_millis())),
        };
        let failures = match (&answer, &passed) {
            (Ok(()), _) => 0,
            (Err(_), Some(seen)) => seen.failures + 1,
            (Err(detail), None) => {
                if !pause.is_zero() {
                    let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
                    waiting.insert(container.to_owned(), (Instant::now(), detail.clone()));
                }
                return Probed::NotYet(detail.clone());
            }
        };
        let seen = Seen { started, asked, failures, answer };
        let probed = seen.probed();
        self.lock().insert(container.to_owned(), seen);
        probed
    }

    /// Forgets a container that is gone.
    pub(super) fn forget(&self, container: &str) {
        self.lock().remove(container);
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(container);
    }

    fn waiting(&self, container: &str, pause: Duration) -> Option<String> {
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.get(container).filter(|(asked, _)| asked.elapsed() < pause).map(|(_, detail)| detail.clone())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Seen>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn once(to: &Path, address: IpAddr, probe: &Probe) -> Result<(), String> {
    let at = SocketAddr::new(address, probe.port());
    match probe {
        Probe::Tcp { .. } => to.check(at).await.map_err(|error| reason(&error)),
        Probe::Http { path, .. } => match get(to, at, path, 0).await {
            Ok((200..=399, _)) => Ok(()),
            Ok((status, _)) => Err(format!("GET {path} answered {status}")),
            Err(why) => Err(why),
        },
    }
}

/// Sends a GET request and reads the status and so many bytes of the body, or says why not. Cancel safe.
pub(super) async fn get(to: &Path, at: SocketAddr, path: &str, limit: usize) -> Result<(u16, Vec<u8>), String> {
    let stream = to.connect(at).await.map_err(|error| reason(&error))?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| reason(&error))?;
    let request = hyper::Request::get(path)
        .header(hyper::header::HOST, at.to_string())
        .header(hyper::header::USER_AGENT, concat!("deployer/", env!("CARGO_PKG_VERSION")))
        .header(hyper::header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|error| reason(&error))?;
    let exchange = async move {
        let mut response = sender.send_request(request).await.map_err(|error| reason(&error))?;
        let mut body = Vec::new();
        while body.len() < limit {
            let Some(frame) = response.frame().await else { break };
            if let Some(data) = frame.map_err(|error| reason(&error))?.data_ref() {
                body.extend_from_slice(&data[..data.len().min(limit - body.len())]);
            }
        }
        Ok((response.status().as_u16(), body))
    };
    // Not a task of its own: it must end with this future.
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

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// Answers each connection with the next of these texts, and closes it.
    async fn answering(answers: Vec<&'static str>) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        tokio::spawn(async move {
            for answer in answers {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = [0; 1024];
                let _ = stream.read(&mut request).await;
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        at
    }

    const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello";
    const BROKEN: &str = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n";

    fn readiness(interval: Duration) -> Readiness {
        let mut readiness = Readiness::default();
        readiness.interval = interval;
        readiness
    }

    async fn ask(prober: &Prober, at: SocketAddr, readiness: &Readiness) -> Probed {
        let probe = Probe::Http { path: "/ready".into(), port: at.port() };
        prober.ask(&Path::Direct, "c", None, at.ip(), &probe, readiness).await
    }

    #[tokio::test]
    async fn the_body_is_read_up_to_the_limit() {
        let at = answering(vec![OK, OK]).await;
        assert_eq!(get(&Path::Direct, at, "/", 99).await, Ok((200, b"hello".to_vec())));
        assert_eq!(get(&Path::Direct, at, "/", 2).await, Ok((200, b"he".to_vec())));
    }

    #[tokio::test]
    async fn reasons_are_short() {
        let at = answering(vec![BROKEN, "what?\r\n\r\n"]).await;
        let prober = Prober::default();
        let interval = readiness(Duration::ZERO);
        assert_eq!(ask(&prober, at, &interval).await, Probed::NotYet("GET /ready answered 503".into()));
        assert_eq!(ask(&prober, at, &interval).await, Probed::NotYet("invalid HTTP version parsed".into()));
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        assert_eq!(ask(&prober, closed, &interval).await, Probed::NotYet("connection refused".into()));
    }

    #[tokio::test]
    async fn one_that_passed_is_not_asked_before_its_interval() {
        let at = answering(vec![OK]).await;
        let prober = Prober::default();
        let interval = readiness(Duration::from_secs(3600));
        for _ in 0..3 {
            assert_eq!(ask(&prober, at, &interval).await, Probed::Passes, "only one connection is answered");
        }
    }

    #[tokio::test]
    async fn one_that_passed_has_to_fail_twice() {
        let at = answering(vec![OK, BROKEN, BROKEN, OK]).await;
        let prober = Prober::default();
        let interval = readiness(Duration::ZERO);
        assert_eq!(ask(&prober, at, &interval).await, Probed::Passes);
        assert_eq!(ask(&prober, at, &interval).await, Probed::Passes);
        assert_eq!(ask(&prober, at, &interval).await, Probed::Fails("GET /ready answered 503".into()));
        assert_eq!(ask(&prober, at, &interval).await, Probed::Passes);
    }

    #[tokio::test]
    async fn another_start_has_to_pass_anew() {
        let at = answering(vec![OK, BROKEN]).await;
        let prober = Prober::default();
        let interval = readiness(Duration::from_secs(3600));
        assert_eq!(ask(&prober, at, &interval).await, Probed::Passes);
        let probe = Probe::Http { path: "/ready".into(), port: at.port() };
        let started = EngineTime::parse("2026-11-21T22:00:00Z");
        let again = prober.ask(&Path::Direct, "c", started, at.ip(), &probe, &interval).await;
        assert_eq!(again, Probed::NotYet("GET /ready answered 503".into()));
    }
}
