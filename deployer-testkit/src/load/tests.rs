//! The account against servers that answer, lie, stall and vanish.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use super::*;

/// A server that hands each connection, with its number, to `serve`.
async fn server<F, S>(serve: S) -> SocketAddr
where
    S: Fn(u64, TcpStream) -> F + Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        for number in 0.. {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(serve(number, stream));
        }
    });
    address
}

/// Reads one request; nothing if the client closed the connection instead.
async fn request(stream: &mut TcpStream) -> Option<String> {
    let mut text = Vec::new();
    while !text.ends_with(b"\r\n\r\n") {
        text.push(stream.read_u8().await.ok()?);
    }
    Some(String::from_utf8(text).unwrap())
}

/// Sends an answer; a client that has gone does not matter to these servers.
async fn answer(stream: &mut TcpStream, version: &str, status: u16) {
    let text = format!("HTTP/1.1 {status} X\r\nX-Version: {version}\r\nContent-Length: 5\r\n\r\nhello");
    let _ = stream.write_all(text.as_bytes()).await;
}

/// Resets the connection instead of closing it in order.
fn reset(stream: &TcpStream) {
    stream.set_zero_linger().unwrap();
}

fn load(address: SocketAddr, requests: u64) -> Load {
    Load::new(address, "shop.localhost").rate(2000).limit(requests)
}

#[track_caller]
fn assert_lost(report: &Report, requests: u64, kind: LossKind) {
    assert_eq!((report.sent, report.answered, report.lost, report.in_flight), (requests, 0, requests, 0), "{report}");
    assert_eq!(report.lost_by_kind(), BTreeMap::from([(kind, requests)]), "{report}");
}

#[tokio::test]
async fn answers_are_counted_by_version_and_status() {
    let served = Arc::new(AtomicU64::new(0));
    let address = server(move |_, mut stream| {
        let served = Arc::clone(&served);
        async move {
            while request(&mut stream).await.is_some() {
                match served.fetch_add(1, Ordering::SeqCst) {
                    0..10 => answer(&mut stream, "v1", 200).await,
                    10..15 => answer(&mut stream, "v1", 404).await,
                    15..17 => answer(&mut stream, "v2", 500).await,
                    _ => answer(&mut stream, "v2", 200).await,
                }
            }
        }
    })
    .await;
    let report = load(address, 40).start().finish().await;

    assert_eq!((report.sent, report.answered, report.lost, report.unsent), (40, 38, 2, 0), "{report}");
    assert_eq!(report.by_version["v1"].by_status, BTreeMap::from([(200, 10), (404, 5)]));
    assert_eq!(report.by_version["v2"].by_status, BTreeMap::from([(200, 23)]));
    assert!(report.by_version["v1"].first_seen <= report.by_version["v1"].last_seen);
    for loss in &report.losses {
        assert_eq!((loss.kind, loss.status, loss.version.as_deref()), (LossKind::ServerError, Some(500), Some("v2")));
    }
    assert!(report.latency.p50 <= report.latency.p99 && report.latency.p99 <= report.latency.max);
}

#[tokio::test]
async fn modes_differ_in_their_connections() {
    for mode in [Mode::KeepAlive, Mode::NewConnection, Mode::Mixed] {
        let (opened, closed_by_request) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let counters = (Arc::clone(&opened), Arc::clone(&closed_by_request));
        let address = server(move |_, mut stream| {
            let (opened, closed_by_request) = (Arc::clone(&counters.0), Arc::clone(&counters.1));
            async move {
                opened.fetch_add(1, Ordering::SeqCst);
                while let Some(text) = request(&mut stream).await {
                    assert!(
                        text.starts_with("GET /cart?x=1 HTTP/1.1\r\n") && text.contains("\r\nHost: shop.localhost\r\n"),
                        "{text}"
                    );
                    let close = text.contains("\r\nConnection: close\r\n");
                    if close {
                        closed_by_request.fetch_add(1, Ordering::SeqCst);
                    }
                    answer(&mut stream, "v1", 200).await;
                    if close {
                        break;
                    }
                }
            }
        })
        .await;
        // One request at a time, so that one kept connection is enough for all.
        let running =
            Load::new(address, "shop.localhost").path("/cart?x=1").mode(mode).rate(2000).outstanding(1).start();
        while running.snapshot().answered < 20 {
            tokio::task::yield_now().await;
        }
        let report = running.stop().await;

        assert_eq!((report.answered, report.stale_retries), (report.sent, 0), "{mode:?}: {report}");
        let (opened, closed) = (opened.load(Ordering::SeqCst), closed_by_request.load(Ordering::SeqCst));
        match mode {
            Mode::KeepAlive => assert_eq!((opened, closed), (1, 0)),
            Mode::NewConnection => assert_eq!((opened, closed), (report.sent, report.sent)),
            Mode::Mixed => assert!(closed > 0 && closed < report.sent && opened == closed + 1, "{opened} {closed}"),
        }
    }
}

