//! Single requests.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use deployer_core::{AppName, ServiceName};
use http_body_util::{Either, Full};
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode, client, server};
use hyper_util::rt::TokioIo;
use tokio::io::copy_bidirectional;
use tokio::net::TcpStream;

use super::board::{Board, Ticket};
use super::tcp::connect;

/// Where a request came in.
#[derive(Clone, Copy, Debug)]
pub(super) enum Entrance {
    /// On the address for routes.
    Routes,
    /// On an address that is a service's own.
    Address(SocketAddr),
}

type Answer = Response<Either<Full<Bytes>, Counted>>;

/// Serves one connection. It is kept open over deployments: each of its requests goes where traffic goes then.
pub(super) async fn serve(board: Arc<Board>, entrance: Entrance, stream: TcpStream, peer: SocketAddr) {
    let service = service_fn(move |request| {
        let board = Arc::clone(&board);
        async move { Ok::<_, Infallible>(forward(&board, entrance, peer, request).await) }
    });
    let connection = server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    // An error is the end of the connection like any other: there is nobody to tell.
    let _ = connection.with_upgrades().await;
}

async fn forward(board: &Arc<Board>, entrance: Entrance, peer: SocketAddr, mut request: Request<Incoming>) -> Answer {
    let Some((app, service, port)) = destination(board, entrance, &request) else {
        return refusal(StatusCode::NOT_FOUND, "no application has this route");
    };
    prepare(&mut request, peer);
    let upgrade = request.headers().contains_key(header::UPGRADE).then(|| hyper::upgrade::on(&mut request));
    let began = Instant::now();
    loop {
        let Some((ticket, stream)) = connect(board, &app, &service, port).await else {
            return refusal(StatusCode::SERVICE_UNAVAILABLE, "no instance takes requests");
        };
        let (mut sender, connection) = match client::conn::http1::handshake(TokioIo::new(stream)).await {
            Ok(connected) => connected,
            Err(_) => return refusal(StatusCode::BAD_GATEWAY, "the instance does not speak HTTP"),
        };
        // Ends with its connection, which is for this request alone.
        tokio::spawn(connection.with_upgrades());
        match sender.try_send_request(request).await {
            Ok(response) => {
                board.answered(&ticket, began.elapsed(), response.status().is_server_error());
                return answer(response, upgrade, ticket);
            }
            Err(mut error) => match error.take_message() {
                // It was not sent: the instance closed the connection at once.
                Some(unsent) => request = unsent,
                None => {
                    board.answered(&ticket, began.elapsed(), true);
                    return refusal(StatusCode::BAD_GATEWAY, "the instance broke off");
                }
            },
        }
    }
}

fn destination(board: &Board, entrance: Entrance, request: &Request<Incoming>) -> Option<(AppName, ServiceName, u16)> {
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    board.read(|table| match entrance {
        Entrance::Routes => {
            table.route(host, request.uri().path()).map(|(app, service, port)| (app.clone(), service.clone(), port))
        }
        Entrance::Address(at) => {
            table.listener(at).map(|(app, service, listener)| (app.clone(), service.clone(), listener.port))
        }
    })
}

/// Headers that are about one connection and not about the request.
const HOP_BY_HOP: [HeaderName; 6] = [
    header::CONNECTION,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::UPGRADE,
];

fn prepare(request: &mut Request<Incoming>, peer: SocketAddr) {
    let upgrades = request.headers().contains_key(header::UPGRADE);
    if !upgrades {
        strip(request.headers_mut());
    }
    if let Ok(address) = HeaderValue::from_str(&peer.ip().to_string()) {
        request.headers_mut().append("x-forwarded-for", address);
    }
}

fn strip(headers: &mut HeaderMap) {
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
    headers.remove("keep-alive");
}

fn answer(mut response: Response<Incoming>, upgrade: Option<hyper::upgrade::OnUpgrade>, ticket: Ticket) -> Answer {
    if response.status() == StatusCode::SWITCHING_PROTOCOLS
        && let Some(from) = upgrade
    {
        let to = hyper::upgrade::on(&mut response);
        // Ends with its connections.
        tokio::spawn(async move {
            if let (Ok(from), Ok(to)) = tokio::join!(from, to) {
                let _ = copy_bidirectional(&mut TokioIo::new(from), &mut TokioIo::new(to)).await;
            }
            drop(ticket);
        });
        return response.map(|_| Either::Left(Full::default()));
    }
    strip(response.headers_mut());
    response.map(|body| Either::Right(Counted { body, _ticket: ticket }))
}

