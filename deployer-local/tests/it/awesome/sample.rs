//! The samples, and what is changed so that they run on any machine.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use bollard::exec::{StartExecOptions, StartExecResults};
use bollard::models::ExecConfig;
use deployer_core::compose::{ComposeApp, ComposeReader};
use deployer_core::{AppSpec, ImageSource, MountSource, Problems, ServiceName, ServiceSpec, Transport};
use futures_util::TryStreamExt as _;

use super::standin::StandIn;
use crate::whole::site::{Site, free_port, get};

/// A Compose file as it was published.
pub(super) struct Sample {
    pub(super) name: String,
    file: PathBuf,
}

impl Sample {
    /// All of them by name.
    pub(super) fn all() -> impl Iterator<Item = Self> {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/awesome");
        let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
        let directories: BTreeSet<PathBuf> = entries.filter(|path| path.is_dir()).collect();
        directories.into_iter().map(|directory| Self::in_directory(&directory))
    }

    fn in_directory(directory: &Path) -> Self {
        let files = ["compose.yaml", "compose.yml"].map(|name| directory.join(name));
        let file = files.into_iter().find(|file| file.is_file()).expect("a sample has a Compose file");
        Self { name: directory.file_name().unwrap().to_str().unwrap().to_owned(), file }
    }

    pub(super) fn read(&self, app: &str) -> Result<ComposeApp, Problems> {
        reader(app).read_file(&self.file)
    }

    /// A copy, because what runs may write to it.
    pub(super) fn copy(&self, directory: &Path) -> Copy {
        copy(self.file.parent().unwrap(), directory);
        let file = directory.join(self.file.file_name().unwrap());
        // The engine gives these addresses to whichever network is made first without any of its own.
        let text = fs::read_to_string(&file).unwrap();
        fs::write(&file, text.replace("172.20.0.", "10.213.20.")).unwrap();
        let sample = Self { name: self.name.clone(), file };
        Copy { sample, changes: directory.join("standin.yaml"), services: BTreeMap::new() }
    }
}

fn reader(app: &str) -> ComposeReader {
    ComposeReader::new().with_project_name(app).with_env("HOME", "/home/visitor")
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (from, to) = (entry.as_ref().unwrap().path(), to.join(entry.unwrap().file_name()));
        if from.is_dir() { copy(&from, &to) } else { fs::copy(&from, &to).map(drop).unwrap() }
    }
}

/// A copy of a sample, and what is different in it.
pub(super) struct Copy {
    pub(super) sample: Sample,
    /// The Compose file that overrides the other one.
    changes: PathBuf,
    services: BTreeMap<ServiceName, Changed>,
}

/// A service whose image something stands in for.
struct Changed {
    standin: StandIn,
    networks: BTreeSet<String>,
    /// Where its ports are published instead.
    published: Vec<(u16, SocketAddr)>,
}

impl Copy {
    /// Writes down what is different: images, ports of the host, and paths of the host that are not on this one.
    pub(super) fn stood_in(mut self, spec: &AppSpec) -> Self {
        let mut text = "services:\n".to_owned();
        for (name, service) in &spec.services {
            let changed = self.change(&mut text, name, service);
            self.services.insert(name.clone(), changed);
        }
        fs::write(&self.changes, text).unwrap();
        self
    }

