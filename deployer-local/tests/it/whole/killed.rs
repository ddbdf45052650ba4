//! Deployments whose process is killed, and another process that goes on with them.
//!
//! The process that is killed is this test again. It tells each call of the engine before and after it is made, so that
//! it can be killed at any point of the deployment, also while a call is under way.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use async_trait::async_trait;
use deployer_core::{CallInfo, DeployOptions, Intercept, Next, Result};

use super::site::{Place, Site, assert_none_lost, promoted};

/// The version that the process is to deploy.
const VERSION: &str = "DEPLOYER_SITE_VERSION";
/// What it says before and after each call.
const CALL: &str = "call: ";

/// Tells of every call on standard output.
#[derive(Debug)]
struct Tell;

#[async_trait]
impl Intercept for Tell {
    async fn intercept(&self, call: &CallInfo, next: &mut Next<'_>) -> Result<()> {
        println!("{CALL}{} of {} begins", call.operation, call.resource);
        let result = next.run().await;
        println!("{CALL}{} of {} has ended", call.operation, call.resource);
        result
    }
}

/// What the process does that is to be killed.
async fn deploy_to(place: Place, version: &str) {
    let deployer = place.deployer().await.intercept(std::sync::Arc::new(Tell)).build();
    let spec = place.shop(&[("VERSION", version)]);
    promoted(deployer.deploy(spec, DeployOptions::default())).await;
}

/// Starts a process that deploys this version to the site.
fn process(site: &Site, version: &str) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "whole::killed::a_killed_deployment_is_finished_by_another_process", "--nocapture"]);
    site.place.tell(&mut command).env(VERSION, version).stdout(Stdio::piped()).spawn().unwrap()
}

/// What the process says about its calls.
fn calls(process: &mut Child) -> impl Iterator<Item = String> + use<> {
    let lines = BufReader::new(process.stdout.take().unwrap()).lines();
    lines.map_while(std::io::Result::ok).filter(|line| line.contains(CALL))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_deployment_is_finished_by_another_process() {
    if let Some(place) = Place::given() {
        return deploy_to(place, &std::env::var(VERSION).unwrap()).await;
    }
    let site = Site::new("killed").await;
    site.deploy_well(site.version("v0")).await;
    let load = site.load("/version", 200).start();
    let mut undisturbed = process(&site, "v1");
    let said = tokio::task::block_in_place(|| calls(&mut undisturbed).count());
    assert!(undisturbed.wait().unwrap().success());
    assert!(said > 50, "only {said} calls");

    let mut versions = vec!["v0".to_owned(), "v1".to_owned()];
    // Spread over the deployment, and no two runs of these numbers apart: in the first calls that change something, while
    // instances start, around the shift, and while it bakes.
    let mut seed = 0x5EED_u64;
    for quarter in 0..4 {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let percent = quarter * 22 + (seed >> 33) as usize % 22 + 5;
        let version = format!("v{}", quarter + 2);
        let mut victim = process(&site, &version);
        let last = tokio::task::block_in_place(|| {
            let last = calls(&mut victim).nth(said * percent / 100);
            victim.kill().unwrap();
            victim.wait().unwrap();
            last
        });
        let moment = format!("killed at {percent} % of {said}: {last:?}");
        println!("{moment}");
        match site.deployer.resume(site.app()).await.unwrap() {
            Some(deployment) => drop(promoted(deployment).await),
            // It had not begun, or it was over.
            None => drop(site.deploy_well(site.version(&version)).await),
        }
        assert_eq!(site.get("/version").await, (200, version.clone()), "{moment}");
        let (_, migrations) = site.get("/migrations").await;
        assert!(migrations.contains(&format!("{version} 1\n")), "{moment}: {migrations}");
        site.assert_no_strays().await;
        versions.push(version);
    }
    let versions: Vec<&str> = versions.iter().map(String::as_str).collect();
    assert_none_lost(&load.stop().await, &versions);
}