fn refusal(status: StatusCode, why: &'static str) -> Answer {
    let mut response = Response::new(Either::Left(Full::from(format!("{why}\n"))));
    *response.status_mut() = status;
    response
}

/// A body whose request is in flight until the last of it has been passed on.
#[derive(Debug)]
pub(super) struct Counted {
    body: Incoming,
    _ticket: Ticket,
}

impl Body for Counted {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use deployer_core::{Digest, InstanceId, RevisionId, Route};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;
    use crate::balancer::table::Table;
    use crate::balancer::wire::{Entrances, TargetRow};

    /// A board with one target, and the target itself.
    async fn stage() -> (Arc<Board>, TcpListener) {
        let target = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = target.local_addr().unwrap();
        let (app, web) = (AppName::new("shop").unwrap(), ServiceName::new("web").unwrap());
        let revision = RevisionId::new(web.clone(), &Digest::of(b""));
        let (mut table, ingress) = (Table::default(), "127.0.0.1:1".parse().unwrap());
        let entrances = Entrances { routes: vec![Route::new(at.port())], listeners: Vec::new() };
        table.ensure(&app, ingress, &BTreeMap::from([(web.clone(), entrances)])).unwrap();
        let row = TargetRow { instance: InstanceId::new("one").unwrap(), address: at.ip(), draining: false };
        table.set_targets(&app, &revision, at.port(), vec![row]).unwrap();
        let version = table.entry(&app, &web).unwrap().version();
        table.set_weights(&app, &web, &BTreeMap::from([(revision, 100)]), &version).unwrap();
        (Arc::new(Board::new(ingress, table)), target)
    }

    /// A client's connection to the proxy.
    async fn client(board: &Arc<Board>) -> TcpStream {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, peer) = listener.accept().await.unwrap();
        tokio::spawn(serve(Arc::clone(board), Entrance::Routes, stream, peer));
        client
    }

    /// Reads until there is this text.
    async fn read_until(stream: &mut TcpStream, end: &str) -> String {
        let mut text = Vec::new();
        while !String::from_utf8_lossy(&text).ends_with(end) {
            text.push(stream.read_u8().await.unwrap());
        }
        String::from_utf8(text).unwrap()
    }

    fn in_flight(board: &Board) -> u64 {
        board.observe(&AppName::new("shop").unwrap())[0].pools[0].targets[0].in_flight.unwrap()
    }

    #[tokio::test]
    async fn a_request_is_in_flight_until_its_last_byte_has_passed() {
        let (board, target) = stage().await;
        let mut client = client(&board).await;
        client.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        let (mut instance, _) = target.accept().await.unwrap();
        assert!(read_until(&mut instance, "\r\n\r\n").await.contains("x-forwarded-for: 127.0.0.1"));
        instance.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\na").await.unwrap();
        read_until(&mut client, "a").await;
        assert_eq!(in_flight(&board), 1);
        instance.write_all(b"b").await.unwrap();
        read_until(&mut client, "b").await;
        while in_flight(&board) > 0 {
            tokio::task::yield_now().await;
        }
        let counters = board.observe(&AppName::new("shop").unwrap())[0].pools[0].counters.unwrap();
        assert_eq!((counters.requests, counters.errors), (1, 0));
    }

    #[tokio::test]
    async fn a_connection_that_changes_its_protocol_is_passed_on() {
        let (board, target) = stage().await;
        let mut client = client(&board).await;
        let request = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n";
        client.write_all(request).await.unwrap();
        let (mut instance, _) = target.accept().await.unwrap();
        assert!(read_until(&mut instance, "\r\n\r\n").await.contains("upgrade: echo"));
        let answer = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n";
        instance.write_all(answer).await.unwrap();
        assert!(read_until(&mut client, "\r\n\r\n").await.starts_with("HTTP/1.1 101"));
        client.write_all(b"ping").await.unwrap();
        read_until(&mut instance, "ping").await;
        instance.write_all(b"pong").await.unwrap();
        read_until(&mut client, "pong").await;
        assert_eq!(in_flight(&board), 1);
    }

    #[tokio::test]
    async fn nobody_to_take_a_request_is_an_answer_too() {
        let (board, target) = stage().await;
        drop(target);
        let mut client = client(&board).await;
        client.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        assert!(read_until(&mut client, "\r\n\r\n").await.starts_with("HTTP/1.1 503"));
    }
}
