//! Random applications, their releases, and what may be there of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use deployer_core::{
    AppSpec, CanaryStep, Condition, Digest, GateCheck, GatePoint, GateSpec, Hook, HookPoint, Mount, PinnedImage,
    Release, ReleaseNumber, RevisionId, Route, ServiceName, ServiceSpec, Strategy as Rollout,
};
use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::json;

use super::stage::{Instance, Pooled, Stage};

const SECOND: Duration = Duration::from_secs(1);
const NAMES: [&str; 4] = ["a", "b", "c", "d"];

/// What is varied of a service.
#[derive(Clone, Debug)]
pub(crate) struct Sketch {
    version: u8,
    replicas: u32,
    rollout: Rollout,
    /// Whether it has a route, a port for its fellows, or neither.
    listens: Listens,
    volume: Option<u8>,
    /// The services before it in order of names that it depends on, and how.
    depends_on: [Option<Condition>; NAMES.len() - 1],
    gates: Vec<GatePoint>,
    hooks: Vec<HookPoint>,
}

#[derive(Clone, Copy, Debug)]
enum Listens {
    Route,
    Port,
    No,
}

/// A release as a sketch: a service for each of the names, or none.
pub(crate) type Services = Vec<Option<Sketch>>;

fn rollout() -> impl Strategy<Value = Rollout> {
    let duration = prop_oneof![Just(Duration::ZERO), Just(SECOND)];
    prop_oneof![
        Just(Rollout::Recreate),
        (0..4_u32, 0..4_u32)
            .prop_filter("it must be able to move", |(surge, unavailable)| surge + unavailable > 0)
            .prop_map(|(surge, unavailable)| Rollout::Rolling { surge, unavailable }),
        (duration.clone(), duration.clone()).prop_map(|(bake, keep_warm)| Rollout::BlueGreen { bake, keep_warm }),
        (proptest::collection::btree_set(1..=100_u8, 1..4), duration.clone()).prop_map(|(weights, hold)| {
            Rollout::Canary { steps: weights.into_iter().map(|weight| CanaryStep { weight, hold }).collect() }
        }),
        (1..=100_u8, duration).prop_map(|(step, interval)| Rollout::Linear { step, interval }),
    ]
}

fn sketch() -> impl Strategy<Value = Sketch> {
    let listens = prop_oneof![3 => Just(Listens::Route), 1 => Just(Listens::Port), 1 => Just(Listens::No)];
    let volume = prop_oneof![4 => Just(None), 1 => (0..2_u8).prop_map(Some)];
    let condition =
        prop_oneof![3 => Just(None), 1 => Just(Some(Condition::Started)), 1 => Just(Some(Condition::Healthy))];
    let gates = prop_oneof![
        3 => Just(Vec::new()),
        1 => Just(vec![GatePoint::BeforeTraffic]),
        1 => Just(vec![GatePoint::Holding, GatePoint::BeforeTraffic]),
    ];
    let hook = prop_oneof![Just(HookPoint::PreDeploy), Just(HookPoint::PostDeploy), Just(HookPoint::PreStop)];
    (
        0..3_u8,
        0..=5_u32,
        rollout(),
        listens,
        volume,
        [condition.clone(), condition.clone(), condition],
        gates,
        vec(hook, 0..3),
    )
        .prop_map(|(version, replicas, rollout, listens, volume, depends_on, gates, hooks)| Sketch {
            version,
            replicas,
            rollout,
            listens,
            volume,
            depends_on,
            gates,
            hooks,
        })
}

/// How a service differs from one release to the next.
#[derive(Clone, Debug)]
enum Edit {
    Nothing,
    Version(u8),
    Replicas(u32),
    Other(Box<Option<Sketch>>),
}

fn edit() -> impl Strategy<Value = Edit> {
    prop_oneof![
        3 => Just(Edit::Nothing),
        4 => (0..4_u8).prop_map(Edit::Version),
        2 => (0..=5_u32).prop_map(Edit::Replicas),
        2 => proptest::option::of(sketch()).prop_map(|other| Edit::Other(Box::new(other))),
    ]
}

