//! The simulated world as a site: it passes every suite, and is an example of how to write one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use deployer_core::{
    AppName, Backend, BuildSpec, Clock, ExitDetail, InstanceId, PinnedImage, Route, ServiceName, ServiceSpec,
    TargetRegistration,
};

use super::case::{CaseFailure, CaseResult};
use super::profile::Profile;
use super::site::{Build, Entrance, Pace, Program, Scope, Seen, SeenInstance, SeenTask, Site, TaskProgram};
use crate::scenario::Behaviour;
use crate::world::instances::Life;
use crate::world::strict::Rule;
use crate::world::traffic::Traffic;
use crate::world::{Options, World};

/// The fakes of a [`World`] under test, each case in a world of its own.
#[derive(Clone, Debug)]
pub struct Simulated {
    name: &'static str,
    options: Options,
}

impl Simulated {
    /// Worlds in which the engine registers targets.
    #[must_use]
    pub fn single_host() -> Self {
        Self { name: "world", options: Options::default() }
    }

    /// Worlds in which the orchestrator registers its instances, and drains them.
    #[must_use]
    pub fn cluster() -> Self {
        let options = Options::default().with_targets(TargetRegistration::Orchestrator);
        Self { name: "cluster", options }
    }
}

#[async_trait]
impl Site for Simulated {
    fn profile(&self) -> Profile {
        let profile = Profile::new(self.name).simulated().with_targets(self.options.targets);
        if self.options.targets == TargetRegistration::Orchestrator { profile.draining() } else { profile }
    }

    async fn scope(&self) -> CaseResult<Arc<dyn Scope>> {
        let world = World::with_options(self.options.clone());
        world.add_image("conformance/known:1");
        let second = Duration::from_secs(1);
        let task = |code, line: &str| Behaviour::task(second, code).with_log(line);
        world.on_command("succeeds", task(0, "done"));
        world.on_command("fails", task(7, "FATAL: no database"));
        world.on_command("lasts", Behaviour::task(Duration::from_secs(600), 0));
        world.on_command("/no/such/program", Behaviour::start_error("exec: \"/no/such/program\": no such file"));
        world.lose_context("nowhere");
        let (ports, kills) = (AtomicU16::new(20_000), AtomicU32::new(0));
        Ok(Arc::new(Simulation { backend: world.backend(), world, ports, kills }))
    }
}

/// One world.
#[derive(Debug)]
struct Simulation {
    world: World,
    backend: Backend,
    ports: AtomicU16,
    kills: AtomicU32,
}

fn image_of(program: Program, version: &str) -> String {
    format!("conformance/{}:{version}", format!("{program:?}").to_lowercase())
}

fn app(name: &str) -> AppName {
    AppName::new(name).unwrap_or_else(|error| unreachable!("{error}"))
}

#[async_trait]
impl Scope for Simulation {
    fn backend(&self) -> Backend {
        self.backend.clone()
    }

    fn clock(&self) -> Arc<dyn Clock> {
        self.world.clock()
    }

    fn app(&self) -> AppName {
        app("shop")
    }

    fn neighbour(&self) -> AppName {
        app("neighbour")
    }

    fn service(&self, program: Program, version: &str) -> ServiceSpec {
        let image = image_of(program, version);
        let behaviour = match program {
            Program::Serves => Behaviour::healthy().finishing_requests(),
            Program::Exits => Behaviour::crash_loop(3).with_log("FATAL: no database"),
            Program::NeverReady => Behaviour::never_healthy("HTTP 503"),
            Program::IgnoresStop => Behaviour::slow_stop(Duration::from_secs(3600)),
            Program::CannotStart => Behaviour::start_error("exec: \"/nope\": no such file or directory"),
        };
        self.world.on_image(&image, behaviour);
        ServiceSpec::image(image).with_route(Route::new(80)).with_http_probe("/", 80)
    }

    fn task(&self, task: TaskProgram) -> Vec<String> {
        let word = match task {
            TaskProgram::Succeeds => "succeeds",
            TaskProgram::Fails => "fails",
            TaskProgram::Lasts => "lasts",
        };
        vec![word.to_owned()]
    }

    fn image(&self) -> String {
        "conformance/known:1".to_owned()
    }

    fn missing_image(&self) -> String {
        "conformance/unknown:1".to_owned()
    }

    fn build(&self, build: Build<'_>) -> BuildSpec {
        // The world breaks the builds of a service, whatever is built.
        self.world.break_build("web", (build == Build::Fails).then_some("FATAL: no compiler"));
        match build {
            Build::Version(version) => BuildSpec::new("context").with_arg("VERSION", version),
            Build::Fails => BuildSpec::new("context"),
            Build::Unreadable => BuildSpec::new("nowhere"),
        }
    }

