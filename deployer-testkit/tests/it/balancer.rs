//! The rules of the load balancer.

use std::collections::BTreeMap;
use std::sync::Arc;

use deployer_core::{
    AcquireLease, AppName, EnsureRoutes, ErrorKind, Outcome, Port, ServiceSpec, SetTargets, SetWeights,
    TargetRegistration, TargetState,
};
use deployer_testkit::{Options, Rule, World, simulate};

use crate::fixture::{Driver, app, revision, spec, web};

#[test]
fn what_somebody_else_has_is_refused_by_name() {
    simulate(async {
        let world = World::new();
        world.occupy_port(5432, "postgres");
        let driver = Driver::new(world).await;
        let port = driver.release(ServiceSpec::image("shop:v1").with_ports(Port::published(5432, 5432))).await;
        let ensure = EnsureRoutes::new(driver.call(), port);
        let taken = driver.backend.balancer.ensure(ensure).await.unwrap_err();
        assert_eq!(taken.kind(), ErrorKind::Exhausted);
        assert_eq!(taken.to_string(), "balancer.ensure port 5432: the entry is taken (taken by: postgres)");

        let release = driver.release(spec("shop:v1")).await;
        driver.prepare(&release).await;
        let mut other = driver.unstored(spec("shop:v1")).await;
        other.app = AppName::new("other").unwrap();
        let ttl = std::time::Duration::from_secs(60);
        let lease = AcquireLease::new(other.app.clone(), "a test", "test", ttl, driver.world.now());
        let fence = driver.backend.store.acquire_lease(lease).await.unwrap().fence;
        let other = driver.backend.store.put_release(other, fence).await.unwrap();
        let ensure = EnsureRoutes::new(driver.call(), Arc::new(other));
        let taken = driver.backend.balancer.ensure(ensure).await.unwrap_err();
        assert!(taken.to_string().contains("has it: shop/web"), "{taken}");
    });
}

#[test]
fn pools_begin_without_weight_and_hold_exactly_what_was_set() {
    simulate(async {
        let driver = Driver::new(World::new()).await;
        let release = driver.release(spec("shop:v1")).await;
        driver.prepare(&release).await;
        driver.launch(&release, 2).await.unwrap();
        assert_eq!(driver.register(&release, 2).await.unwrap(), Outcome::Created);
        let states = |pool: &deployer_core::ObservedPool| {
            let mut states: Vec<_> =
                pool.targets.iter().map(|target| (target.instance.clone(), target.state)).collect();
            states.sort_by(|one, other| one.0.cmp(&other.0));
            states.into_iter().map(|(_, state)| state).collect::<Vec<_>>()
        };
        let pool = driver.routing().await.pools.remove(0);
        assert_eq!((pool.weight, states(&pool)), (0, vec![TargetState::Starting; 2]));
        driver.sleep(2).await;
        assert_eq!(driver.register(&release, 2).await.unwrap(), Outcome::AlreadyThere);
        assert_eq!(driver.register(&release, 1).await.unwrap(), Outcome::Changed);
        let pool = driver.routing().await.pools.remove(0);
        assert_eq!(states(&pool), [TargetState::InService, TargetState::Draining]);
        driver.world.kill_instance("shop", "web", 1);
        let pool = driver.routing().await.pools.remove(0);
        assert_eq!(states(&pool), [TargetState::Down, TargetState::Draining]);
        assert_eq!(driver.set_targets(&release, Vec::new()).await.unwrap(), Outcome::Changed);
        assert!(driver.routing().await.pools.remove(0).targets.is_empty());
        driver.world.assert_no_violations();
    });
}

#[test]
fn targets_need_an_entry_and_an_instance() {
    simulate(async {
        let driver = Driver::new(World::new()).await;
        let release = driver.release(spec("shop:v1")).await;
        assert_eq!(driver.set_targets(&release, Vec::new()).await.unwrap_err().kind(), ErrorKind::NotFound);
        driver.prepare(&release).await;
        driver.launch(&release, 1).await.unwrap();
        let instance = driver.instances(&release).await.remove(0);
        let target = deployer_core::Target { instance: instance.id, address: "10.9.9.9".into(), draining: false };
        driver.set_targets(&release, vec![target]).await.unwrap();
        assert_eq!(driver.world.violations()[0].rule, Rule::TargetExists);
    });
}

#[test]
fn weights_move_only_from_the_version_that_was_seen() {
    simulate(async {
        let driver = Driver::new(World::new()).await;
        let first = driver.serve("shop:v1", 1).await;
        let second = driver.release(spec("shop:v2")).await;
        driver.launch(&second, 1).await.unwrap();
        driver.sleep(2).await;
        driver.register(&second, 1).await.unwrap();
        let seen = driver.routing().await.version;
        let halves = BTreeMap::from([(revision(&first), 50), (revision(&second), 50)]);
        assert!(driver.world.move_weights_by_hand("shop", "web", &halves));
        let all = BTreeMap::from([(revision(&second), 100)]);
        let shift = SetWeights::new(driver.call(), app(), web(), all.clone(), seen);
        let conflict = driver.backend.balancer.set_weights(shift).await.unwrap_err();
        assert_eq!(conflict.kind(), ErrorKind::Conflict);
        assert_eq!(driver.routing().await.weights(), halves);
        let shift = SetWeights::new(driver.call(), app(), web(), all.clone(), driver.routing().await.version);
        assert_eq!(driver.backend.balancer.set_weights(shift.clone()).await.unwrap(), Outcome::Changed);
        // A repetition, after a reply that was lost, still names the version before.
        assert_eq!(driver.backend.balancer.set_weights(shift).await.unwrap(), Outcome::AlreadyThere);
        assert_eq!(driver.routing().await.weights(), all);
    });
}

#[test]
fn an_orchestrator_may_register_its_instances_itself() {
    simulate(async {
        let options = Options::default().with_targets(TargetRegistration::Orchestrator);
        let driver = Driver::new(World::with_options(options)).await;
        assert!(driver.backend.orchestrator.capabilities().drains);
        assert_eq!(driver.backend.balancer.capabilities().targets, TargetRegistration::Orchestrator);
        let release = driver.release(spec("shop:v1")).await;
        driver.prepare(&release).await;
        driver.launch(&release, 2).await.unwrap();
        driver.sleep(2).await;
        driver.weigh(&[(&release, 100)]).await.unwrap();
        driver.world.assert_serving("shop", "web", "shop:v1", 2);
        driver.reduce(&release, 1).await;
        driver.sleep(1).await;
        assert_eq!(driver.instances(&release).await.len(), 1);
        driver.world.assert_serving("shop", "web", "shop:v1", 1);
        driver.world.assert_no_violations();
        let service = Arc::new(release.services[&web()].clone());
        let request = SetTargets::new(driver.call(), app(), revision(&release), service, Vec::new());
        let refused = driver.backend.balancer.set_targets(request).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Unsupported);
        assert_eq!(driver.world.violations()[0].rule, Rule::TargetsAreRegisteredOnce);
    });
}
