//! A revision as a task definition.

use std::time::Duration;

use aws_sdk_ecs::operation::describe_task_definition::DescribeTaskDefinitionOutput;
use aws_sdk_ecs::operation::register_task_definition::builders::RegisterTaskDefinitionFluentBuilder;
use aws_sdk_ecs::types::builders::ContainerDefinitionBuilder;
use aws_sdk_ecs::types::{
    Compatibility, ContainerDefinition, CpuArchitecture, EfsVolumeConfiguration, EphemeralStorage, HealthCheck,
    KernelCapabilities, KeyValuePair, LinuxParameters, LogConfiguration, LogDriver, MountPoint, NetworkMode, OsFamily,
    PortMapping, RuntimePlatform, Secret, SystemControl, Tag, TaskDefinitionField, Tmpfs, TransportProtocol, Ulimit,
    UlimitName, Volume,
};
use deployer_core::{
    CheckCommand, ContainerCheck, ContainerOptions, EnvValue, Error, ErrorKind, MountSource, Release, ReleaseNumber,
    Resources, Result, RevisionId, ServiceRelease, Transport, VolumeSpec,
};

use super::fargate;
use crate::failure::{failed, incomplete, is};
use crate::naming::{self, tag};
use crate::options::{Architecture, AwsOptions};
use crate::secrets;
use crate::site::Site;

const MIB: u64 = 1 << 20;

/// What an instance has that asks for nothing: Fargate's smallest machine.
const CPU_MILLIS: u64 = 250;
const MEMORY: u64 = 512 * MIB;

/// The longest time to stop that Fargate gives.
pub(super) const LONGEST_STOP: Duration = Duration::from_secs(120);

/// The shortest time to stop that ECS takes, in seconds:
/// <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_ContainerDefinition.html>.
const SHORTEST_STOP: i32 = 2;

/// What must be known of a task definition.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KnownDefinition {
    /// The release with which it came.
    pub(crate) release: ReleaseNumber,
    /// Whether its container has a check of its own.
    pub(crate) checked: bool,
}

impl Default for KnownDefinition {
    /// One of which nothing can be told any more.
    fn default() -> Self {
        Self { release: ReleaseNumber(0), checked: false }
    }
}

impl Site {
    /// The ARN of the revision's task definition, registered unless it has been before: by its family's name it is known
    /// which revision it is, whoever has registered it.
    pub(super) async fn definition(&self, release: &Release, revision: &RevisionId) -> Result<String> {
        let service = release.services.get(revision.service()).ok_or_else(|| {
            Error::new(ErrorKind::Internal, "the release does not have the service").with_resource(revision.to_string())
        })?;
        let family = naming::family(&release.app, revision, &self.settings(service));
        if let Some((arn, _)) = self.find_definition(&family).await? {
            return Ok(arn);
        }
        let answer = self.describe(release, service, revision, &family)?.send().await;
        let answer = answer.map_err(|error| failed("ecs:RegisterTaskDefinition", family.as_str(), error))?;
        let arn = answer.task_definition().and_then(|definition| definition.task_definition_arn()).unwrap_or_default();
        let known = KnownDefinition { release: release.number, checked: service.container_check().is_some() };
        self.memory().definitions.insert(arn.to_owned(), known);
        Ok(arn.to_owned())
    }

    /// What is in task definitions beside a revision: the options, and where the image is, which may be copied to another
    /// repository. With another of these, and in another cluster, a revision has another one.
    fn settings(&self, service: &ServiceRelease) -> String {
        let AwsOptions { execution_role, task_role, log_group, namespace, capacity, architecture, .. } = &self.options;
        let cluster = self.options.cluster_name();
        let names = namespace.as_ref().map(|namespace| (&namespace.zone, &namespace.search_image));
        let (fargate, image) = (capacity.is_fargate(), &service.image.location);
        format!(
            "{cluster:?} {execution_role:?} {task_role:?} {log_group:?} {names:?} {fargate} {architecture:?} {image}"
        )
    }

    /// What ECS has of a task definition by its family or ARN, with its tags.
    pub(super) async fn describe_definition(&self, name: &str) -> Result<Option<DescribeTaskDefinitionOutput>> {
        let call = self.ecs.describe_task_definition().task_definition(name).include(TaskDefinitionField::Tags);
        match call.send().await {
            Ok(answer) => Ok(Some(answer)),
            // ECS has no name for it that says more.
            Err(error) if is(&error, &["ClientException"]) => Ok(None),
            Err(error) => Err(failed("ecs:DescribeTaskDefinition", name, error)),
        }
    }

