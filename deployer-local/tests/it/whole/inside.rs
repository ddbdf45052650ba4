//! Calls from one service to another, by its Compose name.

use std::net::SocketAddr;

use bollard::models::{ContainerCreateBody, HostConfig};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, InspectContainerOptions, LogsOptionsBuilder, StartContainerOptions,
    StopContainerOptions,
};
use deployer_testkit::load::{Load, Mode};
use futures_util::StreamExt as _;

use super::site::{Site, assert_none_lost, promoted};

/// Asks for the version again and again, resolving the name anew each time.
const CALLER: &str =
    "trap exit TERM; while :; do wget -q -O - http://web:8080/version && echo || echo lost; sleep 0.02; done";

#[tokio::test(flavor = "multi_thread")]
async fn calls_by_name_follow_the_rotation_and_none_is_lost() {
    let site = Site::new("inside").await;
    site.deploy_well(site.version("v1")).await;
    let network = format!("{}_backend", site.app());

    let caller = format!("{}-caller", site.app());
    let body = ContainerCreateBody {
        image: Some("busybox:1.36".to_owned()),
        cmd: Some(["sh", "-c", CALLER].map(str::to_owned).to_vec()),
        labels: Some([("com.docker.compose.project".to_owned(), site.app().to_string())].into()),
        host_config: Some(HostConfig { network_mode: Some(network.clone()), ..HostConfig::default() }),
        ..ContainerCreateBody::default()
    };
    let options = CreateContainerOptionsBuilder::default().name(&caller).build();
    site.docker.create_container(Some(options), body).await.unwrap();
    site.docker.start_container(&caller, None::<StartContainerOptions>).await.unwrap();

    let proxy = format!("{}-web-proxy", site.app());
    let proxy = site.docker.inspect_container(&proxy, None::<InspectContainerOptions>).await.unwrap();
    let networks = proxy.network_settings.unwrap().networks.unwrap();
    let address: SocketAddr = format!("{}:8080", networks[&network].ip_address.as_ref().unwrap()).parse().unwrap();
    let load = Load::new(address, "web").path("/version").rate(200).mode(Mode::Mixed).start();

    site.deploy_well(site.version("v2")).await;
    promoted(site.deployer.rollback(site.app(), None)).await;
    site.deploy_well(site.version("v3")).await;
    assert_none_lost(&load.stop().await, &["v1", "v2", "v3"]);

    site.docker.stop_container(&caller, None::<StopContainerOptions>).await.unwrap();
    let options = LogsOptionsBuilder::default().stdout(true).stderr(true).build();
    let lines: Vec<String> =
        site.docker.logs(&caller, Some(options)).map(|line| line.unwrap().to_string()).collect().await;
    let mut versions: Vec<&str> = lines.iter().map(|line| line.trim()).collect();
    versions.dedup();
    // Each once, and in this order: nothing else was ever answered, and there was no going back and forth.
    assert_eq!(versions, ["v1", "v2", "v1", "v3"]);
}
