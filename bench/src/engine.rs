//! What the engine itself costs: simulated deployments of many services, many deployments at once, and the store.

use std::fmt::Write as _;
use std::process::Command;
use std::time::{Duration, Instant};

use deployer_core::{
    AcquireLease, AppName, AppSpec, Append, DeployOptions, Deployer, Entry, JournalEvent, ReleaseStore, Route,
    ServiceSpec, State, Strategy, Timestamp,
};
use deployer_local::SqliteStore;
use deployer_testkit::{World, simulate};
use futures_util::future::join_all;

use crate::Size;
use crate::figures::{Section, Series, table};
use crate::machine;
use crate::plot;

/// How large, and how many at once.
const SERVICES: [usize; 4] = [1, 10, 100, 1_000];
const AT_ONCE: [usize; 5] = [1, 10, 100, 1_000, 10_000];
const JOURNALS: [usize; 3] = [100, 1_000, 10_000];

/// What it cost.
#[derive(Clone, Copy, Debug, Default)]
struct Cost {
    wall: Duration,
    processor: Duration,
    entries: usize,
}

pub(crate) fn measure() -> Section {
    let mut text = format!(
        "## The engine\n\n`scripts/bench engine` on {}, one thread, the platform simulated: its books, which it goes through \
         after every change, are part of what is measured, and most of it where services are many. A deployment replaces every \
         service by blue/green.\n\n",
        machine::describe()
    );
    let mut figures = "engine:".to_owned();
    let mut picture = Vec::new();

    let (mut rows, mut points) = (Vec::new(), Vec::new());
    for services in SERVICES {
        let cost = deploy(1, services);
        println!("{services} services: {cost:?}");
        rows.push(row(services, 1, &cost));
        points.push((services as f64, millis(cost.processor)));
        write!(figures, " services_{services}_ms={:.2}", millis(cost.processor)).unwrap();
    }
    let heading = ["services", "deployments at once", "wall", "processor", "for each service", "journal entries/s"];
    text.push_str(&table(&heading, &rows));
    writeln!(text, "\nAt the end the time grows with the number of services to the power of {:.2}.\n", slope(&points))
        .unwrap();
    write!(figures, " services_power={:.2}", slope(&points)).unwrap();
    picture.push(("services in one deployment", points));

    let (mut rows, mut points) = (Vec::new(), Vec::new());
    for at_once in AT_ONCE {
        let cost = deploy(at_once, 1);
        println!("{at_once} at once: {cost:?}");
        rows.push(row(1, at_once, &cost));
        points.push((at_once as f64, millis(cost.processor)));
        write!(figures, " at_once_{at_once}_ms={:.2}", millis(cost.processor)).unwrap();
    }
    text.push_str(&table(&heading, &rows));
    writeln!(
        text,
        "\nAt the end the time grows with the number of deployments to the power of {:.2}.\n",
        slope(&points)
    )
    .unwrap();
    write!(figures, " at_once_power={:.2}", slope(&points)).unwrap();
    picture.push(("deployments at once", points));

    let file = "benchmarks-engine.svg";
    let svg = plot::against_size("Processor time of simulated deployments", "ms", &picture);
    writeln!(text, "![Processor time against size]({file})\n").unwrap();

    text.push_str(&counts(&mut figures));
    text.push('\n');
    text.push_str(&store(&mut figures));
    Section { name: "engine".to_owned(), text, figures, picture: Some((file.to_owned(), svg)) }
}