#[tokio::test]
async fn bodies_of_every_framing_leave_the_connection_in_step() {
    let address = server(|_, mut stream| async move {
        for number in 0.. {
            if request(&mut stream).await.is_none() {
                break;
            }
            let text: &[u8] = match number % 4 {
                0 => b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\nA\r\n0123456789\r\n0\r\nTrailer: 1\r\n\r\n",
                1 => b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n\r\n\r",
                2 => b"HTTP/1.1 204 No Content\r\n\r\n",
                _ => b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            };
            // Byte by byte, so that no boundary falls on the end of a read.
            for byte in text {
                let _ = stream.write_all(std::slice::from_ref(byte)).await;
                tokio::task::yield_now().await;
            }
        }
    })
    .await;
    let report = load(address, 40).start().finish().await;
    assert_eq!((report.sent, report.answered, report.stale_retries), (40, 40, 0), "{report}");
    assert_eq!(report.by_version["-"].answered, 40);
}

#[tokio::test]
async fn a_body_without_a_length_ends_with_its_connection() {
    let address = server(|_, mut stream| async move {
        if request(&mut stream).await.is_some() {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nX-Version: v1\r\n\r\nhello").await;
        }
    })
    .await;
    let report = load(address, 10).start().finish().await;
    assert_eq!((report.answered, report.stale_retries), (10, 0), "{report}");
}

#[tokio::test]
async fn a_request_on_a_kept_connection_that_was_closed_is_repeated_once() {
    // Serves one request per connection and closes when it sees the second: the client cannot know beforehand.
    let address = server(|number, mut stream| async move {
        let _ = request(&mut stream).await;
        answer(&mut stream, "v1", 200).await;
        let _ = request(&mut stream).await;
        if number % 2 == 0 {
            reset(&stream);
        }
    })
    .await;
    // One at a time, so that every request but the first finds a kept connection.
    let running = Load::new(address, "shop.localhost").rate(2000).outstanding(1).start();
    while running.snapshot().stale_retries < 5 {
        tokio::task::yield_now().await;
    }
    let report = running.stop().await;
    assert_eq!((report.answered, report.lost), (report.sent, 0), "{report}");
}

#[tokio::test]
async fn the_repetition_is_not_repeated() {
    // Only the first connection ever answers; all later ones are closed in the face of the client.
    let address = server(|number, mut stream| async move {
        let _ = request(&mut stream).await;
        if number == 0 {
            answer(&mut stream, "v1", 200).await;
            let _ = request(&mut stream).await;
        }
    })
    .await;
    let load = load(address, 1);
    let (pool, tally) = (Pool::default(), Mutex::new(Tally::default()));
    exchange(&load, true, &pool, &tally, &mut false).await.unwrap();
    let mut reused = false;
    let repeated = exchange(&load, true, &pool, &tally, &mut reused).await;
    assert_eq!((repeated.unwrap_err(), reused), (LossKind::ClosedBeforeAnswer, false));
    assert_eq!(lock(&tally).report(Duration::ZERO).stale_retries, 1);
}

#[tokio::test]
async fn an_idle_connection_that_the_server_closes_is_not_used_again() {
    let (closed, mut is_closed) = tokio::sync::mpsc::unbounded_channel();
    let address = server(move |_, mut stream| {
        let closed = closed.clone();
        async move {
            let _ = request(&mut stream).await;
            answer(&mut stream, "v1", 200).await;
            drop(stream);
            let _ = closed.send(());
        }
    })
    .await;
    let load = load(address, 1);
    let (pool, tally) = (Pool::default(), Mutex::new(Tally::default()));
    for _ in 0..5 {
        exchange(&load, true, &pool, &tally, &mut false).await.unwrap();
        is_closed.recv().await.unwrap();
        // The runtime learns of the end a moment later than the kernel.
        while let Some(connection) = pool.take() {
            lock(&pool.0).push(connection);
            tokio::task::yield_now().await;
        }
    }
    assert_eq!(lock(&tally).report(Duration::ZERO).stale_retries, 0);
}

#[tokio::test]
async fn nobody_listening() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let report = load(address, 10).start().finish().await;
    assert_lost(&report, 10, LossKind::ConnectRefused);
}

