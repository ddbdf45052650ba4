//! The balancer with real HAProxy containers.

mod relayed;
mod stage;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use bollard::query_parameters::RestartContainerOptions;
use deployer_core::{EnsureRoutes, ErrorKind, LoadBalancer, Outcome, Port, Route, TargetState};

use stage::{App, Stage, address, by_hand, call, eventually, free_port, get, release, revision, service, web};

#[tokio::test]
async fn requests_are_routed_by_host_and_path() {
    let stage = Stage::new().await;
    let (port, other_port) = (free_port(), free_port());
    let at = address(1);
    let _apps = (App::start(at, port, "one").await, App::start(at, other_port, "two").await);
    let web = service("web:1", |spec| {
        spec.with_route(Route::new(port).with_host("shop.example"))
            .with_route(Route::new(other_port).with_host("Shop.example").with_path("/api/"))
            .with_route(Route::new(other_port))
    });
    stage.ensure(&[("web", &web)]).await;
    let revision = stage.set_targets(&web, &[("a", at, false)]).await;
    stage.set_weights(&[(&revision, 100)]).await;
    let body = async |host: &str, path: &str| stage.get(host, path).await.body;
    assert_eq!(body("shop.example", "/").await, "one");
    assert_eq!(body("SHOP.example:8080", "/x?y").await, "one");
    assert_eq!(body("shop.example", "/api").await, "two");
    assert_eq!(body("shop.example", "/api/x").await, "two");
    assert_eq!(body("shop.example", "/apix").await, "one", "a route's path is matched by whole segments");
    assert_eq!(body("elsewhere.example", "/").await, "two");
    let observed = stage.observe().await;
    assert_eq!(observed.routes.len(), 3);
    assert_eq!(observed.pool(&revision).unwrap().counters.unwrap().requests, 6);
}

#[tokio::test]
async fn a_request_without_route_is_told_so() {
    let stage = Stage::new().await;
    let web = service("web:1", |spec| spec.with_route(Route::new(80).with_host("shop.example")));
    stage.ensure(&[("web", &web)]).await;
    let answer = stage.get("other.example", "/").await;
    assert_eq!((answer.status, answer.body.as_str()), (404, "no route for this host and path"));
    let answer = stage.get("shop.example", "/").await;
    assert_eq!(answer.status, 503, "there is a route, and nobody behind it");
}

#[tokio::test]
async fn weights_split_requests_between_pools_of_different_size() {
    let stage = Stage::new().await;
    let port = free_port();
    let at = [address(1), address(2), address(3), address(4)];
    let _apps = [
        App::start(at[0], port, "old").await,
        App::start(at[1], port, "old").await,
        App::start(at[2], port, "old").await,
        App::start(at[3], port, "new").await,
    ];
    let (old, new) = (web("web:1", port), web("web:2", port));
    stage.ensure(&[("web", &old)]).await;
    let old = stage.set_targets(&old, &[("a", at[0], false), ("b", at[1], false), ("c", at[2], false)]).await;
    let new = stage.set_targets(&new, &[("d", at[3], false)]).await;
    assert_eq!(stage.observe().await.weights(), BTreeMap::new(), "a new pool has no weight");
    stage.set_weights(&[(&old, 90), (&new, 10)]).await;
    assert_eq!(stage.observe().await.weights(), BTreeMap::from([(old, 90), (new, 10)]));
    let mut to_new = 0;
    for _ in 0..500 {
        to_new += u32::from(stage.get("any", "/").await.body == "new");
    }
    assert!((45..=55).contains(&to_new), "{to_new} of 500");
}

