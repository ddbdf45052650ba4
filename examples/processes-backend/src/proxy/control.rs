//! Taking orders.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use deployer_core::{ErrorKind, Outcome};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Mutex, Notify};

use super::board::Board;
use super::listeners::Listeners;
use super::{socket, table_file};
use crate::balancer::table::Table;
use crate::balancer::wire::{Answer, Refusal, Reply, Request};
use crate::files::{self, Durable};

/// Takes one order after the other.
#[derive(Debug)]
pub(super) struct Control {
    orders: Arc<Orders>,
    socket: UnixListener,
}

#[derive(Debug)]
struct Orders {
    directory: PathBuf,
    board: Arc<Board>,
    /// Held while the table is changed.
    listeners: Mutex<Listeners>,
    nothing_left: Notify,
}

impl Control {
    pub(super) async fn open(directory: PathBuf, board: Arc<Board>) -> io::Result<Self> {
        let path = socket(&directory);
        // One that was killed has left its own. The keeper sees to it that there are never two.
        files::absent(std::fs::remove_file(&path))?;
        let mut listeners = Listeners::default();
        listeners.try_add(&board, &board.table()).await;
        let orders = Orders { directory, board, listeners: Mutex::new(listeners), nothing_left: Notify::new() };
        Ok(Self { orders: Arc::new(orders), socket: UnixListener::bind(path)? })
    }

    /// Returns when there is nothing left to do.
    pub(super) async fn serve(&self) -> io::Result<()> {
        loop {
            tokio::select! {
                accepted = self.socket.accept() => {
                    let orders = Arc::clone(&self.orders);
                    // Ends with its connection.
                    tokio::spawn(async move { orders.take_from(accepted?.0).await });
                }
                () = self.orders.nothing_left.notified() => return Ok(()),
            }
        }
    }

    pub(super) async fn listen_again(&self) {
        let Orders { board, listeners, .. } = &*self.orders;
        listeners.lock().await.try_add(board, &board.table()).await;
    }
}

impl Orders {
    async fn take_from(&self, stream: UnixStream) -> io::Result<()> {
        let (mut stream, mut line) = (BufReader::new(stream), String::new());
        while stream.read_line(&mut line).await? > 0 {
            let reply = self.take(serde_json::from_str(&line)?).await;
            let nothing_left = self.board.read(Table::is_empty);
            if nothing_left {
                // Before the answer: nobody shall ask who has heard that there is nothing any more.
                files::absent(std::fs::remove_file(socket(&self.directory)))?;
            }
            let mut text = serde_json::to_vec(&reply)?;
            text.push(b'\n');
            stream.write_all(&text).await?;
            line.clear();
            if nothing_left {
                self.nothing_left.notify_one();
            }
        }
        Ok(())
    }

    async fn take(&self, request: Request) -> Reply {
        if let Request::Observe { app } = request {
            return Ok(Answer::Observed(self.board.observe(&app)));
        }
        let mut listeners = self.listeners.lock().await;
        let mut table = self.board.table();
        let outcome = match &request {
            Request::Ensure { app, entries } => table.ensure(app, self.board.ingress, entries)?,
            Request::SetTargets { app, revision, port, targets } => {
                table.set_targets(app, revision, *port, targets.clone())?
            }
            Request::SetWeights { app, service, weights, expected } => {
                table.set_weights(app, service, weights, expected)?
            }
            Request::Retain { app, entries, pools } => table.retain(app, entries, pools),
            Request::Observe { .. } => Outcome::AlreadyThere,
        };
        // In this order: what can fail, what must not be lost, what everybody sees.
        listeners.add(&self.board, &table).await?;
        if let Err(error) = self.write(&table) {
            listeners.remove(&self.board, &self.board.table());
            let message = format!("the proxy cannot write its table: {error}");
            return Err(Refusal::new(ErrorKind::Unavailable, "table.json", message));
        }
        listeners.remove(&self.board, &table);
        self.board.replace(table);
        Ok(Answer::Done(outcome))
    }

    fn write(&self, table: &Table) -> io::Result<()> {
        let path = table_file(&self.directory);
        if table.is_empty() {
            return files::absent(std::fs::remove_file(path)).map(|_| ());
        }
        files::replace(&path, table, Durable::Yes)
    }
}
