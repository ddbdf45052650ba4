//! What the properties have found in the planner, each as small as it can be.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use deployer_core::{
    AppSpec, CanaryStep, GateCheck, GatePoint, GateSpec, Hook, HookPoint, Mount, ReleaseNumber, RevisionId, Route,
    ServiceName, ServiceSpec, Strategy,
};

use super::apps::{Case, pinned};
use super::plans::{Way, way_is_safe};
use super::stage::{Instance, Pooled, Stage};

const READY: Instance = Instance { ready: true, pooled: Pooled::InService };
const DRAINING: Instance = Instance { ready: true, pooled: Pooled::Draining };
const BROKEN: Instance = Instance { ready: false, pooled: Pooled::No };
const IDLE: Instance = Instance { ready: true, pooled: Pooled::No };

fn web(version: u32) -> ServiceSpec {
    ServiceSpec::image(format!("web:{version}")).with_route(Route::new(80).with_host("web.example"))
}

fn app(services: &[(&str, ServiceSpec)]) -> AppSpec {
    let services = services.iter().cloned();
    services.fold(AppSpec::new("shop").unwrap(), |app, (name, service)| app.with_service(name, service).unwrap())
}

fn on_volume(service: ServiceSpec) -> ServiceSpec {
    service.with_mount(Mount::volume("data", "/data"))
}

/// A baseline and a target, and nothing there yet.
struct Found(Case);

impl Found {
    fn new(baseline: &[(&str, ServiceSpec)], target: &[(&str, ServiceSpec)]) -> Self {
        let (baseline, target) = (pinned(&app(baseline), 2), pinned(&app(target), 3));
        let stage = Stage::new(vec![baseline.clone(), target.clone()], false);
        Self(Case { target, baseline: Some(baseline), standby: None, stage, warm: BTreeSet::new() })
    }

    fn revision(&self, name: &str, release: u64) -> RevisionId {
        let releases = [Some(&self.0.target), self.0.baseline.as_ref()];
        let release = releases.into_iter().flatten().find(|found| found.number.0 == release).unwrap();
        let name = ServiceName::new(name).unwrap();
        release.services[&name].revision(&name)
    }

    /// Adds instances of what a release has of a service.
    fn with(mut self, name: &str, release: u64, instances: &[Instance]) -> Self {
        let revision = self.revision(name, release);
        self.0.stage.put(revision, ReleaseNumber(release), instances.to_vec());
        self
    }

    /// Adds instances that no known release has.
    fn with_unknown(mut self, name: &str, instances: &[Instance]) -> Self {
        let revision = format!("{name}@0123456789ab").parse().unwrap();
        self.0.stage.put(revision, ReleaseNumber(1), instances.to_vec());
        self
    }

    /// Gives the traffic of a service to what a release has of it; to nothing, if none is named.
    fn routed(mut self, name: &str, release: Option<u64>) -> Self {
        let weights = release.map(|release| (self.revision(name, release), 100));
        self.0.stage.route(ServiceName::new(name).unwrap(), weights.into_iter().collect::<BTreeMap<_, _>>());
        self
    }

    #[track_caller]
    fn is_safe(&self, ways: &[Way]) {
        for way in ways {
            if let Err(error) = way_is_safe(&self.0, *way, 1) {
                panic!("{error}");
            }
        }
    }
}

#[test]
fn the_only_ready_instance_is_not_stopped_in_favour_of_a_broken_one() {
    let found = Found::new(&[("web", web(1).with_replicas(2))], &[("web", web(1))]);
    let found = found.with("web", 3, &[BROKEN, READY]).routed("web", Some(3));
    found.is_safe(&[Way::Forward, Way::Rollback]);
}

#[test]
fn a_standby_with_more_instances_than_wanted_is_reduced_when_it_takes_over() {
    let found = Found::new(&[("web", web(1))], &[("web", web(2).with_replicas(2))]);
    let found = found.with("web", 2, &[READY]).with("web", 3, &[IDLE; 4]).routed("web", Some(2));
    found.is_safe(&[Way::Forward]);
}

#[test]
fn what_is_down_altogether_is_replaced_by_every_strategy() {
    for strategy in [
        Strategy::Canary { steps: vec![CanaryStep { weight: 10, hold: Duration::ZERO }] },
        Strategy::Linear { step: 25, interval: Duration::ZERO },
        Strategy::Rolling { surge: 1, unavailable: 0 },
    ] {
        let found = Found::new(&[("web", web(1))], &[("web", web(2).with_replicas(2).with_strategy(strategy))]);
        found.with("web", 2, &[BROKEN, BROKEN]).routed("web", Some(2)).is_safe(&[Way::Forward]);
    }
}