#[tokio::test]
async fn what_had_the_traffic_before_answers_while_nothing_that_has_it_does() {
    let stage = Stage::new().await;
    let port = free_port();
    let at = [address(1), address(2), address(3)];
    let before = App::start(at[0], port, "before").await;
    let now = App::start(at[1], port, "now").await;
    let _next = App::start(at[2], port, "next").await;
    let (one, two, three) = (web("web:1", port), web("web:2", port), web("web:3", port));
    stage.ensure(&[("web", &one)]).await;
    let first = stage.set_targets(&one, &[("a", at[0], false)]).await;
    let second = stage.set_targets(&two, &[("b", at[1], false)]).await;
    stage.set_targets(&three, &[("c", at[2], false)]).await;
    stage.set_weights(&[(&first, 100)]).await;
    stage.set_weights(&[(&second, 100)]).await;
    for _ in 0..10 {
        assert_eq!(stage.get("any", "/").await.body, "now");
    }
    drop(now);
    for _ in 0..10 {
        assert_eq!(stage.get("any", "/").await.body, "before", "and not what never had any traffic");
    }
    let observed = stage.observe().await;
    assert_eq!(observed.weights(), BTreeMap::from([(second.clone(), 100)]), "the weights are what was set");
    assert!(!observed.version.0.contains('+'), "nobody changed them by hand: {observed:?}");
    let state = |pool| observed.pool(pool).unwrap().targets[0].state;
    assert_eq!((state(&first), state(&second)), (TargetState::InService, TargetState::Down));
    assert_eq!(observed.pool(&first).unwrap().counters.unwrap().requests, 10);

    // What it answers in this way counts as in flight, and is not cut off when it leaves the rotation.
    let http = stage.options.http;
    let slow = tokio::spawn(async move { get(http, "any", "/slow").await });
    before.slow.acquire().await.unwrap().forget();
    stage.set_targets(&one, &[("a", at[0], true)]).await;
    let target = stage.observe().await.pool(&first).unwrap().targets[0].clone();
    assert_eq!((target.state, target.in_flight), (TargetState::Draining, Some(1)));
    before.finish.notify_one();
    assert_eq!(slow.await.unwrap().unwrap().body, "before");
    let _again = App::start(at[1], port, "again").await;
    eventually("the return of the traffic", async || stage.get("any", "/").await.body == "again").await;
}

#[tokio::test]
async fn draining_keeps_what_is_in_flight() {
    let stage = Stage::new().await;
    let port = free_port();
    let at = [address(1), address(2)];
    let first = App::start(at[0], port, "first").await;
    let web = web("web:1", port);
    stage.ensure(&[("web", &web)]).await;
    let revision = stage.set_targets(&web, &[("a", at[0], false)]).await;
    stage.set_weights(&[(&revision, 100)]).await;
    let http = stage.options.http;
    let slow = tokio::spawn(async move { get(http, "any", "/slow").await });
    first.slow.acquire().await.unwrap().forget();
    let _second = App::start(at[1], port, "second").await;
    stage.set_targets(&web, &[("a", at[0], true), ("b", at[1], false)]).await;
    for _ in 0..20 {
        assert_eq!(stage.get("any", "/").await.body, "second");
    }
    let observed = stage.observe().await;
    let targets = &observed.pool(&revision).unwrap().targets;
    assert_eq!((targets[0].state, targets[0].in_flight), (TargetState::Draining, Some(1)));
    // Left out while it still works: it must neither be cut off nor get anything new.
    stage.set_targets(&web, &[("b", at[1], false)]).await;
    first.finish.notify_one();
    assert_eq!(slow.await.unwrap().unwrap().body, "first");
    stage.set_targets(&web, &[("b", at[1], false)]).await;
    assert!(!stage.by_hand("show servers state").await.contains(&at[0].to_string()), "it is deleted in the end");
}

#[tokio::test]
async fn in_flight_requests_of_workers_before_a_reload_are_counted() {
    let stage = Stage::new().await;
    let port = free_port();
    let at = address(1);
    let app = App::start(at, port, "app").await;
    let one = web("web:1", port);
    stage.ensure(&[("web", &one)]).await;
    let revision = stage.set_targets(&one, &[("a", at, false)]).await;
    stage.set_weights(&[(&revision, 100)]).await;
    let http = stage.options.http;
    let slow = tokio::spawn(async move { get(http, "any", "/slow").await });
    app.slow.acquire().await.unwrap().forget();
    let more = service("web:2", |spec| spec.with_route(Route::new(port)).with_route(Route::new(port).with_host("x")));
    stage.ensure(&[("web", &more)]).await;
    assert_eq!(stage.observe().await.pool(&revision).unwrap().targets[0].in_flight, Some(1));
    app.finish.notify_one();
    assert_eq!(slow.await.unwrap().unwrap().body, "app");
    eventually("the end of the old worker's request", async || {
        stage.observe().await.pool(&revision).unwrap().targets[0].in_flight == Some(0)
    })
    .await;
}

