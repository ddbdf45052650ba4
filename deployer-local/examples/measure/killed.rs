//! Deployments whose process is killed at a random moment.

use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use deployer_core::{DeployOptions, Verdict};

use crate::random::Random;
use crate::site::{Place, Site};

const VERSION: &str = "DEPLOYER_SITE_VERSION";

/// What the process does that is to be killed.
pub(crate) async fn deploy_to(place: Place) -> ExitCode {
    let version = std::env::var(VERSION).unwrap();
    let deployer = place.deployer().await.build();
    let spec = place.shop(&[("VERSION", &version)]);
    let record = deployer.deploy(spec, DeployOptions::default()).finished().await.unwrap();
    if record.verdict.is_some_and(|verdict| verdict.is_promoted()) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn process(site: &Site, version: &str) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    site.place.tell(&mut command).env(VERSION, version).stdout(Stdio::null()).spawn().unwrap()
}

pub(crate) async fn measure(moments: u64, seed: u64) -> bool {
    let site = Site::new("killed").await;
    site.deploy_well(site.version("k0")).await;
    let load = site.load("/version", 400).start();
    let began = Instant::now();
    let mut undisturbed = process(&site, "k1");
    assert!(tokio::task::block_in_place(|| undisturbed.wait()).unwrap().success());
    let whole = began.elapsed();
    println!("undisturbed: {:.2} s; seed {seed}", whole.as_secs_f64());
    println!("{:>9}  {:<16} {:<12} {:>8} {:>6}  what is wrong", "killed at", "found", "verdict", "resumed", "lost");

    let mut random = Random(seed);
    let (mut correct, mut strays, mut lost) = (0, 0, 0);
    for moment in 0..moments {
        let version = format!("k{}", moment + 2);
        let at = whole.mul_f64(random.next());
        let before = site.deployer.history(site.app()).await.unwrap().len();
        let mut victim = process(&site, &version);
        tokio::time::sleep(at).await;
        victim.kill().unwrap();
        victim.wait().unwrap();
        let began = Instant::now();
        let (found, verdict) = go_on(&site, before).await;
        let resumed = began.elapsed();
        let serves = site.get("/version").await.1;
        let runs = site.get("/migrations").await.1;
        let expected = found != "not begun";
        let wrong = [
            (verdict != "promoted").then(|| format!("the verdict is {verdict}")),
            (expected && serves != version).then(|| format!("{serves} serves")),
            (expected && !runs.contains(&format!("{version} 1\n"))).then(|| format!("migrations ran so often: {runs}")),
        ];
        let mut wrong: Vec<String> = wrong.into_iter().flatten().collect();
        correct += u64::from(wrong.is_empty());
        let stray = site.strays().await;
        strays += stray.len();
        wrong.extend(stray);
        let now = load.snapshot().lost;
        println!(
            "{:>7.2} s  {found:<16} {verdict:<12} {:>6.2} s {:>6}  {}",
            at.as_secs_f64(),
            resumed.as_secs_f64(),
            now - lost,
            wrong.join("; ")
        );
        lost = now;
    }
    let report = load.stop().await;
    println!("\n{report}");
    println!("killed: moments={moments} correct={correct} stray={strays} lost={}", report.lost + report.unsent);
    correct == moments && strays == 0 && report.lost + report.unsent == 0
}

/// Goes on with what the killed process left; answers what that was, and the verdict. So many deployments had there been
/// before.
async fn go_on(site: &Site, before: usize) -> (&'static str, String) {
    if let Some(deployment) = site.deployer.resume(site.app()).await.unwrap() {
        let finished = tokio::time::timeout(Duration::from_secs(120), deployment.finished()).await;
        let verdict = match finished {
            Ok(Ok(record)) => record.verdict.map_or_else(String::new, |verdict| verdict.word().to_owned()),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "none in time".to_owned(),
        };
        return ("under way", verdict);
    }
    let history = site.deployer.history(site.app()).await.unwrap();
    let verdict = history[0].verdict.as_ref().map_or("none", Verdict::word).to_owned();
    (if history.len() > before { "over" } else { "not begun" }, verdict)
}