fn row(services: usize, at_once: usize, cost: &Cost) -> Vec<String> {
    let each = millis(cost.processor) / (services * at_once) as f64;
    vec![
        services.to_string(),
        at_once.to_string(),
        format!("{:.1} ms", millis(cost.wall)),
        format!("{:.1} ms", millis(cost.processor)),
        format!("{each:.2} ms"),
        format!("{:.0}", cost.entries as f64 / cost.processor.as_secs_f64().max(1e-9)),
    ]
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// The exponent of the power law through the largest two points: what comes with size shows there.
fn slope(points: &[(f64, f64)]) -> f64 {
    let [.., (x0, y0), (x1, y1)] = points else { return f64::NAN };
    (y1 / y0).ln() / (x1 / x0).ln()
}

fn spec(services: usize, image: &str) -> AppSpec {
    let strategy = Strategy::BlueGreen { bake: Duration::ZERO, keep_warm: Duration::ZERO };
    (0..services).fold(AppSpec::new("shop").unwrap(), |app, number| {
        let route = Route::new(8080).with_host(format!("s{number}.example"));
        let service = ServiceSpec::image(image).with_route(route).with_http_probe("/", 8080);
        app.with_service(format!("s{number}"), service.with_strategy(strategy.clone())).unwrap()
    })
}

/// So many applications, each in a world of its own.
struct Fleet {
    worlds: Vec<World>,
    deployers: Vec<Deployer>,
    services: usize,
}

impl Fleet {
    fn new(at_once: usize, services: usize) -> Self {
        let worlds: Vec<World> = (0..at_once).map(|_| World::new()).collect();
        let deployer = |world: &World| {
            world.add_image("web:v1");
            world.add_image("web:v2");
            Deployer::builder(world.backend()).clock(world.clock()).build()
        };
        Self { deployers: worlds.iter().map(deployer).collect(), worlds, services }
    }

    /// Deploys this image to all of them at once; answers how long the journals are.
    async fn deploy(&self, image: &str) -> usize {
        let all = self.deployers.iter().map(async |deployer| {
            let deployment = deployer.deploy(spec(self.services, image), DeployOptions::default());
            let record = deployment.finished().await.unwrap();
            assert!(record.verdict.as_ref().unwrap().is_promoted());
            usize::try_from(record.last_seq).unwrap()
        });
        join_all(all).await.into_iter().sum()
    }
}

/// So many deployments at once, each of so many services in a world of its own. Small ones are made several times, and what one
/// of them costs is told.
fn deploy(at_once: usize, services: usize) -> Cost {
    let times = (2_000 / (at_once * services)).clamp(1, 400);
    let mut total = Cost::default();
    for _ in 0..times {
        let fleet = Fleet::new(at_once, services);
        simulate(async {
            fleet.deploy("web:v1").await;
            let before = machine::own_time();
            let began = Instant::now();
            total.entries += fleet.deploy("web:v2").await;
            total.wall += began.elapsed();
            total.processor += machine::own_time().saturating_sub(before);
        });
        fleet.worlds.iter().for_each(World::assert_no_violations);
    }
    let times = times as u32;
    Cost {
        wall: total.wall / times,
        processor: total.processor.max(Duration::from_micros(1)) / times,
        entries: total.entries / times as usize,
    }
}

/// Deploys so often, one after the other: what [`counted`] runs in a process of its own.
pub(crate) fn repeat(Size { services, at_once, rounds }: Size) {
    let fleet = Fleet::new(at_once, services);
    simulate(async {
        for round in 0..rounds {
            fleet.deploy(if round % 2 == 0 { "web:v1" } else { "web:v2" }).await;
        }
    });
}

/// What deployments need besides time.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Counted {
    instructions: u64,
    allocations: u64,
    bytes: u64,
    /// The most bytes that were in use at once, with the platform's books.
    peak: u64,
}