#[tokio::test]
async fn moving_all_traffic_under_load_loses_nothing() {
    let stage = Stage::new().await;
    let port = free_port();
    let at = [address(1), address(2)];
    let _apps = [App::start(at[0], port, "old").await, App::start(at[1], port, "new").await];
    let (old, new) = (web("web:1", port), web("web:2", port));
    stage.ensure(&[("web", &old)]).await;
    let old_id = stage.set_targets(&old, &[("a", at[0], false)]).await;
    let new_id = stage.set_targets(&new, &[("b", at[1], false)]).await;
    stage.set_weights(&[(&old_id, 100)]).await;
    let (http, stop) = (stage.options.http, Arc::new(AtomicBool::new(false)));
    let (sent, lost) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let (stop, sent, lost) = (Arc::clone(&stop), Arc::clone(&sent), Arc::clone(&lost));
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    sent.fetch_add(1, Ordering::Relaxed);
                    if !matches!(get(http, "any", "/").await, Ok(answer) if answer.status == 200) {
                        lost.fetch_add(1, Ordering::Relaxed);
                    }
                }
            })
        })
        .collect();
    for round in 0..20 {
        let (to, from, name) = if round % 2 == 0 { (&new_id, &old_id, "new") } else { (&old_id, &new_id, "old") };
        stage.set_weights(&[(to, 100), (from, 0)]).await;
        assert_eq!(stage.get("any", "/").await.body, name);
    }
    // Another application's route comes and goes: the ingress is reloaded.
    for port in [free_port(), free_port()] {
        let more = service("web:3", |spec| {
            spec.with_route(Route::new(port).with_host("x.example")).with_route(Route::new(port))
        });
        stage.ensure(&[("web", &more)]).await;
        let pools = vec![old_id.clone(), new_id.clone()];
        stage.retain(Some(release(&stage.app, &[("web", &old)])), pools).await;
    }
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.unwrap();
    }
    let (sent, lost) = (sent.load(Ordering::Relaxed), lost.load(Ordering::Relaxed));
    assert_eq!(lost, 0, "of {sent} requests");
    assert!(sent > 50, "only {sent} requests were sent");
}

#[tokio::test]
async fn a_restarted_ingress_comes_back_with_the_same_servers() {
    let stage = Stage::new().await;
    let port = free_port();
    let at = [address(1), address(2), address(3)];
    let _apps = [App::start(at[0], port, "old").await, App::start(at[1], port, "new").await];
    let (old, new) = (web("web:1", port), web("web:2", port));
    stage.ensure(&[("web", &old)]).await;
    let old = stage.set_targets(&old, &[("a", at[0], false), ("c", at[2], true)]).await;
    let new = stage.set_targets(&new, &[("b", at[1], false)]).await;
    stage.set_weights(&[(&old, 50), (&new, 50)]).await;
    let before = stage.observe().await;
    let serves = async || {
        let mut seen = Vec::new();
        for _ in 0..2 {
            if let Ok(answer) = get(stage.options.http, "any", "/").await {
                seen.push(answer.body);
            }
        }
        seen.sort();
        seen == ["new", "old"]
    };
    stage.docker.restart_container(&stage.options.name, None::<RestartContainerOptions>).await.unwrap();
    eventually("serving after a restart", serves).await;
    // Killed from outside, as by the kernel: the engine must start it again by itself.
    let found = stage.docker.inspect_container(&stage.options.name, None).await.unwrap();
    let pid = found.state.unwrap().pid.unwrap();
    assert!(std::process::Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap().success());
    eventually("another process", async || {
        let found = stage.docker.inspect_container(&stage.options.name, None).await.unwrap();
        let state = found.state.unwrap();
        state.running == Some(true) && state.restarting != Some(true) && state.pid != Some(pid)
    })
    .await;
    eventually("serving after a crash", serves).await;
    stage.answers().await;
    let after = stage.observe().await;
    assert_eq!(after.version, before.version);
    assert_eq!(after.weights(), before.weights());
    let states = |routing: &deployer_core::ObservedRouting| -> Vec<_> {
        let targets = routing.pools.iter().flat_map(|pool| &pool.targets);
        targets.map(|target| (target.instance.clone(), target.state == TargetState::Draining)).collect()
    };
    assert_eq!(states(&after), states(&before));
    assert_eq!(stage.by_hand("show servers state").await.matches(&at[2].to_string()).count(), 1);
}

