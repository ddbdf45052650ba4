//! The tests that a platform would write whose users push versions of their applications.

use std::future::poll_fn;
use std::time::Duration;

use deployer_core::{
    AppName, AppSpec, BuildSpec, CanaryStep, DeployOptions, Deployer, Deployment, ErrorKind, EventKind, GateCheck,
    GatePoint, GateSpec, Hook, HookPoint, LogQuery, Port, Result, Route, ServiceSpec, Strategy, Verdict,
};
use deployer_testkit::{At, Behaviour, Fault, FaultPlan, Traffic, World, simulate};
use tokio::time::sleep;

const SECOND: Duration = Duration::from_secs(1);

/// The platform: what its users call, in terms that they know.
struct Platform {
    deployer: Deployer,
}

/// What the platform tells whoever pushed.
#[derive(Debug, PartialEq, Eq)]
enum Pushed {
    /// The version is live.
    Live { version: u64 },
    /// The version does not work, and the one before goes on.
    Broken { why: String },
    /// Somebody else is pushing.
    Busy,
    /// Nothing was touched.
    Refused { why: String },
}

impl Platform {
    fn new(world: &World) -> Self {
        Self { deployer: world.deployer() }
    }

    async fn push(&self, app: AppSpec) -> Pushed {
        Self::tell(self.deployer.deploy(app, DeployOptions::default()), &mut Vec::new()).await
    }

    /// Follows a deployment, and keeps the lines that its user sees.
    async fn tell(mut deployment: Deployment, lines: &mut Vec<String>) -> Pushed {
        while let Some(event) = deployment.next_event().await {
            match &event.kind {
                EventKind::Preparing { .. } => {}
                kind => lines.push(kind.to_string()),
            }
        }
        match deployment.finished().await {
            Ok(record) => match record.verdict {
                Some(Verdict::Promoted { .. }) => Pushed::Live { version: record.target.unwrap().0 },
                Some(verdict) => Pushed::Broken { why: verdict.to_string() },
                None => unreachable!("a deployment that has ended has a verdict"),
            },
            Err(error) if error.kind() == ErrorKind::Busy => Pushed::Busy,
            Err(error) => Pushed::Refused { why: error.report().to_string() },
        }
    }

    /// What the platform does when it starts: whatever it was doing when it was killed is brought to its end.
    async fn start(&self) -> Vec<Pushed> {
        let mut ended = Vec::new();
        for app in self.deployer.apps().await.unwrap() {
            if let Some(deployment) = self.deployer.resume(&app).await.unwrap() {
                ended.push(Self::tell(deployment, &mut Vec::new()).await);
            }
        }
        ended
    }
}

fn name(app: &str) -> AppName {
    AppName::new(app).unwrap()
}

/// An application of a user: two web servers under a host name of their own.
fn site(app: &str, web: ServiceSpec) -> AppSpec {
    let route = Route::new(8080).with_host(format!("{app}.example"));
    let web = web.with_replicas(2).with_route(route).with_http_probe("/healthz", 8080);
    AppSpec::new(app).unwrap().with_service("web", web).unwrap()
}

fn version(app: &str, number: u32) -> AppSpec {
    site(app, ServiceSpec::image(format!("{app}:v{number}")))
}

/// A world where version 1 of a blog serves and visitors come, who are accounted for to the end of the test.
async fn blog() -> World {
    let world = World::new();
    world.with_serving(version("blog", 1)).await;
    world.start_traffic(Traffic::to_route(Some("blog.example"), "/").per_second(50).taking(SECOND / 5));
    world.add_image("blog:v2");
    world
}

/// No visitor has noticed anything.
fn assert_unnoticed(world: &World) {
    world.assert_no_requests_lost();
    world.assert_capacity_at_least("blog", "web", 2);
    world.assert_no_violations();
}

