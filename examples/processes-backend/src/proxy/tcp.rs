//! Whole connections.

use std::sync::Arc;
use std::time::Duration;

use deployer_core::{AppName, ServiceName};
use tokio::io::copy_bidirectional;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::board::{Board, Ticket};

/// A target on this host that does not accept within this time is stuck.
const CONNECT: Duration = Duration::from_secs(2);

pub(super) async fn serve(board: &Arc<Board>, app: &AppName, service: &ServiceName, port: u16, mut from: TcpStream) {
    if let Some((_ticket, mut to)) = connect(board, app, service, port).await {
        // An error is the end of the connection like any other: there is nobody to tell.
        let _ = copy_bidirectional(&mut from, &mut to).await;
    }
}

/// Connects to a target, to another one if the first does not accept. Nothing has been sent to either by then.
pub(super) async fn connect(
    board: &Arc<Board>,
    app: &AppName,
    service: &ServiceName,
    port: u16,
) -> Option<(Ticket, TcpStream)> {
    let mut tried = Vec::new();
    loop {
        let ticket = board.pick(app, service, &tried)?;
        match timeout(CONNECT, TcpStream::connect((ticket.address, port))).await {
            Ok(Ok(stream)) => {
                let _ = stream.set_nodelay(true);
                return Some((ticket, stream));
            }
            Ok(Err(error)) => board.seen(&ticket.instance, Err(error.kind().to_string())),
            Err(_) => board.seen(&ticket.instance, Err("no answer".to_owned())),
        }
        tried.push(ticket.instance.clone());
    }
}