    fn free_port(&self) -> u16 {
        self.ports.fetch_add(1, Ordering::Relaxed)
    }

    async fn has_image(&self, image: &PinnedImage) -> CaseResult<bool> {
        Ok(self.world.lock().images.can_run(&image.digest))
    }

    async fn lose_image(&self, image: &PinnedImage) -> CaseResult {
        let mut state = self.world.lock();
        let row = state.images.rows.get_mut(&image.digest);
        row.ok_or_else(|| CaseFailure::new("there is no such image"))?.runnable = false;
        Ok(())
    }

    async fn request(&self, app: &AppName, entrance: &Entrance, pace: Pace) -> Result<String, String> {
        let taking = match pace {
            Pace::Quick => Duration::from_millis(5),
            Pace::Slow => Duration::from_secs(2),
        };
        let traffic = match entrance {
            Entrance::Route(route) => Traffic::to_route(route.host.as_deref(), route.path.clone()),
            Entrance::Published(port) => {
                let service = self.listening_on(*port).ok_or("nobody listens on the port")?;
                Traffic::to_service(service.0.as_str(), service.1.as_str())
            }
            Entrance::Name(service) => Traffic::to_service(app.as_str(), service.as_str()),
        };
        let (number, instance) = {
            let mut state = self.world.lock();
            let (number, instance) = state.send(&traffic.taking(taking)).map_err(|loss| loss.to_string())?;
            let image = state.instances.get(&instance).map(|instance| instance.image.reference.clone());
            (number, image.unwrap_or_default())
        };
        self.world.clock().sleep(taking).await;
        let lost = self.world.lock().take_answer(number);
        let version = instance.rsplit(':').next().unwrap_or_default();
        lost.map_or_else(|| Ok(version.to_owned()), |loss| Err(loss.to_string()))
    }

    async fn seen(&self, app: &AppName) -> CaseResult<Seen> {
        let state = self.world.lock();
        let mut seen = Seen::nothing();
        for instance in state.instances.values().filter(|instance| instance.app == *app) {
            seen.instances.push(SeenInstance {
                revision: instance.revision.clone(),
                ordinal: instance.ordinal,
                id: instance.id.clone(),
                running: instance.is_alive(),
                start: format!("run {}", instance.runs),
            });
        }
        for task in state.tasks.iter().filter(|((owner, _), _)| owner == app).map(|(_, task)| task) {
            let running = task.exit(state.now).is_none();
            seen.tasks.push(SeenTask { id: task.instance.clone(), running, start: task.started_at.to_string() });
        }
        if let Some(shared) = state.shared.get(app) {
            seen.shared.extend(shared.networks.iter().map(|network| format!("network {network}")));
            seen.volumes.extend(shared.volumes.iter().cloned());
        }
        let entries = state.routing.iter().filter(|((owner, _), _)| owner == app);
        seen.shared.extend(entries.map(|((_, service), _)| format!("entry {service}")));
        Ok(seen)
    }

    async fn kill(&self, instance: &InstanceId) -> CaseResult {
        self.kills.fetch_add(1, Ordering::Relaxed);
        let mut state = self.world.lock();
        let now = state.now;
        if let Some(instance) = state.instances.get_mut(instance)
            && instance.life == Life::Running
        {
            instance.crash(now, ExitDetail::code(137));
        }
        state.settle();
        Ok(())
    }

    async fn clean_up(&self) -> CaseResult {
        // An instance may be killed after somebody has looked at it and before traffic is moved to it.
        let killed = self.kills.load(Ordering::Relaxed) > 0;
        let mut violations = self.world.violations();
        violations.retain(|violation| !(killed && violation.rule == Rule::TrafficHasTargets));
        let violations: Vec<String> = violations.iter().map(ToString::to_string).collect();
        if violations.is_empty() {
            return Ok(());
        }
        Err(CaseFailure::new(format!("rules were broken:\n  {}\n{}", violations.join("\n  "), self.world.describe())))
    }
}

impl Simulation {
    /// The service whose entry publishes a port.
    fn listening_on(&self, port: u16) -> Option<(AppName, ServiceName)> {
        let state = self.world.lock();
        let published: BTreeMap<u16, (AppName, ServiceName)> = state
            .routing
            .iter()
            .flat_map(|(key, entry)| entry.published.iter().map(move |published| (published.port, key.clone())))
            .collect();
        published.get(&port).cloned()
    }
}