#[tokio::test(start_paused = true)]
async fn a_user_sees_a_push_go_live() {
    let world = blog().await;
    let deployer = world.deployer();
    let mut lines = Vec::new();
    let deployment = deployer.deploy(version("blog", 2), DeployOptions::default().with_author("anna"));
    let pushed = Platform::tell(deployment, &mut lines).await;
    assert_eq!(pushed, Pushed::Live { version: 2 });
    world.assert_serving("blog", "web", "blog:v2", 2);
    world.assert_traffic("blog", "web", &[("blog:v2", 100)]);
    assert_unnoticed(&world);
    for expected in ["web: blog:v2", "release v2", "is ready", "promoted"] {
        assert!(lines.iter().any(|line| line.contains(expected)), "{expected:?} is not in {lines:#?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_user_hears_why_a_push_does_not_work() {
    let world = blog().await;
    world.on_image("blog:v2", Behaviour::crash_loop(78).with_log("FATAL: BLOG_TITLE is not set"));
    let pushed = Platform::new(&world).push(version("blog", 2)).await;
    let Pushed::Broken { why } = pushed else { panic!("{pushed:?}") };
    assert!(why.contains("exited with code 78") && why.contains("FATAL: BLOG_TITLE is not set"), "{why}");
    world.assert_serving("blog", "web", "blog:v1", 2);
    assert_unnoticed(&world);
}

#[tokio::test(start_paused = true)]
async fn of_two_pushes_at_once_one_is_told_to_wait() {
    let world = blog().await;
    world.add_image("blog:v3");
    let platform = Platform::new(&world);
    let (first, second) = tokio::join!(platform.push(version("blog", 2)), platform.push(version("blog", 3)));
    assert_eq!((first, second), (Pushed::Live { version: 2 }, Pushed::Busy));
    assert_eq!(platform.push(version("blog", 3)).await, Pushed::Live { version: 3 });
    world.assert_serving("blog", "web", "blog:v3", 2);
}

#[tokio::test(start_paused = true)]
async fn the_applications_of_many_users_are_pushed_at_once() {
    let world = World::new();
    let apps: Vec<String> = (1..=20).map(|number| format!("site-{number}")).collect();
    for app in &apps {
        world.with_serving(version(app, 1)).await;
    }
    for app in apps.iter().step_by(2) {
        world.add_image(&format!("{app}:v2"));
    }
    for app in apps.iter().skip(1).step_by(2) {
        world.never_healthy(&format!("{app}:v2"), "GET /healthz answered 503");
    }
    let mut pushes = tokio::task::JoinSet::new();
    for app in apps.clone() {
        let platform = Platform::new(&world);
        pushes.spawn(async move { platform.push(version(&app, 2)).await });
    }
    let ended = pushes.join_all().await;
    assert_eq!(ended.iter().filter(|pushed| **pushed == Pushed::Live { version: 2 }).count(), 10, "{ended:?}");
    for (index, app) in apps.iter().enumerate() {
        let serves = if index % 2 == 0 { format!("{app}:v2") } else { format!("{app}:v1") };
        world.assert_serving(app, "web", &serves, 2);
        world.assert_capacity_at_least(app, "web", 2);
    }
    world.assert_no_violations();
}

#[tokio::test(start_paused = true)]
async fn what_is_wrong_with_a_push_is_told_before_anything_is_touched() {
    let world = blog().await;
    let platform = Platform::new(&world);
    world.break_build("web", Some("error[E0425]: cannot find value `title` in this scope"));
    for (push, expected) in [
        (site("blog", ServiceSpec::build(BuildSpec::new("/home/anna/blog"))), "error[E0425]"),
        (version("blog", 7), "there is no such image"),
        (site("blog", ServiceSpec::image("blog:v2").with_dependency("cache").unwrap()), "cache"),
    ] {
        let pushed = platform.push(push).await;
        let Pushed::Refused { why } = pushed else { panic!("{pushed:?}") };
        assert!(why.contains(expected), "{why}");
    }
    world.assert_serving("blog", "web", "blog:v1", 2);
    assert_unnoticed(&world);
}

#[tokio::test(start_paused = true)]
async fn a_port_that_another_program_has_is_named_with_the_program() {
    let world = blog().await;
    world.occupy_port(443, "nginx");
    let web = ServiceSpec::image("blog:v2").with_ports(Port::published(8443, 443));
    let pushed = Platform::new(&world).push(site("blog", web)).await;
    let Pushed::Broken { why } = pushed else { panic!("{pushed:?}") };
    assert!(why.contains("443") && why.contains("nginx"), "{why}");
    world.assert_serving("blog", "web", "blog:v1", 2);
    assert_unnoticed(&world);
}

#[tokio::test(start_paused = true)]
async fn a_migration_that_fails_stops_the_push() {
    let world = blog().await;
    world.failing_task("migrate", 1, "relation \"posts\" does not exist");
    let hook = Hook::new("migrate", HookPoint::PreDeploy, ["/blog", "migrate"]);
    let push = site("blog", ServiceSpec::image("blog:v2").with_hook(hook));
    let record = world.deployer().deploy(push, DeployOptions::default()).finished().await.unwrap();
    world.assert_rolled_back(&record).because("exited with code 1").because("relation \"posts\" does not exist");
    world.assert_hook_ran_once(&record, "migrate");
    world.assert_journal_legal(&record);
    world.assert_serving("blog", "web", "blog:v1", 2);
    assert_unnoticed(&world);
}

#[tokio::test(start_paused = true)]
async fn a_canary_that_answers_with_errors_is_taken_back() {
    let world = blog().await;
    world.with_errors_permille("blog:v2", 300);
    let steps = vec![CanaryStep { weight: 20, hold: 30 * SECOND }];
    let check = GateCheck::ErrorRate { max_permille: 50, min_requests: 40 };
    let canary = ServiceSpec::image("blog:v2").with_strategy(Strategy::Canary { steps }).with_gate(GateSpec::new(
        "errors",
        GatePoint::Holding,
        check,
    ));
    let platform = Platform::new(&world);
    let watch = async {
        while world.traffic_report().errors.is_empty() {
            sleep(SECOND / 10).await;
        }
        world.assert_traffic("blog", "web", &[("blog:v1", 80), ("blog:v2", 20)]);
    };
    let (pushed, ()) = tokio::join!(platform.push(site("blog", canary)), watch);
    let Pushed::Broken { why } = pushed else { panic!("{pushed:?}") };
    assert!(why.contains("gate errors says no"), "{why}");
    world.assert_traffic("blog", "web", &[("blog:v1", 100)]);
    assert_unnoticed(&world);
}

#[test]
fn a_platform_that_was_killed_finishes_the_push_when_it_starts_again() {
    let plan = FaultPlan::new().with(At::operation("orchestrator.launch", 1), Fault::CrashAfter);
    // The process and everything in it ends with the first runtime; the world does not.
    let world = simulate(async {
        let world = blog().await;
        let process = plan.process();
        let doomed = Deployer::builder(world.backend()).clock(world.clock()).intercept(process.shared()).build();
        let push = doomed.deploy(version("blog", 2), DeployOptions::default());
        process.crashed().await;
        drop(push);
        world
    });
    assert!(plan.pending().is_empty());
    let ended = simulate(async { Platform::new(&world).start().await });
    assert_eq!(ended, [Pushed::Live { version: 2 }]);
    world.assert_serving("blog", "web", "blog:v2", 2);
    assert_unnoticed(&world);
}

#[tokio::test(start_paused = true)]
async fn a_user_takes_a_push_back_while_it_is_under_way_and_afterwards() {
    let world = blog().await;
    world.with_slow_start("blog:v2", 20 * SECOND);
    let deployer = world.deployer();
    let deployment = deployer.deploy(version("blog", 2), DeployOptions::default());
    sleep(10 * SECOND).await;
    deployer.cancel(&name("blog"), "anna").await.unwrap();
    let record = deployment.finished().await.unwrap();
    world.assert_cancelled(&record, "anna");
    world.assert_serving("blog", "web", "blog:v1", 2);

    assert_eq!(Platform::new(&world).push(version("blog", 2)).await, Pushed::Live { version: 2 });
    let record = deployer.rollback(&name("blog"), None).finished().await.unwrap();
    world.assert_promoted(&record);
    world.assert_serving("blog", "web", "blog:v1", 2);
    assert_unnoticed(&world);
}

#[tokio::test(start_paused = true)]
async fn a_user_reads_the_log_of_what_crashes() {
    let world = World::new();
    world.with_serving(version("blog", 1)).await;
    world.on_image("blog:v2", Behaviour::crash_loop(1).times(2).with_log("cannot reach the database"));
    let deployer = world.deployer();
    let deployment = deployer.deploy(version("blog", 2), DeployOptions::default());
    let mut log = deployer.logs(LogQuery::new(name("blog")).following()).await.unwrap();
    let first = poll_fn(|context| log.as_mut().poll_next(context)).await.unwrap();
    assert_eq!(first.unwrap().text, "cannot reach the database");
    let record = deployment.finished().await.unwrap();
    world.assert_rolled_back(&record).because("cannot reach the database");
}

#[tokio::test(start_paused = true)]
async fn an_application_that_is_deleted_leaves_nothing() -> Result<()> {
    let world = blog().await;
    world.stop_traffic();
    let record = world.deployer().destroy(&name("blog"), true).finished().await?;
    world.assert_promoted(&record);
    world.assert_nothing_left("blog");
    world.assert_no_violations();
    Ok(())
}