fn edited(services: &Services, edits: &[Edit]) -> Services {
    let edited = services.iter().zip(edits).map(|(service, edit)| match (service, edit) {
        (Some(service), Edit::Version(version)) => Some(Sketch { version: *version, ..service.clone() }),
        (Some(service), Edit::Replicas(replicas)) => Some(Sketch { replicas: *replicas, ..service.clone() }),
        (_, Edit::Other(other)) => (**other).clone(),
        _ => service.clone(),
    });
    edited.collect()
}

impl Sketch {
    fn spec(&self, index: usize, present: &Services) -> ServiceSpec {
        let name = NAMES[index];
        let mut spec = ServiceSpec::image(format!("{name}:{}", self.version))
            .with_replicas(self.replicas)
            .with_strategy(self.rollout.clone());
        spec = match self.listens {
            Listens::Route => spec.with_route(Route::new(80).with_host(format!("{name}.example"))),
            Listens::Port => spec.with_port(6379),
            Listens::No => spec,
        };
        if let Some(volume) = self.volume {
            spec = spec.with_mount(Mount::volume(format!("volume{volume}"), "/data"));
        }
        for (other, condition) in self.depends_on.iter().enumerate().take(index) {
            if let (Some(condition), Some(_)) = (condition, &present[other]) {
                spec.depends_on.insert(ServiceName::new(NAMES[other]).unwrap(), *condition);
            }
        }
        for (number, at) in self.gates.iter().enumerate() {
            let check = GateCheck::Callback { name: "ask".into() };
            spec = spec.with_gate(GateSpec::new(format!("gate{number}"), *at, check));
        }
        for (number, point) in self.hooks.iter().enumerate() {
            spec = spec.with_hook(Hook::new(format!("hook{number}"), *point, ["work"]));
        }
        spec
    }
}

/// The release of this number that a sketch describes. It is a valid one.
pub(crate) fn release(services: &Services, number: u64) -> Release {
    let mut spec = AppSpec::new("shop").unwrap();
    for (index, service) in services.iter().enumerate() {
        if let Some(service) = service {
            spec = spec.with_service(NAMES[index], service.spec(index, services)).unwrap();
        }
    }
    pinned(&spec, number)
}

/// The release of this number that a spec leads to.
pub(crate) fn pinned(spec: &AppSpec, number: u64) -> Release {
    spec.validate().unwrap();
    let pinned = spec.services.iter().map(|(name, service)| {
        let deployer_core::ImageSource::Reference(image) = &service.image else { panic!("it is built from sources") };
        let image = PinnedImage::new(image, image, Digest::of(image.as_bytes()));
        (name.clone(), service.clone().with_image(image))
    });
    let services: BTreeMap<_, _> = pinned.collect();
    serde_json::from_value(json!({
        "format": Release::FORMAT, "app": spec.name, "number": number, "services": services,
        "networks": spec.networks, "volumes": spec.volumes, "provenance": {},
    }))
    .unwrap()
}

/// Everything that a plan is made from.
#[derive(Clone)]
pub(crate) struct Case {
    pub(crate) target: Release,
    pub(crate) baseline: Option<Release>,
    pub(crate) standby: Option<Release>,
    pub(crate) stage: Stage,
    pub(crate) warm: BTreeSet<RevisionId>,
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What matters of it is in the message of the failure.
        f.debug_struct("Case").finish_non_exhaustive()
    }
}

/// How much of a revision is there: for each instance whether it is ready, and what the load balancer does with it.
type Running = Vec<(bool, Pooled)>;

#[derive(Clone, Debug)]
struct There {
    /// For each revision that there may be: those of the standby, the baseline, the target, and of nobody.
    running: [Running; 4],
    /// Which of them have the traffic, and how much the first of the two.
    traffic: Option<(usize, usize, u8)>,
}

fn there() -> impl Strategy<Value = There> {
    let pooled = prop_oneof![4 => Just(Pooled::InService), 1 => Just(Pooled::No), 1 => Just(Pooled::Draining)];
    let instance = (proptest::bool::weighted(0.85), pooled);
    let running = prop_oneof![2 => Just(Vec::new()), 3 => vec(instance, 0..=5)];
    let traffic = prop_oneof![
        1 => Just(None),
        4 => (1..4_usize, 0..4_usize, prop_oneof![3 => Just(100), 2 => 1..100_u8]).prop_map(Some),
    ];
    ([running.clone(), running.clone(), running.clone(), running], traffic)
        .prop_map(|(running, traffic)| There { running, traffic })
}

