//! The demo app as a process of this machine, with a cache of the test's own: what a deployment relies on.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;

use deployer_testkit::load::{Load, LossKind, Mode};

/// The compiled app.
fn shop() -> &'static PathBuf {
    static SHOP: OnceLock<PathBuf> = OnceLock::new();
    SHOP.get_or_init(|| {
        let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
        let compiled = Command::new(directory.join("../../scripts/shop")).status().unwrap();
        assert!(compiled.success(), "scripts/shop failed");
        directory.join("app/shop")
    })
}

/// As much of Redis as the app asks for. Serves until the test ends.
fn cache() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let values = Arc::new(Mutex::new(HashMap::<String, String>::new()));
    thread::spawn(move || {
        for stream in listener.incoming() {
            let values = Arc::clone(&values);
            // An error is an app that has gone.
            thread::spawn(move || serve(stream?, &values));
        }
    });
    address
}

fn serve(stream: TcpStream, values: &Mutex<HashMap<String, String>>) -> io::Result<()> {
    let mut input = BufReader::new(stream);
    loop {
        let mut line = String::new();
        input.read_line(&mut line)?;
        let Some(words) = line.trim_end().strip_prefix('*') else {
            return Ok(());
        };
        let mut command = Vec::new();
        for _ in 0..words.parse::<usize>().unwrap() {
            let mut length = String::new();
            input.read_line(&mut length)?;
            let length: usize = length.trim_end()[1..].parse().unwrap();
            let mut word = vec![0; length + 2];
            input.read_exact(&mut word)?;
            command.push(String::from_utf8(word[..length].to_vec()).unwrap());
        }
        let reply = reply(&command.iter().map(String::as_str).collect::<Vec<_>>(), &mut values.lock().unwrap());
        input.get_mut().write_all(reply.as_bytes())?;
    }
}

fn reply(command: &[&str], values: &mut HashMap<String, String>) -> String {
    let bulk = |text: &str| format!("${}\r\n{text}\r\n", text.len());
    let mut add = |key: String| {
        let value = values.entry(key).or_insert_with(|| "0".to_owned());
        *value = (value.parse::<u64>().unwrap() + 1).to_string();
        format!(":{value}\r\n")
    };
    match command {
        ["INCR", key] => add((*key).to_owned()),
        ["HINCRBY", key, field, "1"] => add(format!("{key}/{field}")),
        ["SET", key, value] => {
            values.insert((*key).to_owned(), (*value).to_owned());
            "+OK\r\n".to_owned()
        }
        ["GET", key] => values.get(*key).map_or_else(|| "$-1\r\n".to_owned(), |value| bulk(value)),
        ["HGETALL", key] => {
            let prefix = format!("{key}/");
            let fields: Vec<_> = values
                .iter()
                .filter_map(|(name, value)| Some(bulk(name.strip_prefix(&prefix)?) + &bulk(value)))
                .collect();
            format!("*{}\r\n{}", fields.len() * 2, fields.concat())
        }
        ["RPUSH", ..] => ":1\r\n".to_owned(),
        ["BLPOP", ..] => "*2\r\n$9\r\nshop:jobs\r\n$3\r\njob\r\n".to_owned(),
        _ => format!("-ERR unknown command {command:?}\r\n"),
    }
}

