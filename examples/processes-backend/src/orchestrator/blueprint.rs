//! From a service of a release to the directory of an instance or task.

use std::collections::BTreeMap;
use std::fs;
use std::io as std_io;
use std::net::Ipv4Addr;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use deployer_core::{
    CheckCommand, EnvValue, Error, ErrorKind, InstanceId, MountSource, Release, Restart, Result, Secrets, ServiceName,
    ServiceRelease,
};

use super::ProcessOrchestrator;
use super::record::{Found, Record, Role};
use crate::addresses::Addresses;
use crate::failure::io;
use crate::files::{copy_tree, unique};
use crate::images::{ImageConfig, ROOT};
use crate::keeper::{Keep, Kept};
use crate::layout::Layout;
use crate::naming::variable;

/// What is needed to make instances and tasks of a service.
#[derive(Clone)]
pub(super) struct Blueprint {
    layout: Layout,
    addresses: Addresses,
    release: std::sync::Arc<Release>,
    service: ServiceName,
    definition: ServiceRelease,
    image: ImageConfig,
}

impl Blueprint {
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) if the image is gone, or what the services share was not made.
    pub(super) fn new(
        orchestrator: &ProcessOrchestrator,
        release: &std::sync::Arc<Release>,
        service: &ServiceName,
    ) -> Result<Self> {
        let (layout, addresses) = (orchestrator.layout.clone(), orchestrator.addresses.clone());
        let definition = release.services.get(service).cloned().ok_or_else(|| {
            Error::new(ErrorKind::InvalidInput, "the release has no such service").with_resource(service.as_str())
        })?;
        if !layout.shared(&release.app).exists() {
            return Err(Error::new(ErrorKind::NotFound, "what the services share does not exist")
                .with_help("make it with `Orchestrator::ensure_app`"));
        }
        let image = ImageConfig::of(&layout, &definition.image.digest)?;
        let (release, service) = (std::sync::Arc::clone(release), service.clone());
        Ok(Self { layout, addresses, release, service, definition, image })
    }

    /// Makes the directory of an instance, or of a task that runs this command. It is there as a whole or not at all.
    pub(super) fn make(&self, id: InstanceId, name: String, role: Role, command: Option<&[String]>) -> Result<Found> {
        let app = &self.release.app;
        let made = (|| {
            let address = self.addresses.of_instance(app, &id)?;
            let (draft, place) =
                (self.layout.instances(app).join(format!(".{}", unique())), self.layout.instance(app, &id));
            let image = self.definition.image.digest.clone();
            copy_tree(&self.layout.image(&image).join(ROOT), &draft.join(ROOT))?;
            self.mount(&draft.join(ROOT))?;
            let (service, release) = (self.service.clone(), self.release.number);
            let keep = self.keep(&Kept::new(&place).root(), address, &name, command)?;
            Kept::new(&draft).write_keep(&keep)?;
            let checked = keep.check.is_some_and(|check| check.command != CheckCommand::Disabled);
            let record = Record { id, name, service, role, release, image, address, checked };
            let found = Found::write(record, Kept::new(&draft))?;
            fs::rename(&draft, &place)?;
            Ok(Found { kept: Kept::new(place), ..found })
        })();
        made.map_err(io("make the instance's directory"))
    }

    fn keep(&self, root: &Path, address: Ipv4Addr, name: &str, task: Option<&[String]>) -> std_io::Result<Keep> {
        let workload = &self.definition.workload;
        let mut line = workload.entrypoint.clone().unwrap_or_else(|| self.image.entrypoint.clone());
        let task = task.filter(|command| !command.is_empty());
        line.extend(match (task, &workload.command, &workload.entrypoint) {
            (Some(task), _, _) => task.to_vec(),
            (None, Some(command), _) => command.clone(),
            // As with Docker: another entrypoint does not know what to do with the image's command.
            (None, None, Some(_)) => Vec::new(),
            (None, None, None) => self.image.command.clone(),
        });
        let below = workload.working_dir.as_ref().or(self.image.working_dir.as_ref());
        let stop_signal = workload.stop.signal.as_ref().or(self.image.stop_signal.as_ref());
        Ok(Keep {
            command: line,
            env: self.env(root, address, name)?,
            working_dir: below.map_or_else(|| root.to_owned(), |below| inside(root, below)),
            user: workload.user.as_deref().and_then(super::unsupported::user),
            stop_signal: stop_signal.cloned().unwrap_or_else(|| "SIGTERM".to_owned()),
            stop_grace: workload.stop.grace,
            restart: if task.is_some() { Restart::No } else { workload.restart },
            check: workload.check.clone().filter(|_| task.is_none()),
            memory_bytes: workload.resources.memory_bytes,
        })
    }

    /// The environment without secrets: what every program is told, then the image's, then the service's.
    fn env(&self, root: &Path, address: Ipv4Addr, name: &str) -> std_io::Result<BTreeMap<String, String>> {
        let path = std::env::var("PATH").unwrap_or_else(|_| "/usr/local/bin:/usr/bin:/bin".to_owned());
        let mut env = BTreeMap::from([
            ("PATH".to_owned(), path),
            ("HOME".to_owned(), root.display().to_string()),
            ("INSTANCE".to_owned(), name.to_owned()),
            ("HOST".to_owned(), address.to_string()),
        ]);
        if let Some(port) = self.definition.listening_ports().first() {
            env.insert("PORT".to_owned(), port.target.to_string());
        }
        // There are no names to be looked up, so each service is told where the others are.
        let listening = self.release.services.iter().filter(|(_, definition)| definition.listens());
        for service in listening.map(|(name, _)| name) {
            let address = self.addresses.of_service(&self.release.app, service)?;
            env.insert(format!("{}_HOST", variable(service.as_str())), address.to_string());
        }
        env.extend(self.image.env.clone());
        for (name, value) in &self.definition.workload.env {
            match value {
                EnvValue::Plain(value) => env.insert(name.clone(), value.clone()),
                EnvValue::Secret(_) => env.remove(name),
            };
        }
        Ok(env)
    }

    /// The values of the environment's secrets as they are pinned. They are handed to the keeper and written nowhere.
    pub(super) async fn secrets(&self, secrets: &dyn Secrets) -> Result<BTreeMap<String, String>> {
        let mut values = BTreeMap::new();
        for (name, value) in &self.definition.workload.env {
            if let EnvValue::Secret(reference) = value {
                values.insert(name.clone(), secrets.reveal(reference).await?.expose().to_owned());
            }
        }
        Ok(values)
    }

    /// Puts links where the mounts shall be. A process sees the host's files, so that `/data` is `data` in its root.
    fn mount(&self, root: &Path) -> std_io::Result<()> {
        for mount in &self.definition.workload.mounts {
            let target = inside(root, &mount.target);
            if let Some(parent) = target.parent() {
                fs::create_dir_all(parent)?;
            }
            if target.is_dir() && !target.is_symlink() {
                fs::remove_dir_all(&target)?;
            }
            match &mount.source {
                MountSource::Volume(name) => symlink(self.layout.volumes(&self.release.app).join(name), &target)?,
                MountSource::Bind(path) => symlink(path, &target)?,
                // They live as long as the instance, and so does its directory.
                _ => fs::create_dir_all(&target)?,
            }
        }
        Ok(())
    }
}

/// A path as the program sees it, below its root whatever it says.
fn inside(root: &Path, path: &str) -> PathBuf {
    let parts = path.split('/').filter(|part| !matches!(*part, "" | "." | ".."));
    parts.fold(root.to_owned(), |path, part| path.join(part))
}
