//! How addresses inside the engine's networks are reached from this process.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bollard::container::LogOutput;
use bollard::exec::StartExecResults;
use bollard::models::ExecConfig;
use deployer_core::{AppName, ServiceName};
use futures_util::StreamExt as _;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, DuplexStream, ReadBuf};
use tokio::net::TcpStream;

use crate::engine::Engine;
use crate::naming;

/// A byte stream to something inside the engine's networks.
pub(crate) trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Connection for T {}

/// The way to addresses inside the engine's networks.
#[derive(Clone, Debug, Default)]
pub(crate) enum Reach {
    /// This process is on the engine's host: containers' addresses are reachable as they are.
    #[default]
    Direct,
    /// Only the engine is: what is to be reached of a service is reached from within its proxy's container.
    Relayed(Engine),
}

/// The way to the instances of one service.
#[derive(Clone, Debug)]
pub(crate) enum Path {
    /// As they are.
    Direct,
    /// Through a container.
    Relayed(Relay),
}

impl Reach {
    /// The way to a service's instances. Every service that listens has a proxy from the start, in all of its networks.
    pub(crate) fn to(&self, app: &AppName, service: &ServiceName) -> Path {
        match self {
            Self::Direct => Path::Direct,
            Self::Relayed(engine) => Path::Relayed(Relay::new(engine.clone(), naming::service_proxy(app, service))),
        }
    }
}

impl Path {
    /// Opens a connection. Cancel safe.
    pub(crate) async fn connect(&self, address: SocketAddr) -> io::Result<Box<dyn Connection>> {
        match self {
            Self::Direct => {
                let stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                Ok(Box::new(stream))
            }
            Self::Relayed(relay) => Ok(Box::new(relay.connect(address).await?)),
        }
    }

    /// Fails unless a connection can be opened. Cancel safe.
    pub(crate) async fn check(&self, address: SocketAddr) -> io::Result<()> {
        match self {
            Self::Direct => self.connect(address).await.map(drop),
            Self::Relayed(relay) => relay.check(address).await,
        }
    }
}

/// How long an end of a relayed connection may go on alone.
const LINGER: Duration = Duration::from_secs(30);

/// Runs small programs of a container that is in the right place. The Engine API is all that it needs.
#[derive(Clone, Debug)]
pub(crate) struct Relay {
    engine: Engine,
    container: String,
}

type Output = Pin<Box<dyn futures_util::Stream<Item = Result<LogOutput, bollard::errors::Error>> + Send>>;
type Input = Pin<Box<dyn AsyncWrite + Send>>;

impl Relay {
    /// A relay through this container.
    pub(crate) fn new(engine: Engine, container: String) -> Self {
        Self { engine, container }
    }

    async fn exec(&self, command: Vec<String>, input: bool) -> io::Result<(Output, Input)> {
        let docker = self.engine.docker();
        let exec = ExecConfig {
            cmd: Some(command),
            attach_stdin: Some(input),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            ..ExecConfig::default()
        };
        let id = docker.create_exec(&self.container, exec).await.map_err(io::Error::other)?.id;
        match docker.start_exec(&id, None).await.map_err(io::Error::other)? {
            StartExecResults::Attached { output, input } => Ok((output, input)),
            StartExecResults::Detached => Err(io::Error::other("the engine did not attach to what it runs")),
        }
    }

    /// Runs a script of the container's shell with these arguments. Answers what it wrote, and its complaints.
    pub(crate) async fn run(&self, script: &str, arguments: Vec<String>) -> io::Result<(String, String)> {
        let mut command: Vec<String> = ["sh", "-c", script, "relay"].map(str::to_owned).to_vec();
        command.extend(arguments);
        let (mut output, _input) = self.exec(command, false).await?;
        let (mut said, mut complaints) = (Vec::new(), Vec::new());
        while let Some(chunk) = output.next().await {
            match chunk.map_err(io::Error::other)? {
                LogOutput::StdErr { message } => complaints.extend_from_slice(&message),
                other => said.extend_from_slice(&other.into_bytes()),
            }
        }
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok((text(&said), text(&complaints)))
    }

    async fn check(&self, address: SocketAddr) -> io::Result<()> {
        let arguments = vec![address.ip().to_string(), address.port().to_string()];
        let (said, complaints) = self.run("nc -w 1 \"$1\" \"$2\" -e true && echo connected", arguments).await?;
        if said.trim() == "connected" { Ok(()) } else { Err(refused(&(said + &complaints))) }
    }

    async fn connect(&self, address: SocketAddr) -> io::Result<Relayed> {
        let (ip, port) = (address.ip().to_string(), address.port().to_string());
        let command = ["nc", "-w", "1", &ip, &port].map(str::to_owned).to_vec();
        let (output, input) = self.exec(command, true).await?;
        let (near, far) = tokio::io::duplex(16 << 10);
        let complaint = Arc::new(Mutex::new(None));
        // Ends with the connection: when the other end closes, or a while after this one is dropped.
        tokio::spawn(pump(far, output, input, Arc::clone(&complaint)));
        Ok(Relayed { near, complaint })
    }
}

fn refused(complaint: &str) -> io::Error {
    let reason = complaint.trim().rsplit(": ").next().unwrap_or_default().to_ascii_lowercase();
    let reason = if reason.is_empty() { "no connection".to_owned() } else { reason };
    io::Error::new(io::ErrorKind::ConnectionRefused, reason)
}

type Complaint = Arc<Mutex<Option<String>>>;

async fn pump(far: DuplexStream, mut output: Output, mut input: Input, complaint: Complaint) {
    let (mut from, mut to) = tokio::io::split(far);
    let receive = async move {
        while let Some(Ok(chunk)) = output.next().await {
            match chunk {
                LogOutput::StdErr { message } => {
                    let text = String::from_utf8_lossy(&message).into_owned();
                    complaint.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(text);
                }
                other => {
                    if to.write_all(&other.into_bytes()).await.is_err() {
                        break;
                    }
                }
            }
        }
    };
    tokio::pin!(receive);
    let send = async {
        let sent = tokio::io::copy(&mut from, &mut input).await;
        sent.and(input.shutdown().await)
    };
    tokio::select! {
        () = &mut receive => {}
        // What cannot be sent any more may still be answered.
        _ = send => drop(tokio::time::timeout(LINGER, receive).await),
    }
}

/// A connection through a container.
#[derive(Debug)]
struct Relayed {
    near: DuplexStream,
    complaint: Complaint,
}

impl AsyncRead for Relayed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.near).poll_read(context, buffer);
        if matches!(polled, Poll::Ready(Ok(()))) && buffer.filled().len() == before {
            // The end. If there never was a connection, this is where it is known.
            let complaint = self.complaint.lock().unwrap_or_else(PoisonError::into_inner).take();
            return Poll::Ready(complaint.map_or(Ok(()), |complaint| Err(refused(&complaint))));
        }
        polled
    }
}

impl AsyncWrite for Relayed {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.near).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.near).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.near).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complaints_become_short_reasons() {
        let refused = |text| refused(text).to_string();
        assert_eq!(refused("nc: can't connect to remote host (10.0.0.2): Connection refused\n"), "connection refused");
        assert_eq!(refused(""), "no connection");
    }
}
