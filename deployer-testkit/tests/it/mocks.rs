//! The mocks: each can be made, told what to expect, and handed to where its trait is wanted.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use deployer_core::{
    AppSpec, Backend, BuildImage, BuildSpec, BuiltImage, Call, CallInfo, Clock, DeployOptions, Deployer, Digest,
    ErrorKind, File, GateAnswer, GateCheck, GatePoint, GateQuestion, GateSpec, ImageBuilder, Intercept, Invocation,
    Next, Problems, Registry, Result, SecretRef, SecretValue, Secrets, ServiceName, ServiceSpec, Timestamp,
};
use deployer_testkit::mocks::{
    MockClock, MockGate, MockImageBuilder, MockIntercept, MockLoadBalancer, MockOrchestrator, MockRegistry,
    MockReleaseStore, MockSecrets,
};
use deployer_testkit::{World, simulate};

use crate::fixture::{Silence, app, spec};

fn error(kind: ErrorKind) -> deployer_core::Error {
    deployer_core::Error::new(kind, "as the mock was told")
}

#[test]
fn a_backend_of_mocks_fails_a_deployment_with_the_error_it_was_told() {
    let mut registry = MockRegistry::new();
    let missing = |_| Err(error(ErrorKind::NotFound));
    registry.expect_resolve().withf(|request| request.reference == "shop:v1").times(1).returning(missing);
    let mut orchestrator = MockOrchestrator::new();
    orchestrator.expect_check().times(1).returning(|_| Ok(Problems::default()));
    let backend = Backend::new(
        "mocks",
        Arc::new(MockImageBuilder::new()),
        Arc::new(registry),
        Arc::new(orchestrator),
        Arc::new(MockLoadBalancer::new()),
        Arc::new(MockReleaseStore::new()),
    );
    let spec = AppSpec::new("shop").unwrap().with_service("web", spec("shop:v1")).unwrap();
    let ended = simulate(async { Deployer::new(backend).deploy(spec, DeployOptions::default()).finished().await });
    assert_eq!(ended.unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn builder_and_registry_answer_what_they_were_told() {
    let mut builder = MockImageBuilder::new();
    let digest = Digest::of(b"an image");
    let built = BuiltImage::new(digest.clone(), "shop-web:1");
    builder.expect_build().times(1).returning(move |_| Ok(built.clone()));
    let mut registry = MockRegistry::new();
    registry.expect_missing().withf(<[_]>::is_empty).times(1).returning(|_| Ok(Vec::new()));
    simulate(async {
        let call = Call::new("key", Timestamp::default());
        let (web, context) = (ServiceName::new("web").unwrap(), BuildSpec::new("."));
        let request = BuildImage::new(call, app(), web, context, BTreeMap::new(), Arc::new(Silence));
        assert_eq!(builder.build(request).await.unwrap().digest, digest);
        assert!(registry.missing(&[]).await.unwrap().is_empty());
    });
}

#[test]
fn a_mocked_gate_is_asked_by_the_engine() {
    let mut gate = MockGate::new();
    let asks_the_right_thing = |question: &GateQuestion| question.app == app() && question.weight == 100;
    let no = |_| Ok(GateAnswer::Fail { detail: "the checkout is broken".into() });
    gate.expect_ask().withf(asks_the_right_thing).times(1..).returning(no);
    let world = World::new();
    let deployer = Deployer::builder(world.backend()).clock(world.clock()).gate("checkout", Arc::new(gate)).build();
    simulate(async {
        let shop = |image| AppSpec::new("shop").unwrap().with_service("web", spec(image)).unwrap();
        world.with_serving(shop("shop:v1")).await;
        world.add_image("shop:v2");
        let mut next = shop("shop:v2");
        let check = GateCheck::Callback { name: "checkout".into() };
        let web = next.services.values_mut().next().unwrap();
        web.gates.push(GateSpec::new("checkout", GatePoint::Holding, check));
        let record = deployer.deploy(next, DeployOptions::default()).finished().await.unwrap();
        world.assert_rolled_back(&record).because("the checkout is broken");
    });
}

#[test]
fn mocked_secrets_are_pinned_once_for_a_release() {
    let mut secrets = MockSecrets::new();
    secrets.expect_pin().times(2).returning(|reference| {
        let mut pinned = reference.clone();
        pinned.version = Some("7".into());
        Ok(pinned)
    });
    secrets.expect_reveal().returning(|_| Ok(SecretValue::new("s3cr3t")));
    let world = World::new();
    world.add_image("shop:v1");
    let revealed = simulate(secrets.reveal(&SecretRef::new("db"))).unwrap();
    assert_eq!(revealed.expose(), "s3cr3t");
    let deployer = Deployer::builder(world.backend()).clock(world.clock()).secrets(Arc::new(secrets)).build();
    let mut web = ServiceSpec::image("shop:v1").with_secret_env("DATABASE_URL", SecretRef::new("db"));
    web.workload.files.push(File::secret(SecretRef::new("db"), "/run/secrets/db"));
    let shop = AppSpec::new("shop").unwrap().with_service("web", web).unwrap();
    simulate(async {
        let record = deployer.deploy(shop, DeployOptions::default()).finished().await.unwrap();
        world.assert_promoted(&record);
        let release = deployer.releases(&app(), 1).await.unwrap().remove(0);
        let text = serde_json::to_string(&release).unwrap();
        assert_eq!(text.matches("\"version\":\"7\"").count(), 2, "{text}");
        assert!(!text.contains("s3cr3t"), "{text}");
    });
}

#[test]
fn a_mocked_clock_tells_the_time_it_was_told() {
    let mut clock = MockClock::new();
    clock.expect_now().return_const(Timestamp::from_millis(42));
    clock.expect_elapsed().return_const(Duration::from_secs(7));
    clock.expect_sleep().withf(|duration| *duration == Duration::from_secs(3)).times(1).return_const(());
    assert_eq!((clock.now().as_millis(), clock.elapsed().as_secs()), (42, 7));
    simulate(clock.sleep(Duration::from_secs(3)));
}

#[test]
fn a_mocked_intercept_lets_calls_be_made_or_refuses_them() {
    /// Counts how often it was made.
    struct Made(u32);

    #[async_trait]
    impl Invocation for Made {
        async fn invoke(&mut self) -> Result<()> {
            self.0 += 1;
            Ok(())
        }
    }

    let mut intercept = MockIntercept::new();
    let is_reading = |call: &CallInfo| !call.mutating;
    intercept.expect_before().withf(is_reading).times(1).returning(|_| Ok(()));
    intercept.expect_before().times(1).returning(|_| Err(error(ErrorKind::Throttled)));
    let mut made = Made(0);
    simulate(async {
        let observe = CallInfo::new(1, "orchestrator.observe", "shop", false);
        intercept.intercept(&observe, &mut Next::new(&mut made)).await.unwrap();
        let launch = CallInfo::new(2, "orchestrator.launch", "web", true);
        let refused = intercept.intercept(&launch, &mut Next::new(&mut made)).await;
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::Throttled);
    });
    assert_eq!(made.0, 1);
}
