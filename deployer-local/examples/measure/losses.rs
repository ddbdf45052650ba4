//! Requests lost over many deployments and rollbacks.

use std::time::Instant;

use deployer_core::{AppSpec, EnvValue, ReleaseNumber};

use crate::site::{Site, promoted, service};

const PER_SECOND: u32 = 400;

pub(crate) async fn measure(rounds: u64) -> bool {
    let (fast, slow) = (rounds - rounds / 2, rounds / 2);
    println!("{:<6} {:<26} {:>9} {:>8} {:>6}", "round", "what", "took", "sent", "lost");
    let first = half("fast", "/version", "0", fast).await;
    let second = half("slow", "/", "300-500", slow).await;
    let (sent, lost) = (first.0 + second.0, first.1 + second.1);
    println!("losses: rounds={rounds} sent={sent} lost={lost}");
    lost == 0
}

/// So many rounds of one kind; answers how many requests were sent, and how many of them were lost.
async fn half(name: &str, path: &str, delay_millis: &str, rounds: u64) -> (u64, u64) {
    let site = Site::new(&format!("losses-{name}")).await;
    // Each with instances of its own: two that are equal would share them.
    let version = |number: u64| -> AppSpec {
        let image = if number.is_multiple_of(2) { "v2" } else { "v1" };
        let mut spec = site.place.shop(&[("VERSION", image), ("DELAY_MS", delay_millis)]);
        let version = EnvValue::Plain(format!("{name}-{number}"));
        service(&mut spec, "web").workload.env.insert("VERSION".to_owned(), version);
        spec
    };
    site.deploy_well(version(0)).await;
    let load = site.load(path, PER_SECOND).start();
    let mut before = (0, 0);
    for round in 1..=rounds {
        let began = Instant::now();
        let what = match round % 4 {
            // What stands by, then one that has been stopped long ago.
            3 => {
                let record = promoted(site.deployer.rollback(site.app(), None)).await;
                format!("warm rollback to release {}", record.target.unwrap())
            }
            0 => {
                let to = ReleaseNumber(1);
                promoted(site.deployer.rollback(site.app(), Some(to))).await;
                format!("cold rollback to release {to}")
            }
            _ => {
                let record = site.deploy_well(version(round)).await;
                format!("deploy of release {}", record.target.unwrap())
            }
        };
        let took = began.elapsed();
        let report = load.snapshot();
        let (sent, lost) = (report.sent - before.0, report.lost - before.1);
        before = (report.sent, report.lost);
        println!("{round:<6} {what:<26} {:>7.2} s {sent:>8} {lost:>6}  {name}", took.as_secs_f64());
    }
    let report = load.stop().await;
    println!("\n{name}: {report}");
    (report.sent, report.lost + report.unsent)
}