/// Counts what one deployment of this size needs, as the difference between runs of three and one; nothing, without valgrind.
fn counted(services: usize, at_once: usize) -> Option<Counted> {
    let run = |tool: &str, rounds: usize| {
        let mut command = Command::new("valgrind");
        command.args([&format!("--tool={tool}"), &format!("--{tool}-out-file=/dev/null")]);
        command.arg(std::env::current_exe().unwrap()).arg("repeat");
        command.args([format!("--services={services}"), format!("--at-once={at_once}"), format!("--rounds={rounds}")]);
        let output = command.output().ok()?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{command:?}: {said}");
        Some(said)
    };
    // The numbers of a line like `==7== Total:     1,234 bytes in 56 blocks`.
    let numbers = |said: &str, label: &str| -> Vec<u64> {
        let line = said.lines().find_map(|line| line.split_once(label));
        let words = line.map_or("", |(_, rest)| rest).split_whitespace();
        words.filter_map(|word| word.replace(',', "").parse().ok()).collect()
    };
    let each = |one: &str, three: &str, label: &str| -> Vec<u64> {
        let pairs = numbers(one, label).into_iter().zip(numbers(three, label));
        pairs.map(|(one, three)| (three - one) / 2).collect()
    };
    let instructions = each(&run("callgrind", 1)?, &run("callgrind", 3)?, "Collected :");
    let (one, three) = (run("dhat", 1)?, run("dhat", 3)?);
    let memory = each(&one, &three, "Total:");
    let peak = numbers(&one, "At t-gmax:")[0];
    Some(Counted { instructions: instructions[0], bytes: memory[0], allocations: memory[1], peak })
}

/// Of which sizes instructions and allocations are counted: services, and deployments at once.
const COUNTED: [(usize, usize); 5] = [(1, 1), (10, 1), (100, 1), (1, 10), (1, 100)];

fn counts(figures: &mut String) -> String {
    let mut rows = Vec::new();
    for (services, at_once) in COUNTED {
        let Some(Counted { instructions, allocations, bytes, peak }) = counted(services, at_once) else { continue };
        let all = (services * at_once) as f64;
        println!("{services} services, {at_once} at once: {instructions} instructions, {allocations} allocations");
        rows.push(vec![
            services.to_string(),
            at_once.to_string(),
            format!("{:.2} million", instructions as f64 / all / 1e6),
            format!("{:.0}", allocations as f64 / all),
            format!("{:.0} KiB", bytes as f64 / all / 1024.0),
            format!("{:.0} KiB", peak as f64 / all / 1024.0),
        ]);
        write!(figures, " counted_{services}x{at_once}={instructions}/{allocations}").unwrap();
    }
    if rows.is_empty() {
        return "Not measured in this run: instructions and allocations, which `valgrind` counts.\n".to_owned();
    }
    let heading =
        ["services", "deployments at once", "instructions", "allocations", "allocated in all", "at most at once"];
    let mut text = "For each service of a deployment, counted by valgrind (callgrind and dhat):\n\n".to_owned();
    text.push_str(&table(&heading, &rows));
    text
}

/// By which part more may be allocated than was written down.
const TOLERANCE: f64 = 0.05;
const EXPECTED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/counts.txt");

/// Compares instructions and allocations with those that were written down, or writes them down. Times on machines that others
/// share drift; these do not. Answers whether no more is allocated: instructions are told, as other compilers and processors have
/// others.
pub(crate) fn guard(write: bool) -> bool {
    let mut text =
        "# What deployments cost: written by `scripts/bench guard --write`, compared by `scripts/bench guard`.\n\
                    # services, deployments at once, instructions, allocations\n"
            .to_owned();
    let expected = std::fs::read_to_string(EXPECTED).unwrap_or_default();
    let mut within = true;
    for (services, at_once) in [(1, 1), (20, 1), (1, 20)] {
        let now = counted(services, at_once).expect("valgrind must be installed: scripts/bench does that");
        writeln!(text, "{services} {at_once} {} {}", now.instructions, now.allocations).unwrap();
        let line = expected.lines().find_map(|line| line.strip_prefix(&format!("{services} {at_once} ")));
        let before: Vec<u64> = line.unwrap_or_default().split(' ').filter_map(|word| word.parse().ok()).collect();
        let [instructions, allocations] = before[..] else {
            assert!(
                write,
                "bench/counts.txt says nothing of {services} services, {at_once} at once: scripts/bench guard --write"
            );
            continue;
        };
        let more = |now: u64, before: u64| now as f64 / before as f64 - 1.0;
        let (run, made) = (more(now.instructions, instructions), more(now.allocations, allocations));
        println!(
            "guard: {services} services, {at_once} deployments at once: {} allocations ({:+.1} %), {} instructions ({:+.1} %)",
            now.allocations,
            100.0 * made,
            now.instructions,
            100.0 * run
        );
        within &= made <= TOLERANCE;
    }
    if write {
        std::fs::write(EXPECTED, text).unwrap();
    } else if !within {
        println!("guard: more is allocated than was written down: find out why");
        println!(
            "guard: (`valgrind --tool=dhat target/debug/deployer-bench repeat --services 20`), and if it is worth that,"
        );
        println!("guard: write it down with `scripts/bench guard --write`");
    }
    write || within
}