#[test]
fn what_never_had_traffic_gets_none_from_a_canary() {
    let canary = Strategy::Canary { steps: vec![CanaryStep { weight: 10, hold: Duration::ZERO }] };
    let found = Found::new(&[("web", ServiceSpec::image("web:1"))], &[("web", web(2).with_strategy(canary))]);
    found.with("web", 2, &[IDLE]).routed("web", None).is_safe(&[Way::Forward]);
}

#[test]
fn old_instances_that_are_not_ready_count_as_missing_while_it_rolls() {
    let rolling = Strategy::Rolling { surge: 1, unavailable: 1 };
    let spec = |version| web(version).with_replicas(3).with_strategy(rolling.clone());
    let found = Found::new(&[("web", spec(1))], &[("web", spec(2))]);
    found.with("web", 2, &[BROKEN, READY, READY]).routed("web", Some(2)).is_safe(&[Way::Forward]);
}

#[test]
fn broken_instances_get_no_share_of_the_traffic_while_it_rolls() {
    let spec = |version| web(version).with_replicas(2).with_strategy(Strategy::Rolling { surge: 1, unavailable: 0 });
    let found = Found::new(&[("web", spec(1))], &[("web", spec(2))]);
    found.with("web", 2, &[BROKEN, READY]).routed("web", Some(2)).is_safe(&[Way::Forward]);
}

#[test]
fn what_others_need_rolls_to_its_end_though_nobody_has_its_traffic() {
    let rolling = Strategy::Rolling { surge: 1, unavailable: 0 };
    let web = |version| web(version).with_replicas(2).with_strategy(rolling.clone());
    let worker = ServiceSpec::image("worker:1").with_dependency("web").unwrap();
    let found = Found::new(&[("web", web(1)), ("worker", worker.clone())], &[("web", web(2)), ("worker", worker)]);
    let found = found.with("web", 2, &[BROKEN; 3]).with("worker", 2, &[IDLE]).routed("web", None);
    found.is_safe(&[Way::Forward]);
}

#[test]
fn a_volume_goes_from_a_service_that_stays_to_another_without_being_written_by_both() {
    let (old, new) = ([("web", on_volume(web(1)))], [("web", web(2)), ("db", on_volume(ServiceSpec::image("db:1")))]);
    let found = Found::new(&old, &new).with("web", 2, &[READY]).routed("web", Some(2));
    found.is_safe(&[Way::Forward, Way::Rollback]);
    let found = Found::new(&old, &new).with("web", 3, &[READY]).with("db", 3, &[IDLE]).routed("web", Some(3));
    found.is_safe(&[Way::Divert, Way::Cancel]);
}

#[test]
fn what_had_to_make_way_is_not_stopped_again_and_is_waited_for() {
    let stop = Hook::new("bye", HookPoint::PreStop, ["bye"]);
    let named = |name: &'static str, version: u32| (name, on_volume(ServiceSpec::image(format!("{name}:{version}"))));
    let (old, new) = (named("store", 1), named("cache", 1));
    let found = Found::new(&[(old.0, old.1.with_hook(stop))], &[new]);
    found.with("store", 2, &[IDLE]).is_safe(&[Way::Forward, Way::Rollback]);
}

#[test]
fn old_and_new_release_may_have_hooks_of_one_name() {
    let hook = |point| Hook::new("work", point, ["work"]);
    let old = web(1).with_hook(hook(HookPoint::PreStop));
    let found = Found::new(&[("web", old)], &[("web", web(2).with_hook(hook(HookPoint::PreDeploy)))]);
    found.with("web", 2, &[READY]).routed("web", Some(2)).is_safe(&[Way::Forward]);
}

#[test]
fn instances_are_drained_whatever_the_last_release_says_of_ports() {
    let found = Found::new(&[("web", ServiceSpec::image("web:1"))], &[("web", web(1).with_replicas(0))]);
    let found = found.with("web", 2, &[READY]).routed("web", Some(2));
    found.is_safe(&[Way::Forward, Way::Rollback]);
}

#[test]
fn no_instances_at_all_are_wanted_and_there() {
    for service in [web(1), ServiceSpec::image("web:1")] {
        let none = service.with_replicas(0);
        let found = Found::new(&[("web", none.clone())], &[("web", none)]);
        found.is_safe(&[Way::Forward, Way::Rollback, Way::Divert]);
    }
    let rolling = Strategy::Rolling { surge: 1, unavailable: 0 };
    let found = Found::new(&[("web", web(1))], &[("web", web(2).with_replicas(0).with_strategy(rolling))]);
    found.with("web", 2, &[READY]).routed("web", Some(2)).is_safe(&[Way::Forward, Way::Rollback]);
}

