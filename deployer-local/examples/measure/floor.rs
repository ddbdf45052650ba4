//! How long a deployment takes beyond what the engine itself needs.

use std::sync::Arc;
use std::time::{Duration, Instant};

use deployer_core::{Action, AppSpec, Deployment, EnvValue, ImageSource, Intercept, JournalEvent, ServiceName};

use crate::calls::Calls;
use crate::plain::{PACE, plain_calls};
use crate::site::{Site, promoted, service};
use crate::statistics::Times;

pub(crate) async fn measure(rounds: u64, show_calls: bool) -> bool {
    let mut site = Site::new("floor").await;
    let calls = Arc::new(Calls::default());
    if show_calls {
        site.deployer = site.place.deployer().await.intercept(Arc::clone(&calls) as Arc<dyn Intercept>).build();
    }
    // Builds the images.
    site.deploy_well(site.version("v2")).await;
    site.deploy_well(site.version("v1")).await;
    site.deploy_well(only_web(&site, 0)).await;
    let release = site.deployer.releases(site.app(), 1).await.unwrap().remove(0);
    let image = release.services[&ServiceName::new("web").unwrap()].image.clone();
    let network = format!("{}_backend", site.app());

    let (mut floor, mut ours, mut warm, mut back) =
        (Times::default(), Times::default(), Times::default(), Times::default());
    for round in 1..=rounds {
        let plain = floor.add(plain_calls(&site, &network, &image.location, 3).await);

        let began = Instant::now();
        let mut deployment = site.deploy(only_web(&site, round));
        moved(&mut deployment).await;
        let served = answered(&site, &format!("r{round}")).await;
        calls.print(began, served);
        let deployed = ours.add(served - began);
        // To its end, so that what comes next has the engine for itself.
        promoted(deployment).await;

        let began = Instant::now();
        let mut rollback = site.deployer.rollback(site.app(), None);
        let before = format!("r{}", round - 1);
        let (at, served) = tokio::join!(moved(&mut rollback), answered(&site, &before));
        calls.print(began, at.max(served));
        let (moved, answered) = (warm.add(at - began), back.add(served - began));
        promoted(rollback).await;
        println!(
            "round {round}: floor {plain:.1} ms, deployed {deployed:.1} ms, rolled back {moved:.1} ms, answered {answered:.1} ms"
        );
        // The next one rolls back to this one.
        promoted(site.deploy(only_web(&site, round))).await;
    }
    println!("\n{}", Times::heading());
    println!("{}", floor.row("three containers by plain calls"));
    println!("{}", ours.row("deploy until three replicas serve"));
    println!("{}", warm.row("warm rollback until the traffic is moved"));
    println!("{}", back.row("warm rollback until the first answer"));
    let ratio = ours.median() / floor.median();
    println!(
        "floor: floor_ms={:.1} deploy_ms={:.1} ratio={ratio:.3} warm_rollback_ms={:.1}",
        floor.median(),
        ours.median(),
        warm.median()
    );
    ratio <= 1.15 && warm.median() <= 50.0
}

/// The web service alone, of an image that is there, with a version of its own.
fn only_web(site: &Site, round: u64) -> AppSpec {
    let mut spec = site.version("v1");
    spec.services.retain(|name, _| name.as_str() == "web");
    spec.volumes.clear();
    let web = service(&mut spec, "web");
    web.image = ImageSource::Reference("shop:v1".to_owned());
    web.depends_on.clear();
    web.hooks.clear();
    web.strategy = deployer_core::Strategy::BlueGreen { bake: Duration::ZERO, keep_warm: Duration::from_secs(600) };
    web.workload.env.insert("VERSION".to_owned(), EnvValue::Plain(format!("r{round}")));
    spec
}

/// Waits until a deployment has moved the traffic.
async fn moved(deployment: &mut Deployment) -> Instant {
    let mut shifts = Vec::new();
    while let Some(event) = deployment.next_event().await {
        match event.journal() {
            Some(JournalEvent::Opened { plan, .. }) => {
                let steps = plan.steps.iter().filter(|step| matches!(step.action, Action::Shift { .. }));
                shifts = steps.map(|step| step.id).collect();
            }
            Some(JournalEvent::StepFinished { step, .. }) if shifts.contains(step) => return Instant::now(),
            _ => {}
        }
    }
    panic!("the traffic was never moved");
}

/// Waits until this version answers through the ingress.
async fn answered(site: &Site, version: &str) -> Instant {
    while site.get("/version").await.1 != version {
        tokio::time::sleep(PACE).await;
    }
    Instant::now()
}
