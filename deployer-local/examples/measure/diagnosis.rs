//! How long it takes until a release that cannot work is known to be such.

use std::collections::HashMap;
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bollard::query_parameters::EventsOptionsBuilder;
use deployer_core::{AppSpec, ImageSource, Intercept, JournalEvent, Port};
use futures_util::StreamExt as _;

use crate::calls::Calls;
use crate::site::{Site, service};

/// What the engine said about the site's containers, and when, in milliseconds since 1970.
type Said = Arc<Mutex<Vec<(u64, String)>>>;

pub(crate) async fn measure(show_calls: bool) -> bool {
    let mut site = Site::new("diagnosis").await;
    let calls = Arc::new(Calls::default());
    if show_calls {
        site.deployer = site.place.deployer().await.intercept(Arc::clone(&calls) as Arc<dyn Intercept>).build();
    }
    site.deploy_well(site.version("v1")).await;
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().port();
    let load = site.load("/version", 400).start();

    let shop = |broken: &str| site.place.shop(&[("VERSION", "v2"), ("BROKEN", broken)]);
    let changed = |change: &dyn Fn(&mut AppSpec)| {
        let mut spec = shop("");
        change(&mut spec);
        spec
    };
    let mut unhealthy = shop("unhealthy");
    service(&mut unhealthy, "web").readiness.deadline = Duration::from_secs(3);
    // With the evidence that is waited for, and whether it tells at once.
    let releases = [
        ("exits at once", shop("exit"), "die", true),
        ("out of memory", shop("oom"), "die", true),
        ("migration fails", shop("migrate"), "die", true),
        (
            "command missing",
            changed(&|spec| service(spec, "web").workload.command = Some(vec!["/nope".to_owned()])),
            "create",
            true,
        ),
        (
            "port taken",
            changed(&|spec| service(spec, "web").workload.ports.push(Port::published(8080, taken))),
            "begin",
            true,
        ),
        (
            "image missing",
            changed(&|spec| service(spec, "web").image = ImageSource::Reference("no-such-image:1".to_owned())),
            "begin",
            true,
        ),
        ("never healthy, 3 s deadline", unhealthy, "create", false),
    ];
    println!("{:<30} {:<8} {:>12} {:>12} {:>6}  cause", "release", "evidence", "diagnosed", "verdict", "lost");
    let mut slowest = 0.0_f64;
    let mut lost = 0;
    for (name, spec, evidence, at_once) in releases {
        let began = Instant::now();
        let (diagnosed, verdict, cause) = one(&site, spec, evidence).await;
        calls.print(began, Instant::now());
        if at_once {
            slowest = slowest.max(diagnosed);
        }
        let now = load.snapshot().lost;
        println!("{name:<30} {evidence:<8} {diagnosed:>9.0} ms {verdict:>9.0} ms {:>6}  {cause}", now - lost);
        lost = now;
    }
    let report = load.stop().await;
    println!("\n{report}");
    println!("diagnosis: slowest_ms={slowest:.0} lost={}", report.lost + report.unsent);
    slowest <= 2000.0 && report.lost + report.unsent == 0
}

/// Deploys a release that must fail; answers how many milliseconds after the evidence its failure was known, and after
/// how many it had a verdict.
async fn one(site: &Site, spec: AppSpec, evidence: &str) -> (f64, f64, String) {
    let said: Said = Arc::default();
    let listening = tokio::spawn(listen(site, Arc::clone(&said)));
    let began_at = millis();
    let mut deployment = site.deploy(spec);
    let mut diagnosed = None;
    while let Some(event) = deployment.next_event().await {
        if let Some(JournalEvent::StepFailed { .. }) = event.journal() {
            diagnosed.get_or_insert_with(millis);
        }
    }
    let ended = deployment.finished().await;
    let (ended_at, cause) = (
        millis(),
        match ended {
            Ok(record) => record.verdict.unwrap().to_string(),
            Err(error) => error.to_string(),
        },
    );
    listening.abort();
    let said = said.lock().unwrap().clone();
    // Where there is no container to tell, the beginning counts.
    let first = said.iter().find(|(_, action)| action == evidence).map_or(began_at, |(at, _)| *at);
    let diagnosed = diagnosed.unwrap_or(ended_at);
    (
        diagnosed.saturating_sub(first) as f64,
        ended_at.saturating_sub(first) as f64,
        cause.lines().next().unwrap_or_default().to_owned(),
    )
}

fn millis() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

/// Notes what the engine says about containers of the site that are created or end.
fn listen(site: &Site, said: Said) -> impl Future<Output = ()> + Send + use<> {
    let filters = HashMap::from([
        ("label".to_owned(), vec![format!("deployer.app={}", site.app())]),
        ("event".to_owned(), ["create", "die"].map(str::to_owned).to_vec()),
    ]);
    let since = format!("{}", millis() / 1000);
    let options = EventsOptionsBuilder::default().since(&since).filters(&filters).build();
    let mut events = site.docker.events(Some(options));
    let began = millis();
    async move {
        while let Some(Ok(event)) = events.next().await {
            let at = u64::try_from(event.time_nano.unwrap_or_default() / 1_000_000).unwrap_or_default();
            let attributes = event.actor.and_then(|actor| actor.attributes).unwrap_or_default();
            let of_hook = attributes.get("deployer.role").is_some_and(|role| role == "task");
            let succeeded = attributes.get("exitCode").is_some_and(|code| code == "0");
            let action = event.action.unwrap_or_default();
            // Neither a migration that went well nor its container is evidence, nor what was there before.
            if at >= began && !succeeded && !(of_hook && action == "create") {
                said.lock().unwrap().push((at, action));
            }
        }
    }
}