#[test]
fn the_same_release_again_puts_back_in_rotation_what_was_left_out() {
    let found = Found::new(&[("web", web(1).with_replicas(2))], &[("web", web(1).with_replicas(2))]);
    found.with("web", 3, &[READY, DRAINING]).routed("web", Some(3)).is_safe(&[Way::Forward]);
}

#[test]
fn the_same_release_again_cleans_up_what_was_left_over() {
    let found = Found::new(&[("web", web(1))], &[("web", web(1))]);
    let found = found.with("web", 3, &[READY]).with_unknown("web", &[IDLE]).routed("web", Some(3));
    found.is_safe(&[Way::Forward]);
}

#[test]
fn what_gives_up_its_route_leaves_nothing_behind() {
    for strategy in [Strategy::default(), Strategy::Rolling { surge: 0, unavailable: 1 }] {
        let spec = ServiceSpec::image("web:2").with_replicas(2).with_strategy(strategy);
        let found = Found::new(&[("web", web(1).with_replicas(2))], &[("web", spec)]);
        found.with("web", 2, &[READY; 2]).routed("web", Some(2)).is_safe(&[Way::Forward, Way::Rollback]);
    }
}

#[test]
fn what_is_replaced_by_no_instances_may_stand_by() {
    let strategy = Strategy::BlueGreen { bake: Duration::ZERO, keep_warm: Duration::from_secs(1) };
    let found = Found::new(&[("web", web(1))], &[("web", web(2).with_replicas(0).with_strategy(strategy))]);
    found.with("web", 2, &[BROKEN]).routed("web", None).is_safe(&[Way::Forward]);
}

#[test]
fn what_has_given_up_its_route_is_held_without_traffic() {
    let gate = GateSpec::new("ask", GatePoint::Holding, GateCheck::Callback { name: "ask".into() });
    let target = ServiceSpec::image("web:1").with_gate(gate);
    let found = Found::new(&[("web", web(1).with_replicas(0))], &[("web", target)]);
    found.routed("web", None).is_safe(&[Way::Forward]);
}

#[test]
fn no_more_old_instances_are_stopped_than_ready_ones_can_be_missed() {
    for unavailable in 0..2 {
        let rolling = Strategy::Rolling { surge: 3, unavailable };
        let spec =
            |version| ServiceSpec::image(format!("web:{version}")).with_replicas(3).with_strategy(rolling.clone());
        let found = Found::new(&[("web", spec(1))], &[("web", spec(2))]);
        found.with("web", 2, &[BROKEN, IDLE, IDLE, IDLE]).is_safe(&[Way::Forward]);
    }
}

#[test]
fn gates_are_asked_about_what_shall_have_no_instances() {
    let gate = GateSpec::new("ask", GatePoint::BeforeTraffic, GateCheck::Callback { name: "ask".into() });
    let found = Found::new(&[("web", web(1))], &[("web", web(2).with_replicas(0).with_gate(gate))]);
    found.with("web", 3, &[BROKEN]).routed("web", Some(2)).is_safe(&[Way::Forward]);
}

#[test]
fn what_writes_to_a_volume_does_not_stand_by() {
    let strategy = Strategy::BlueGreen { bake: Duration::ZERO, keep_warm: Duration::from_secs(1) };
    let target = on_volume(web(2)).with_replicas(0).with_strategy(strategy);
    let found = Found::new(&[("web", on_volume(web(1)))], &[("web", target)]);
    found.with("web", 2, &[BROKEN]).routed("web", None).is_safe(&[Way::Forward]);
}

#[test]
fn where_there_is_no_room_a_ready_instance_may_have_to_go() {
    let spec = |version| {
        let rolling = Strategy::Rolling { surge: 1, unavailable: 0 };
        ServiceSpec::image(format!("web:{version}")).with_replicas(5).with_strategy(rolling)
    };
    let found = Found::new(&[("web", spec(1))], &[("web", spec(2))]);
    found.with("web", 2, &[BROKEN, BROKEN, BROKEN, IDLE]).with("web", 3, &[IDLE; 2]).is_safe(&[Way::Forward]);
}

#[test]
fn what_is_ready_and_gets_no_requests_does_not_count_when_room_is_made() {
    let spec = |version| web(version).with_replicas(3).with_strategy(Strategy::Rolling { surge: 0, unavailable: 1 });
    for left_out in [IDLE, DRAINING] {
        let found = Found::new(&[("web", spec(1))], &[("web", spec(2))]);
        found.with("web", 2, &[left_out, READY, READY]).routed("web", Some(2)).is_safe(&[Way::Forward]);
    }
}
