//! The addresses on which the proxy listens.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use deployer_core::ErrorKind;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::board::Board;
use super::{http, tcp};
use crate::balancer::table::Table;
use crate::balancer::wire::Refusal;

/// Listeners by address. What is done with a connection is looked up in the table when it comes in.
#[derive(Debug, Default)]
pub(super) struct Listeners {
    accepting: BTreeMap<SocketAddr, JoinSet<()>>,
}

/// What a table wants to be listened on.
fn wanted(board: &Board, table: &Table) -> BTreeSet<SocketAddr> {
    table.addresses().chain(table.has_routes().then_some(board.ingress)).collect()
}

impl Listeners {
    /// Listens on what the table wants beside what is listened on: on all of it, or on none.
    pub(super) async fn add(&mut self, board: &Arc<Board>, table: &Table) -> Result<(), Refusal> {
        let mut bound = Vec::new();
        for at in wanted(board, table).into_iter().filter(|at| !self.accepting.contains_key(at)) {
            bound.push((at, TcpListener::bind(at).await.map_err(|error| taken(at, &error))?));
        }
        for (at, listener) in bound {
            self.accept(board, at, listener);
        }
        Ok(())
    }

    /// Listens on as much of it as can be had.
    pub(super) async fn try_add(&mut self, board: &Arc<Board>, table: &Table) {
        for at in wanted(board, table) {
            if !self.accepting.contains_key(&at)
                && let Ok(listener) = TcpListener::bind(at).await
            {
                self.accept(board, at, listener);
            }
        }
    }

    /// Listens no more on what the table does not want. Connections that are open stay so.
    pub(super) fn remove(&mut self, board: &Board, table: &Table) {
        let wanted = wanted(board, table);
        self.accepting.retain(|at, _| wanted.contains(at));
    }

    fn accept(&mut self, board: &Arc<Board>, at: SocketAddr, listener: TcpListener) {
        let board = Arc::clone(board);
        let mut accepting = JoinSet::new();
        accepting.spawn(async move {
            loop {
                match listener.accept().await {
                    Ok((stream, peer)) => {
                        // A task of its own, which outlives the listener: it ends with its connection.
                        tokio::spawn(serve(Arc::clone(&board), at, stream, peer));
                    }
                    // The other end has gone, or there are too many files open: that passes.
                    Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                    Err(_) => tokio::time::sleep(std::time::Duration::from_millis(20)).await,
                }
            }
        });
        self.accepting.insert(at, accepting);
    }
}

async fn serve(board: Arc<Board>, at: SocketAddr, stream: TcpStream, peer: SocketAddr) {
    let _ = stream.set_nodelay(true);
    if at == board.ingress {
        return http::serve(board, http::Entrance::Routes, stream, peer).await;
    }
    let found = board.read(|table| {
        table.listener(at).map(|(app, service, listener)| (app.clone(), service.clone(), listener.clone()))
    });
    match found {
        Some((_, _, listener)) if listener.http => http::serve(board, http::Entrance::Address(at), stream, peer).await,
        Some((app, service, listener)) => tcp::serve(&board, &app, &service, listener.port, stream).await,
        None => {}
    }
}

fn taken(at: SocketAddr, error: &io::Error) -> Refusal {
    match error.kind() {
        io::ErrorKind::AddrInUse => Refusal::new(ErrorKind::Exhausted, at, "another program listens on the address"),
        io::ErrorKind::PermissionDenied => {
            Refusal::new(ErrorKind::PermissionDenied, at, "the proxy may not listen on the address")
        }
        _ => Refusal::new(ErrorKind::InvalidInput, at, format!("the proxy cannot listen on the address: {error}")),
    }
}