fn command(subcommand: &str, cache: SocketAddr, environment: &[(&str, &str)]) -> Command {
    let mut command = Command::new(shop());
    command.arg(subcommand).env_clear();
    command.env("VERSION", "v7").env("PORT", "0").env("CACHE", cache.to_string());
    command.envs(environment.iter().copied());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// A running process; killed when the test ends, however it does.
struct Process {
    child: Child,
    output: BufReader<std::process::ChildStdout>,
}

impl Process {
    fn start(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Self { child, output }
    }

    /// The next line it prints.
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// A web server, and its address once it listens.
    fn web(cache: SocketAddr, environment: &[(&str, &str)]) -> (Self, SocketAddr) {
        let mut web = Self::start(command("web", cache, environment));
        let line = web.line();
        let port = line.strip_prefix("web v7: listening on port ").unwrap_or_else(|| panic!("unexpected: {line}"));
        let address = ([127, 0, 0, 1], port.parse().unwrap()).into();
        (web, address)
    }

    fn terminate(&self) {
        let sent = Command::new("sh").args(["-c", &format!("kill -TERM {}", self.child.id())]).status();
        assert!(sent.unwrap().success());
    }

    fn exit_code(mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Status line, headers and body of one answer.
fn get(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn text(output: &[u8]) -> String {
    String::from_utf8_lossy(output).trim_end().to_owned()
}

fn run(command: &mut Command) -> Output {
    command.output().unwrap()
}

#[test]
fn the_web_server_says_which_version_answers() {
    let (web, address) = Process::web(cache(), &[("HOSTNAME", "box")]);
    let first = get(address, "/");
    assert!(first.starts_with("HTTP/1.1 200 OK\r\n") && first.contains("\r\nX-Version: v7\r\n"), "{first}");
    assert!(first.ends_with("\r\n\r\nshop v7 on box: visitor 1\n"), "{first}");
    assert!(get(address, "/?again").ends_with("visitor 2\n"));
    assert!(get(address, "/version").ends_with("\r\n\r\nv7"));
    assert!(get(address, "/healthz").starts_with("HTTP/1.1 200 "));
    assert!(get(address, "/nothing").starts_with("HTTP/1.1 404 "));

    let port = address.port().to_string();
    let healthy = run(&mut command("healthcheck", address, &[("PORT", &port)]));
    assert_eq!((healthy.status.code(), text(&healthy.stdout).as_str()), (Some(0), "healthy"));
    web.terminate();
    assert_eq!(web.exit_code(), Some(0));
}

#[test]
fn migrations_are_counted_by_version() {
    let cache = cache();
    let first = run(&mut command("migrate", cache, &[("VERSION", "v1")]));
    assert_eq!(text(&first.stdout), "migrate: schema nothing -> v1 (run 1 for v1)");
    run(&mut command("migrate", cache, &[]));
    let again = run(&mut command("migrate", cache, &[]));
    assert_eq!(text(&again.stdout), "migrate: schema v7 -> v7 (run 2 for v7)");
    let (_web, address) = Process::web(cache, &[]);
    assert!(get(address, "/migrations").ends_with("\r\n\r\nv1 1\nv7 2\n"));
}

#[test]
fn a_worker_works_and_stops_at_once() {
    let mut worker = Process::start(command("worker", cache(), &[]));
    assert_eq!(worker.line(), "worker v7: waiting for jobs");
    assert_eq!(worker.line(), "worker v7: job");
    worker.terminate();
    loop {
        match worker.line().as_str() {
            "worker v7: job" => {}
            line => break assert_eq!(line, "worker v7: stopped"),
        }
    }
    assert_eq!(worker.exit_code(), Some(0));
}

#[test]
fn failures_are_the_ones_asked_for() {
    let cache = cache();
    let ended = run(&mut command("web", cache, &[("BROKEN", "exit")]));
    assert_eq!((ended.status.code(), text(&ended.stderr).as_str()), (Some(3), "FATAL: DATABASE_URL has no scheme"));
    let ended = run(&mut command("web", cache, &[("DELAY_MS", "soon")]));
    assert_eq!(
        (ended.status.code(), text(&ended.stderr).as_str()),
        (Some(3), "FATAL: DELAY_MS is not a number: \"soon\"")
    );
    let ended = run(&mut command("web", cache, &[("BROKEN", "crash"), ("CRASH_AFTER_MS", "1")]));
    assert_eq!(ended.status.code(), Some(101));
    let ended = run(&mut command("migrate", cache, &[("BROKEN", "migrate")]));
    assert_eq!(ended.status.code(), Some(1));
    assert!(text(&ended.stderr).starts_with("migrate: step 2 of 3 failed"));

    let (_web, address) = Process::web(cache, &[("BROKEN", "unhealthy")]);
    assert!(get(address, "/healthz").starts_with("HTTP/1.1 503 "));
    let port = address.port().to_string();
    assert_eq!(run(&mut command("healthcheck", cache, &[("PORT", &port)])).status.code(), Some(1));

    let (_web, address) = Process::web(cache, &[("BROKEN", "errors")]);
    let failed = (0..20).filter(|_| get(address, "/").starts_with("HTTP/1.1 500 ")).count();
    assert_eq!(failed, 6);
    assert!(get(address, "/healthz").starts_with("HTTP/1.1 200 "));
}

#[test]
fn without_its_cache_the_shop_says_so() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (_web, address) = Process::web(nobody, &[]);
    let answer = get(address, "/");
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("the cache is away"), "{answer}");
    assert!(get(address, "/healthz").starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn stopping_under_load_answers_what_is_under_way() {
    let (web, address) = Process::web(cache(), &[("DELAY_MS", "50-100")]);
    let load = Load::new(address, "shop.localhost").rate(400);
    let running = load.mode(Mode::Mixed).start();
    while running.snapshot().answered < 50 {
        tokio::task::yield_now().await;
    }
    web.terminate();
    let code = tokio::task::spawn_blocking(|| web.exit_code());
    assert_eq!(code.await.unwrap(), Some(0));
    let report = running.stop().await;

    assert!(report.answered >= 50, "{report}");
    for loss in &report.losses {
        // Who comes after the listener has gone is refused, or reset in the instant between; nobody else loses anything.
        let late = matches!(loss.kind, LossKind::ConnectRefused | LossKind::Reset);
        assert!(late && !loss.reused, "{report}");
    }
}
