//! Releases that cannot work: the version before serves on, and the verdict says what is wrong and what to do.

use std::net::TcpListener;
use std::time::Duration;

use deployer_core::{AppSpec, Deployer, ErrorKind, Port, Strategy, Verdict};

use super::site::{Place, Site, assert_none_lost, service};

/// A release that fails while it is carried out, and what its verdict must say.
struct Broken {
    name: &'static str,
    spec: AppSpec,
    says: Vec<String>,
}

fn broken(place: &Place, taken: u16) -> Vec<Broken> {
    let shop = |broken: &str| place.shop(&[("VERSION", "v2"), ("BROKEN", broken)]);
    let changed = |change: &dyn Fn(&mut AppSpec)| {
        let mut spec = shop("");
        change(&mut spec);
        spec
    };
    let mut unhealthy = shop("unhealthy");
    service(&mut unhealthy, "web").readiness.deadline = Duration::from_secs(3);
    // It answers for a moment before it is killed: a minimum time keeps such a release from getting traffic.
    let mut hungry = shop("oom");
    service(&mut hungry, "web").readiness.min_healthy = Some(Duration::from_secs(5));
    let says = |parts: &[&str]| parts.iter().map(|part| (*part).to_owned()).collect();
    vec![
        Broken {
            name: "it exits",
            spec: shop("exit"),
            says: says(&["exited with code 3", "FATAL: DATABASE_URL has no scheme"]),
        },
        Broken {
            name: "it is never healthy",
            spec: unhealthy,
            says: says(&["0 of 3 instances", "not within 3s", "GET /healthz answered 503"]),
        },
        Broken {
            name: "it needs too much memory",
            spec: hungry,
            says: says(&["for want of memory", "loading the price list", "its memory limit is 64 MiB"]),
        },
        Broken {
            name: "its migration fails",
            spec: shop("migrate"),
            says: says(&["the hook migrate of web exited with code 1", "step 2 of 3 failed"]),
        },
        Broken {
            name: "its command does not exist",
            spec: changed(&|spec| service(spec, "web").workload.command = Some(vec!["/nope".to_owned()])),
            says: says(&["/nope", "check the entrypoint and command"]),
        },
        Broken {
            name: "its port is taken",
            spec: changed(&|spec| service(spec, "web").workload.ports.push(Port::published(8080, taken))),
            says: says(&[&taken.to_string(), "hint: "]),
        },
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn every_broken_release_is_brought_back_with_the_evidence() {
    let site = Site::new("broken").await;
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    site.deploy_well(site.version("v1")).await;
    let web = site.instances("web").await;
    let load = site.load("/version", 200).start();
    for Broken { name, spec, says } in broken(&site.place, taken.local_addr().unwrap().port()) {
        let record = site.deploy(spec).finished().await.unwrap();
        let verdict = record.verdict.unwrap();
        assert!(matches!(verdict, Verdict::RolledBack { .. }), "{name}: {verdict}");
        let text = verdict.to_string();
        for part in says {
            assert!(text.contains(&part), "{name}: {part:?} is not in: {text}");
        }
        assert_eq!(site.instances("web").await, web, "{name}");
        assert_eq!(site.deployer.status(site.app()).await.unwrap().drift, Vec::<String>::new(), "{name}");
        site.assert_no_strays().await;
    }
    assert_none_lost(&load.stop().await, &["v1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_that_dies_with_all_of_the_traffic_loses_none() {
    let site = Site::new("dies").await;
    site.deploy_well(site.version("v1")).await;
    let load = site.load("/version", 200).start();
    for version in ["v2", "v3"] {
        // Each of its instances ends a moment after it has begun, and again whenever the engine has started it again.
        let mut spec = site.place.shop(&[("VERSION", version), ("BROKEN", "crash")]);
        let hour = Duration::from_secs(3600);
        service(&mut spec, "web").strategy = Strategy::BlueGreen { bake: hour, keep_warm: hour };
        let record = site.deploy(spec).finished().await.unwrap();
        assert!(matches!(record.verdict, Some(Verdict::RolledBack { .. })), "{:?}", record.verdict);
        assert_eq!(site.get("/version").await, (200, "v1".to_owned()));
        site.assert_no_strays().await;
    }
    let report = load.stop().await;
    assert_eq!((report.lost, report.unsent), (0, 0), "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_is_missing_is_refused_before_anything_is_touched() {
    let site = Site::new("missing").await;
    let deployer: &Deployer = &site.deployer;
    let mut spec = site.version("v1");
    service(&mut spec, "web").image = deployer_core::ImageSource::Reference("no-such-image:1".to_owned());
    let error = site.deploy(spec).finished().await.unwrap_err();
    assert_eq!((error.kind(), error.resource()), (ErrorKind::NotFound, Some("no-such-image:1")), "{error}");
    assert!(error.help().is_some());
    assert!(deployer.history(site.app()).await.unwrap().is_empty());
    assert!(site.containers().await.is_empty());
}