    /// A task definition by its family or ARN.
    async fn find_definition(&self, family: &str) -> Result<Option<(String, KnownDefinition)>> {
        let Some(answer) = self.describe_definition(family).await? else { return Ok(None) };
        let Some(definition) = answer.task_definition() else { return Ok(None) };
        let arn = definition.task_definition_arn().unwrap_or_default().to_owned();
        let release = super::slots::value(answer.tags(), tag::RELEASE).and_then(|text| text.parse().ok());
        let known = KnownDefinition {
            release: ReleaseNumber(release.unwrap_or_default()),
            checked: definition.container_definitions().iter().any(|container| container.health_check().is_some()),
        };
        self.memory().definitions.insert(arn.clone(), known);
        Ok(Some((arn, known)))
    }

    /// What is known of a task definition.
    pub(super) async fn known_definition(&self, arn: &str) -> Result<KnownDefinition> {
        let known = self.memory().definitions.get(arn).copied();
        match known {
            Some(known) => Ok(known),
            None => Ok(self.find_definition(arn).await?.map(|(_, known)| known).unwrap_or_default()),
        }
    }

    fn describe(
        &self,
        release: &Release,
        service: &ServiceRelease,
        revision: &RevisionId,
        family: &str,
    ) -> Result<RegisterTaskDefinitionFluentBuilder> {
        let fargate = self.options.capacity.is_fargate();
        let tag = |key: &str, value: String| Tag::builder().key(key).value(value).build();
        let mut request = self
            .ecs
            .register_task_definition()
            .family(family)
            .network_mode(NetworkMode::Awsvpc)
            .requires_compatibilities(if fargate { Compatibility::Fargate } else { Compatibility::Ec2 })
            .execution_role_arn(&self.options.execution_role)
            .set_task_role_arn(self.options.task_role.clone())
            .runtime_platform(self.platform())
            .container_definitions(self.container(release, service, revision)?)
            .tags(tag(tag::CLUSTER, self.options.cluster_name().to_owned()))
            .tags(tag(tag::APP, release.app.to_string()))
            .tags(tag(tag::SERVICE, revision.service().to_string()))
            .tags(tag(tag::REVISION, revision.hash().to_owned()))
            .tags(tag(tag::RELEASE, release.number.0.to_string()));
        if let Some(search) = self.search(&release.app) {
            request = request.container_definitions(search);
        }
        if let Some((cpu, memory)) = size(&service.workload.resources, fargate)? {
            request = request.cpu(cpu.to_string()).memory(memory.to_string());
        }
        if let Some(gibibytes) = service.workload.labels.get(EPHEMERAL_STORAGE).and_then(|text| text.parse().ok()) {
            let storage = EphemeralStorage::builder().size_in_gib(gibibytes).build();
            request = request.ephemeral_storage(storage);
        }
        for (index, mount) in service.workload.mounts.iter().enumerate() {
            if let Some(volume) = volume(release, &mount.source, index)? {
                request = request.volumes(volume);
            }
        }
        Ok(request)
    }

    fn platform(&self) -> RuntimePlatform {
        let architecture = match self.options.architecture {
            Architecture::X86_64 => CpuArchitecture::X8664,
            Architecture::Arm64 => CpuArchitecture::Arm64,
        };
        RuntimePlatform::builder().cpu_architecture(architecture).operating_system_family(OsFamily::Linux).build()
    }

