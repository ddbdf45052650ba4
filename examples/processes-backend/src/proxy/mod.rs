//! The proxy's own process: it accepts connections, brings them to targets, and takes orders over a socket.
//!
//! ```text
//! proxy/table.json      entries, pools and weights; written before a change is answered
//! proxy/control.sock    where balancers ask
//! proxy/keep.json ...   it is kept like an instance: see `keeper`
//! ```
//!
//! It ends when there is nothing left to do.

mod board;
mod control;
mod http;
mod listeners;
mod tcp;

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::net::TcpStream;
use tokio::time::timeout;

pub(crate) use self::board::Board;
use self::control::Control;

/// The first argument of the helper program when it is to be the proxy.
pub(crate) const PROXY: &str = "proxy";

/// The time between two looks at the targets, and how long one may take.
const LOOK: Duration = Duration::from_millis(500);

/// Where balancers ask.
pub(crate) fn socket(directory: &Path) -> PathBuf {
    directory.join("control.sock")
}

pub(crate) fn table_file(directory: &Path) -> PathBuf {
    directory.join("table.json")
}

/// Is the proxy of this directory until it has nothing left to do.
pub(crate) async fn run(directory: PathBuf, ingress: SocketAddr) -> io::Result<()> {
    let board = Arc::new(Board::new(ingress, crate::files::read(&table_file(&directory))?.unwrap_or_default()));
    let control = Control::open(directory, Arc::clone(&board)).await?;
    tokio::select! {
        ended = control.serve() => ended,
        () = look_after(&board, &control) => Ok(()),
    }
}

/// Looks again and again whether targets answer and whether every address is listened on.
async fn look_after(board: &Board, control: &Control) {
    loop {
        // Another program may have had an address when this one was started again, and have let go of it by now.
        control.listen_again().await;
        let looks = board.targets().into_iter().map(|(instance, at)| async move {
            let answer = match timeout(LOOK, TcpStream::connect(at)).await {
                Ok(Ok(_)) => Ok(()),
                Ok(Err(error)) => Err(error.kind().to_string()),
                Err(_) => Err("no answer".to_owned()),
            };
            (instance, answer)
        });
        for (instance, answer) in join_all(looks).await {
            board.seen(&instance, answer);
        }
        let _ = timeout(LOOK, board.targets_changed()).await;
    }
}
