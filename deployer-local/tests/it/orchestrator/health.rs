use std::collections::BTreeMap;
use std::time::Duration;

use bollard::exec::StartExecOptions;
use bollard::models::ExecConfig;
use deployer_core::{
    CheckCommand, ContainerCheck, Health, ObserveApp, ObservedInstance, Orchestrator, Probe, Readiness, Release,
    ServiceRelease, SmokeRequest, Timestamp,
};

use crate::engine::{TestApp, call, revision, until};

const SERVER: &str = "mkdir /www; trap exit TERM; httpd -f -p 8080 -h /www & wait";

fn server(app: &TestApp) -> ServiceRelease {
    app.shell(SERVER).with_port(8080)
}

fn probing(probe: Probe) -> Readiness {
    let mut readiness = Readiness::default();
    readiness.probe = Some(probe);
    readiness.interval = Duration::ZERO;
    readiness
}

async fn execute(app: &TestApp, container: &str, script: &str) {
    let config = ExecConfig { cmd: Some(vec!["sh".into(), "-c".into(), script.into()]), ..Default::default() };
    let exec = app.docker.create_exec(container, config).await.unwrap();
    app.docker.start_exec(&exec.id, Some(StartExecOptions { detach: true, ..Default::default() })).await.unwrap();
}

async fn once(
    app: &TestApp,
    release: &Release,
    probe: &Readiness,
    is: impl Fn(&ObservedInstance) -> bool,
) -> ObservedInstance {
    let probes = BTreeMap::from([(revision(release, "web"), probe.clone())]);
    until(async || {
        let request = ObserveApp::new(app.name.clone()).with_probe(probes.clone());
        app.orchestrator.observe(request).await.unwrap().instances.into_iter().find(&is)
    })
    .await
}

#[tokio::test]
async fn both_the_probe_and_its_own_check_have_to_pass() {
    let app = TestApp::new("health").await;
    let check = ContainerCheck::new(CheckCommand::Shell("test -f /ok || { echo not ok; exit 1; }".into()));
    let mut check = check.with_interval(Duration::from_millis(50));
    check.retries = 1000;
    let release = app.release([("web", server(&app).with_check(check))]);
    app.run(&release, "web", 1).await;
    let probe = probing(Probe::Http { path: "/ready".into(), port: 8080 });
    let unready = once(&app, &release, &probe, |web| web.health_detail.as_deref() == Some("GET /ready answered 404"));
    let unready = unready.await;
    assert_eq!(unready.health, Health::Starting);
    execute(&app, unready.id.as_str(), "echo yes > /www/ready").await;
    let half = once(&app, &release, &probe, |web| web.health_detail.as_deref() == Some("not ok")).await;
    assert_eq!(half.health, Health::Starting);
    execute(&app, unready.id.as_str(), "touch /ok").await;
    let ready = once(&app, &release, &probe, ObservedInstance::is_ready).await;
    assert_eq!((ready.health, ready.health_detail), (Health::Healthy, None));
    execute(&app, unready.id.as_str(), "rm /www/ready").await;
    let failing = once(&app, &release, &probe, |web| web.health == Health::Unhealthy).await;
    assert_eq!(failing.health_detail.as_deref(), Some("GET /ready answered 404"));
}

#[tokio::test]
async fn a_check_that_keeps_failing_makes_it_unhealthy() {
    let app = TestApp::new("unhealthy").await;
    let check = ContainerCheck::new(CheckCommand::Exec(vec!["sh".into(), "-c".into(), "echo broken; exit 1".into()]));
    let mut check = check.with_interval(Duration::from_millis(50));
    check.retries = 2;
    let release = app.release([("web", app.idle().with_check(check))]);
    app.run(&release, "web", 1).await;
    let unhealthy = app.first_once(|web| web.health == Health::Unhealthy).await;
    assert_eq!(unhealthy.health_detail.as_deref(), Some("broken"));
}

#[tokio::test]
async fn a_tcp_probe_waits_for_the_port() {
    let app = TestApp::new("tcp").await;
    let script = "trap exit TERM; until test -f /go; do sleep 0.1; done; httpd -f -p 9000 & wait";
    let release = app.release([("web", app.shell(script).with_port(9000))]);
    app.run(&release, "web", 1).await;
    let probe = probing(Probe::Tcp { port: 9000 });
    let refused = once(&app, &release, &probe, |_| true).await;
    assert_eq!((refused.health, refused.health_detail.as_deref()), (Health::Starting, Some("connection refused")));
    execute(&app, refused.id.as_str(), "touch /go").await;
    once(&app, &release, &probe, ObservedInstance::is_ready).await;
    let unprobed = app.instances().await.remove(0);
    assert!(unprobed.is_ready(), "without a probe, running is enough");
}

#[tokio::test]
async fn a_container_that_is_cut_off_is_seen() {
    let app = TestApp::new("cut").await;
    let release = app.release([("web", app.idle())]);
    app.run(&release, "web", 1).await;
    let web = app.instances().await.remove(0);
    let cut = bollard::models::NetworkDisconnectRequest { container: web.id.to_string(), force: Some(true) };
    app.docker.disconnect_network(&format!("{}_default", app.name), cut).await.unwrap();
    let cut = app.instances().await.remove(0);
    assert_eq!((cut.health, cut.address), (Health::Unhealthy, None));
}

#[tokio::test]
async fn every_instance_answers_for_itself() {
    let app = TestApp::new("smoke").await;
    let release = app.release([("web", server(&app))]);
    app.run(&release, "web", 2).await;
    let probe = probing(Probe::Tcp { port: 8080 });
    for ordinal in [1, 2] {
        once(&app, &release, &probe, |web| web.ordinal == ordinal && web.is_ready()).await;
    }
    let instances = app.instances().await;
    execute(&app, instances[0].id.as_str(), "head -c 100000 /dev/zero | tr '\\0' a > /www/v.tmp; mv /www/v.tmp /www/v")
        .await;
    let request = || SmokeRequest::new(call().deadline, app.name.clone(), revision(&release, "web"), 8080, "/v".into());
    let answers = until(async || {
        let answers = app.orchestrator.smoke(request()).await.unwrap();
        answers.iter().any(|each| matches!(each.answer, Ok((200, _)))).then_some(answers)
    });
    let answers = answers.await;
    assert_eq!(answers.len(), 2);
    for each in answers {
        let (status, body) = each.answer.unwrap();
        let first = each.instance == instances[0].id;
        assert_eq!(status, if first { 200 } else { 404 });
        assert!(!first || body.len() == 64 * 1024, "{}", body.len());
    }
    let refused = SmokeRequest::new(call().deadline, app.name.clone(), revision(&release, "web"), 9, "/".into());
    let answers = app.orchestrator.smoke(refused).await.unwrap();
    assert!(answers.iter().all(|each| each.answer == Err("connection refused".into())), "{answers:?}");
    let mut late = request();
    late.deadline = Timestamp::default();
    let answers = app.orchestrator.smoke(late).await.unwrap();
    assert!(answers.iter().all(|each| each.answer.is_err()), "the deadline has passed");
}
