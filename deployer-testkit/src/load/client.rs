//! The HTTP/1.1 client of the load generator: one request at a time on one connection, the body read and thrown away.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{Load, LossKind};

/// More than any sane answer's head; protects the generator from an endless one.
const HEAD_LIMIT_BYTES: usize = 64 * 1024;

/// An answer that arrived in full.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) version: Option<String>,
    /// Whether the connection can carry another request.
    pub(super) reusable: bool,
}

/// One connection and what was read from it but not yet used.
#[derive(Debug)]
pub(super) struct Connection {
    stream: TcpStream,
    unread: Vec<u8>,
}

impl Connection {
    pub(super) async fn open(address: SocketAddr, patience: Duration) -> Result<Self, LossKind> {
        let stream = match timeout(patience, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                return Err(match error.kind() {
                    ErrorKind::ConnectionRefused => LossKind::ConnectRefused,
                    ErrorKind::TimedOut => LossKind::ConnectTimeout,
                    ErrorKind::ConnectionReset => LossKind::Reset,
                    _ => LossKind::ConnectFailed,
                });
            }
            Err(_) => return Err(LossKind::ConnectTimeout),
        };
        // Without it the kernel may hold a request back; failing to set it only costs time.
        let _ = stream.set_nodelay(true);
        Ok(Self { stream, unread: Vec::new() })
    }

    /// Whether nothing has arrived since the last answer: neither the end of the connection nor bytes nobody asked for.
    pub(super) fn is_quiet(&self) -> bool {
        let mut byte = [0];
        self.unread.is_empty()
            && matches!(self.stream.try_read(&mut byte), Err(error) if error.kind() == ErrorKind::WouldBlock)
    }

    /// Sends the request of `load` and reads the whole answer.
    pub(super) async fn exchange(&mut self, load: &Load, keep_alive: bool) -> Result<Answer, LossKind> {
        let close = if keep_alive { "" } else { "Connection: close\r\n" };
        let request = format!(
            "GET {} HTTP/1.1\r\nHost: {}\r\nUser-Agent: deployer-load\r\nAccept: */*\r\n{close}\r\n",
            load.path, load.host
        );
        self.stream.write_all(request.as_bytes()).await.map_err(|error| before_answer(&error))?;
        let mut head = self.head(&load.version_header).await?;
        loop {
            // Interim answers (1xx) come before the real one. 101 would be a change of protocol, which nobody asked for.
            if head.status == 101 {
                return Err(LossKind::Malformed);
            }
            if head.status >= 200 {
                self.skip_body(head.body).await?;
                return Ok(Answer { status: head.status, version: head.version, reusable: head.reusable });
            }
            head = self.head(&load.version_header).await.map_err(|kind| match kind {
                LossKind::Reset | LossKind::ClosedBeforeAnswer => LossKind::Truncated,
                other => other,
            })?;
        }
    }

    async fn head(&mut self, version_header: &str) -> Result<Head, LossKind> {
        loop {
            if let Some(end) = find(&self.unread, b"\r\n\r\n") {
                let text = self.unread.drain(..end + 4).collect::<Vec<_>>();
                return std::str::from_utf8(&text)
                    .ok()
                    .and_then(|text| Head::parse(text, version_header))
                    .ok_or(LossKind::Malformed);
            }
            if self.unread.len() > HEAD_LIMIT_BYTES {
                return Err(LossKind::Malformed);
            }
            let begun = !self.unread.is_empty();
            match self.read_more().await {
                Ok(0) if begun => return Err(LossKind::Truncated),
                Ok(0) => return Err(LossKind::ClosedBeforeAnswer),
                Ok(_) => {}
                Err(_) if begun => return Err(LossKind::Truncated),
                Err(error) => return Err(before_answer(&error)),
            }
        }
    }

    async fn skip_body(&mut self, body: Body) -> Result<(), LossKind> {
        match body {
            Body::Length(bytes) => self.skip(bytes).await,
            Body::Chunked => loop {
                let line = self.line().await?;
                let size = line.split(';').next().unwrap_or_default().trim();
                let size = u64::from_str_radix(size, 16).map_err(|_| LossKind::Malformed)?;
                if size > 0 {
                    self.skip(size).await?;
                    if !self.line().await?.is_empty() {
                        return Err(LossKind::Malformed);
                    }
                } else {
                    // Trailers, up to the empty line.
                    while !self.line().await?.is_empty() {}
                    return Ok(());
                }
            },
            Body::UntilClose => {
                while self.read_more().await.map_err(|_| LossKind::Truncated)? > 0 {
                    self.unread.clear();
                }
                Ok(())
            }
        }
    }

    async fn skip(&mut self, mut bytes: u64) -> Result<(), LossKind> {
        loop {
            let here = usize::try_from(bytes).unwrap_or(usize::MAX).min(self.unread.len());
            self.unread.drain(..here);
            bytes -= here as u64;
            if bytes == 0 {
                return Ok(());
            }
            self.read_body().await?;
        }
    }

    async fn line(&mut self) -> Result<String, LossKind> {
        loop {
            if let Some(end) = find(&self.unread, b"\r\n") {
                let line = self.unread.drain(..end + 2).take(end).collect();
                return String::from_utf8(line).map_err(|_| LossKind::Malformed);
            }
            if self.unread.len() > HEAD_LIMIT_BYTES {
                return Err(LossKind::Malformed);
            }
            self.read_body().await?;
        }
    }

    /// Reads more of an answer that has begun, so its end here is too early.
    async fn read_body(&mut self) -> Result<(), LossKind> {
        match self.read_more().await {
            Ok(0) | Err(_) => Err(LossKind::Truncated),
            Ok(_) => Ok(()),
        }
    }

    async fn read_more(&mut self) -> io::Result<usize> {
        self.unread.reserve(8 * 1024);
        self.stream.read_buf(&mut self.unread).await
    }
}

