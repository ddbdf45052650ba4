//! A deployment and the way back under load, with each tool in turn, and the floor: what plain calls of the engine take.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use deployer_testkit::load::{Load, Mode, Running};
use futures_util::future::join_all;
use tokio::process::Command;

use crate::Choice;
use crate::figures::{Section, Series, table};
use crate::machine;
use crate::plain::plain_calls;
use crate::plot::{self, Picture};
use crate::site::{HOST, Site};
use crate::tools::{Stand, Tool, build_images};

/// Requests per second over kept connections, and as many over new ones.
const RATE: u32 = 200;
/// How long the load goes on before and after what is measured.
const MARGIN: Duration = Duration::from_secs(1);
/// How long the new version may take after the tool has said that it is done.
const PATIENCE: Duration = Duration::from_secs(30);

/// What was seen from outside while a command ran.
#[derive(Debug)]
pub(crate) struct Seen {
    /// From the command to the first answer of the version that shall serve.
    pub(crate) first: Option<Duration>,
    /// From the command until it alone answers: the last answer of another one, or the first of its own.
    pub(crate) all: Option<Duration>,
    pub(crate) command: Duration,
    /// Processor time of the command and what it started.
    pub(crate) processor: Duration,
    pub(crate) sent: u64,
    pub(crate) lost: u64,
    /// From the first to the last request that was lost.
    pub(crate) outage: Duration,
    /// The slowest answer.
    pub(crate) slowest: Duration,
    /// The generator's own faults: requests that it could not send.
    unsent: u64,
    lag: Duration,
    pub(crate) status: std::process::ExitStatus,
    pub(crate) said: String,
    pub(crate) picture: Picture,
}

/// The same many times over.
#[derive(Default)]
struct Rows {
    first: Series,
    all: Series,
    command: Series,
    processor: Series,
    sent: u64,
    lost: u64,
    slowest: Series,
}

impl Rows {
    fn add(&mut self, seen: &Seen) {
        seen.first.into_iter().for_each(|time| self.first.seconds(time));
        seen.all.into_iter().for_each(|time| self.all.seconds(time));
        self.command.seconds(seen.command);
        self.processor.seconds(seen.processor);
        self.slowest.seconds(seen.slowest);
        self.sent += seen.sent;
        self.lost += seen.lost;
    }

    fn cells(&self) -> Vec<String> {
        vec![
            self.first.cell(2),
            self.all.cell(2),
            self.command.cell(2),
            format!("{} of {}", self.lost, self.sent),
            format!("{:.2}", self.slowest.most()),
            self.processor.cell(2),
        ]
    }
}

pub(crate) async fn measure(choice: &Choice) -> Section {
    build_images().await;
    let tools = Tool::all(choice);
    let headroom = headroom().await;
    println!("{headroom}");
    let mut floor = Series::default();
    let mut rows: BTreeMap<String, (Rows, Rows)> = BTreeMap::new();
    let mut pictures: BTreeMap<String, Picture> = BTreeMap::new();
    let (mut unsent, mut lag) = (0, Duration::ZERO);
    for round in 0..choice.rounds {
        floor.seconds(floor_under_load(choice.replicas).await);
        println!("round {}: floor {:.2} s", round + 1, floor.0.last().unwrap());
        // Nobody is always the first, or comes always after the same other one.
        let turns = (0..tools.len()).map(|turn| (turn + round as usize) % tools.len());
        for tool in turns.map(|turn| &tools[turn]) {
            let stand = Stand::new(tool, choice.replicas).await;
            let forth = watch(&stand.site, stand.command("v2", ""), "v2").await;
            tell(tool, "deploy", &forth);
            let back = watch(&stand.site, stand.way_back(), "v1").await;
            tell(tool, "back", &back);
            for seen in [&forth, &back] {
                unsent += seen.unsent;
                lag = lag.max(seen.lag);
            }
            let (deployed, rolled_back) = rows.entry(tool.key()).or_default();
            deployed.add(&forth);
            rolled_back.add(&back);
            pictures.insert(tool.key(), forth.picture);
        }
    }
    section(choice, &tools, &headroom, &floor, &rows, &pictures, (unsent, lag))
}