#[tokio::test]
async fn weights_that_somebody_changed_by_hand_are_a_conflict() {
    let stage = Stage::new().await;
    let port = free_port();
    let (old, new) = (web("web:1", port), web("web:2", port));
    stage.ensure(&[("web", &old)]).await;
    let old_id = stage.set_targets(&old, &[("a", address(1), false)]).await;
    let new_id = stage.set_targets(&new, &[("b", address(2), false)]).await;
    stage.set_weights(&[(&old_id, 100)]).await;
    let before = stage.observe().await;
    let state = stage.by_hand("show servers state").await;
    let line = state.lines().find(|line| line.contains(new_id.hash())).unwrap();
    let fields: Vec<&str> = line.split(' ').collect();
    stage.by_hand(&format!("set server {}/{} weight 256", fields[1], fields[3])).await;
    let conflict = stage.balancer.set_weights(stage.weights(&before, &[(&new_id, 100)])).await.unwrap_err();
    assert_eq!(conflict.kind(), ErrorKind::Conflict);
    let observed = stage.observe().await;
    assert_ne!(observed.version, before.version);
    assert_eq!(observed.weights()[&new_id], 33, "what is, not what was meant: {observed:?}");
    // A change of targets is not a change of weights: it leaves them as somebody wanted them.
    stage.set_targets(&old, &[("a", address(1), true)]).await;
    assert!(stage.observe().await.version.0.contains('+'));
    let outcome = stage.balancer.set_weights(stage.weights(&stage.observe().await, &[(&old_id, 100)])).await.unwrap();
    assert_eq!(outcome, Outcome::Changed);
    let observed = stage.observe().await;
    assert!(!observed.version.0.contains('+'), "{observed:?}");
    assert_eq!(observed.weights(), BTreeMap::from([(old_id.clone(), 100)]));
    let again = stage.balancer.set_weights(stage.weights(&before, &[(&old_id, 100)])).await.unwrap();
    assert_eq!(again, Outcome::AlreadyThere, "repeating what has been done is no conflict");
}

#[tokio::test]
async fn what_differs_from_what_is_written_is_repaired() {
    let stage = Stage::new().await;
    let port = free_port();
    let at = [address(1), address(2)];
    let _apps = [App::start(at[0], port, "old").await, App::start(at[1], port, "new").await];
    let (old, new) = (web("web:1", port), web("web:2", port));
    stage.ensure(&[("web", &old)]).await;
    let old = stage.set_targets(&old, &[("a", at[0], false)]).await;
    let new = stage.set_targets(&new, &[("b", at[1], false)]).await;
    stage.set_weights(&[(&old, 100)]).await;
    let state = stage.by_hand("show servers state").await;
    let line = state.lines().find(|line| line.contains(old.hash())).unwrap();
    let fields: Vec<&str> = line.split(' ').collect();
    let server = format!("{}/{}", fields[1], fields[3]);
    stage.by_hand(&format!("set server {server} state maint;del server {server}")).await;
    stage.by_hand(&format!("add server {}/stranger 127.0.0.1:1 weight 256", fields[1])).await;
    stage.by_hand(&format!("set server {}/stranger state ready", fields[1])).await;
    stage.observe().await;
    let state = stage.by_hand("show servers state").await;
    assert!(state.contains(&fields[3].to_owned()) && !state.contains("stranger"), "{state}");
    assert_eq!(stage.get("any", "/").await.body, "old");
    // A process that was killed after it wrote down what shall be and before it told the proxy.
    let file = stage.directory().join("state.json");
    let mut written: serde_json::Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    written["pending"] = serde_json::json!([stage.app]);
    written["apps"][stage.app.as_str()]["web"]["pools"][old.to_string()]["weight"] = 0.into();
    written["apps"][stage.app.as_str()]["web"]["pools"][new.to_string()]["weight"] = 100.into();
    std::fs::write(&file, serde_json::to_vec(&written).unwrap()).unwrap();
    let observed = stage.observe().await;
    assert_eq!(observed.weights(), BTreeMap::from([(new, 100)]));
    assert!(!observed.version.0.contains('+'));
    assert_eq!(stage.get("any", "/").await.body, "new");
}