/// A state as undisturbed deployments leave it: the baseline serves, and nothing else is there.
fn clean(stage: &mut Stage, baseline: &Release) {
    for (name, service) in &baseline.services {
        let revision = service.revision(name);
        let pooled = if service.listens() { Pooled::InService } else { Pooled::No };
        let instances = vec![Instance { ready: true, pooled }; service.replicas as usize];
        stage.put(revision.clone(), baseline.number, instances);
        if service.listens() {
            stage.route(name.clone(), BTreeMap::from([(revision, 100)]));
        }
    }
}

/// Any mixture of what may be there.
fn mixed(stage: &mut Stage, there: &[There], releases: [Option<&Release>; 3]) {
    for (name, there) in NAMES.iter().zip(there) {
        let name = ServiceName::new(*name).unwrap();
        let service = |release: Option<&Release>| release.and_then(|release| release.services.get(&name).cloned());
        let known: Vec<_> = releases.iter().map(|release| service(*release)).collect();
        if known.iter().all(Option::is_none) {
            continue;
        }
        let listens = known.iter().flatten().any(|service| service.listens());
        let alien = RevisionId::new(name.clone(), &Digest::of(b"nobody knows it"));
        let mut revisions = Vec::new();
        for (index, service) in known.iter().enumerate() {
            revisions.push(service.as_ref().map(|service| {
                let number = releases[index].map_or(ReleaseNumber(9), |release| release.number);
                (service.revision(&name), number, service.listens())
            }));
        }
        revisions.push(Some((alien, ReleaseNumber(9), listens)));
        let mut weights = BTreeMap::new();
        if let (Some((first, second, share)), true) = (there.traffic, listens) {
            let can = |index: usize| revisions[index].clone().filter(|found| found.2).map(|found| found.0);
            if let Some(first) = can(first) {
                match can(second).filter(|second| *second != first && share < 100) {
                    Some(second) => weights.extend([(first, share), (second, 100 - share)]),
                    None => weights.extend([(first, 100)]),
                }
            }
        }
        for (index, found) in revisions.into_iter().enumerate() {
            let Some((revision, number, listens)) = found else { continue };
            let instances = there.running[index]
                .iter()
                .map(|(ready, pooled)| Instance { ready: *ready, pooled: if listens { *pooled } else { Pooled::No } });
            stage.put(revision, number, instances.collect());
        }
        if listens {
            stage.route(name, weights);
        }
    }
    stage.separate_volumes();
}

/// Cases of any kind; the state is a clean one in a quarter of them.
pub(crate) fn case() -> impl Strategy<Value = Case> {
    let services = vec(proptest::option::weighted(0.6, sketch()), NAMES.len());
    let edits = || vec(edit(), NAMES.len());
    (
        services.prop_filter("a release has a service", |services| services.iter().any(Option::is_some)),
        edits(),
        edits(),
        vec(there(), NAMES.len()),
        proptest::bool::weighted(0.25),
        any::<[bool; 3]>(),
        proptest::bool::weighted(0.15),
    )
        .prop_map(|(services, before, after, there, is_clean, [has_standby, is_warm, drains], is_first)| {
            let edited = |edits: &[Edit]| {
                let edited = edited(&services, edits);
                if edited.iter().all(Option::is_none) { services.clone() } else { edited }
            };
            let target = release(&edited(&after), 3);
            let baseline = (!is_first).then(|| release(&services, 2));
            let standby = (has_standby && !is_first).then(|| release(&edited(&before), 1));
            let known = [standby.as_ref(), baseline.as_ref(), Some(&target)];
            let mut stage = Stage::new(known.into_iter().flatten().cloned().collect(), drains);
            match &baseline {
                Some(baseline) if is_clean => clean(&mut stage, baseline),
                None if is_clean => {}
                _ => mixed(&mut stage, &there, known),
            }
            let warm = match (&standby, is_warm) {
                (Some(standby), true) => standby.revisions().into_values().filter(|r| stage.is_idle(r)).collect(),
                _ => BTreeSet::new(),
            };
            Case { target, baseline, standby, stage, warm }
        })
}