fn tell(tool: &Tool, what: &str, seen: &Seen) {
    let seconds = |time: Option<Duration>| time.map_or("-".to_owned(), |time| format!("{:.2} s", time.as_secs_f64()));
    println!(
        "  {:<34} {what:<6} first {:>8}, all {:>8}, command {:>8}, lost {} of {}, slowest {}",
        tool.name(),
        seconds(seen.first),
        seconds(seen.all),
        seconds(Some(seen.command)),
        seen.lost,
        seen.sent,
        seconds(Some(seen.slowest)),
    );
}

fn section(
    choice: &Choice,
    tools: &[Tool],
    headroom: &str,
    floor: &Series,
    rows: &BTreeMap<String, (Rows, Rows)>,
    pictures: &BTreeMap<String, Picture>,
    (unsent, lag): (u64, Duration),
) -> Section {
    let Choice { replicas, rounds, .. } = choice;
    let name = format!("local-{replicas}");
    let mut text = format!(
        "## Deploying {replicas} replicas under load\n\n`scripts/bench local --replicas {replicas} --rounds {rounds}{}` on {}. \
         {RATE} requests/s over kept connections and as many over new ones, to `/version` of the quickstart's web service; the \
         tools that have no proxy stand behind an HAProxy with the rules of Deployer's own, which waits for servers, repeats \
         requests and finds servers through the engine's name server. Seconds: the median, in brackets the least and the most. \
         *First* is the first answer of the new version, from *all* on \
         it alone answers; *slowest* is the slowest answer, *processor* \
         that of the command and its children, without what an engine does for any of them (a swarm's works in its engine).\n\n\
         Plain calls that create, start and probe the same containers at once, in the same network and under the same load, take {} s: the floor.\n\n",
        choice.options(),
        machine::describe(),
        floor.cell(2)
    );
    let heading = ["deploy", "first", "all", "command", "lost", "slowest", "processor"];
    let row = |tool: &Tool, rows: &Rows| [vec![tool.name()], rows.cells()].concat();
    let deployed: Vec<_> = tools.iter().map(|tool| row(tool, &rows[&tool.key()].0)).collect();
    text.push_str(&table(&heading, &deployed));
    text.push_str(
        "\nAnd back to the version before, which Deployer and a swarm remember; the others deploy it again:\n\n",
    );
    let heading = ["rollback", "first", "all", "command", "lost", "slowest", "processor"];
    let back: Vec<_> = tools.iter().map(|tool| row(tool, &rows[&tool.key()].1)).collect();
    text.push_str(&table(&heading, &back));
    let left_out = match unsent {
        0 => "no request".to_owned(),
        unsent => format!("{unsent} requests, all of them while 512 others had no answer yet,"),
    };
    let late = lag.as_secs_f64() * 1000.0;
    writeln!(text, "\nThe generator left out {left_out} and was at most {late:.0} ms late. {headroom}").unwrap();
    let rows_of: Vec<(String, &Picture)> = tools.iter().map(|tool| (tool.name(), &pictures[&tool.key()])).collect();
    let file = format!("benchmarks-{name}.svg");
    let svg = plot::over_time(&rows_of);
    writeln!(text, "\n![Answers, losses and how long answers took over time, for each tool]({file})").unwrap();
    text.push_str(
        "\nThe last round, a column for each tenth of a second since the command: requests that the old version answered grey, the \
         new one green, lost ones red, at the time at which they were sent. Below that how long those answers took, the quickest \
         to the slowest of each tenth of a second, from 1 ms to 10 s.\n",
    );
    text.push_str(&choice.left_out());
    let mut figures = format!("local: replicas={replicas} rounds={rounds} floor_s={:.3}", floor.median());
    for tool in tools {
        let (deployed, back) = &rows[&tool.key()];
        write!(
            figures,
            " {key}_first_s={:.3} {key}_all_s={:.3} {key}_lost={} {key}_back_s={:.3} {key}_back_lost={}",
            deployed.first.median(),
            deployed.all.median(),
            deployed.lost,
            back.all.median(),
            back.lost,
            key = tool.key()
        )
        .unwrap();
    }
    Section { name, text, figures, picture: Some((file, svg)) }
}

