//! Services find each other by name: tasks on the emulator, which has a DNS server for them, that ask each other.

use std::sync::Arc;

use aws_sdk_servicediscovery::types::{OperationTargetType, ServiceFilter, ServiceFilterName};
use deployer_aws::{AwsOptions, Namespace};
use deployer_core::{
    AppName, AppSpec, DeployOptions, Deployer, Deployment, DeploymentId, ErrorKind, Hook, HookPoint, ServiceSpec,
    Strategy, Verdict,
};
use deployer_testkit::MemoryStore;

use crate::stage::{Stage, broken, config};

fn cloudmap() -> aws_sdk_servicediscovery::Client {
    aws_sdk_servicediscovery::Client::new(&config())
}

/// A namespace of this zone.
async fn namespace(zone: &str) -> Namespace {
    let cloudmap = cloudmap();
    let made = cloudmap.create_private_dns_namespace().name(zone).vpc("vpc-00000001").send().await;
    let operation = made.map_err(broken("the namespace")).unwrap().operation_id.unwrap();
    let made = cloudmap.get_operation().operation_id(operation).send().await.unwrap().operation.unwrap();
    let id = made.targets.unwrap()[&OperationTargetType::Namespace].clone();
    let arn = cloudmap.get_namespace().id(id).send().await.unwrap().namespace.unwrap().arn.unwrap();
    Namespace::new(arn, zone).with_search_image("busybox:1.36")
}

fn deployer(stage: &Stage, options: AwsOptions) -> Deployer {
    Deployer::new(stage.backend(&config(), options, Arc::new(MemoryStore::new())).unwrap())
}

fn service(stage: &Stage, version: &str) -> ServiceSpec {
    ServiceSpec::image(&stage.image).with_command(["/shop", "web"]).with_env("VERSION", version).with_replicas(1)
}

/// An API, and a front that asks it in a hook, by its name in the file and by its whole name, and fails if it is another
/// version.
fn shop(stage: &Stage, zone: &str, version: &str) -> AppSpec {
    let asks = ["api".to_owned(), format!("api.shop.{zone}")];
    let asks = asks.map(|name| format!("test \"$(wget -qO- http://{name}:8080/version)\" = {version}"));
    let ask = Hook::new("ask", HookPoint::PreDeploy, ["/bin/sh", "-c", &asks.join(" && ")]);
    let api = service(stage, version).with_strategy(Strategy::Recreate);
    let front = service(stage, version).with_hook(ask).with_dependency("api").unwrap();
    AppSpec::new("shop").unwrap().with_service("api", api).unwrap().with_service("front", front).unwrap()
}

async fn verdict(deployment: Deployment) -> Verdict {
    deployment.finished().await.unwrap().verdict.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn services_find_each_other_by_name() {
    let name = format!("names-{}", DeploymentId::fresh().as_str().get(24..).unwrap());
    let stage = Stage::new(&name).await.unwrap();
    let zone = format!("{name}.internal");
    let namespace = namespace(&zone).await;
    let there = deployer(&stage, stage.options().with_namespace(namespace.clone()));

    for version in ["v1", "v2"] {
        let verdict = verdict(there.deploy(shop(&stage, &zone, version), DeployOptions::default())).await;
        assert!(matches!(verdict, Verdict::Promoted { .. }), "{verdict}");
    }

    // Whoever has the name before keeps it.
    let id = namespace.arn.rsplit('/').next().unwrap();
    cloudmap().create_service().name("theirs.stall").namespace_id(id).send().await.unwrap();
    let stall = AppSpec::new("stall").unwrap().with_service("theirs", service(&stage, "v1")).unwrap();
    let refused = verdict(there.deploy(stall, DeployOptions::default())).await;
    assert!(refused.to_string().contains("theirs.stall: somebody else has a service of this name"), "{refused}");

    let gone = verdict(there.destroy(&AppName::new("shop").unwrap(), false)).await;
    assert!(matches!(gone, Verdict::Promoted { .. }), "{gone}");
    let of_zone = ServiceFilter::builder().name(ServiceFilterName::NamespaceId).values(id).build().unwrap();
    let left = cloudmap().list_services().filters(of_zone).send().await.unwrap();
    assert_eq!(left.services().iter().filter_map(|service| service.name()).collect::<Vec<_>>(), ["theirs.stall"]);

    let mut nowhere = namespace.clone();
    nowhere.arn = format!("{}-gone", namespace.arn);
    let wrong = deployer(&stage, stage.options().with_namespace(nowhere));
    let error = wrong.plan(&shop(&stage, &zone, "v1"), &DeployOptions::default()).await.unwrap_err();
    assert!(error.report().to_string().contains("there is no namespace"), "{error}");

    let mut elsewhere = namespace.clone();
    elsewhere.zone = "other.internal".to_owned();
    let wrong = deployer(&stage, stage.options().with_namespace(elsewhere));
    let error = wrong.plan(&shop(&stage, &zone, "v1"), &DeployOptions::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    let report = error.report().to_string();
    assert!(report.contains("environment.namespace") && report.contains(&zone), "{report}");
    stage.clear().await.unwrap();
}
