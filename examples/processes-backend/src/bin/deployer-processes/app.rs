//! What the demo and the conformance suite deploy: a small web server that can also misbehave, and a few one-off tasks.
//!
//! It listens where a process of this backend is told to: at `HOST` and `PORT`.

use std::net::IpAddr;
use std::process::ExitCode;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;

use crate::Result;

/// How long it works on a request whose path says `slow`.
const SLOW: Duration = Duration::from_millis(1500);

/// Does what these words say.
pub(crate) async fn run(words: &[String]) -> Result<ExitCode> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["serve"] => serve(true, true).await?,
        ["never-ready"] => serve(false, true).await?,
        ["ignores-stop"] => serve(true, false).await?,
        ["exits"] => {
            eprintln!("FATAL: no database");
            return Ok(ExitCode::from(3));
        }
        ["succeeds"] => println!("done"),
        ["fails"] => {
            eprintln!("FATAL: no database");
            return Ok(ExitCode::from(7));
        }
        ["lasts"] => tokio::time::sleep(Duration::from_secs(600)).await,
        _ => return Err("it can serve, never-ready, ignores-stop, exits, succeeds, fails, lasts".into()),
    }
    Ok(ExitCode::SUCCESS)
}

/// Answers every request with its version until it is told to stop, then what it works on.
async fn serve(ready: bool, stops: bool) -> Result<()> {
    let version = match std::env::var("VERSION") {
        Ok(version) => version,
        Err(_) => std::fs::read_to_string("version")?.trim().to_owned(),
    };
    let host: IpAddr = std::env::var("HOST")?.parse()?;
    let port: u16 = std::env::var("PORT")?.parse()?;
    let mut terminate = signal(SignalKind::terminate())?;
    let listener = TcpListener::bind((host, port)).await?;
    println!("version {version} listens on {host}:{port}");
    let mut working = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let version = version.clone();
                working.spawn(async move {
                    if let Ok((stream, _)) = accepted {
                        // A client that goes away is no reason to stop.
                        let _ = answer(stream, &version, ready).await;
                    }
                });
            }
            Some(_) = working.join_next() => {}
            Some(()) = terminate.recv(), if stops => break,
        }
    }
    drop(listener);
    println!("finishing {} requests", working.len());
    while working.join_next().await.is_some() {}
    Ok(())
}

/// Answers one request.
async fn answer(stream: TcpStream, version: &str, ready: bool) -> Result<()> {
    let (mut stream, mut line) = (BufReader::new(stream), String::new());
    if stream.read_line(&mut line).await? == 0 {
        return Ok(());
    }
    let path = line.split_whitespace().nth(1).unwrap_or("/").to_owned();
    while line != "\r\n" {
        line.clear();
        if stream.read_line(&mut line).await? == 0 {
            return Ok(());
        }
    }
    if path.contains("slow") {
        tokio::time::sleep(SLOW).await;
    }
    let status = if !ready && path == "/healthz" { "503 Service Unavailable" } else { "200 OK" };
    let length = version.len();
    let head =
        format!("HTTP/1.1 {status}\r\nx-version: {version}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
    stream.write_all(format!("{head}{version}").as_bytes()).await?;
    stream.shutdown().await?;
    Ok(())
}
