//! Asking every instance of a revision the same question, past the load balancer.
//!
//! Instances have addresses inside their VPC: they answer a program that runs there, and nobody else.

use std::error::Error as StdError;
use std::time::Duration;

use deployer_core::{Clock as _, InstanceId, InstancePhase, ObserveApp, Result, SmokeAnswer, SmokeRequest, SystemClock};
use futures_util::future::join_all;
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::site::Site;

/// How much of a body is kept.
const BODY_BYTES: usize = 64 * 1024;

impl Site {
    pub(super) async fn ask_instances(&self, request: &SmokeRequest) -> Result<Vec<SmokeAnswer>> {
        let observed = self.observe_app(&ObserveApp::new(request.app.clone())).await?;
        let asked = observed.instances.into_iter().filter(|instance| {
            instance.revision == request.revision && instance.phase == InstancePhase::Running
        });
        let left = request.deadline.since(SystemClock.now());
        let answers = asked.map(async |instance| SmokeAnswer {
            answer: match &instance.address {
                Some(address) => within(left, get(address, request.port, &request.path)).await,
                None => Err("it has no address yet".to_owned()),
            },
            instance: InstanceId::clone(&instance.id),
        });
        Ok(join_all(answers).await)
    }
}

type Answer = std::result::Result<(u16, String), String>;

async fn within(left: Duration, answer: impl Future<Output = Answer>) -> Answer {
    if left.is_zero() {
        return Err("no time is left to ask it".to_owned());
    }
    let late = || Err(format!("no answer within {} ms; only programs inside the VPC reach it", left.as_millis()));
    timeout(left, answer).await.unwrap_or_else(|_| late())
}

async fn get(address: &str, port: u16, path: &str) -> Answer {
    let at = format!("{address}:{port}");
    let stream = TcpStream::connect(&at).await.map_err(|error| reason(&error))?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| reason(&error))?;
    let request = hyper::Request::get(path)
        .header(hyper::header::HOST, at)
        .header(hyper::header::USER_AGENT, concat!("deployer/", env!("CARGO_PKG_VERSION")))
        .header(hyper::header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|error| reason(&error))?;
    let exchange = async move {
        let mut response = sender.send_request(request).await.map_err(|error| reason(&error))?;
        let mut body = Vec::new();
        while body.len() < BODY_BYTES {
            let Some(frame) = response.frame().await else { break };
            if let Some(data) = frame.map_err(|error| reason(&error))?.data_ref() {
                body.extend_from_slice(&data[..data.len().min(BODY_BYTES - body.len())]);
            }
        }
        Ok((response.status().as_u16(), String::from_utf8_lossy(&body).into_owned()))
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
    innermost.to_string()
}
