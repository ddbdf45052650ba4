//! Killing what is on the way of the requests.
//!
//! Processes are killed from a container of our own that sees the host's processes, so that neither root nor the engine's
//! host is needed, and only if the kernel says that they belong to the container that is meant.

use std::time::{Duration, Instant};

use bollard::Docker;
use bollard::exec::StartExecResults;
use bollard::models::{ContainerCreateBody, ContainerSummary, ContainerSummaryStateEnum, ExecConfig, HostConfig};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, InspectContainerOptions, KillContainerOptionsBuilder, ListContainersOptionsBuilder,
    RemoveContainerOptionsBuilder, StartContainerOptions, TopOptions,
};
use futures_util::StreamExt as _;

use crate::account::{Path, Paths};
use crate::script::{How, Target};
use crate::site::Site;

/// Kills process `$2` if it is one of container `$1`.
const KILL: &str = "grep -q \"$1\" \"/proc/$2/cgroup\" && kill -9 \"$2\"";

/// Something that was killed.
#[derive(Debug)]
pub(crate) struct Struck {
    pub(crate) name: String,
    /// From just before until just after.
    pub(crate) from: Instant,
    pub(crate) until: Instant,
    /// Whose requests went through it.
    pub(crate) paths: Paths,
    /// Whether requests find another way at once: others like it are there.
    pub(crate) has_others: bool,
    /// The container, and since when it ran.
    pub(crate) run: Run,
}

/// A container's id, and since when it runs: another one after each start.
pub(crate) type Run = (String, Option<String>);

/// Kills processes of containers.
#[derive(Debug)]
pub(crate) struct Executioner {
    container: String,
}

impl Executioner {
    /// Starts the container that it works from.
    pub(crate) async fn hire(site: &Site) -> Self {
        let container = format!("{}-executioner", site.app());
        let body = ContainerCreateBody {
            image: Some("busybox:1.36".to_owned()),
            cmd: Some(["sleep", "2147483647"].map(str::to_owned).to_vec()),
            labels: Some([("com.docker.compose.project".to_owned(), site.app().to_string())].into()),
            host_config: Some(HostConfig {
                pid_mode: Some("host".to_owned()),
                network_mode: Some("none".to_owned()),
                ..HostConfig::default()
            }),
            ..ContainerCreateBody::default()
        };
        let options = CreateContainerOptionsBuilder::default().name(&container).build();
        site.docker.create_container(Some(options), body).await.unwrap();
        site.docker.start_container(&container, None::<StartContainerOptions>).await.unwrap();
        Self { container }
    }

    /// Removes it.
    pub(crate) async fn dismiss(self, site: &Site) {
        let options = RemoveContainerOptionsBuilder::default().force(true).build();
        site.docker.remove_container(&self.container, Some(options)).await.unwrap();
    }

    /// Kills a target. Answers what was hit: nothing, if there is none that runs.
    pub(crate) async fn strike(&self, site: &Site, target: Target, how: How) -> Vec<Struck> {
        let mut struck = Vec::new();
        for (container, paths, has_others) in aim(site, target).await {
            let id = container.id.unwrap_or_default();
            let name = container.names.unwrap_or_default().concat().trim_start_matches('/').to_owned();
            let Some(run) = run_of(&site.docker, &id).await else { continue };
            let from = Instant::now();
            let hit = match how {
                How::Stop => {
                    let options = KillContainerOptionsBuilder::default().signal("SIGKILL").build();
                    site.docker.kill_container(&id, Some(options)).await.is_ok()
                }
                How::Crash | How::Worker => match process(site, &id, how).await {
                    Some(pid) => self.kill(site, &id, &pid).await,
                    None => false,
                },
            };
            if hit {
                struck.push(Struck { name, from, until: Instant::now(), paths, has_others, run });
            }
        }
        struck
    }

    async fn kill(&self, site: &Site, id: &str, pid: &str) -> bool {
        let exec = ExecConfig {
            cmd: Some(["sh", "-c", KILL, "kill", id, pid].map(str::to_owned).to_vec()),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            ..ExecConfig::default()
        };
        let exec = site.docker.create_exec(&self.container, exec).await.unwrap().id;
        if let StartExecResults::Attached { mut output, .. } = site.docker.start_exec(&exec, None).await.unwrap() {
            while output.next().await.is_some() {}
        }
        site.docker.inspect_exec(&exec).await.unwrap().exit_code == Some(0)
    }
}

