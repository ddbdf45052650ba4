//! The demo application: a web shop that counts its visitors in a cache, a worker, a migration and a health check, all
//! one static program without dependencies. `scripts/shop` compiles it with a single call of `rustc`.
//!
//! `shop web` serves these paths, each answer with the version in `X-Version`:
//! - `/` counts the visitor and answers with version and host name; 503 when the cache is away for 2 s
//! - `/healthz` answers 200, `/version` only the version, `/migrations` one line `VERSION RUNS` per version
//! - `/slow` answers only the version, after as long a delay as `/` has, and without the cache
//!
//! `shop worker` works off the jobs that every 50th visit leaves, `shop migrate` notes its run and sets the schema
//! version, `shop healthcheck` asks the web server of the same container.
//!
//! Environment: `VERSION`, `PORT` (8080; 0 for any), `CACHE` (`cache:6379`), `DELAY_MS` (`300` or `300-500`, for `/` and `/slow`), and `BROKEN`:
//! - `exit`: ends with code 3 at the start
//! - `crash`: serves for `CRASH_AFTER_MS` (1500), then ends with code 101
//! - `unhealthy`: `/healthz` answers 503
//! - `oom`: takes memory until it is killed
//! - `slow-start`: listens only after `SLOW_START_MS` (5000)
//! - `errors`: 30 % of the answers to `/` are 500
//! - `ignore-term`: does not stop on SIGTERM
//! - `migrate`: the migration fails

use std::collections::{BTreeMap, HashMap};
use std::env;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream, ToSocketAddrs};
use std::os::fd::IntoRawFd;
use std::process::exit;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

fn main() {
    let command = env::args().nth(1).unwrap_or_default();
    let config = Config::from_env();
    match command.as_str() {
        "web" => web(config),
        "worker" => worker(&config),
        "migrate" => migrate(&config),
        "healthcheck" => healthcheck(&config),
        _ => {
            eprintln!("usage: shop web|worker|migrate|healthcheck");
            exit(2);
        }
    }
}

struct Config {
    version: String,
    host: String,
    port: u16,
    cache: String,
    delay_millis: (u64, u64),
    broken: String,
}

impl Config {
    fn from_env() -> Self {
        let variable = |name: &str, default: &str| {
            let value = env::var(name).unwrap_or_default();
            if value.is_empty() {
                default.to_owned()
            } else {
                value
            }
        };
        let delay = variable("DELAY_MS", "0");
        let (least, most) = delay.split_once('-').unwrap_or((&delay, &delay));
        Self {
            version: variable("VERSION", "dev"),
            host: variable("HOSTNAME", "localhost"),
            port: number("PORT", &variable("PORT", "8080")),
            cache: variable("CACHE", "cache:6379"),
            delay_millis: (number("DELAY_MS", least), number("DELAY_MS", most)),
            broken: variable("BROKEN", ""),
        }
    }
}

/// The value of an environment variable as a number; a bad one ends the program, as a deploy tool should see.
fn number<T: std::str::FromStr>(name: &str, text: &str) -> T {
    text.trim().parse().unwrap_or_else(|_| {
        eprintln!("FATAL: {name} is not a number: {text:?}");
        exit(3);
    })
}

