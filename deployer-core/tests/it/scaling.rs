//! Plans for services whose number of instances the platform changes by itself.

use std::collections::BTreeSet;

use deployer_core::{
    Action, ChangeKind, Deployer, DeploymentId, Digest, Observed, Plan, PlanRequest, Release, Scaling, ScalingTarget,
    ServiceName, Strategy, plan_back, plan_forward,
};
use deployer_testkit::{World, simulate};

use crate::shop::{app, deploy_well, only, web, world};

fn scaling() -> Scaling {
    Scaling::new(2, 6).with_target(ScalingTarget::Cpu { percent: 60 })
}

/// A release that serves with three instances, and what there is of it.
async fn serving(world: &World, deployer: &Deployer) -> (Release, Observed) {
    deploy_well(deployer, only(web(1).with_scaling(scaling()))).await;
    let release = deployer.releases(&app(), 1).await.unwrap().remove(0);
    let (backend, probe) = (world.backend(), deployer_core::ObserveApp::new(app()));
    let probed = release.services.iter().map(|(name, service)| (service.revision(name), service.effective_readiness()));
    let running = backend.orchestrator.observe(probe.with_probe(probed.collect())).await.unwrap();
    (release, Observed::new(running, backend.balancer.observe(&app()).await.unwrap()))
}

/// The same with so many instances: the platform has changed their number.
fn scaled_to(observed: &Observed, instances: u32) -> Observed {
    let mut observed = observed.clone();
    let first = observed.app.instances[0].clone();
    observed.app.instances.clear();
    for ordinal in 1..=instances {
        let mut instance = first.clone();
        (instance.ordinal, instance.id) = (ordinal, format!("scaled-{ordinal}").parse().unwrap());
        observed.app.instances.push(instance);
    }
    observed
}

fn name() -> ServiceName {
    ServiceName::new("web").unwrap()
}

/// The release after it, with another image.
fn next(release: &Release) -> Release {
    let mut next = release.clone();
    next.number.0 += 1;
    if let Some(service) = next.services.get_mut(&name()) {
        service.image.digest = Digest::of(b"next");
    }
    next
}

fn forward(target: &Release, baseline: &Release, observed: &Observed) -> Plan {
    let (warm, id) = (BTreeSet::new(), DeploymentId::fresh());
    let app = app();
    let request = PlanRequest::new(&app, &id, Some(target), Some(baseline), observed, &warm);
    plan_forward(&request.with_drains(true).with_scales(true))
}

fn launched(plan: &Plan) -> Vec<u32> {
    let launched = plan.steps.iter().filter_map(|step| match &step.action {
        Action::Launch { instances, .. } => Some(*instances),
        _ => None,
    });
    launched.collect()
}

#[test]
fn a_new_revision_begins_with_as_many_instances_as_serve() {
    let (world, deployer) = world();
    let (release, observed) = simulate(serving(&world, &deployer));
    for (serve, expected) in [(2, 3), (3, 3), (5, 5)] {
        let plan = forward(&next(&release), &release, &scaled_to(&observed, serve));
        assert_eq!(launched(&plan), [expected], "{serve} serve");
        let all = plan.steps.iter().any(|step| matches!(step.action, Action::AwaitHealthy { all: true, .. }));
        assert!(all, "{plan}");
    }
}

#[test]
fn batches_bring_as_many_as_serve() {
    let (world, deployer) = world();
    let (release, observed) = simulate(serving(&world, &deployer));
    let mut next = next(&release);
    next.services.get_mut(&name()).unwrap().strategy = Strategy::Rolling { surge: 1, unavailable: 0 };
    let plan = forward(&next, &release, &scaled_to(&observed, 5));
    assert_eq!(launched(&plan), [1, 2, 3, 4, 5]);
}

#[test]
fn another_number_of_instances_within_the_bounds_is_no_drift() {
    let (world, deployer) = world();
    let (release, observed) = simulate(serving(&world, &deployer));
    for (serve, kind, launches) in [
        (1, ChangeKind::Scale, vec![2]),
        (2, ChangeKind::Keep, vec![]),
        (6, ChangeKind::Keep, vec![]),
        (7, ChangeKind::Scale, vec![6]),
    ] {
        let plan = forward(&release, &release, &scaled_to(&observed, serve));
        assert_eq!((plan.changes[0].kind, launched(&plan)), (kind, launches), "{serve} serve: {plan}");
        // What was left alone before is scaled again.
        assert!(plan.steps.iter().any(|step| matches!(step.action, Action::Tidy { .. })), "{plan}");
    }
}

#[test]
fn other_scaling_replaces_no_instances() {
    let (world, deployer) = world();
    let (release, observed) = simulate(serving(&world, &deployer));
    let mut other = release.clone();
    other.number.0 += 1;
    other.services.get_mut(&name()).unwrap().scaling.as_mut().unwrap().max = 9;
    let plan = forward(&other, &release, &scaled_to(&observed, 5));
    assert_eq!((plan.changes[0].kind, launched(&plan)), (ChangeKind::Keep, vec![]));
    assert_eq!(plan.changes[0].differences, ["scaling.max: 6 -> 9"]);
}

#[test]
fn a_standby_that_is_smaller_grows_before_it_gets_the_traffic() {
    let (world, deployer) = world();
    let (release, observed) = simulate(serving(&world, &deployer));
    let newer = next(&release);
    let (old, new) = (release.revisions()[&name()].clone(), newer.revisions()[&name()].clone());
    // Five instances of the newer release serve, and three of the older one stand by.
    let mut there = scaled_to(&observed, 5);
    there.app.instances.iter_mut().for_each(|instance| instance.revision = new.clone());
    there.app.instances.extend(observed.app.instances.clone());
    for pool in there.routing.iter_mut().flat_map(|routing| &mut routing.pools) {
        pool.revision = new.clone();
    }
    let (warm, id, app) = (BTreeSet::from([old]), DeploymentId::fresh(), app());
    let request = PlanRequest::new(&app, &id, Some(&release), Some(&newer), &there, &warm).with_drains(true);
    let steps = |plan: &Plan| plan.steps.iter().map(|step| step.action.name()).collect::<Vec<_>>();
    let careful = plan_back(&request.clone().with_scales(true));
    assert_eq!(launched(&careful), [5]);
    assert_eq!(&steps(&careful)[..4], ["prepare", "launch", "await-healthy", "shift"]);
    // What has failed is left at once for what there is.
    let failed = plan_back(&request.with_scales(true).with_failed_baseline());
    assert_eq!(&steps(&failed)[..3], ["prepare", "shift", "launch"]);
}
