//! What `docker-compose up` had started, and a deployment takes over.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use bollard::query_parameters::{ListContainersOptionsBuilder, ListNetworksOptions};
use deployer_core::compose::ComposeReader;
use deployer_core::{AppSpec, DeployOptions, Retention, Verdict};

use super::site::{Site, free_port, get, promoted, service};
use crate::compose_tool::docker_compose;
use crate::engine::until;

const FILE: &str = r#"version: '3.8'
services:
  web:
    image: busybox:1.36
    init: true
    command:
      - sh
      - -c
      - |
        mkdir -p /www
        echo $VERSION $$(cat /data/note) > /www/index.html
        until nc -w 1 db 6379 < /dev/null; do sleep 0.1; done
        exec httpd -f -h /www
    ports: ["127.0.0.1:$PORT:80"]
    volumes: ["data:/data"]
    depends_on:
      db: { condition: service_started }
      once: { condition: service_completed_successfully }
  db:
    image: redis:7-alpine
    volumes: [/var/lib/queue]
  once:
    image: busybox:1.36
    command: "true"
volumes:
  data: {}
"#;

/// A Compose project on a site, and the port that it publishes.
struct Project {
    site: Site,
    port: String,
}

impl Project {
    async fn new() -> Self {
        let site = Site::new("inherited").await;
        std::fs::write(site.state().join("docker-compose.yml"), FILE).unwrap();
        Self { site, port: free_port().to_string() }
    }

    /// What the Compose tool says.
    fn compose(&self, arguments: &[&str]) -> String {
        let variables = [("PORT", self.port.as_str()), ("VERSION", "composed")];
        docker_compose(self.site.state(), self.site.app().as_str(), &variables, arguments)
    }

    fn release(&self, version: &str) -> AppSpec {
        let reader = ComposeReader::new().with_project_name(self.site.app().as_str());
        let reader = reader.with_env("PORT", &self.port).with_env("VERSION", version);
        let file: &Path = &self.site.state().join("docker-compose.yml");
        reader.read_file(file).unwrap_or_else(|problems| panic!("{problems}")).spec
    }

    /// The page at the published port, once there is one.
    async fn page(&self) -> String {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port.parse().unwrap()));
        until(async || get(address, "/").await.ok().filter(|(status, _)| *status == 200)).await.1.trim().to_owned()
    }

    /// The ids and states of the containers that Compose has made.
    async fn composed(&self) -> Vec<(String, String)> {
        let all = ListContainersOptionsBuilder::default().all(true).build();
        let mut found = Vec::new();
        for container in self.site.docker.list_containers(Some(all)).await.unwrap() {
            let labels = container.labels.unwrap_or_default();
            let project = labels.get("com.docker.compose.project");
            if project.is_some_and(|project| project == self.site.app().as_str())
                && !labels.contains_key("deployer.app")
            {
                found.push((container.id.unwrap(), container.state.unwrap().to_string()));
            }
        }
        found.sort();
        found
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_compose_has_started_is_taken_over_with_its_data_or_left_as_it_was() {
    let project = Project::new().await;
    let site = &project.site;
    project.compose(&["up", "-d"]);
    project.compose(&["exec", "-T", "web", "sh", "-c", "echo kept > /data/note; cp /data/note /www/index.html"]);
    assert_eq!(project.page().await, "kept");
    let before = project.composed().await;
    assert_eq!(before.iter().filter(|(_, state)| state == "running").count(), 2, "{before:?}");
    assert_eq!(before.len(), 3, "{before:?}");

    let plan = site.deployer.plan(&project.release("new"), &DeployOptions::default()).await.unwrap().to_string();
    let app = site.app();
    for part in [
        format!("Docker Compose has started {app}_db_1, {app}_web_1: stopped first"),
        format!("what {app}_db_1 has written to /data and /var/lib/queue is in a volume without a name"),
    ] {
        assert!(plan.contains(&part), "{part:?} is not in: {plan}");
    }

    // It cannot serve: the tool's containers do so again, the same ones.
    let mut broken = project.release("broken");
    service(&mut broken, "web").workload.command = Some(vec!["false".to_owned()]);
    let record = site.deploy(broken).finished().await.unwrap();
    let verdict = record.verdict.unwrap();
    assert!(matches!(verdict, Verdict::RolledBack { .. }), "{verdict}");
    assert_eq!(project.page().await, "composed kept", "its start writes the page anew");
    assert_eq!(project.composed().await, before);
    assert_eq!(site.containers().await.len(), 0);

    site.deploy_well(project.release("new")).await;
    assert_eq!(project.page().await, "new kept");
    assert_eq!(project.composed().await, []);
    site.assert_no_strays().await;
    let listed = project.compose(&["ps"]);
    assert_eq!(listed.matches(" Up ").count(), 4, "two instances and the proxies for their names: {listed}");

    promoted(site.deployer.destroy(site.app(), true)).await;
    site.deployer.prune(site.app(), Retention::releases(0)).await.unwrap();
    let networks = site.docker.list_networks(None::<ListNetworksOptions>).await.unwrap();
    let ours = networks.into_iter().filter_map(|network| network.name).filter(|name| name.starts_with(app.as_str()));
    assert_eq!(ours.collect::<Vec<_>>(), Vec::<String>::new(), "those that Compose had made");
    assert!(site.docker.inspect_volume(&format!("{app}_data")).await.is_err(), "it goes with the others");
}
