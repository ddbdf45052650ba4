//! The simulated AWS as a site and as a store, in virtual time. The oracle looks into it past all requests.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use deployer_core::{
    AppName, Backend, BuildSpec, Clock, DeploymentId, InstanceId, PinnedImage, ReleaseStore, Route, ServiceSpec,
    TargetRegistration,
};
use deployer_testkit::World;
use deployer_testkit::conformance::{
    Build, CaseFailure, CaseResult, Entrance, Need, Pace, Profile, Program, Scope, Seen, SeenInstance, SeenTask, Site,
    StoreBench, TaskProgram,
};
use serde_json::json;

use crate::cloud::http::Wire;
use crate::cloud::images_api::REGISTRY;
use crate::cloud::services::Status;
use crate::cloud::strike::Strikes;
use crate::cloud::tasks::Phase;
use crate::cloud::{self, Cloud};

/// Where the shop listens.
const PORT: u16 = 8080;
const IMAGE: &str = "conformance/shop";
const SECOND: Duration = Duration::from_secs(1);

fn name(text: &str) -> AppName {
    AppName::new(text).unwrap()
}

/// A new simulated AWS that has everything.
fn wire(world: &World) -> Wire {
    // Cases ask as soon as weights have moved, and not when all nodes of the load balancer have heard of it.
    let profile = cloud::Profile { publishes: true, whole: true, propagation: 0, ..cloud::Profile::default() };
    let mut cloud = Cloud::with_profile(profile);
    cloud.push_image(IMAGE, "1");
    Wire::new(world, &name("shop"), cloud, &Strikes::default())
}

/// What was asked for that AWS refuses, or that a careful program does not ask for.
fn broken(wire: &Wire) -> CaseResult {
    let broken = wire.cloud(|cloud| cloud.broken.clone());
    if broken.is_empty() { Ok(()) } else { Err(CaseFailure::new(broken.join("\n"))) }
}

/// ECS, ECR and load balancers, each case with an AWS of its own.
#[derive(Debug)]
pub(crate) struct Simulated;

#[async_trait]
impl Site for Simulated {
    fn profile(&self) -> Profile {
        Profile::new("simulated-aws")
            .simulated()
            .with_targets(TargetRegistration::Orchestrator)
            .draining()
            .lacking(Need::Builds, "there is no Docker Engine that could push")
            .lacking(Need::InternalNames, "calls between services do not pass the load balancer")
            .lacking(Need::Volumes, "volumes are kept on EFS, which is not the application's")
            .lacking(Need::Counters, "CloudWatch counts, and only after a minute")
            .known_gap(
                "orchestrator/launch-starts-what-has-exited",
                "ECS replaces whatever exits, whatever the restart policy",
            )
            .known_gap(
                "orchestrator/logs-can-be-narrowed",
                "what crashes is replaced by a task with an id and lines of its own",
            )
            .known_gap("orchestrator/reduce-removes-the-highest-ordinals", "ECS chooses itself what it stops")
            .known_gap("orchestrator/smoke-asks-every-running-instance", "nobody answers at a simulated address")
    }

    async fn scope(&self) -> CaseResult<Arc<dyn Scope>> {
        let world = World::new();
        let wire = wire(&world);
        let backend = wire.backend(&wire.process());
        Ok(Arc::new(Plot { world, wire, backend, ports: AtomicU16::new(20_000) }))
    }
}

/// One simulated AWS.
#[derive(Debug)]
struct Plot {
    world: World,
    wire: Wire,
    backend: Backend,
    ports: AtomicU16,
}

#[async_trait]
impl Scope for Plot {
    fn backend(&self) -> Backend {
        self.backend.clone()
    }

    fn clock(&self) -> Arc<dyn Clock> {
        self.world.clock()
    }

    fn app(&self) -> AppName {
        name("shop")
    }

    fn neighbour(&self) -> AppName {
        name("beside")
    }

    fn service(&self, program: Program, version: &str) -> ServiceSpec {
        let service = ServiceSpec::image(self.image())
            .with_env("VERSION", version)
            .with_route(Route::new(PORT))
            .with_drain(3 * SECOND)
            .with_http_probe("/healthz", PORT);
        match program {
            Program::Exits => service.with_env("BROKEN", "exit"),
            Program::NeverReady => service.with_env("BROKEN", "never"),
            Program::IgnoresStop => service.with_env("BROKEN", "stubborn"),
            Program::CannotStart => service.with_env("BROKEN", "nothing"),
            _ => service,
        }
    }

    fn task(&self, task: TaskProgram) -> Vec<String> {
        let word = match task {
            TaskProgram::Succeeds => "succeed",
            TaskProgram::Fails => "fail",
            _ => "last",
        };
        vec![word.to_owned()]
    }

    fn image(&self) -> String {
        format!("{REGISTRY}/{IMAGE}:1")
    }

    fn missing_image(&self) -> String {
        format!("{REGISTRY}/{IMAGE}:2")
    }

    fn build(&self, _build: Build<'_>) -> BuildSpec {
        unreachable!("the profile says that nothing is built")
    }

    fn free_port(&self) -> u16 {
        self.ports.fetch_add(1, Ordering::Relaxed)
    }

    async fn has_image(&self, image: &PinnedImage) -> CaseResult<bool> {
        Ok(self.wire.cloud(|cloud| cloud.has_image(&image.location)))
    }

    async fn lose_image(&self, image: &PinnedImage) -> CaseResult {
        self.wire.cloud(|cloud| cloud.lose_image(image.digest.as_str()));
        Ok(())
    }