#[tokio::test]
async fn a_published_port_takes_connections() {
    let stage = Stage::new().await;
    let (target, published) = (free_port(), free_port());
    let at = address(1);
    let _app = App::start(at, target, "here").await;
    let web = service("web:1", |spec| spec.with_ports(Port::published(target, published)));
    stage.ensure(&[("web", &web)]).await;
    let revision = stage.set_targets(&web, &[("a", at, false)]).await;
    stage.set_weights(&[(&revision, 100)]).await;
    let entry = SocketAddr::from((Ipv4Addr::LOCALHOST, published));
    assert_eq!(get(entry, "any", "/").await.unwrap().body, "here");
    let http = get(stage.options.http, "any", "/").await;
    assert!(http.is_err(), "nothing listens for routes where there is none");
}

#[tokio::test]
async fn a_connection_waits_for_the_first_server() {
    let stage = Stage::new().await;
    let (target, published) = (free_port(), free_port());
    let at = address(1);
    let _app = App::start(at, target, "here").await;
    let web = service("web:1", |spec| spec.with_ports(Port::published(target, published)));
    stage.ensure(&[("web", &web)]).await;
    let entry = SocketAddr::from((Ipv4Addr::LOCALHOST, published));
    let waiting = tokio::spawn(async move { get(entry, "any", "/").await });
    eventually("a connection in the proxy", async || stage.by_hand("show sess").await.contains("fe=entry:")).await;
    let revision = stage.set_targets(&web, &[("a", at, false)]).await;
    assert!(!waiting.is_finished(), "a target without weight gets nothing");
    stage.set_weights(&[(&revision, 100)]).await;
    assert_eq!(waiting.await.unwrap().unwrap().body, "here");
}

#[tokio::test]
async fn services_call_each_other_by_name_through_the_rotation() {
    let stage = Stage::new().await;
    let (old, new) = (
        service("web:1", |spec| spec.with_ports(Port::internal(8080).http())),
        service("web:2", |spec| spec.with_ports(Port::internal(8080).http())),
    );
    stage.ensure(&[("web", &old)]).await;
    assert!(!stage.exists(&stage.options.name).await, "nothing enters from outside");
    let httpd = |name: &str| format!("mkdir /www; echo {name} >/www/index.html; exec httpd -f -p 8080 -h /www");
    let (old_container, old_at) = stage.container("old", &httpd("old")).await;
    let (new_container, new_at) = stage.container("new", &httpd("new")).await;
    for at in [old_at, new_at] {
        eventually("a server's start", async || get((at, 8080).into(), "x", "/").await.is_ok()).await;
    }
    let old = stage.set_targets(&old, &[(&old_container, old_at, false)]).await;
    let new = stage.set_targets(&new, &[(&new_container, new_at, false)]).await;
    stage.set_weights(&[(&old, 100)]).await;
    let script = "for i in 1 2 3 4; do wget -q -O - http://web:8080/; done";
    assert_eq!(stage.output("client1", script).await, "old\n".repeat(4));
    stage.set_weights(&[(&new, 100)]).await;
    assert_eq!(stage.output("client2", script).await, "new\n".repeat(4));
    let observed = stage.observe().await;
    assert_eq!(observed.pool(&new).unwrap().targets[0].state, TargetState::InService);
    assert_eq!(observed.pool(&new).unwrap().counters.unwrap().requests, 4);
    // Compose's `down` removes the proxy; the next change makes it anew.
    let name = format!("{}-web-proxy", stage.app);
    let force = bollard::query_parameters::RemoveContainerOptionsBuilder::default().force(true).build();
    stage.docker.remove_container(&name, Some(force)).await.unwrap();
    let target = &stage.observe().await.pool(&new).unwrap().targets[0].clone();
    assert_eq!((target.state, target.reason.as_deref()), (TargetState::Down, Some("the proxy does not run")));
    stage.set_weights(&[(&old, 100)]).await;
    assert_eq!(stage.output("client3", script).await, "old\n".repeat(4));
    let directory = stage.directory().join("services").join(name);
    assert!(by_hand(&directory, "show info").await.contains("Nbthread: 1"));
}

