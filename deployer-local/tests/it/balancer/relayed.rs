//! The placement in which the engine's API is the only way to proxies and instances.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use bollard::query_parameters::{InspectContainerOptions, InspectNetworkOptions, RestartContainerOptions};
use deployer_core::{
    AppSpec, DeployOptions, Deployer, EnsureRoutes, ErrorKind, LoadBalancer, Port, Route, ServiceSpec, Strategy,
    TargetState, Verdict,
};
use deployer_local::{LocalBackend, LocalOptions, Placement};

use super::stage::{Stage, call, eventually, free_port, get, release, service};

fn httpd(name: &str) -> String {
    format!("mkdir /www; echo {name} > /www/index.html; trap exit TERM; httpd -f -p 8080 -h /www & wait")
}

/// Starts a server in the application's network, and waits until it answers.
async fn server(stage: &Stage, name: &str) -> (String, IpAddr) {
    let (id, at) = stage.container(name, &httpd(name)).await;
    eventually("a server's start", async || get((at, 8080).into(), "x", "/").await.is_ok()).await;
    (id, at)
}

async fn serves(at: SocketAddr, name: &str) {
    eventually(name, async || matches!(get(at, "any", "/").await, Ok(answer) if answer.body == name)).await;
}

#[tokio::test]
async fn a_relayed_ingress_does_what_the_other_does() {
    let stage = Stage::placed(Some(Placement::Relayed)).await;
    let (old_container, old_at) = server(&stage, "old").await;
    let (new_container, new_at) = server(&stage, "new").await;
    let published = free_port();
    let port = SocketAddr::from((Ipv4Addr::LOCALHOST, published));
    let one = |image| service(image, |spec| spec.with_route(Route::new(8080)));
    let (old, new) = (one("web:1"), one("web:2"));
    stage.ensure(&[("web", &old)]).await;
    let old_id = stage.set_targets(&old, &[(&old_container, old_at, false)]).await;
    let new_id = stage.set_targets(&new, &[(&new_container, new_at, false)]).await;
    stage.set_weights(&[(&old_id, 100)]).await;
    assert_eq!(stage.get("any", "/").await.body, "old");
    stage.set_weights(&[(&new_id, 100)]).await;
    assert_eq!(stage.get("any", "/").await.body, "new");
    assert_eq!(stage.output("client", "wget -q -O - http://web:8080/").await, "new\n");
    let observed = stage.observe().await;
    let pool = observed.pool(&new_id).unwrap();
    assert_eq!((pool.targets[0].state, pool.counters.unwrap().requests), (TargetState::InService, 1));

    // Another route is a reload, another published port another container.
    let found = async || stage.docker.inspect_container(&stage.options.name, None::<InspectContainerOptions>).await;
    let before = found().await.unwrap();
    let routes = |spec: ServiceSpec| spec.with_route(Route::new(8080)).with_route(Route::new(8080).with_path("/x"));
    stage.ensure(&[("web", &service("web:3", routes))]).await;
    assert_eq!(found().await.unwrap().id, before.id);
    assert_eq!(stage.get("any", "/").await.body, "new");
    let more = service("web:4", |spec| routes(spec).with_ports(Port::published(8080, published)));
    stage.ensure(&[("web", &more)]).await;
    assert_ne!(found().await.unwrap().id, before.id);
    assert_eq!(stage.get("any", "/").await.body, "new");
    let more_id = stage.set_targets(&more, &[(&old_container, old_at, false)]).await;
    stage.set_weights(&[(&more_id, 100)]).await;
    serves(port, "old").await;

    let mounts = found().await.unwrap().mounts.unwrap();
    assert!(mounts.iter().all(|mount| mount.driver.as_deref() == Some("local")), "no path of the host: {mounts:?}");
    let state = stage.observe().await;
    stage.docker.restart_container(&stage.options.name, None::<RestartContainerOptions>).await.unwrap();
    serves(port, "old").await;
    stage.answers().await;
    assert_eq!(stage.observe().await.weights(), state.weights());

    stage.retain(None, Vec::new()).await;
    assert!(!stage.exists(&stage.options.name).await);
    let own = format!("0-{}", stage.options.name);
    assert!(stage.docker.inspect_network(&own, None::<InspectNetworkOptions>).await.is_err());
}

