//! Many services and many deployments at once, against the rates of requests that ECS publishes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use deployer_core::{AppSpec, DeployOptions, Deployer, Route, ServiceSpec, Strategy};
use deployer_testkit::{World, simulate};

use crate::cloud::http::Wire;
use crate::cloud::strike::Strikes;
use crate::cloud::{Cloud, Profile};

fn service(version: &str) -> ServiceSpec {
    ServiceSpec::image("web:v1")
        .with_env("VERSION", version)
        .with_drain(Duration::from_secs(1))
        .with_ready_deadline(Duration::from_secs(900))
        .with_strategy(Strategy::default())
}

/// What a crowd came to.
#[derive(Debug)]
struct Crowd {
    seconds: u64,
    requests: usize,
    throttled: BTreeMap<String, u64>,
    promoted: usize,
}

impl Crowd {
    /// Few of the requests were in vain, and it took hardly longer than the rates allow.
    fn is_no_storm(&self, least_seconds: u64) {
        let throttled: u64 = self.throttled.values().sum();
        assert!(throttled * 4 < self.requests as u64 && self.seconds < least_seconds * 2, "{self:?}");
    }
}

/// Deploys applications at once, from one process.
fn deploy(apps: Vec<AppSpec>, rates: bool) -> Crowd {
    let world = World::new();
    world.add_image("web:v1");
    let wire = Wire::new(
        &world,
        &apps[0].name,
        Cloud::with_profile(Profile { rates, ..Profile::default() }),
        &Strikes::default(),
    );
    simulate(async {
        let process = wire.process();
        let deployer = Deployer::builder(wire.backend(&process)).clock(world.clock()).owner("fleet").build();
        let deployer = Arc::new(deployer);
        let mut under_way = tokio::task::JoinSet::new();
        for app in apps {
            let deployer = Arc::clone(&deployer);
            under_way.spawn(async move { deployer.deploy(app, DeployOptions::default()).finished().await });
        }
        let mut promoted = 0;
        while let Some(record) = under_way.join_next().await {
            let verdict = record.unwrap().unwrap().verdict;
            let is_promoted = verdict.as_ref().is_some_and(|verdict| verdict.is_promoted());
            if !is_promoted {
                println!("{verdict:?}");
            }
            promoted += usize::from(is_promoted);
        }
        let seconds = world.clock().elapsed().as_secs();
        assert_eq!(wire.cloud(|cloud| cloud.broken.clone()), Vec::<String>::new());
        Crowd { seconds, requests: wire.requests().len(), throttled: wire.throttled(), promoted }
    })
}

fn wide(services: usize) -> AppSpec {
    let app = AppSpec::new("wide").unwrap();
    (0..services).fold(app, |app, index| {
        let service = service("v1");
        let routed = |service: ServiceSpec| {
            service
                .with_route(Route::new(8080).with_host(format!("s{index}.example")))
                .with_http_probe("/healthz", 8080)
        };
        // The load balancer has room for 100 target groups.
        let service = if index < 10 { routed(service) } else { service };
        app.with_service(format!("s{index}"), service).unwrap()
    })
}

fn many(apps: usize) -> Vec<AppSpec> {
    let app = |index: usize| {
        let web = service("v1").with_route(Route::new(8080).with_host(format!("a{index}.example")));
        let web = web.with_http_probe("/healthz", 8080);
        AppSpec::new(format!("a{index}")).unwrap().with_service("web", web).unwrap()
    };
    (0..apps).map(app).collect()
}

#[test]
fn two_hundred_services_in_one_application_do_not_end_in_a_storm() {
    let (free, paced) = (deploy(vec![wide(200)], false), deploy(vec![wide(200)], true));
    println!("200 services, no rates: {free:?}\n200 services, published rates: {paced:?}");
    assert_eq!((free.promoted, paced.promoted), (1, 1));
    // ECS registers 20 task definitions at once, and one each second from then on.
    paced.is_no_storm(180);
}

#[test]
fn fifty_deployments_at_once_do_not_end_in_a_storm() {
    let (free, paced) = (deploy(many(50), false), deploy(many(50), true));
    println!("50 deployments, no rates: {free:?}\n50 deployments, published rates: {paced:?}");
    assert_eq!((free.promoted, paced.promoted), (50, 50));
    // Looks that are shared by nobody: 20 descriptions of services each second.
    paced.is_no_storm(100);
}