#[tokio::test]
async fn an_address_that_is_taken_is_named() {
    let mut stage = Stage::new().await;
    let taken = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = taken.local_addr().unwrap().port();
    let (web, good) = (service("web:1", |spec| spec.with_ports(Port::published(80, port))), web("web:1", 80));
    let ensure = |release| stage.balancer.ensure(EnsureRoutes::new(call(), release));
    // At the ingress's first start, and while it runs.
    for _ in 0..2 {
        let error = ensure(release(&stage.app, &[("web", &web)])).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Exhausted, "{error}");
        assert!(error.message().contains(&format!("127.0.0.1:{port} is taken")), "{error}");
        assert!(error.help().is_some());
        ensure(release(&stage.app, &[("web", &good)])).await.unwrap();
    }
    let published = free_port();
    let web = service("web:1", |spec| spec.with_route(Route::new(80)).with_ports(Port::published(80, published)));
    stage.ensure(&[("web", &web)]).await;
    let other = stage.other_app().await;
    let ensure = async |service: deployer_core::ServiceRelease| {
        let request = EnsureRoutes::new(call(), release(&other, &[("web", &service)]));
        stage.balancer.ensure(request).await.unwrap_err()
    };
    let error = ensure(service("web:1", |spec| spec.with_route(Route::new(80)))).await;
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    assert!(error.message().contains(stage.app.as_str()), "{error}");
    let error = ensure(service("web:1", |spec| spec.with_ports(Port::published(80, published)))).await;
    assert_eq!(error.kind(), ErrorKind::Exhausted);
    assert!(error.message().contains(stage.app.as_str()), "{error}");
    let error = ensure(service("web:1", |spec| spec.with_ports(Port::published(80, stage.options.http.port())))).await;
    assert!(error.message().contains("the ingress's own entry"), "{error}");
    assert!(stage.balancer.observe(&other).await.unwrap().is_empty(), "nothing is left of what was refused");
}

#[tokio::test]
async fn a_missing_image_says_what_to_do() {
    let stage = Stage::new().await;
    let options = stage.options.clone().with_image("deployer-no-such-image:1");
    let balancer = deployer_local::HaproxyBalancer::new(stage.engine.clone(), &stage.state_dir, options).unwrap();
    let request = EnsureRoutes::new(call(), release(&stage.app, &[("web", &web("web:1", 80))]));
    let error = balancer.ensure(request).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.help().unwrap().contains("deployer-no-such-image:1"), "{error:?}");
    assert!(balancer.observe(&stage.app).await.unwrap().is_empty());
}

#[tokio::test]
async fn two_processes_share_one_ingress() {
    let mut stage = Stage::new().await;
    let other = stage.other_app().await;
    let second = stage.second();
    let port = free_port();
    let at = address(1);
    let _app = App::start(at, port, "here").await;
    let bring = async |balancer: &deployer_local::HaproxyBalancer, app: &deployer_core::AppName, host: &str| {
        let web = service("web:1", |spec| spec.with_route(Route::new(port).with_host(host)));
        balancer.ensure(EnsureRoutes::new(call(), release(app, &[("web", &web)]))).await.unwrap();
        let target = |instance: usize| deployer_core::Target {
            instance: deployer_core::InstanceId::new(format!("{app}-{instance}")).unwrap(),
            address: at.to_string(),
            draining: false,
        };
        for count in 1..6 {
            let targets = (0..count).map(target).collect();
            let web = Arc::new(web.clone());
            let request = deployer_core::SetTargets::new(call(), app.clone(), revision(&web), web, targets);
            balancer.set_targets(request).await.unwrap();
            let observed = balancer.observe(app).await.unwrap();
            let weights = [(revision(&service("web:1", |spec| spec)), 0), (observed[0].pools[0].revision.clone(), 100)];
            let weights = BTreeMap::from(weights);
            let name = deployer_core::ServiceName::new("web").unwrap();
            let version = observed[0].version.clone();
            let request = deployer_core::SetWeights::new(call(), app.clone(), name, weights, version);
            balancer.set_weights(request).await.unwrap();
        }
    };
    let app = stage.app.clone();
    tokio::join!(bring(&stage.balancer, &app, "one.example"), bring(&second, &other, "two.example"));
    for host in ["one.example", "two.example"] {
        assert_eq!(stage.get(host, "/").await.body, "here");
    }
    for app in [&app, &other] {
        let observed = second.observe(app).await.unwrap();
        assert_eq!(observed[0].pools[0].targets.len(), 5);
    }
    stage.retain(None, Vec::new()).await;
    assert_eq!(stage.get("two.example", "/").await.body, "here", "the other application stays");
    assert_eq!(stage.get("one.example", "/").await.status, 404);
}