#[tokio::test]
async fn a_relayed_ingress_that_cannot_publish_comes_back_as_it_was() {
    let mut stage = Stage::placed(Some(Placement::Relayed)).await;
    let (container, at) = server(&stage, "here").await;
    let web = service("web:1", |spec| spec.with_route(Route::new(8080)));
    stage.ensure(&[("web", &web)]).await;
    let revision = stage.set_targets(&web, &[(&container, at, false)]).await;
    stage.set_weights(&[(&revision, 100)]).await;
    let taken = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = taken.local_addr().unwrap().port();
    let other = stage.other_app().await;
    let ensure = async |port: Port| {
        let bad = service("web:2", |spec| spec.with_ports(port));
        let release = release(&other, &[("web", &bad)]);
        stage.balancer.ensure(EnsureRoutes::new(call(), release)).await.unwrap_err()
    };
    let error = ensure(Port::published(8080, port)).await;
    assert_eq!(error.kind(), ErrorKind::Exhausted, "{error}");
    serves(stage.options.http, "here").await;
    assert!(stage.balancer.observe(&other).await.unwrap().is_empty(), "nothing is left of what was refused");
}

#[tokio::test]
async fn a_relayed_ingress_leaves_the_networks_of_applications_that_go() {
    let mut stage = Stage::placed(Some(Placement::Relayed)).await;
    let web = |host| service("web:1", |spec| spec.with_route(Route::new(8080).with_host(host)));
    stage.ensure(&[("web", &web("one.example"))]).await;
    let other = stage.other_app().await;
    let release = release(&other, &[("web", &web("two.example"))]);
    stage.balancer.ensure(EnsureRoutes::new(call(), release)).await.unwrap();
    let networks = async || {
        let found = stage.docker.inspect_container(&stage.options.name, None::<InspectContainerOptions>).await.unwrap();
        let mut names: Vec<String> = found.network_settings.unwrap().networks.unwrap().into_keys().collect();
        names.sort();
        names
    };
    let own = format!("0-{}", stage.options.name);
    let (one, two) = (format!("{}_default", stage.app), format!("{other}_default"));
    assert_eq!(networks().await, [own.clone(), one, two.clone()]);
    stage.retain(None, Vec::new()).await;
    assert_eq!(networks().await, [own, two]);
    assert_eq!(stage.get("two.example", "/").await.status, 503, "there is a route, and nobody behind it");
}

/// An application as its owner would have it.
fn spec(stage: &Stage, version: &str, port: u16) -> AppSpec {
    let script = httpd(version);
    let web = ServiceSpec::image("busybox:1.36")
        .with_replicas(2)
        .with_command(["sh", "-c", &script])
        .with_ports(Port::published(8080, port).http())
        .with_http_probe("/", 8080)
        .with_drain(Duration::from_secs(1))
        .with_strategy(Strategy::BlueGreen { bake: Duration::ZERO, keep_warm: Duration::from_secs(600) });
    AppSpec::new(stage.app.as_str()).unwrap().with_service("web", web).unwrap()
}

#[tokio::test]
async fn a_whole_deployment_through_the_engines_api_alone() {
    let stage = Stage::placed(Some(Placement::Relayed)).await;
    let options = LocalOptions::new(&stage.state_dir).with_ingress(stage.options.clone());
    let deployer = Deployer::new(LocalBackend::connect(options).await.unwrap());
    let published = free_port();
    let port = SocketAddr::from((Ipv4Addr::LOCALHOST, published));
    let deploy = async |version: &str| {
        let record = deployer.deploy(spec(&stage, version, published), DeployOptions::default()).finished().await;
        let record = record.unwrap();
        assert!(matches!(record.verdict, Some(Verdict::Promoted { .. })), "{record:?}");
    };
    deploy("one").await;
    serves(port, "one").await;

    let (stop, sent, lost) =
        (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let clients: Vec<_> = (0..2)
        .map(|_| {
            let (stop, sent, lost) = (Arc::clone(&stop), Arc::clone(&sent), Arc::clone(&lost));
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    sent.fetch_add(1, Ordering::Relaxed);
                    if !matches!(get(port, "any", "/").await, Ok(answer) if answer.status == 200) {
                        lost.fetch_add(1, Ordering::Relaxed);
                    }
                }
            })
        })
        .collect();
    deploy("two").await;
    assert_eq!(get(port, "any", "/").await.unwrap().body, "two");
    let record = deployer.rollback(&stage.app, None).finished().await.unwrap();
    assert!(matches!(record.verdict, Some(Verdict::Promoted { .. })), "{record:?}");
    assert_eq!(get(port, "any", "/").await.unwrap().body, "one");
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.unwrap();
    }
    let (sent, lost) = (sent.load(Ordering::Relaxed), lost.load(Ordering::Relaxed));
    assert_eq!(lost, 0, "of {sent} requests");
    assert!(sent > 20, "only {sent} requests were sent");

    stage.docker.restart_container(&stage.options.name, None::<RestartContainerOptions>).await.unwrap();
    serves(port, "one").await;
    stage.answers().await;
    let record = deployer.destroy(&stage.app, true).finished().await.unwrap();
    assert!(matches!(&record.verdict, Some(Verdict::Promoted { leftovers }) if leftovers.is_empty()), "{record:?}");
}
