//! How addresses inside the engine's networks are reached from this process.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// A byte stream to something inside the engine's networks.
pub(crate) trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Connection for T {}

/// The way to addresses inside the engine's networks.
#[derive(Clone, Debug, Default)]
pub(crate) enum Reach {
    /// This process is on the engine's host: containers' addresses are reachable as they are.
    #[default]
    Direct,
}

impl Reach {
    /// Opens a connection. Cancel safe.
    pub(crate) async fn connect(&self, address: SocketAddr) -> io::Result<Box<dyn Connection>> {
        match self {
            Self::Direct => {
                let stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                Ok(Box::new(stream))
            }
        }
    }
}