#[tokio::test]
async fn retaining_a_release_removes_the_rest() {
    let stage = Stage::new().await;
    let (port, published) = (free_port(), free_port());
    let at = address(1);
    let _app = App::start(at, port, "here").await;
    let old = service("web:1", |spec| {
        let route = Route::new(port).with_host("old.example");
        spec.with_route(Route::new(port)).with_route(route).with_ports(Port::published(port, published))
    });
    let worker = service("worker:1", |spec| spec.with_port(9000));
    let new = web("web:2", port);
    stage.ensure(&[("web", &old), ("worker", &worker)]).await;
    let proxy = |service: &str| format!("{}-{service}-proxy", stage.app);
    assert!(stage.exists(&proxy("web")).await && stage.exists(&proxy("worker")).await);
    stage.set_targets(&old, &[("a", at, false)]).await;
    stage.ensure(&[("web", &new)]).await;
    let new_id = stage.set_targets(&new, &[("b", at, false)]).await;
    let entry = SocketAddr::from((Ipv4Addr::LOCALHOST, published));
    assert!(tokio::net::TcpStream::connect(entry).await.is_ok(), "nothing goes before it is said");
    stage.retain(Some(release(&stage.app, &[("web", &new)])), vec![new_id.clone()]).await;
    stage.set_weights(&[(&new_id, 100)]).await;
    let observed = stage.observe().await;
    assert_eq!(observed.routes, [Route::new(port)]);
    assert_eq!(observed.pools.len(), 1);
    assert_eq!(stage.get("any", "/").await.body, "here");
    assert!(tokio::net::TcpStream::connect(entry).await.is_err(), "the port is free again");
    assert!(!stage.exists(&proxy("worker")).await);
    stage.retain(None, Vec::new()).await;
    assert!(stage.balancer.observe(&stage.app).await.unwrap().is_empty());
    assert!(!stage.exists(&stage.options.name).await, "nothing is left for the ingress to do");
    assert!(!stage.exists(&proxy("web")).await);
    stage.retain(None, Vec::new()).await;
}

#[tokio::test]
async fn a_route_moves_to_another_service_with_the_traffic() {
    let stage = Stage::new().await;
    let port = free_port();
    let at: [IpAddr; 2] = [address(1), address(2)];
    let _apps = [App::start(at[0], port, "web").await, App::start(at[1], port, "shop").await];
    let web = web("web:1", port);
    stage.ensure(&[("web", &web)]).await;
    let revision = stage.set_targets(&web, &[("a", at[0], false)]).await;
    stage.set_weights(&[(&revision, 100)]).await;
    stage.ensure(&[("shop", &web)]).await;
    assert_eq!(stage.get("any", "/").await.body, "web", "the new claimant has nobody to answer yet");
    let shop = deployer_core::ServiceName::new("shop").unwrap();
    let pool = web.revision(&shop);
    let target = deployer_core::Target {
        instance: deployer_core::InstanceId::new("b").unwrap(),
        address: at[1].to_string(),
        draining: false,
    };
    let app = stage.app.clone();
    let request =
        deployer_core::SetTargets::new(call(), app.clone(), pool.clone(), Arc::new(web.clone()), vec![target]);
    stage.balancer.set_targets(request).await.unwrap();
    let observed = stage.balancer.observe(&app).await.unwrap();
    let version = observed.iter().find(|routing| routing.service == shop).unwrap().version.clone();
    let weights = BTreeMap::from([(pool, 100)]);
    let request = deployer_core::SetWeights::new(call(), app, shop, weights, version);
    stage.balancer.set_weights(request).await.unwrap();
    assert_eq!(stage.get("any", "/").await.body, "shop");
}