/// Leases and journals in SQLite, on this machine's disk.
fn store(figures: &mut String) -> String {
    let opened = opened();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let directory = tempfile::tempdir_in(".").unwrap();
        let store = SqliteStore::open(directory.path().join("deployer.db")).unwrap();
        let app: AppName = "shop".parse().unwrap();
        let now = Timestamp::from_millis(1_000);
        let ttl = Duration::from_secs(3_600);
        let lease = store.acquire_lease(AcquireLease::new(app, "bench", "bench", ttl, now)).await.unwrap();
        let mut renewing = Series::default();
        for _ in 0..200 {
            let began = Instant::now();
            store.renew_lease(&lease, now).await.unwrap();
            renewing.add(millis(began.elapsed()));
        }
        let mut rows = vec![vec!["renew a lease".to_owned(), renewing.cell(2)]];
        write!(figures, " lease_ms={:.2}", renewing.median()).unwrap();
        let mut appending = Series::default();
        for length in JOURNALS {
            let mut first = opened.clone();
            let JournalEvent::Opened { deployment, .. } = &mut first.event else { panic!("it begins with that") };
            *deployment = format!("bench-{length}").parse().unwrap();
            first.fence = lease.fence;
            let id = deployment.clone();
            let mut state = State::open(&first).unwrap();
            store.append(Append::new(state.record.clone(), lease.fence, vec![first])).await.unwrap();
            // One at a time as far as that is measured, the rest together.
            let mut left = length - 1;
            while left > 0 {
                let count = if appending.0.len() < 200 { 1 } else { left.min(500) };
                let mut entries = Vec::new();
                for _ in 0..count {
                    let event = JournalEvent::Resumed { owner: "bench".to_owned() };
                    let entry = Entry::new(state.record.last_seq + 1, now, lease.fence, event);
                    state.apply(&entry).unwrap();
                    entries.push(entry);
                }
                let began = Instant::now();
                store.append(Append::new(state.record.clone(), lease.fence, entries)).await.unwrap();
                if count == 1 {
                    appending.add(millis(began.elapsed()));
                }
                left -= count;
            }
            let mut reading = Series::default();
            for _ in 0..20 {
                let began = Instant::now();
                let entries = store.journal(&id, 1).await.unwrap();
                assert_eq!(State::fold(&entries).unwrap().record.last_seq, length as u64);
                reading.add(millis(began.elapsed()));
            }
            rows.push(vec![format!("read and fold a journal of {length} entries"), reading.cell(2)]);
            write!(figures, " fold_{length}_ms={:.2}", reading.median()).unwrap();
        }
        rows.insert(1, vec!["append an entry".to_owned(), appending.cell(2)]);
        write!(figures, " append_ms={:.2}", appending.median()).unwrap();
        table(&["SQLite, each change forced to the disk", "ms"], &rows)
    })
}

/// The first entry of a deployment's journal.
fn opened() -> Entry {
    let world = World::new();
    world.add_image("web:v1");
    let deployer = Deployer::builder(world.backend()).clock(world.clock()).build();
    simulate(async {
        let record = deployer.deploy(spec(1, "web:v1"), DeployOptions::default()).finished().await.unwrap();
        world.backend().store.journal(&record.id, 1).await.unwrap().remove(0)
    })
}
