//! How long a deployment takes beyond what the engine itself needs.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bollard::models::{ContainerCreateBody, HostConfig};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, InspectContainerOptions, RemoveContainerOptionsBuilder, StartContainerOptions,
};
use deployer_core::{
    Action, AppSpec, Deployment, EnvValue, ImageSource, Intercept, JournalEvent, PinnedImage, ServiceName,
};
use futures_util::future::join_all;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::calls::Calls;
use crate::site::{Site, promoted, service};
use crate::statistics::Times;

/// How often it is looked whether something serves.
const PACE: Duration = Duration::from_millis(5);
const MEMORY: i64 = 64 << 20;
const NANO_CPUS: i64 = 500_000_000;

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

    let (mut floor, mut ours, mut warm, mut back) =
        (Times::default(), Times::default(), Times::default(), Times::default());
    for round in 1..=rounds {
        let plain = floor.add(three_containers(&site, &image, round).await);

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

/// The least that the engine can do: creates and starts the same containers, all at once, and asks each until it answers.
async fn three_containers(site: &Site, image: &PinnedImage, round: u64) -> Duration {
    let network = format!("{}_backend", site.app());
    let names: Vec<String> = (1..=3).map(|number| format!("{}-floor-{round}-{number}", site.app())).collect();
    let began = Instant::now();
    join_all(names.iter().map(async |name| {
        let body = ContainerCreateBody {
            image: Some(image.location.clone()),
            cmd: Some(["/shop", "web"].map(str::to_owned).to_vec()),
            env: Some(vec!["VERSION=floor".to_owned()]),
            labels: Some([("com.docker.compose.project".to_owned(), site.app().to_string())].into()),
            host_config: Some(HostConfig {
                network_mode: Some(network.clone()),
                memory: Some(MEMORY),
                nano_cpus: Some(NANO_CPUS),
                ..HostConfig::default()
            }),
            ..ContainerCreateBody::default()
        };
        let options = CreateContainerOptionsBuilder::default().name(name).build();
        site.docker.create_container(Some(options), body).await.unwrap();
        site.docker.start_container(name, None::<StartContainerOptions>).await.unwrap();
        let found = site.docker.inspect_container(name, None::<InspectContainerOptions>).await.unwrap();
        let networks = found.network_settings.unwrap().networks.unwrap();
        let address: IpAddr = networks[&network].ip_address.as_ref().unwrap().parse().unwrap();
        while !answers(address).await {
            tokio::time::sleep(PACE).await;
        }
    }))
    .await;
    let took = began.elapsed();
    join_all(names.iter().map(async |name| {
        let options = RemoveContainerOptionsBuilder::default().force(true).build();
        site.docker.remove_container(name, Some(options)).await.unwrap();
    }))
    .await;
    took
}

async fn answers(address: IpAddr) -> bool {
    let asked = async {
        let mut stream = TcpStream::connect((address, 8080)).await?;
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok::<_, std::io::Error>(answer.starts_with("HTTP/1.1 200 "))
    };
    asked.await.unwrap_or(false)
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