fn millis(name: &str, default: u64) -> Duration {
    Duration::from_millis(env::var(name).map_or(default, |text| number(name, &text)))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

// ---- web -----------------------------------------------------------------------------------------------------------

struct Web {
    config: Config,
    cache: Cache,
    requests: AtomicU64,
    stopping: AtomicBool,
    /// The open connections, so that a stop can end the idle ones and wait for the others.
    connections: Mutex<HashMap<u64, Connection>>,
    one_less: Condvar,
}

struct Connection {
    stream: TcpStream,
    /// Whether it has carried a request. Who keeps it open must expect that it ends; who has just opened it must not.
    kept: bool,
}

fn web(config: Config) {
    let web = Arc::new(Web {
        cache: Cache::new(&config.cache),
        config,
        requests: AtomicU64::new(0),
        stopping: AtomicBool::new(false),
        connections: Mutex::default(),
        one_less: Condvar::new(),
    });
    // The port that is really listened on: 0 until then.
    let listening = Arc::new(AtomicU16::new(0));
    if web.config.broken != "ignore-term" {
        let (web, listening) = (Arc::clone(&web), Arc::clone(&listening));
        on_stop_signal(move || {
            let port = listening.load(Ordering::SeqCst);
            if port == 0 {
                exit(0);
            }
            web.stopping.store(true, Ordering::SeqCst);
            // Wakes the thread that accepts.
            drop(TcpStream::connect((Ipv4Addr::LOCALHOST, port)));
        });
    } else {
        on_stop_signal(|| println!("web: ignoring the signal"));
    }

    match web.config.broken.as_str() {
        "exit" => {
            eprintln!("FATAL: DATABASE_URL has no scheme");
            exit(3);
        }
        "slow-start" => thread::sleep(millis("SLOW_START_MS", 5000)),
        "crash" => drop(thread::spawn(|| {
            thread::sleep(millis("CRASH_AFTER_MS", 1500));
            eprintln!(
                "thread 'prices' panicked: index out of bounds: the len is 3 but the index is 3"
            );
            exit(101);
        })),
        "oom" => drop(thread::spawn(take_memory)),
        _ => {}
    }

    let wanted = web.config.port;
    let bound = TcpListener::bind((Ipv4Addr::UNSPECIFIED, wanted)).and_then(|listener| {
        let port = listener.local_addr()?.port();
        Ok((listener, port))
    });
    let (listener, port) = bound.unwrap_or_else(|error| {
        eprintln!("FATAL: cannot listen on port {wanted}: {error}");
        exit(3);
    });
    listening.store(port, Ordering::SeqCst);
    println!("web {}: listening on port {port}", web.config.version);

    let mut accepted = 0;
    let mut serve = |stream| {
        accepted += 1;
        let (web, number) = (Arc::clone(&web), accepted);
        thread::spawn(move || web.serve(number, stream));
    };
    while !web.stopping.load(Ordering::SeqCst) {
        match listener.accept() {
            Ok((stream, _)) => serve(stream),
            // Out of file descriptors, most likely: let some connections end.
            Err(_) => thread::sleep(Duration::from_millis(10)),
        }
    }
    // Who has connected already is served as well; only then nobody can connect any more.
    if listener.set_nonblocking(true).is_ok() {
        while let Ok((stream, _)) = listener.accept() {
            if stream.set_nonblocking(false).is_ok() {
                serve(stream);
            }
        }
    }
    drop(listener);
    let left = web.finish(Duration::from_secs(9));
    println!(
        "web {}: stopped, {left} connections cut",
        web.config.version
    );
}

impl Web {
    /// Ends idle connections, waits for the others, and says how many were not over in time.
    fn finish(&self, patience: Duration) -> usize {
        let connections = lock(&self.connections);
        for connection in connections.values().filter(|connection| connection.kept) {
            // What has arrived can still be read, so a request that is on its way in is answered.
            let _ = connection.stream.shutdown(Shutdown::Read);
        }
        let waited = self
            .one_less
            .wait_timeout_while(connections, patience, |open| !open.is_empty());
        waited.map_or(0, |(open, _)| open.len())
    }

    fn serve(&self, number: u64, stream: TcpStream) {
        let registered = stream.try_clone().map(|stream| Connection {
            stream,
            kept: false,
        });
        let Ok(registered) = registered else { return };
        lock(&self.connections).insert(number, registered);
        // An error is a client that has gone.
        let _ = self.answer_requests(number, stream);
        lock(&self.connections).remove(&number);
        self.one_less.notify_all();
    }

    fn answer_requests(&self, number: u64, stream: TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        // A stop waits for the first request of a connection, so that must come soon.
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        let mut input = BufReader::new(stream.try_clone()?);
        let mut output = stream;
        while let Some(request) = Request::read(&mut input)? {
            let (status, body) = self.answer(&request);
            let close = request.close || self.stopping.load(Ordering::SeqCst);
            let mut text = format!(
                "HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nX-Version: {}\r\nConnection: {}\r\n\r\n",
                body.len(),
                self.config.version,
                if close { "close" } else { "keep-alive" },
            );
            if request.method != "HEAD" {
                text += &body;
            }
            output.write_all(text.as_bytes())?;
            if close || !self.keep(number) {
                break;
            }
            output.set_read_timeout(None)?;
        }
        Ok(())
    }

    /// Notes that a connection is idle from now on; false if a stop has come that did not see it as such.
    fn keep(&self, number: u64) -> bool {
        if let Some(connection) = lock(&self.connections).get_mut(&number) {
            connection.kept = true;
        }
        !self.stopping.load(Ordering::SeqCst)
    }

    fn answer(&self, request: &Request) -> (&'static str, String) {
        let version = &self.config.version;
        match request.path.as_str() {
            "/healthz" if self.config.broken == "unhealthy" => (
                "503 Service Unavailable",
                "cannot reach the price service\n".to_owned(),
            ),
            "/healthz" => ("200 OK", "ok\n".to_owned()),
            "/version" => ("200 OK", version.clone()),
            "/slow" => {
                self.delay(self.requests.fetch_add(1, Ordering::Relaxed));
                ("200 OK", version.clone())
            }
            "/migrations" => match self.cache.ask(&["HGETALL", "shop:migrations"]) {
                Ok(reply) => {
                    let runs: BTreeMap<_, _> = reply
                        .chunks_exact(2)
                        .map(|pair| (&pair[0], &pair[1]))
                        .collect();
                    (
                        "200 OK",
                        runs.iter()
                            .map(|(version, runs)| format!("{version} {runs}\n"))
                            .collect(),
                    )
                }
                Err(error) => (
                    "503 Service Unavailable",
                    format!("the cache is away: {error}\n"),
                ),
            },
            "/" => self.visit(),
            _ => ("404 Not Found", "there is no such page\n".to_owned()),
        }
    }

    /// Works on a request for a while.
    fn delay(&self, number: u64) {
        let (least, most) = self.config.delay_millis;
        if most > 0 {
            // Spread well enough for a demo, without a random number generator.
            let spread = number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 33;
            thread::sleep(Duration::from_millis(
                least + spread % (most.max(least) - least + 1),
            ));
        }
    }

    fn visit(&self) -> (&'static str, String) {
        let number = self.requests.fetch_add(1, Ordering::Relaxed);
        self.delay(number);
        if self.config.broken == "errors" && number % 10 < 3 {
            return (
                "500 Internal Server Error",
                "no price for article 7\n".to_owned(),
            );
        }
        let counted = self.cache.ask(&["INCR", "shop:visits"]).and_then(|reply| {
            let visits: u64 = reply
                .first()
                .and_then(|text| text.parse().ok())
                .unwrap_or(0);
            if visits % 50 == 0 {
                self.cache.ask(&[
                    "RPUSH",
                    "shop:jobs",
                    &format!("visit {visits} counted by {}", self.config.version),
                ])?;
            }
            Ok(visits)
        });
        match counted {
            Ok(visits) => (
                "200 OK",
                format!(
                    "shop {} on {}: visitor {visits}\n",
                    self.config.version, self.config.host
                ),
            ),
            Err(error) => (
                "503 Service Unavailable",
                format!("the cache is away: {error}\n"),
            ),
        }
    }
}

struct Request {
    method: String,
    path: String,
    close: bool,
}

impl Request {
    /// The next request of a connection, its body skipped; nothing at its end.
    fn read(input: &mut impl BufRead) -> io::Result<Option<Self>> {
        let Some(first) = read_line(input)? else {
            return Ok(None);
        };
        let bad = |what| io::Error::new(io::ErrorKind::InvalidData, what);
        let mut words = first.split(' ');
        let (Some(method), Some(target), Some(protocol)) =
            (words.next(), words.next(), words.next())
        else {
            return Err(bad("not a request"));
        };
        let mut close = protocol == "HTTP/1.0";
        let mut body_bytes = 0;
        for _ in 0..100 {
            let line = read_line(input)?.ok_or_else(|| bad("ended within the headers"))?;
            if line.is_empty() {
                io::copy(&mut input.take(body_bytes), &mut io::sink())?;
                let path = target.split('?').next().unwrap_or_default();
                return Ok(Some(Self {
                    method: method.to_owned(),
                    path: path.to_owned(),
                    close,
                }));
            }
            let (name, value) = line.split_once(':').ok_or_else(|| bad("not a header"))?;
            match name.to_ascii_lowercase().as_str() {
                "connection" if value.trim().eq_ignore_ascii_case("close") => close = true,
                "connection" if value.trim().eq_ignore_ascii_case("keep-alive") => close = false,
                "content-length" => {
                    body_bytes = value.trim().parse().map_err(|_| bad("not a length"))?
                }
                _ => {}
            }
        }
        Err(bad("too many headers"))
    }
}

/// A line without its end; nothing at the end of the input.
fn read_line(input: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut line = String::new();
    if input.take(16 * 1024).read_line(&mut line)? == 0 {
        return Ok(None);
    }
    match line.strip_suffix('\n') {
        Some(line) => Ok(Some(line.trim_end_matches('\r').to_owned())),
        None => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// Takes memory until the kernel kills the container, or up to 1 GiB where nobody has set a limit.
fn take_memory() {
    println!("web: loading the price list");
    let mut taken = Vec::new();
    for _ in 0..256 {
        // Not zero, so that every page is really there.
        taken.push(vec![1_u8; 4 << 20]);
        thread::sleep(Duration::from_millis(5));
    }
    eprintln!(
        "FATAL: took {} MiB and was not killed: there is no memory limit",
        taken.len() * 4
    );
    exit(1);
}

// ---- the other commands --------------------------------------------------------------------------------------------

fn worker(config: &Config) {
    let stopping = Arc::new(AtomicBool::new(false));
    let waiting: Arc<Mutex<Option<TcpStream>>> = Arc::default();
    {
        let (stopping, waiting) = (Arc::clone(&stopping), Arc::clone(&waiting));
        on_stop_signal(move || {
            stopping.store(true, Ordering::SeqCst);
            if let Some(stream) = lock(&waiting).as_ref() {
                let _ = stream.shutdown(Shutdown::Read);
            }
        });
    }
    println!("worker {}: waiting for jobs", config.version);
    let cache = Cache::new(&config.cache);
    let mut away = false;
    while !stopping.load(Ordering::SeqCst) {
        let worked = cache
            .connect(Duration::from_secs(2))
            .and_then(|mut connection| {
                *lock(&waiting) = Some(connection.stream.get_ref().try_clone()?);
                if std::mem::take(&mut away) {
                    println!("worker {}: the cache is back", config.version);
                }
                while !stopping.load(Ordering::SeqCst) {
                    if let [_, job] = connection
                        .ask(&["BLPOP", "shop:jobs", "1"], Duration::from_secs(3))?
                        .as_slice()
                    {
                        println!("worker {}: {job}", config.version);
                    }
                }
                Ok(())
            });
        if let Err(error) = worked
            && !stopping.load(Ordering::SeqCst)
        {
            if !std::mem::replace(&mut away, true) {
                println!("worker {}: the cache is away: {error}", config.version);
            }
            thread::sleep(Duration::from_millis(200));
        }
    }
    println!("worker {}: stopped", config.version);
}

fn migrate(config: &Config) {
    let version = &config.version;
    if config.broken == "migrate" {
        eprintln!(
            "migrate: step 2 of 3 failed: column \"price\" of table \"articles\" already exists"
        );
        exit(1);
    }
    let cache = Cache::new(&config.cache);
    let migrated = (|| {
        let before = cache
            .ask(&["GET", "shop:schema"])?
            .pop()
            .unwrap_or_else(|| "nothing".to_owned());
        cache.ask(&["SET", "shop:schema", version])?;
        let runs = cache
            .ask(&["HINCRBY", "shop:migrations", version, "1"])?
            .pop()
            .unwrap_or_default();
        io::Result::Ok((before, runs))
    })();
    match migrated {
        Ok((before, runs)) => {
            println!("migrate: schema {before} -> {version} (run {runs} for {version})")
        }
        Err(error) => {
            eprintln!("migrate: the cache at {} is away: {error}", config.cache);
            exit(1);
        }
    }
}

fn healthcheck(config: &Config) {
    let asked = TcpStream::connect((Ipv4Addr::LOCALHOST, config.port)).and_then(|mut stream| {
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        stream.write_all(b"GET /healthz HTTP/1.0\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    });
    match asked {
        Ok(answer) if answer.starts_with("HTTP/1.1 200 ") => println!("healthy"),
        Ok(answer) => {
            println!("{}", answer.lines().next().unwrap_or("no answer"));
            exit(1);
        }
        Err(error) => {
            println!("cannot ask port {}: {error}", config.port);
            exit(1);
        }
    }
}

// ---- the cache (RESP, the protocol of Redis) -----------------------------------------------------------------------

struct Cache {
    address: String,
    idle: Mutex<Vec<CacheConnection>>,
}

struct CacheConnection {
    stream: BufReader<TcpStream>,
}

impl Cache {
    fn new(address: &str) -> Self {
        Self {
            address: address.to_owned(),
            idle: Mutex::default(),
        }
    }

    fn connect(&self, patience: Duration) -> io::Result<CacheConnection> {
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for address in self.address.to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, patience) {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    return Ok(CacheConnection {
                        stream: BufReader::new(stream),
                    });
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Sends one command, on a new connection if a kept one fails, and again until 2 s are over if the cache is away.
    fn ask(&self, command: &[&str]) -> io::Result<Vec<String>> {
        let deadline = Instant::now() + Duration::from_secs(2);
        loop {
            // A timeout of zero would be none at all.
            let patience = deadline
                .saturating_duration_since(Instant::now())
                .max(Duration::from_millis(10));
            let kept = lock(&self.idle).pop();
            let was_kept = kept.is_some();
            let asked =
                kept.map_or_else(|| self.connect(patience), Ok)
                    .and_then(|mut connection| {
                        let reply = connection.ask(command, patience)?;
                        lock(&self.idle).push(connection);
                        Ok(reply)
                    });
            match asked {
                Ok(reply) => return Ok(reply),
                Err(error) if Instant::now() >= deadline => return Err(error),
                Err(_) if was_kept => {}
                Err(_) => thread::sleep(Duration::from_millis(50)),
            }
        }
    }
}

impl CacheConnection {
    fn ask(&mut self, command: &[&str], patience: Duration) -> io::Result<Vec<String>> {
        self.stream.get_ref().set_read_timeout(Some(patience))?;
        let mut text = format!("*{}\r\n", command.len());
        for word in command {
            text += &format!("${}\r\n{word}\r\n", word.len());
        }
        self.stream.get_mut().write_all(text.as_bytes())?;
        let mut reply = Vec::new();
        self.read(&mut reply).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => {
                io::Error::new(io::ErrorKind::TimedOut, "no answer in time")
            }
            _ => error,
        })?;
        Ok(reply)
    }

    /// Reads one reply, an array as its elements, a missing value as nothing.
    fn read(&mut self, reply: &mut Vec<String>) -> io::Result<()> {
        let line = read_line(&mut self.stream)?.ok_or(io::ErrorKind::UnexpectedEof)?;
        let bad = || io::Error::new(io::ErrorKind::InvalidData, line.clone());
        let (kind, rest) = line.split_at_checked(1).ok_or_else(bad)?;
        match kind {
            "+" | ":" => reply.push(rest.to_owned()),
            "$" if rest != "-1" => {
                let mut bytes = vec![0; rest.parse::<usize>().map_err(|_| bad())? + 2];
                self.stream.read_exact(&mut bytes)?;
                bytes.truncate(bytes.len() - 2);
                reply.push(String::from_utf8_lossy(&bytes).into_owned());
            }
            "*" if rest != "-1" => {
                for _ in 0..rest.parse::<usize>().map_err(|_| bad())? {
                    self.read(reply)?;
                }
            }
            "$" | "*" => {}
            // An error, such as LOADING while the cache reads its file: as good as away.
            _ => return Err(bad()),
        }
        Ok(())
    }
}

// ---- signals -------------------------------------------------------------------------------------------------------

/// Where the signal handler writes to.
static SIGNALLED: AtomicI32 = AtomicI32::new(-1);

unsafe extern "C" {
    fn signal(number: i32, handler: extern "C" fn(i32)) -> usize;
    fn write(file: i32, bytes: *const u8, length: usize) -> isize;
}

/// All that a signal handler may do is call the kernel: it writes a byte to a pipe.
extern "C" fn note_signal(_number: i32) {
    // SAFETY: write may be called in signal handlers, and the byte outlives the call.
    unsafe { write(SIGNALLED.load(Ordering::SeqCst), b"!".as_ptr(), 1) };
}

/// Calls `stop` in a thread of its own for each SIGTERM and SIGINT. As process 1 of a container, a program without a
/// handler gets neither.
fn on_stop_signal(stop: impl Fn() + Send + 'static) {
    const SIGINT: i32 = 2;
    const SIGTERM: i32 = 15;
    let (mut signalled, signaller) = io::pipe().expect("a pipe needs two file descriptors");
    SIGNALLED.store(signaller.into_raw_fd(), Ordering::SeqCst);
    for number in [SIGINT, SIGTERM] {
        // SAFETY: the handler is a function of the right type that only makes a call that is safe there.
        unsafe { signal(number, note_signal) };
    }
    thread::spawn(move || {
        while signalled.read_exact(&mut [0]).is_ok() {
            stop();
        }
    });
}