/// What the loss of a connection means while no byte of the answer has arrived.
fn before_answer(error: &io::Error) -> LossKind {
    match error.kind() {
        ErrorKind::TimedOut => LossKind::Timeout,
        _ => LossKind::Reset,
    }
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

/// The part of an answer that comes before its body.
#[derive(Debug, PartialEq)]
struct Head {
    status: u16,
    version: Option<String>,
    body: Body,
    reusable: bool,
}

/// How the end of a body is found.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Body {
    Length(u64),
    Chunked,
    UntilClose,
}

impl Head {
    fn parse(text: &str, version_header: &str) -> Option<Self> {
        let mut lines = text.split("\r\n");
        let mut first = lines.next()?.splitn(3, ' ');
        let persistent = match first.next()? {
            "HTTP/1.1" => true,
            "HTTP/1.0" => false,
            _ => return None,
        };
        let status = first.next().filter(|code| code.len() == 3)?.parse().ok().filter(|status| *status >= 100)?;

        let (mut version, mut length, mut chunked, mut reusable) = (None, None, false, persistent);
        for line in lines.filter(|line| !line.is_empty()) {
            let (name, value) = line.split_once(':')?;
            let value = value.trim();
            if name.eq_ignore_ascii_case("content-length") {
                length = Some(value.parse().ok()?);
            } else if name.eq_ignore_ascii_case("transfer-encoding") {
                chunked = value.rsplit(',').next().is_some_and(|last| last.trim().eq_ignore_ascii_case("chunked"));
            } else if name.eq_ignore_ascii_case("connection") {
                for option in value.split(',').map(str::trim) {
                    if option.eq_ignore_ascii_case("close") {
                        reusable = false;
                    } else if option.eq_ignore_ascii_case("keep-alive") {
                        reusable = true;
                    }
                }
            } else if name.eq_ignore_ascii_case(version_header) {
                version = Some(value.to_owned());
            }
        }
        let body = match (status, chunked, length) {
            (100..200 | 204 | 304, _, _) => Body::Length(0),
            (_, true, _) => Body::Chunked,
            (_, false, Some(length)) => Body::Length(length),
            (_, false, None) => Body::UntilClose,
        };
        Some(Self { status, version, body, reusable: reusable && body != Body::UntilClose })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(text: &str) -> Option<Head> {
        Head::parse(&text.replace('\n', "\r\n"), "x-version")
    }

    #[test]
    fn a_head_says_how_its_body_ends_and_whether_the_connection_stays() {
        let parsed = head("HTTP/1.1 200 OK\nX-VERSION: v2\nContent-Length: 12\n\n").unwrap();
        assert_eq!(parsed, Head { status: 200, version: Some("v2".into()), body: Body::Length(12), reusable: true });

        let cases = [
            ("HTTP/1.1 200 OK\nTransfer-Encoding: gzip, Chunked\nContent-Length: 3\n\n", Body::Chunked, true),
            ("HTTP/1.1 200\nContent-Length: 3\nConnection: Close\n\n", Body::Length(3), false),
            ("HTTP/1.0 200 OK\nContent-Length: 3\n\n", Body::Length(3), false),
            ("HTTP/1.0 200 OK\nContent-Length: 3\nConnection: keep-alive\n\n", Body::Length(3), true),
            ("HTTP/1.1 204 No Content\nConnection: x, y\n\n", Body::Length(0), true),
            ("HTTP/1.1 304 Not Modified\nContent-Length: 3\n\n", Body::Length(0), true),
            ("HTTP/1.1 200 OK\n\n", Body::UntilClose, false),
        ];
        for (text, body, reusable) in cases {
            let parsed = head(text).unwrap();
            assert_eq!((parsed.body, parsed.reusable), (body, reusable), "{text}");
        }
    }

    #[test]
    fn what_is_not_http_is_not_guessed_at() {
        for text in [
            "SSH-2.0-OpenSSH\n\n",
            "HTTP/1.1\n\n",
            "HTTP/1.1 2000 OK\n\n",
            "HTTP/1.1 099 OK\n\n",
            "HTTP/1.1 200 OK\nno colon\n\n",
            "HTTP/1.1 200 OK\nContent-Length: many\n\n",
        ] {
            assert_eq!(head(text), None, "{text}");
        }
    }
}
