//! The floor: what plain calls of the Engine API take.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use bollard::models::{ContainerCreateBody, HostConfig};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, InspectContainerOptions, RemoveContainerOptionsBuilder, StartContainerOptions,
};
use futures_util::future::join_all;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::site::Site;

/// How often it is looked whether something serves.
pub(crate) const PACE: Duration = Duration::from_millis(5);
const MEMORY: i64 = 64 << 20;
const NANO_CPUS: i64 = 500_000_000;

/// The least that the engine can do: creates and starts the shop's web containers, all at once, and asks each until it answers.
/// They are removed again; how long that takes does not count.
pub(crate) async fn plain_calls(site: &Site, network: &str, image: &str, replicas: u32) -> Duration {
    let names: Vec<String> = (1..=replicas).map(|number| format!("{}-plain-{number}", site.app())).collect();
    let labels = [("com.docker.compose.project".to_owned(), site.app().to_string())];
    let began = Instant::now();
    join_all(names.iter().map(async |name| {
        let body = ContainerCreateBody {
            image: Some(image.to_owned()),
            cmd: Some(["/shop", "web"].map(str::to_owned).to_vec()),
            env: Some(vec!["VERSION=plain".to_owned()]),
            labels: Some(labels.clone().into()),
            host_config: Some(HostConfig {
                network_mode: Some(network.to_owned()),
                memory: Some(MEMORY),
                nano_cpus: Some(NANO_CPUS),
                ..HostConfig::default()
            }),
            ..ContainerCreateBody::default()
        };
        let options = CreateContainerOptionsBuilder::default().name(name).build();
        site.docker.create_container(Some(options), body).await.unwrap();
        site.docker.start_container(name, None::<StartContainerOptions>).await.unwrap();
        let found = site.docker.inspect_container(name, None::<InspectContainerOptions>).await.unwrap();
        let networks = found.network_settings.unwrap().networks.unwrap();
        let address: IpAddr = networks[network].ip_address.as_ref().unwrap().parse().unwrap();
        while !answers(address).await {
            tokio::time::sleep(PACE).await;
        }
    }))
    .await;
    let took = began.elapsed();
    join_all(names.iter().map(async |name| {
        let options = RemoveContainerOptionsBuilder::default().force(true).build();
        site.docker.remove_container(name, Some(options)).await.unwrap();
    }))
    .await;
    took
}

async fn answers(address: IpAddr) -> bool {
    let asked = async {
        let mut stream = TcpStream::connect((address, 8080)).await?;
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok::<_, std::io::Error>(answer.starts_with("HTTP/1.1 200 "))
    };
    asked.await.unwrap_or(false)
}