/// Runs a command under load, until `version` answers alone.
pub(crate) async fn watch(site: &Site, mut command: Command, version: &str) -> Seen {
    let loads = start_loads(site);
    tokio::time::sleep(MARGIN).await;
    let processor = machine::time_of_children();
    let began = Instant::now();
    let output = command.output().await.unwrap();
    let took = began.elapsed();
    let processor = machine::time_of_children().saturating_sub(processor);
    // Other versions may still answer for a while.
    let done = Instant::now();
    let mut last = others(&loads, version);
    while done.elapsed() < PATIENCE {
        tokio::time::sleep(MARGIN).await;
        let now = others(&loads, version);
        if now == last {
            break;
        }
        last = now;
    }
    let whole = began.elapsed();
    let starts = loads.each_ref().map(|load| began.saturating_duration_since(load.started()));
    let reports = join_all(loads.map(Running::stop)).await;
    let picture = Picture::of(reports.iter().zip(starts), whole);
    let ends = |wanted: bool| {
        let answers = picture
            .requests
            .iter()
            .filter(move |one| one.version.as_deref().is_some_and(|name| (name == version) == wanted));
        answers.map(|one| one.at + one.after)
    };
    let first = ends(true).min();
    let losses = || picture.requests.iter().filter(|one| one.version.is_none()).map(|one| one.at);
    let outage = losses().max().zip(losses().min()).map_or(Duration::ZERO, |(last, first)| last - first);
    Seen {
        first,
        all: ends(false).chain(first).max(),
        command: took,
        processor,
        sent: reports.iter().map(|report| report.sent).sum(),
        lost: reports.iter().map(|report| report.lost).sum(),
        outage,
        slowest: reports.iter().map(|report| report.latency.max).max().unwrap_or_default(),
        unsent: reports.iter().map(|report| report.unsent).sum(),
        lag: reports.iter().map(|report| report.max_lag).max().unwrap_or_default(),
        status: output.status,
        said: String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned(),
        picture,
    }
}

/// Both kinds of requests.
fn start_loads(site: &Site) -> [Running; 2] {
    [Mode::KeepAlive, Mode::NewConnection]
        .map(|mode| Load::new(site.place.http, HOST).path("/version").rate(RATE).mode(mode).keep_answers().start())
}

/// How many answers other versions have given.
fn others(loads: &[Running], version: &str) -> u64 {
    let counts = loads.iter().map(|load| {
        let report = load.snapshot();
        report.by_version.iter().filter(|(other, _)| *other != version).map(|(_, count)| count.answered).sum::<u64>()
    });
    counts.sum()
}

/// Shows that the generator is not what is measured: ten times the load, at what serves undisturbed.
async fn headroom() -> String {
    let stand = Stand::new(&Tool::Deployer("blue-green"), 3).await;
    let load = |mode| {
        let load = Load::new(stand.site.place.http, HOST).path("/version").rate(5 * RATE).mode(mode);
        load.limit(u64::from(5 * RATE) * 3).start()
    };
    let reports = join_all([Mode::KeepAlive, Mode::NewConnection].map(|mode| load(mode).finish())).await;
    let unsent: u64 = reports.iter().map(|report| report.unsent).sum();
    let lag = reports.iter().map(|report| report.max_lag).max().unwrap_or_default();
    format!(
        "At {} requests/s, five times as many, it left out {unsent} and was at most {:.0} ms late.",
        10 * RATE,
        lag.as_secs_f64() * 1000.0
    )
}

/// Plain calls while something else serves, so that the machine has no more to spare for them.
async fn floor_under_load(replicas: u32) -> Duration {
    let stand = Stand::new(&Tool::Deployer("blue-green"), replicas).await;
    let loads = start_loads(&stand.site);
    tokio::time::sleep(MARGIN).await;
    // The engine takes longer for networks in which containers find each other by name.
    let network = format!("{}_backend", stand.site.app());
    let took = plain_calls(&stand.site, &network, "shop:v2", replicas).await;
    join_all(loads.map(Running::stop)).await;
    took
}
