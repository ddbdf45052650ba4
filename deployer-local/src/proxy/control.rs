//! The ways to a proxy's two control sockets.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::config::{CONTROL_PORT, MASTER_PORT};
use crate::reach::Relay;

/// The longest line that HAProxy takes is a buffer of 16 kB; a longer batch goes in several.
const LONGEST_LINE: usize = 12 << 10;

const PATIENCE: Duration = Duration::from_secs(3);

/// The same where each question is a program that the engine has to start.
const RELAYED_PATIENCE: Duration = Duration::from_secs(10);

/// Sends each line to its port, and ends each answer with a byte that no answer has.
const TALK: &str = "while [ $# -gt 1 ]; do \
                    printf '%s\\n' \"$2\" | nc 127.0.0.1 \"$1\" || exit 1; printf '\\036'; shift 2; done";

/// The two control sockets of one HAProxy.
#[derive(Clone, Debug)]
pub(super) enum Control {
    /// In this directory, which is shared with its container.
    Sockets(PathBuf),
    /// On the loopback of its container.
    Relayed(Relay),
}

impl Control {
    /// Sends commands to the worker that takes new connections, as one line if they fit. Answers all that it said.
    pub(super) async fn ask(&self, commands: &[String]) -> io::Result<String> {
        match self {
            Self::Sockets(directory) => {
                let mut answer = String::new();
                for line in lines(commands) {
                    answer.push_str(&say(directory, "admin.sock", &line).await?);
                }
                Ok(answer)
            }
            Self::Relayed(relay) => {
                let lines = lines(commands).into_iter().map(|line| (CONTROL_PORT, line)).collect();
                Ok(talk(relay, lines).await?.concat())
            }
        }
    }

    /// Sends one command to the master process.
    pub(super) async fn ask_master(&self, command: &str) -> io::Result<String> {
        match self {
            Self::Sockets(directory) => say(directory, "master.sock", command).await,
            Self::Relayed(relay) => Ok(talk(relay, vec![(MASTER_PORT, command.to_owned())]).await?.concat()),
        }
    }

    /// Sends commands to the worker and one to the master, at the price of one question if that makes a difference.
    pub(super) async fn ask_both(&self, commands: &[String], master: &str) -> io::Result<(String, String)> {
        match self {
            Self::Sockets(_) => Ok((self.ask(commands).await?, self.ask_master(master).await?)),
            Self::Relayed(relay) => {
                let mut lines: Vec<_> = lines(commands).into_iter().map(|line| (CONTROL_PORT, line)).collect();
                lines.push((MASTER_PORT, master.to_owned()));
                let mut answers = talk(relay, lines).await?;
                let last = answers.pop().unwrap_or_default();
                Ok((answers.concat(), last))
            }
        }
    }
}

/// As few lines as hold these commands.
fn lines(commands: &[String]) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for command in commands {
        match lines.last_mut() {
            Some(line) if line.len() + command.len() < LONGEST_LINE => {
                line.push(';');
                line.push_str(command);
            }
            _ => lines.push(command.clone()),
        }
    }
    lines
}

async fn talk(relay: &Relay, lines: Vec<(u16, String)>) -> io::Result<Vec<String>> {
    let count = lines.len();
    let arguments = lines.into_iter().flat_map(|(port, line)| [port.to_string(), line]).collect();
    let said = tokio::time::timeout(RELAYED_PATIENCE, relay.run(TALK, arguments)).await;
    let (said, complaints) = said.map_err(|_| late())??;
    let mut answers: Vec<String> = said.split('\u{1e}').map(str::to_owned).collect();
    let rest = answers.pop().unwrap_or_default();
    if answers.len() == count {
        return Ok(answers);
    }
    // The same kind as when the master begins anew over a command to reload.
    Err(io::Error::new(io::ErrorKind::ConnectionReset, format!("{rest}{complaints}").trim().to_owned()))
}

async fn say(directory: &Path, socket: &str, line: &str) -> io::Result<String> {
    let talk = async {
        let mut stream = connect(directory, socket).await?;
        stream.write_all(line.as_bytes()).await?;
        stream.write_all(b"\n").await?;
        // The master keeps the connection open for more unless it is told that there will be none.
        stream.shutdown().await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    };
    tokio::time::timeout(PATIENCE, talk).await.unwrap_or_else(|_| Err(late()))
}

fn late() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "the proxy did not answer in time")
}

/// Connects to a socket in a directory whose path may be longer than the 108 bytes that a socket's address may have.
async fn connect(directory: &Path, socket: &str) -> io::Result<UnixStream> {
    let path = directory.join(socket);
    if path.as_os_str().len() < 100 || !cfg!(target_os = "linux") {
        return UnixStream::connect(path).await;
    }
    use std::os::fd::AsRawFd as _;
    let directory = std::fs::File::open(directory)?;
    UnixStream::connect(format!("/proc/self/fd/{}/{socket}", directory.as_raw_fd())).await
}
