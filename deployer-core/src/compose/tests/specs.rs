//! Random applications that use every field of the model, with texts that want to be taken for something else. They are
//! made without `..`, so that a new field has to be varied too.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;

use crate::compose::app::task_hook;
use crate::model::{
    AppProtocol, AppSpec, Balancing, BlockIo, BuildSpec, CanaryStep, CheckCommand, Condition, ContainerCheck,
    ContainerOptions, Device, DeviceRequest, EnvValue, File, FileContent, GateCheck, GatePoint, GateSpec, Hook,
    HookPoint, ImageSource, Ipam, IpamPool, Logging, Mount, MountSource, NetworkAttachment, NetworkSpec,
    OnInconclusive, Port, Probe, Published, Readiness, Resources, Restart, Route, Scaling, ScalingSchedule,
    ScalingTarget, SecretRef, Service, ServiceName, ServiceSpec, Stop, Strategy as Rollout, Transport, Ulimit,
    VolumeSpec, Workload,
};

/// Texts that are something else without quotes, or need care within them.
#[rustfmt::skip]
const HOSTILE: [&str; 64] = [
    "a", "", " ", " a", "a ", "~", "null", "Null", "yes", "No", "on", "y", "true", "1", "-1", "0755", "0x1f", "0o17",
    "1e3", "1_000", ".5", ".inf", "-.INF", ".NaN", "22:22", "2001-01-01", "a: b", "a:", "a #b", "#", "- a", "-", "---",
    "...", "{a: b}", "[a]", "*a", "&a", "!a", "|", "> ", "%a", "@a", "`a`", "'a'", "\"a\"", "\\", "$", "$$", "${X}",
    "${X:-", "<<", "=", "!reset", "?", ",", "a\n", "a\nb", "a\n\n b\n", "\n", "a\n \nb", "a\r\nb", "a\n\n", "\t",
];
/// Characters that texts are made of besides.
const CHARACTERS: [char; 24] = [
    'a',
    'b',
    '1',
    ' ',
    '\n',
    '\t',
    '\r',
    ':',
    '-',
    '#',
    '\'',
    '"',
    '\\',
    '$',
    '{',
    '|',
    '/',
    '.',
    '=',
    'ü',
    '\u{85}',
    '\u{2028}',
    '\u{feff}',
    '\u{1f600}',
];
const SERVICES: [&str; 4] = ["web", "y", "1", "a.b-c_d"];
const VOLUMES: [&str; 3] = ["data", "0x1f", "on"];
const NETWORKS: [&str; 4] = ["back", "default", "null", "1e3"];

/// Any application that is valid, and can be said.
pub(super) fn spec() -> impl Strategy<Value = AppSpec> {
    vec(any::<u32>(), 0..2_000).prop_map(|choices| Choices(choices.into_iter()).spec())
}

/// Any text. What holds a NUL is refused in every file.
pub(super) fn text() -> impl Strategy<Value = String> {
    vec(any::<u32>(), 0..20).prop_map(|choices| Choices(choices.into_iter()).text())
}

/// What is drawn; when nothing is left, always the simplest.
struct Choices(std::vec::IntoIter<u32>);

impl Choices {
    fn number(&mut self) -> u32 {
        self.0.next().unwrap_or_default()
    }

    fn large(&mut self) -> u64 {
        u64::from(self.number()) << 32 | u64::from(self.number())
    }

    fn below(&mut self, end: u32) -> u32 {
        self.number() % end
    }

    fn index(&mut self, end: usize) -> usize {
        self.number() as usize % end
    }

    fn flag(&mut self) -> bool {
        self.below(3) == 1
    }