    fn change(&self, text: &mut String, name: &ServiceName, service: &ServiceSpec) -> Changed {
        let ports = &service.workload.ports;
        let answered = ports.iter().filter(|port| port.published.is_some() && port.transport == Transport::Tcp);
        let targets = answered.map(|port| port.target);
        let standin = match &service.image {
            ImageSource::Reference(image) => StandIn::of(image, targets),
            _ => StandIn::of_built(&self.sample.name, name.as_str(), targets),
        };
        write!(text, "  {name}:\n    image: !reset null\n    build: !override {}\n", standin.build()).unwrap();
        text.push_str("    environment: { STANDIN: \"${STANDIN}\" }\n");
        let (mut items, mut published) = (String::new(), Vec::new());
        for port in ports {
            let Some(place) = port.published else { continue };
            let free = free_port();
            let ip = place.ip.map(|ip| format!("{ip}:")).unwrap_or_default();
            let tcp = port.transport == Transport::Tcp;
            if tcp {
                let ip = place.ip.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
                published.push((port.target, SocketAddr::new(ip, free)));
            }
            let protocol = if tcp { "tcp" } else { "udp" };
            writeln!(items, "      - \"{ip}{free}:{}/{protocol}\"", port.target).unwrap();
        }
        if !items.is_empty() {
            write!(text, "    ports: !override\n{items}").unwrap();
        }
        let mut items = String::new();
        for (index, mount) in service.workload.mounts.iter().enumerate() {
            let MountSource::Bind(source) = &mount.source else { continue };
            let here = Path::new(source).starts_with(self.changes.parent().unwrap());
            if here {
                make(Path::new(source));
            } else if !Path::new(source).exists() {
                writeln!(items, "      - ./host/{name}-{index}:{}", mount.target).unwrap();
                make(&self.changes.with_file_name(format!("host/{name}-{index}")));
            }
        }
        if !items.is_empty() {
            write!(text, "    volumes:\n{items}").unwrap();
        }
        let mut networks: BTreeSet<String> = service.workload.networks.keys().cloned().collect();
        if networks.is_empty() {
            networks.insert("default".to_owned());
        }
        Changed { standin, networks, published }
    }

    /// The sample with what is different, as this release.
    pub(super) fn read(&self, app: &str, release: u32) -> Result<ComposeApp, Problems> {
        reader(app).with_env("STANDIN", release.to_string()).read_files([&self.sample.file, &self.changes])
    }

    /// The published ports at which this release does not answer.
    pub(super) async fn unanswered(&self, release: u32) -> Vec<String> {
        let mut unanswered = Vec::new();
        for (name, service) in &self.services {
            for (port, address) in &service.published {
                let answer = get(*address, "/").await;
                if answer.as_ref().ok() != Some(&(200, format!("release {release}\n"))) {
                    unanswered.push(format!("port {port} of {name} answered {answer:?}"));
                }
            }
        }
        unanswered
    }

    /// What a service cannot reach of those that it shares a network with.
    pub(super) async fn unreachable(&self, site: &Site) -> Vec<String> {
        let mut unreachable = Vec::new();
        for (name, service) in &self.services {
            let others = self.services.iter().filter(|(other, _)| *other != name);
            let others = others.filter(|(_, other)| !other.networks.is_disjoint(&service.networks));
            let places =
                others.flat_map(|(name, other)| other.standin.listens().map(move |port| format!("{name}:{port}")));
            let script = places.fold(String::new(), |script, place| {
                script
                    + &format!(
                        "timeout 20 wget -q -O - http://{place}/ | grep -q release || echo {name} cannot reach {place}\n"
                    )
            });
            if !script.is_empty() {
                unreachable.extend(output(site, name.as_str(), &script).await.lines().map(str::to_owned));
            }
        }
        unreachable
    }
}

/// Makes what a path on the host should lead to, as far as a stand-in cares.
fn make(path: &Path) {
    if path.exists() {
        return;
    }
    if path.extension().is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "").unwrap();
    } else {
        fs::create_dir_all(path).unwrap();
    }
}

/// What a script says in an instance of a service.
async fn output(site: &Site, service: &str, script: &str) -> String {
    let instances = site.instances(service).await;
    let Some(instance) = instances.values().flatten().next() else { return format!("{service} has no instance") };
    let command = ["sh", "-c", script].map(str::to_owned).to_vec();
    let config = ExecConfig { cmd: Some(command), attach_stdout: Some(true), ..ExecConfig::default() };
    let exec = site.docker.create_exec(instance, config).await.unwrap();
    let started = site.docker.start_exec(&exec.id, None::<StartExecOptions>).await.unwrap();
    let StartExecResults::Attached { output, .. } = started else { return "nothing is said".to_owned() };
    let said: Vec<String> = output.map_ok(|said| said.to_string()).try_collect().await.unwrap();
    said.concat()
}