#[tokio::test]
async fn a_listener_that_does_not_accept() {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    // The kernel completes connections until the queue is full.
    let mut queued = Vec::new();
    while let Ok(connected) = tokio::time::timeout(Duration::from_millis(200), TcpStream::connect(address)).await {
        queued.push(connected.unwrap());
    }
    let report = load(address, 5).connect_timeout(Duration::from_millis(50)).start().finish().await;
    assert_lost(&report, 5, LossKind::ConnectTimeout);
}

#[tokio::test]
async fn connections_that_end_before_the_answer() {
    let closing = server(|_, mut stream| async move { drop(request(&mut stream).await) }).await;
    let report = load(closing, 10).start().finish().await;
    assert_lost(&report, 10, LossKind::ClosedBeforeAnswer);

    let resetting = server(|_, mut stream| async move {
        let _ = request(&mut stream).await;
        reset(&stream);
    })
    .await;
    let report = load(resetting, 10).mode(Mode::NewConnection).start().finish().await;
    assert_lost(&report, 10, LossKind::Reset);
}

#[tokio::test]
async fn answers_that_end_too_early() {
    let beginnings: [&[u8]; 5] = [
        b"HTTP/1.1 20",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n",
    ];
    for beginning in beginnings {
        let address = server(move |_, mut stream| async move {
            let _ = request(&mut stream).await;
            let _ = stream.write_all(beginning).await;
        })
        .await;
        let report = load(address, 3).start().finish().await;
        assert_lost(&report, 3, LossKind::Truncated);
    }
}

#[tokio::test]
async fn an_answer_that_is_not_http() {
    let address = server(|_, mut stream| async move {
        let _ = request(&mut stream).await;
        let _ = stream.write_all(b"SSH-2.0-OpenSSH_9.2p1\r\n\r\n").await;
    })
    .await;
    let report = load(address, 3).start().finish().await;
    assert_lost(&report, 3, LossKind::Malformed);
}

#[tokio::test]
async fn a_server_that_stalls() {
    let address = server(|number, mut stream| async move {
        let _ = request(&mut stream).await;
        if number % 2 == 0 {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n").await;
        }
        // Ends when the client gives up.
        let _ = request(&mut stream).await;
    })
    .await;
    let report = load(address, 6).timeout(Duration::from_millis(30)).start().finish().await;
    assert_lost(&report, 6, LossKind::Timeout);
}

#[tokio::test]
async fn what_exceeds_the_bound_is_not_sent_and_said_so() {
    let (release, released) = tokio::sync::watch::channel(false);
    let address = server(move |_, mut stream| {
        let mut released = released.clone();
        async move {
            let _ = request(&mut stream).await;
            let _ = released.wait_for(|released| *released).await;
            answer(&mut stream, "v1", 200).await;
        }
    })
    .await;
    let running = load(address, 10).outstanding(4).start();
    while running.snapshot().unsent < 6 {
        tokio::task::yield_now().await;
    }
    let waiting = running.snapshot();
    assert_eq!((waiting.sent, waiting.answered, waiting.lost, waiting.in_flight), (4, 0, 0, 4));
    release.send(true).unwrap();

    let report = running.finish().await;
    assert_eq!((report.sent, report.answered, report.unsent, report.in_flight), (4, 4, 6, 0));
    assert!(report.lagged());
}

#[tokio::test]
async fn stopping_waits_for_what_is_under_way() {
    let (release, released) = tokio::sync::watch::channel(false);
    let address = server(move |_, mut stream| {
        let mut released = released.clone();
        async move {
            let _ = request(&mut stream).await;
            let _ = released.wait_for(|released| *released).await;
            answer(&mut stream, "v1", 200).await;
        }
    })
    .await;
    let running = Load::new(address, "shop.localhost").rate(2000).start();
    while running.snapshot().in_flight < 3 {
        tokio::task::yield_now().await;
    }
    let (report, ()) = tokio::join!(running.stop(), async { release.send(true).unwrap() });
    assert!(report.sent >= 3);
    assert_eq!((report.answered, report.in_flight), (report.sent, 0), "{report}");
}

#[tokio::test]
async fn a_load_without_a_rate_sends_nothing() {
    let report = Load::new(([127, 0, 0, 1], 1).into(), "x").rate(0).start().finish().await;
    assert_eq!((report.sent, report.unsent), (0, 0));
}

#[test]
fn the_schedule_does_not_drift() {
    assert_eq!(due_after(0, 3), Duration::ZERO);
    assert_eq!(due_after(3_000_000, 3), Duration::from_secs(1_000_000));
    assert_eq!(due_after(1, 400), Duration::from_micros(2500));
    assert_eq!(due_after(u64::MAX, u32::MAX).as_secs(), u64::MAX / u64::from(u32::MAX));
}