    fn pick<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.index(all.len())]
    }

    /// One of these texts.
    fn one_of(&mut self, all: &[&str]) -> String {
        self.pick(all).to_owned()
    }

    fn of<T>(&mut self, make: impl FnOnce(&mut Self) -> T) -> Option<T> {
        self.flag().then(|| make(self))
    }

    /// What is taken for granted, or anything.
    fn or<T>(&mut self, usual: T, make: impl FnOnce(&mut Self) -> T) -> T {
        self.of(make).unwrap_or(usual)
    }

    /// So many at the most.
    fn some<T, C: FromIterator<T>>(&mut self, most: u32, mut make: impl FnMut(&mut Self) -> T) -> C {
        (0..self.below(most + 1)).map(|_| make(self)).collect()
    }

    fn text(&mut self) -> String {
        match self.below(3) {
            0 => self.one_of(&HOSTILE),
            1 => self.some(8, |on| on.pick(&CHARACTERS)),
            _ => self.some(4, |on| char::from_u32(on.number() % 0x11_0000).filter(|c| *c != '\0').unwrap_or('x')),
        }
    }

    /// A text with something in it.
    fn filled(&mut self) -> String {
        Some(self.text()).filter(|text| !text.is_empty()).unwrap_or_else(|| "x".to_owned())
    }

    /// A text without these characters, with something in it.
    fn without(&mut self, unwanted: &[char]) -> String {
        let text = self.text().replace(unwanted, "");
        if text.is_empty() { "x".to_owned() } else { text }
    }

    /// A text without spaces of any kind, with something in it.
    fn word(&mut self) -> String {
        let word: String = self.text().split_whitespace().collect();
        if word.is_empty() { "x".to_owned() } else { word }
    }

    /// An absolute path without `.` and `..`.
    fn path(&mut self) -> String {
        let part = self.without(&['/']);
        let part = if part == "." || part == ".." { "x".to_owned() } else { part };
        if self.flag() { format!("/{part}{}", self.path()) } else { format!("/{part}") }
    }

    fn texts(&mut self) -> Vec<String> {
        self.some(2, Self::text)
    }

    fn pairs(&mut self) -> BTreeMap<String, String> {
        self.some(2, |on| (on.word(), on.text()))
    }

    /// Labels, none of them the engine's.
    fn labels(&mut self) -> BTreeMap<String, String> {
        let mut labels = self.pairs();
        labels.retain(|name, _| !name.starts_with("deployer.") && !name.starts_with("com.docker.compose"));
        labels
    }

    /// From these milliseconds on.
    fn duration(&mut self, least: u64) -> Duration {
        let millis = match self.below(4) {
            0 => 0,
            1 => 1_000 * u64::from(self.below(100_000)),
            2 => u64::from(self.below(1_000)),
            _ => self.large() % 100_000_000_000,
        };
        Duration::from_millis(millis.max(least))
    }

    fn bytes(&mut self) -> u64 {
        match self.below(3) {
            0 => (u64::from(self.below(2_000)) + 1) << 20,
            1 => u64::from(self.below(5_000)) + 1,
            _ => (self.large() >> 4) + 1,
        }
    }

    fn integer(&mut self) -> i64 {
        self.large() as i64
    }

    fn v4(&mut self) -> IpAddr {
        self.number().to_be_bytes().into()
    }

    fn v6(&mut self) -> IpAddr {
        if self.flag() { "::1".parse().unwrap() } else { (self.large() as u128).to_be_bytes().into() }
    }

    fn ip(&mut self) -> IpAddr {
        if self.flag() { self.v6() } else { self.v4() }
    }

    fn port(&mut self) -> u16 {
        u16::try_from(self.or(80, |on| on.below(65_535) + 1)).unwrap()
    }

    fn secret(&mut self) -> SecretRef {
        SecretRef { name: self.text(), version: None }
    }

    fn hosts(&mut self) -> Vec<String> {
        self.some(2, |on| {
            let address = on.of(Self::ip).map_or_else(|| "host-gateway".to_owned(), |ip| ip.to_string());
            format!("{}:{address}", on.without(&[':', '=']))
        })
    }

    fn spec(&mut self) -> AppSpec {
        let names = &SERVICES[..=self.index(SERVICES.len())];
        let services = names
            .iter()
            .enumerate()
            .map(|(index, name)| (ServiceName::new(*name).unwrap(), self.service(u16::try_from(index).unwrap())));
        AppSpec {
            services: services.collect(),
            name: self.one_of(&["shop", "1", "null", "0x1f"]).parse().unwrap(),
            networks: NETWORKS.iter().map(|name| ((*name).to_owned(), self.network())).collect(),
            volumes: VOLUMES.iter().map(|name| ((*name).to_owned(), self.volume())).collect(),
        }
    }

    fn network(&mut self) -> NetworkSpec {
        NetworkSpec {
            name: self.of(Self::text),
            external: self.flag(),
            internal: self.flag(),
            driver: self.of(Self::text),
            driver_opts: self.pairs(),
            labels: self.labels(),
            attachable: self.flag(),
            enable_ipv6: self.flag(),
            ipam: self.of(Self::ipam).filter(|ipam| *ipam != Ipam::default()),
        }
    }

    fn ipam(&mut self) -> Ipam {
        let subnets = ["172.28.0.0/16", "fd00::/64"];
        let pool = |on: &mut Self| IpamPool {
            subnet: on.of(|on| on.one_of(&subnets)),
            ip_range: on.of(|on| on.one_of(&subnets)),
            gateway: on.of(Self::ip).map(|ip| ip.to_string()),
            aux_addresses: on.pairs(),
        };
        Ipam { driver: self.of(Self::text), options: self.pairs(), pools: self.some(2, pool) }
    }

    fn volume(&mut self) -> VolumeSpec {
        VolumeSpec {
            name: self.of(Self::text),
            external: self.flag(),
            driver: self.of(Self::text),
            driver_opts: self.pairs(),
            labels: self.labels(),
        }
    }

    /// The service of this number, which refers only to those before it.
    fn service(&mut self, number: u16) -> ServiceSpec {
        let routes = self.routes(number);
        let routed = !routes.is_empty();
        let scaling = self.of(|on| on.scaling(routed)).filter(|it| !it.targets.is_empty() || !it.schedules.is_empty());
        let replicas = match &scaling {
            Some(Scaling { min, max, .. }) => min + self.below(max - min + 1),
            None => match self.below(3) {
                0 => 1,
                1 => 0,
                _ => self.number(),
            },
        };
        let depends_on = match usize::from(number) {
            0 => BTreeMap::new(),
            before => self.some(2, |on| {
                let name = ServiceName::new(SERVICES[on.index(before)]).unwrap();
                (name, on.pick(&[Condition::Healthy, Condition::Started]))
            }),
        };
        Service {
            image: self.image(),
            workload: self.workload(number, replicas),
            replicas,
            depends_on,
            routes,
            readiness: self.or(Readiness::default(), Self::readiness),
            strategy: self.rollout(),
            gates: self.gates(routed),
            hooks: self.hooks(),
            drain: self.of(|on| on.duration(0)),
            scaling,
            balancing: self.or(Balancing::default(), |on| Balancing {
                slow_start: on.duration(0),
                sticky: on.of(|on| on.duration(1)),
                healthy_after: on.of(|on| u8::try_from(on.below(10)).unwrap_or_default() + 1),
                unhealthy_after: on.of(|on| u8::try_from(on.below(10)).unwrap_or_default() + 1),
            }),
        }
    }

    fn image(&mut self) -> ImageSource {
        match self.flag() {
            false => {
                let word = self.word().trim_start_matches('-').to_owned();
                ImageSource::Reference(if word.is_empty() { "x".to_owned() } else { word })
            }
            true => ImageSource::Build(self.build()),
        }
    }

    fn build(&mut self) -> BuildSpec {
        let inline = self.of(Self::text);
        BuildSpec {
            context: self.path().into(),
            dockerfile: self.or("Dockerfile".to_owned(), Self::text).into(),
            args: self.pairs(),
            target: self.of(Self::text),
            extra_hosts: self.hosts(),
            network: self.of(Self::text),
            shm_size: self.of(Self::bytes),
            secrets: self.some(2, |on| (on.text(), on.secret())),
            labels: self.labels(),
            no_cache: self.flag(),
            tag: self.of(Self::text),
            tags: self.texts(),
            dockerfile_inline: None,
        }
        .with_inline(inline)
    }

    fn workload(&mut self, number: u16, replicas: u32) -> Workload {
        let restart = [Restart::UnlessStopped, Restart::Always, Restart::No, Restart::OnFailure { max_retries: None }];
        let signals = ["SIGINT", "1", "SIGRTMIN+3"];
        Workload {
            entrypoint: self.of(Self::texts),
            command: self.of(Self::texts),
            env: self.env(),
            ports: self.ports(number, replicas),
            mounts: once(self.some(3, Self::mount), |mount: &Mount| &mount.target),
            files: self.files(),
            networks: self.some(2, |on| (on.one_of(&NETWORKS), on.attachment(replicas))),
            resources: self.or(Resources::default(), Self::resources),
            check: self.of(Self::check),
            stop: Stop {
                signal: self.of(|on| on.one_of(&signals)),
                grace: self.or(Stop::default().grace, |on| on.duration(0)),
            },
            restart: match self.of(Self::number) {
                Some(most) => Restart::OnFailure { max_retries: Some(most) },
                None => self.pick(&restart),
            },
            user: self.of(Self::text),
            working_dir: self.of(Self::text),
            hostname: self.of(Self::text),
            init: self.flag(),
            read_only: self.flag(),
            labels: self.labels(),
            container: self.or(ContainerOptions::default(), Self::container),
        }
    }

    fn env(&mut self) -> BTreeMap<String, EnvValue> {
        self.some(3, |on| match on.flag() {
            false => (on.word(), EnvValue::Plain(on.text())),
            true => (on.without(&['=', ' ']), EnvValue::Secret(on.secret())),
        })
    }

    /// Ports, each once, with other ones of the host than those of other services.
    fn ports(&mut self, service: u16, replicas: u32) -> Vec<Port> {
        let mut ports: Vec<Port> = Vec::new();
        for number in 0..u16::try_from(self.below(5)).unwrap() {
            let transport = if self.flag() { Transport::Udp } else { Transport::Tcp };
            let published = Published { ip: self.of(Self::ip), port: 1_000 + 100 * service + number };
            let can_be = transport == Transport::Tcp || replicas < 2;
            let port = Port {
                target: self.or(80, Self::port),
                transport,
                protocol: if self.flag() { AppProtocol::Http } else { AppProtocol::Tcp },
                published: self.of(|_| published).filter(|_| can_be),
            };
            let same = |other: &Port| {
                (other.target, other.transport, other.published) == (port.target, port.transport, port.published)
            };
            if !ports.iter().any(same) {
                ports.push(port);
            }
        }
        ports
    }

    fn mount(&mut self) -> Mount {
        let source = match self.below(4) {
            0 => MountSource::Volume(self.one_of(&VOLUMES)),
            1 => MountSource::Bind(self.path()),
            2 => MountSource::Anonymous,
            _ => MountSource::Tmpfs { size_bytes: self.of(Self::bytes), mode: self.of(|on| on.below(0o10000)) },
        };
        let is_bind = matches!(source, MountSource::Bind(_));
        let is_named = matches!(source, MountSource::Volume(_));
        let mut mount = Mount {
            target: format!("/{}", self.text()),
            read_only: self.flag(),
            create: is_bind && self.flag(),
            no_copy: !matches!(source, MountSource::Tmpfs { .. }) && self.flag(),
            propagation: self.of(|on| on.one_of(&["shared", "rslave"])).filter(|_| is_bind || is_named),
            selinux: self.of(|on| on.one_of(&["z", "Z"])).filter(|_| is_bind || is_named),
            source,
        };
        // The short form, which alone can say some of it, has no way to say a colon.
        if is_named && (mount.propagation.is_some() || mount.selinux.is_some()) || is_bind && mount.no_copy {
            mount.create = is_bind;
            mount.target = mount.target.replace(':', "");
            if let MountSource::Bind(path) = &mut mount.source {
                *path = path.replace(':', "b");
            }
        }
        mount
    }

    fn files(&mut self) -> Vec<File> {
        let file = |on: &mut Self| File {
            content: match on.flag() {
                false => FileContent::Text(on.text()),
                true => FileContent::Secret(on.secret()),
            },
            target: format!("/{}x", on.text()),
            uid: on.or(0, Self::number),
            gid: on.or(0, Self::number),
            mode: on.or(0o444, |on| on.below(0o10000)),
        };
        let mut files = once(self.some(3, file), |file: &File| &file.target);
        files.sort_by_key(|file| matches!(file.content, FileContent::Secret(_)));
        files
    }

    fn attachment(&mut self, replicas: u32) -> NetworkAttachment {
        NetworkAttachment {
            aliases: self.texts(),
            ipv4_address: self.of(Self::v4).filter(|_| replicas < 2),
            ipv6_address: self.of(Self::v6).filter(|_| replicas < 2),
            link_local_ips: self.some(1, Self::ip),
            driver_opts: self.pairs(),
        }
    }

    fn resources(&mut self) -> Resources {
        let memory_bytes = self.of(Self::bytes).map(|bytes| bytes.max(6 << 20));
        Resources {
            cpu_millis: self.of(|on| u64::from(on.below(100_000)) + 1),
            memory_bytes,
            reserved_cpu_millis: self.of(|on| u64::from(on.below(100_000)) + 1),
            reserved_memory_bytes: self.of(Self::bytes).map(|bytes| bytes.min(memory_bytes.unwrap_or(bytes))),
        }
    }

    fn check(&mut self) -> ContainerCheck {
        let usual = Duration::from_secs(30);
        ContainerCheck {
            command: match self.below(3) {
                0 => CheckCommand::Shell(self.text()),
                1 => CheckCommand::Exec(std::iter::once(self.text()).chain(self.texts()).collect()),
                _ => CheckCommand::Disabled,
            },
            interval: self.or(usual, |on| on.duration(1)),
            timeout: self.or(usual, |on| on.duration(1)),
            retries: self.or(3, Self::number),
            start_period: self.or(Duration::ZERO, |on| on.duration(0)),
        }
    }

    fn container(&mut self) -> ContainerOptions {
        let security = ["no-new-privileges=true", "seccomp=unconfined", "seccomp={\"a\": \"$x\"}", "apparmor=yes", "x"];
        ContainerOptions {
            blkio_config: self.or(BlockIo::default(), Self::block_io),
            cap_add: self.texts(),
            cap_drop: self.texts(),
            cgroup: self.of(|on| on.one_of(&["host", "private"])),
            cgroup_parent: self.of(Self::text),
            cpu_period: self.of(Self::integer),
            cpu_quota: self.of(Self::integer),
            cpu_rt_period: self.of(Self::integer),
            cpu_rt_runtime: self.of(Self::integer),
            cpu_shares: self.of(Self::integer),
            cpuset: self.of(Self::text),
            device_cgroup_rules: self.texts(),
            devices: self.some(2, |on| Device {
                source: on.text(),
                target: on.text(),
                permissions: on.or("rwm".to_owned(), Self::text),
            }),
            dns: self.texts(),
            dns_opt: self.texts(),
            dns_search: self.texts(),
            domainname: self.of(Self::text),
            extra_hosts: self.hosts(),
            gpus: self.some(2, Self::device_request),
            group_add: self.texts(),
            ipc: self.of(|on| on.one_of(&["none", "private", "shareable", "host"])),
            logging: self.of(|on| Logging { driver: on.of(Self::text), options: on.pairs() }),
            mem_swappiness: self.of(Self::integer),
            memswap_limit: self.of(|on| on.or(-1, |on| i64::try_from(on.bytes()).unwrap())),
            oom_kill_disable: self.flag(),
            oom_score_adj: self.of(|on| i64::from(on.below(2_001)) - 1_000),
            pid: self.of(|on| on.one_of(&["host"])),
            pids_limit: self.of(Self::integer),
            platform: self.of(|on| on.one_of(&["linux/amd64", "linux/arm64/v8"])),
            privileged: self.flag(),
            runtime: self.of(Self::text),
            security_opt: self.some(2, |on| on.one_of(&security)),
            shm_size: self.of(Self::bytes),
            stdin_open: self.flag(),
            storage_opt: self.pairs(),
            sysctls: self.pairs(),
            tty: self.flag(),
            ulimits: self.some(2, |on| (on.text(), Ulimit { soft: on.integer(), hard: on.integer() })),
            userns_mode: self.of(|on| on.one_of(&["host"])),
            uts: self.of(|on| on.one_of(&["host"])),
        }
    }

    fn block_io(&mut self) -> BlockIo {
        let rate = |on: &mut Self| (on.text(), on.bytes());
        BlockIo {
            weight: self.of(|on| on.number() as u16),
            weight_device: self.some(2, |on| (on.text(), on.number() as u16)),
            device_read_bps: self.some(2, rate),
            device_read_iops: self.some(2, rate),
            device_write_bps: self.some(2, rate),
            device_write_iops: self.some(2, rate),
        }
    }

    fn device_request(&mut self) -> DeviceRequest {
        let device_ids = self.texts();
        let count = self.of(|on| i64::from(on.below(9)) - 1);
        DeviceRequest {
            driver: self.of(Self::text),
            count: count.or(device_ids.is_empty().then_some(-1)),
            device_ids,
            capabilities: self.texts(),
            options: self.pairs(),
        }
    }

    /// Routes that no other service has.
    fn routes(&mut self, service: u16) -> Vec<Route> {
        let mut routes: Vec<Route> = self.some(3, |on| Route {
            host: on.of(|on| on.without(&['/', ' ', '*', ':'])),
            path: on.or("/".to_owned(), |on| format!("/{}", on.text().replace(['?', '#', ' '], ""))),
            port: on.port(),
        });
        for (number, route) in routes.iter_mut().enumerate() {
            match &mut route.host {
                Some(host) if service == 0 && number == 0 => host.push('0'),
                _ if service == 0 && number == 0 => {}
                _ => route.path = format!("/{service}.{number}{}", route.path),
            }
        }
        routes
    }

    fn readiness(&mut self) -> Readiness {
        Readiness {
            probe: match self.below(3) {
                0 => None,
                1 => Some(Probe::Tcp { port: self.port() }),
                _ => Some(Probe::Http { path: format!("/{}", self.text()), port: self.port() }),
            },
            interval: self.or(Duration::from_secs(1), |on| on.duration(0)),
            timeout: self.or(Duration::from_secs(2), |on| on.duration(0)),
            min_healthy: self.of(|on| on.duration(0)),
            deadline: self.or(Duration::from_secs(120), |on| on.duration(1)),
            progress_deadline: self.of(|on| on.duration(0)),
            crashes_allowed: self.or(2, Self::number),
        }
    }

    fn percent(&mut self) -> u8 {
        u8::try_from(self.below(100) + 1).unwrap()
    }

    fn rollout(&mut self) -> Rollout {
        match self.below(6) {
            0 => Rollout::default(),
            1 => Rollout::Recreate,
            2 => {
                let surge = self.below(3);
                let unavailable = self.below(3);
                Rollout::Rolling { surge: if unavailable == 0 { surge.max(1) } else { surge }, unavailable }
            }
            3 => Rollout::BlueGreen { bake: self.duration(0), keep_warm: self.duration(0) },
            4 => {
                let mut weights: BTreeSet<u8> = self.some(3, Self::percent);
                weights.insert(self.percent());
                let step = |weight| CanaryStep { weight, hold: self.duration(0) };
                Rollout::Canary { steps: weights.into_iter().map(step).collect() }
            }
            _ => Rollout::Linear { step: self.percent(), interval: self.duration(0) },
        }
    }

    fn gates(&mut self, routed: bool) -> Vec<GateSpec> {
        let gates = self.some(3, |on| {
            let least = |on: &mut Self| on.or(1, Self::large);
            let check = match on.below(if routed { 5 } else { 3 }) {
                0 => GateCheck::Callback { name: on.text() },
                1 => GateCheck::Approval { timeout: on.duration(0) },
                2 => GateCheck::Smoke {
                    path: format!("/{}", on.text()),
                    port: on.port(),
                    status: u16::try_from(on.or(200, |on| 100 + on.below(500))).unwrap(),
                    contains: on.of(Self::text),
                },
                3 => GateCheck::Latency { max: on.duration(0), min_requests: least(on) },
                _ => GateCheck::ErrorRate {
                    max_permille: u16::try_from(on.below(1_001)).unwrap(),
                    min_requests: least(on),
                },
            };
            let counters = matches!(check, GateCheck::Latency { .. } | GateCheck::ErrorRate { .. });
            GateSpec {
                name: on.filled(),
                check,
                at: if on.flag() && !counters { GatePoint::BeforeTraffic } else { GatePoint::Holding },
                interval: on.or(Duration::from_secs(1), |on| on.duration(10)),
                failures_allowed: on.or(0, Self::number),
                on_inconclusive: on.pick(&[OnInconclusive::Fail, OnInconclusive::Proceed]),
            }
        });
        once(gates, |gate: &GateSpec| &gate.name)
    }

    /// Hooks, and sometimes the one of services that others wait for to complete.
    fn hooks(&mut self) -> Vec<Hook> {
        let points = [HookPoint::PreDeploy, HookPoint::PostDeploy, HookPoint::PreStop];
        let hooks = self.some(2, |on| Hook {
            name: on.one_of(&["migrate", "null", "1", "run"]),
            point: on.pick(&points),
            command: on.texts(),
            timeout: on.or(Duration::from_secs(300), |on| on.duration(1)),
        });
        let mut hooks: Vec<Hook> = hooks;
        hooks.extend(self.flag().then(task_hook));
        once(hooks, |hook| &hook.name)
    }

    fn scaling(&mut self, routed: bool) -> Scaling {
        let min = self.below(9) + 1;
        let max = min + self.below(9);
        let mut targets = Vec::new();
        targets.extend(self.of(Self::percent).map(|percent| ScalingTarget::Cpu { percent }));
        targets.extend(self.of(Self::percent).map(|percent| ScalingTarget::Memory { percent }));
        let requests = self.of(|on| ScalingTarget::Requests { per_minute: on.number().max(1) });
        targets.extend(requests.filter(|_| routed));
        let schedules = self.some(3, |on| {
            let lower = on.of(|on| on.below(max) + 1);
            ScalingSchedule {
                name: on.one_of(&["night", "null", "1"]),
                cron: on.one_of(&["0 22 * * *", "*/5 1-3,5 * jan mon-fri", "1 2 3 4 *"]).parse().unwrap(),
                timezone: on.of(|on| on.one_of(&["Europe/Berlin", "Etc/GMT+1"])),
                min: lower,
                max: if lower.is_none() || on.flag() { Some(max) } else { None },
            }
        });
        Scaling { min, max, targets, schedules: once(schedules, |schedule| &schedule.name) }
    }
}

impl BuildSpec {
    /// With this text instead of a Dockerfile, if there is one.
    fn with_inline(self, inline: Option<String>) -> Self {
        match inline {
            Some(_) => Self { dockerfile: Self::default().dockerfile, dockerfile_inline: inline, ..self },
            None => self,
        }
    }
}

/// Keeps the first of those that have one name or place.
fn once<T>(mut items: Vec<T>, name: impl Fn(&T) -> &str) -> Vec<T> {
    let mut known = BTreeSet::new();
    items.retain(|item| known.insert(name(item).trim_end_matches('/').to_owned()));
    items
}