    fn container(
        &self,
        release: &Release,
        service: &ServiceRelease,
        revision: &RevisionId,
    ) -> Result<ContainerDefinition> {
        let workload = &service.workload;
        let name = naming::container(revision.service());
        let mut container = ContainerDefinition::builder()
            .name(&name)
            .image(&service.image.location)
            .essential(true)
            .set_depends_on(self.after_search(&release.app)?.map(|dependency| vec![dependency]))
            .set_entry_point(workload.entrypoint.clone())
            .set_command(workload.command.clone())
            .set_user(workload.user.clone())
            .set_working_directory(workload.working_dir.clone())
            .readonly_root_filesystem(workload.read_only)
            .stop_timeout(seconds(workload.stop.grace).max(SHORTEST_STOP));
        for (name, value) in &workload.env {
            container = match value {
                EnvValue::Plain(value) => {
                    container.environment(KeyValuePair::builder().name(name).value(value).build())
                }
                EnvValue::Secret(secret) => {
                    let place = secrets::value_from(secret);
                    container.secrets(Secret::builder().name(name).value_from(place).build().map_err(incomplete)?)
                }
            };
        }
        for (label, value) in &workload.labels {
            container = container.docker_labels(label, value);
        }
        for port in service.listening_ports() {
            let protocol = match port.transport {
                Transport::Tcp => TransportProtocol::Tcp,
                Transport::Udp => TransportProtocol::Udp,
            };
            let mapping = PortMapping::builder().container_port(port.target.into()).protocol(protocol);
            container = container.port_mappings(mapping.build());
        }
        for (index, mount) in workload.mounts.iter().enumerate().filter(|(_, mount)| !is_tmpfs(&mount.source)) {
            let point = MountPoint::builder()
                .source_volume(volume_name(index))
                .container_path(&mount.target)
                .read_only(mount.read_only);
            container = container.mount_points(point.build());
        }
        if let Some(check) = service.container_check().and_then(health_check) {
            container = container.health_check(check);
        }
        if let Some(parameters) = linux_parameters(service)? {
            container = container.linux_parameters(parameters);
        }
        container = equip(container, &workload.container)?;
        if let Some(group) = &self.options.log_group {
            container = container.log_configuration(self.logging(release, revision, group)?);
        }
        if !self.options.capacity.is_fargate() {
            let resources = &workload.resources;
            // ECS wants the limit to be more than what is reserved.
            let limit = resources.memory_bytes;
            let reserved =
                resources.reserved_memory_bytes.filter(|reserved| limit.is_none_or(|limit| limit > *reserved));
            let mebibytes = |bytes: u64| i32::try_from(bytes.div_ceil(MIB)).unwrap_or(i32::MAX);
            let units = resources.reserved_cpu_millis.or(resources.cpu_millis).map(|millis| millis * 1_024 / 1_000);
            container = container
                .set_memory(limit.map(mebibytes))
                .set_memory_reservation(reserved.or(limit.is_none().then_some(128 * MIB)).map(mebibytes))
                .cpu(units.and_then(|units| i32::try_from(units).ok()).unwrap_or(0));
        }
        Ok(container.build())
    }

    fn logging(&self, release: &Release, revision: &RevisionId, group: &str) -> Result<LogConfiguration> {
        let region = self.ecs.config().region().map(ToString::to_string).unwrap_or_default();
        LogConfiguration::builder()
            .log_driver(LogDriver::Awslogs)
            .options("awslogs-group", group)
            .options("awslogs-region", region)
            .options("awslogs-stream-prefix", log_prefix(&release.app, revision.service()))
            .build()
            .map_err(incomplete)
    }
}

/// What the names of log streams of a service's instances begin with.
pub(super) fn log_prefix(app: &deployer_core::AppName, service: &deployer_core::ServiceName) -> String {
    format!("{app}/{service}")
}

/// The label that asks for more than Fargate's 20 GiB of ephemeral storage:
/// <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/fargate-task-storage.html>.
pub(super) const EPHEMERAL_STORAGE: &str = "deployer.aws.ephemeral-storage-gib";

fn seconds(time: Duration) -> i32 {
    let whole = time.as_secs() + u64::from(time.subsec_nanos() > 0);
    i32::try_from(whole).unwrap_or(i32::MAX)
}

/// The size of a task: on Fargate a pair that it sells, on EC2 nothing, because containers say what they need.
pub(super) fn size(resources: &Resources, fargate: bool) -> Result<Option<(u32, u32)>> {
    if !fargate {
        return Ok(None);
    }
    let cpu = resources.cpu_millis.or(resources.reserved_cpu_millis).unwrap_or(CPU_MILLIS);
    let memory = resources.memory_bytes.or(resources.reserved_memory_bytes).unwrap_or(MEMORY);
    let size = fargate::size(cpu, memory).ok_or_else(|| {
        Error::new(ErrorKind::Unsupported, "Fargate has no machine of that size")
            .with_context("processors", format!("{} thousandths", cpu))
            .with_context("memory", format!("{} MiB", memory.div_ceil(MIB)))
            .with_help("ask for at most 16 processors and 120 GiB, or run it on EC2")
    })?;
    Ok(Some(size))
}

fn health_check(check: &ContainerCheck) -> Option<HealthCheck> {
    let command: Vec<String> = match &check.command {
        CheckCommand::Exec(words) => std::iter::once("CMD".to_owned()).chain(words.iter().cloned()).collect(),
        CheckCommand::Shell(line) => vec!["CMD-SHELL".to_owned(), line.clone()],
        CheckCommand::Disabled => return None,
    };
    // ECS takes an interval of 5 to 300 s, a time-out of 2 to 60 s, 1 to 10 retries and a start of up to 300 s.
    let between = |time: Duration, from: i32, to: i32| seconds(time).clamp(from, to);
    let check = HealthCheck::builder()
        .set_command(Some(command))
        .interval(between(check.interval, 5, 300))
        .timeout(between(check.timeout, 2, 60))
        .retries(i32::try_from(check.retries).unwrap_or(i32::MAX).clamp(1, 10))
        .start_period(between(check.start_period, 0, 300));
    check.build().ok()
}