    async fn request(&self, _app: &AppName, entrance: &Entrance, pace: Pace) -> Result<String, String> {
        let millis = if pace == Pace::Slow { 1_500 } else { 20 };
        let (host, path) = match entrance {
            Entrance::Route(route) => (route.host.clone(), route.path.as_str()),
            Entrance::Published(port) => (Some(port.to_string()), "/"),
            other => return Err(format!("{other:?} is not known here")),
        };
        let (number, version) = self.wire.cloud(|cloud| cloud.request(host.as_deref(), path, millis));
        self.world.clock().sleep(Duration::from_millis(millis)).await;
        self.wire.cloud(|cloud| cloud.loss(number)).map_or(Ok(version), Err)
    }

    async fn seen(&self, app: &AppName) -> CaseResult<Seen> {
        let app = app.as_str();
        Ok(self.wire.cloud(|cloud| {
            let mut seen = Seen::nothing();
            let mut ordinals = BTreeMap::new();
            let mut tasks: Vec<_> = cloud.tasks.values().filter(|task| task.phase < Phase::Stopped).collect();
            tasks.sort_by_key(|task| (task.created, &task.id));
            let slots: Vec<_> = cloud.slots(app).filter(|slot| slot.status == Status::Active).collect();
            for task in tasks {
                let in_slot = slots.iter().any(|slot| task.service.as_ref() == Some(&slot.name));
                let Some(revision) = cloud.revision(&task.definition).filter(|_| in_slot) else { continue };
                let ordinal = ordinals.entry(revision.clone()).or_insert(0);
                *ordinal += 1;
                let (id, ordinal) = (InstanceId::new(task.id.as_str()).unwrap(), *ordinal);
                // What is started again is another task.
                let start = task.created.to_string();
                let running = matches!(task.phase, Phase::Running | Phase::Deactivating);
                seen.instances.push(SeenInstance { revision, ordinal, id, running, start });
            }
            // ECS tells for an hour of what has ended, and nobody can make it forget that.
            for task in cloud.errands_of(app).filter(|task| task.is_wanted()) {
                let (id, start) = (InstanceId::new(task.id.as_str()).unwrap(), task.created.to_string());
                seen.tasks.push(SeenTask { id, running: true, start });
            }
            let of_app = |tags: &cloud::Tags| tags.get("deployer:app").is_some_and(|owner| owner == app);
            seen.shared.extend(slots.iter().filter(|slot| slot.desired == 0).map(|slot| slot.name.clone()));
            seen.shared
                .extend(cloud.groups.values().filter(|group| of_app(&group.tags)).map(|group| group.arn.clone()));
            seen
        }))
    }

    async fn kill(&self, instance: &InstanceId) -> CaseResult {
        self.wire.cloud(|cloud| cloud.kill(instance.as_str()));
        Ok(())
    }

    async fn clean_up(&self) -> CaseResult {
        // A case retains nothing while instances are there, which the engine does not do.
        self.wire.cloud(|cloud| cloud.broken.retain(|what| !what.ends_with("is deleted with targets in it")));
        broken(&self.wire)
    }
}

/// Tables of DynamoDB, each in an AWS of its own.
#[derive(Debug, Default)]
pub(crate) struct Tables(Mutex<BTreeMap<String, Wire>>);

impl Tables {
    fn at(&self, place: &str) -> CaseResult<Wire> {
        let tables = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(tables.get(place).cloned().ok_or("there is no such place")?)
    }
}

#[async_trait]
impl StoreBench for Tables {
    fn profile(&self) -> Profile {
        Profile::new("simulated-dynamodb")
            .simulated()
            .lacking(Need::Processes, "it is in the memory of one process")
            .lacking(Need::OwnerDeath, "it cannot tell whether a process on another host lives")
    }

    async fn place(&self) -> CaseResult<String> {
        let wire = wire(&World::new());
        let mut tables = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let place = format!("table {}", tables.len());
        tables.insert(place.clone(), wire);
        Ok(place)
    }

    async fn open(&self, place: &str) -> CaseResult<Arc<dyn ReleaseStore>> {
        let wire = self.at(place)?;
        Ok(wire.backend(&wire.process()).store)
    }

    async fn damage(&self, place: &str, deployment: &DeploymentId, seq: u64) -> CaseResult {
        let damaged = self.at(place)?.cloud(|cloud| {
            let of_journal =
                cloud.records.items.iter_mut().filter(|((pk, _), _)| *pk == format!("deployment#{deployment}"));
            for (_, item) in of_journal {
                let first: Option<u64> = item.get("first").and_then(|first| first["N"].as_str()?.parse().ok());
                let index =
                    first.and_then(|first| seq.checked_sub(first)).and_then(|index| usize::try_from(index).ok());
                let entries = item.get_mut("entries").and_then(|entries| entries["L"].as_array_mut());
                if let Some(entry) = index.and_then(|index| entries?.get_mut(index)) {
                    *entry = json!({"S": "nonsense"});
                    return true;
                }
            }
            false
        });
        if damaged { Ok(()) } else { Err("there is no such entry to be damaged".into()) }
    }

    async fn examine(&self, place: &str) -> CaseResult {
        let wire = self.at(place)?;
        broken(&wire)?;
        let differ = wire.cloud(|cloud| cloud.records_differ());
        if differ.is_empty() { Ok(()) } else { Err(CaseFailure::new(differ.join("\n"))) }
    }

    async fn remove(&self, place: &str) -> CaseResult {
        self.examine(place).await
    }
}