/// The running containers that a target means, with whose requests go through each, and whether there are others.
async fn aim(site: &Site, target: Target) -> Vec<(ContainerSummary, Paths, bool)> {
    let of = |service: &str| match service {
        "web" => Paths::of(&[Path::Version, Path::Visit, Path::Inside]),
        "cache" => Paths::of(&[Path::Visit]),
        _ => Paths::default(),
    };
    match target {
        Target::Ingress => {
            let paths = Paths::of(&[Path::Version, Path::Visit]);
            named(site, &site.place.ingress()).await.into_iter().map(|container| (container, paths, false)).collect()
        }
        Target::Proxy { service } => {
            let paths = if service == "web" { Paths::of(&[Path::Inside]) } else { of(service) };
            let name = format!("{}-{service}-proxy", site.app());
            named(site, &name).await.into_iter().map(|container| (container, paths, false)).collect()
        }
        Target::Instance { service, pick } => {
            let mut running = running(site, service).await;
            if running.is_empty() {
                return Vec::new();
            }
            let chosen = running.swap_remove(pick % running.len());
            vec![(chosen, of(service), service == "web")]
        }
        Target::Revision { pick } => {
            let running = running(site, "web").await;
            let mut revisions: Vec<String> = running.iter().map(revision).collect();
            revisions.sort();
            revisions.dedup();
            if revisions.is_empty() {
                return Vec::new();
            }
            let chosen = &revisions[pick % revisions.len()];
            let killed = running.into_iter().filter(|container| revision(container) == *chosen);
            killed.map(|container| (container, of("web"), false)).collect()
        }
    }
}

fn label(container: &ContainerSummary, name: &str) -> String {
    container.labels.as_ref().and_then(|labels| labels.get(name)).cloned().unwrap_or_default()
}

fn revision(container: &ContainerSummary) -> String {
    label(container, "deployer.revision")
}

/// The running instances of a service, in the order of their names.
pub(crate) async fn running(site: &Site, service: &str) -> Vec<ContainerSummary> {
    let mut containers = site.containers().await;
    containers.retain(|container| {
        container.state == Some(ContainerSummaryStateEnum::RUNNING)
            && label(container, "com.docker.compose.service") == service
            && label(container, "deployer.role") == "instance"
    });
    containers.sort_by(|a, b| a.names.cmp(&b.names));
    containers
}

async fn named(site: &Site, name: &str) -> Vec<ContainerSummary> {
    let filter = [("name".to_owned(), vec![format!("^/{name}$")])].into();
    let options = ListContainersOptionsBuilder::default().filters(&filter).build();
    site.docker.list_containers(Some(options)).await.unwrap()
}

/// Waits until a container of this name runs again.
pub(crate) async fn run_again(docker: &Docker, name: &str, before: &Run) {
    while run_of(docker, name).await.is_none_or(|run| run == *before) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The container of this name or id, and since when it runs; none if it does not.
async fn run_of(docker: &Docker, name: &str) -> Option<Run> {
    let found = docker.inspect_container(name, None::<InspectContainerOptions>).await.ok()?;
    let state = found.state?;
    let runs = state.running == Some(true) && state.restarting != Some(true);
    runs.then_some((found.id?, state.started_at))
}

/// The host's number of the process to kill.
async fn process(site: &Site, id: &str, how: How) -> Option<String> {
    let found = site.docker.inspect_container(id, None::<InspectContainerOptions>).await.ok()?;
    let main = found.state?.pid.filter(|pid| *pid > 0)?.to_string();
    if !matches!(how, How::Worker) {
        return Some(main);
    }
    let top = site.docker.top_processes(id, None::<TopOptions>).await.ok()?;
    let titles = top.titles?;
    let column = |name: &str| titles.iter().position(|title| title == name);
    let (pid, parent) = (column("PID")?, column("PPID")?);
    let workers = top.processes?.into_iter().filter(|row| row.get(parent) == Some(&main));
    // The last one is the one that takes new connections.
    workers.filter_map(|row| row.get(pid)?.parse::<u64>().ok()).max().map(|pid| pid.to_string())
}