fn is_tmpfs(source: &MountSource) -> bool {
    matches!(source, MountSource::Tmpfs { .. })
}

fn volume_name(index: usize) -> String {
    format!("mount-{index}")
}

/// The file system of a volume that is kept on EFS.
pub(super) fn file_system(volume: &VolumeSpec) -> Option<&str> {
    let efs = volume.driver.as_deref() == Some("efs");
    volume.driver_opts.get("file-system").map(String::as_str).filter(|_| efs)
}

fn volume(release: &Release, source: &MountSource, index: usize) -> Result<Option<Volume>> {
    let volume = Volume::builder().name(volume_name(index));
    Ok(match source {
        MountSource::Volume(name) => {
            let spec = release.volumes.get(name);
            let Some(file_system) = spec.and_then(file_system) else {
                return Err(Error::new(ErrorKind::Unsupported, "a named volume on ECS must be kept on EFS")
                    .with_resource(name.clone())
                    .with_help("give it `driver: efs` and `driver_opts: {file-system: fs-...}`"));
            };
            let root = spec.and_then(|spec| spec.driver_opts.get("root")).cloned();
            let efs = EfsVolumeConfiguration::builder().file_system_id(file_system).set_root_directory(root);
            Some(volume.efs_volume_configuration(efs.build().map_err(incomplete)?).build())
        }
        MountSource::Bind(path) => {
            let host = aws_sdk_ecs::types::HostVolumeProperties::builder().source_path(path).build();
            Some(volume.host(host).build())
        }
        MountSource::Tmpfs { .. } => None,
        _ => Some(volume.build()),
    })
}

/// The name of a capability as ECS has it.
pub(super) fn plain(capability: &str) -> String {
    let name = capability.to_ascii_uppercase();
    name.strip_prefix("CAP_").map_or_else(|| name.clone(), str::to_owned)
}

/// What a container is given beside what runs in it.
fn equip(mut container: ContainerDefinitionBuilder, options: &ContainerOptions) -> Result<ContainerDefinitionBuilder> {
    for (name, limit) in &options.ulimits {
        let number = |limit: i64| i32::try_from(limit).unwrap_or(i32::MAX);
        let ulimit = Ulimit::builder().name(UlimitName::from(name.as_str()));
        let ulimit = ulimit.soft_limit(number(limit.soft)).hard_limit(number(limit.hard));
        container = container.ulimits(ulimit.build().map_err(incomplete)?);
    }
    for (name, value) in &options.sysctls {
        container = container.system_controls(SystemControl::builder().namespace(name).value(value).build());
    }
    Ok(container
        .set_privileged(options.privileged.then_some(true))
        .set_pseudo_terminal(options.tty.then_some(true))
        .set_interactive(options.stdin_open.then_some(true)))
}

fn linux_parameters(service: &ServiceRelease) -> Result<Option<LinuxParameters>> {
    let workload = &service.workload;
    let mut parameters = LinuxParameters::builder();
    let mut any = false;
    let options = &workload.container;
    if !options.cap_add.is_empty() || !options.cap_drop.is_empty() {
        let names = |names: &[String]| Some(names.iter().map(|name| plain(name)).collect());
        let capabilities =
            KernelCapabilities::builder().set_add(names(&options.cap_add)).set_drop(names(&options.cap_drop));
        (parameters, any) = (parameters.capabilities(capabilities.build()), true);
    }
    if let Some(bytes) = options.shm_size {
        let mebibytes = i32::try_from(bytes.div_ceil(MIB)).unwrap_or(i32::MAX);
        (parameters, any) = (parameters.shared_memory_size(mebibytes), true);
    }
    if workload.init {
        (parameters, any) = (parameters.init_process_enabled(true), true);
    }
    for mount in &workload.mounts {
        if let MountSource::Tmpfs { size_bytes, .. } = mount.source {
            let mebibytes = size_bytes.map_or(64, |bytes| i32::try_from(bytes.div_ceil(MIB)).unwrap_or(i32::MAX));
            let tmpfs = Tmpfs::builder().container_path(&mount.target).size(mebibytes).build().map_err(incomplete)?;
            (parameters, any) = (parameters.tmpfs(tmpfs), true);
        }
    }
    Ok(any.then(|| parameters.build()))
}
