//! Random applications that use every field of the model, with texts that want to be taken for something else. They are
//! made without `..`, so that a new field is varied too.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use proptest::collection::{btree_map, btree_set, vec};
use proptest::option::of;
use proptest::prelude::*;
use proptest::sample::{Index, select, subsequence};

use crate::model::{
    AppProtocol, AppSpec, BlockIo, BuildSpec, CanaryStep, CheckCommand, Condition, ContainerCheck, ContainerOptions,
    Device, DeviceRequest, EnvValue, File, FileContent, GateCheck, GatePoint, GateSpec, Hook, HookPoint, ImageSource,
    Ipam, IpamPool, Logging, Mount, MountSource, NetworkAttachment, NetworkSpec, OnInconclusive, Port, Probe,
    Published, Readiness, Resources, Restart, Route, Scaling, ScalingSchedule, ScalingTarget, SecretRef, Service,
    ServiceName, ServiceSpec, Stop, Strategy as Rollout, Transport, Ulimit, VolumeSpec, Workload,
};

/// Texts that are something else without quotes, or need care within them.
const HOSTILE: [&str; 50] = [
    "",
    " ",
    "~",
    "null",
    "Null",
    "yes",
    "No",
    "on",
    "true",
    "1",
    "-1",
    "0755",
    "0x1f",
    "0o17",
    "1e3",
    "1_000",
    ".5",
    ".inf",
    "-.INF",
    "22:22",
    "2001-01-01",
    "a: b",
    "a:",
    "a #b",
    "#",
    "- a",
    "-",
    "---",
    "...",
    "{a: b}",
    "[a]",
    "*a",
    "&a",
    "!a",
    "|",
    "> ",
    "%a",
    "@a",
    "`a`",
    "'a'",
    "\"a\"",
    "\\",
    "$",
    "$$",
    "${X}",
    "${X:-",
    "<<",
    "=",
    "a\nb\n",
    "!reset",
];

const SERVICES: [&str; 5] = ["web", "y", "1", "null", "a.b-c_d"];
const VOLUMES: [&str; 3] = ["data", "0x1f", "on"];
const NETWORKS: [&str; 4] = ["back", "default", "null", "1e3"];

/// Any text. What holds a NUL is refused in every file.
pub(super) fn text() -> BoxedStrategy<String> {
    let any = prop_oneof![
        4 => select(&HOSTILE[..]).prop_map(str::to_owned),
        2 => "[a-z/.:=, -]{0,8}",
        1 => "\\PC{0,8}",
        1 => "[ab \t\n\r\u{85}\u{2028}\u{feff}\u{7}\u{1f600}'\"\\\\$#:|-]{0,12}",
        1 => "(  )?([ab:#$'\"\t-]{0,4} ?\n){0,5}[ab]?",
        1 => any::<String>(),
    ];
    any.prop_map(|text| text.replace('\0', "")).boxed()
}

/// A text that is not empty, and has no spaces of any kind.
fn word() -> BoxedStrategy<String> {
    text().prop_map(|text| text.split_whitespace().collect::<String>()).prop_map(or("x")).boxed()
}

/// The text, or this one if it is empty.
fn or(other: &'static str) -> impl Fn(String) -> String {
    move |text| if text.is_empty() { other.to_owned() } else { text }
}

/// A part of a path.
fn part() -> BoxedStrategy<String> {
    text()
        .prop_map(|text| text.replace('/', ""))
        .prop_map(|text| if matches!(&*text, "" | "." | "..") { "p".to_owned() } else { text })
        .boxed()
}

/// An absolute path without `.` and `..`.
fn path() -> BoxedStrategy<String> {
    vec(part(), 1..3).prop_map(|parts| format!("/{}", parts.join("/"))).boxed()
}

fn pairs() -> BoxedStrategy<BTreeMap<String, String>> {
    prop_oneof![2 => Just(BTreeMap::new()), 1 => btree_map(word(), text(), 1..3)].boxed()
}

fn texts() -> BoxedStrategy<Vec<String>> {
    prop_oneof![2 => Just(Vec::new()), 1 => vec(text(), 1..3)].boxed()
}

/// Milliseconds, from this many on.
fn duration(least: u64) -> BoxedStrategy<Duration> {
    let millis = prop_oneof![Just(0), Just(1_000), Just(10_000), 0..200_000_u64, 0..100_000_000_000_u64];
    millis.prop_map(move |millis| Duration::from_millis(millis.max(least))).boxed()
}

fn bytes() -> BoxedStrategy<u64> {
    prop_oneof![1..5_000_u64, (1..2_000_u64).prop_map(|n| n << 20), 1..1_u64 << 60].boxed()
}

fn secret() -> BoxedStrategy<SecretRef> {
    text().prop_map(SecretRef::new).boxed()
}

fn flag() -> impl Strategy<Value = bool> {
    proptest::bool::weighted(0.3)
}

fn v4() -> impl Strategy<Value = IpAddr> {
    any::<Ipv4Addr>().prop_map(IpAddr::from)
}

fn ip() -> BoxedStrategy<IpAddr> {
    prop_oneof![v4(), any::<Ipv6Addr>().prop_map(IpAddr::from)].boxed()
}

fn build() -> impl Strategy<Value = BuildSpec> {
    let dockerfile = prop_oneof![
        Just(("Dockerfile".to_owned(), None)),
        text().prop_map(|file| (file, None)),
        text().prop_map(|inline| ("Dockerfile".to_owned(), Some(inline))),
    ];
    (
        (path(), dockerfile, pairs(), of(text()), hosts(), of(text()), of(bytes())),
        (btree_map(text(), secret(), 0..3), pairs(), flag(), of(text()), texts()),
    )
        .prop_map(
            |(
                (context, dockerfile, args, target, extra_hosts, network, shm_size),
                (secrets, labels, no_cache, tag, tags),
            )| {
                BuildSpec {
                    context: context.into(),
                    dockerfile: dockerfile.0.into(),
                    dockerfile_inline: dockerfile.1,
                    args,
                    target,
                    extra_hosts,
                    network,
                    shm_size,
                    secrets,
                    labels: own(labels),
                    no_cache,
                    tag,
                    tags,
                }
            },
        )
}

/// Labels without those that are the engine's.
fn own(mut labels: BTreeMap<String, String>) -> BTreeMap<String, String> {
    labels.retain(|name, _| !name.starts_with("deployer.") && !name.starts_with("com.docker.compose"));
    labels
}

fn hosts() -> BoxedStrategy<Vec<String>> {
    let address = prop_oneof![Just("host-gateway".to_owned()), ip().prop_map(|ip| ip.to_string())];
    let name = text().prop_map(|text| text.replace([':', '='], "")).prop_map(or("h"));
    vec((name, address).prop_map(|(name, address)| format!("{name}:{address}")), 0..3).boxed()
}

fn image() -> BoxedStrategy<ImageSource> {
    let reference = word().prop_map(|text| text.trim_start_matches('-').to_owned()).prop_map(or("x"));
    prop_oneof![reference.prop_map(ImageSource::Reference), build().prop_map(ImageSource::Build)].boxed()
}

fn port() -> impl Strategy<Value = (u16, bool, bool, Option<Option<IpAddr>>)> {
    (prop_oneof![1..4_u16, 1..=u16::MAX], flag(), flag(), of(of(ip())))
}

/// Ports, each once; the host's ports begin at `host`, so that every service has others.
fn ports(drafts: Vec<(u16, bool, bool, Option<Option<IpAddr>>)>, host: u16, replicas: u32) -> Vec<Port> {
    let mut ports: Vec<Port> = Vec::new();
    for (number, (target, udp, http, entry)) in (0..).zip(drafts) {
        let port = Port {
            target,
            transport: if udp { Transport::Udp } else { Transport::Tcp },
            protocol: if http { AppProtocol::Http } else { AppProtocol::Tcp },
            published: entry.filter(|_| !udp || replicas < 2).map(|ip| Published { ip, port: host + number }),
        };
        let same =
            |other: &Port| (other.target, other.transport, other.published) == (target, port.transport, port.published);
        if !ports.iter().any(same) {
            ports.push(port);
        }
    }
    ports
}

fn mount() -> BoxedStrategy<Mount> {
    let propagation = || of(select(&["shared", "rslave", "private"][..]).prop_map(str::to_owned));
    let selinux = || of(select(&["z", "Z"][..]).prop_map(str::to_owned));
    let volume = || select(&VOLUMES[..]).prop_map(|name| MountSource::Volume(name.to_owned()));
    let new = |source, (target, read_only)| Mount {
        source,
        target,
        read_only,
        create: false,
        no_copy: false,
        propagation: None,
        selinux: None,
    };
    let at = || (part().prop_map(|part| format!("/{part}")), flag());
    let short_at = || (part().prop_map(|part| format!("/{}", part.replace(':', ""))), flag());
    prop_oneof![
        (at(), volume(), flag()).prop_map(move |(at, source, no_copy)| Mount { no_copy, ..new(source, at) }),
        // What only the short form can say.
        (short_at(), volume(), flag(), propagation(), selinux()).prop_map(
            move |(at, source, no_copy, propagation, selinux)| Mount {
                no_copy,
                propagation,
                selinux,
                ..new(source, at)
            }
        ),
        (short_at(), path(), propagation(), selinux()).prop_map(move |(at, path, propagation, selinux)| {
            let source = MountSource::Bind(path.replace(':', ""));
            Mount { no_copy: true, create: true, propagation, selinux, ..new(source, at) }
        }),
        (at(), flag()).prop_map(move |(at, no_copy)| Mount { no_copy, ..new(MountSource::Anonymous, at) }),
        (at(), path(), flag(), propagation(), selinux()).prop_map(move |(at, path, create, propagation, selinux)| {
            Mount { create, propagation, selinux, ..new(MountSource::Bind(path), at) }
        }),
        (at(), of(bytes()), of(0..=0o7777_u32))
            .prop_map(move |(at, size_bytes, mode)| new(MountSource::Tmpfs { size_bytes, mode }, at)),
    ]
    .boxed()
}

fn file() -> impl Strategy<Value = File> {
    let content = prop_oneof![text().prop_map(FileContent::Text), secret().prop_map(FileContent::Secret)];
    let id = || prop_oneof![2 => Just(0), 1 => any::<u32>()];
    (content, part(), id(), id(), prop_oneof![Just(0o444), 0..=0o7777_u32])
        .prop_map(|(content, part, uid, gid, mode)| File { content, target: format!("/etc/{part}"), uid, gid, mode })
}

/// Keeps the first of those that are at one place.
fn once<T>(mut items: Vec<T>, place: impl Fn(&T) -> &str) -> Vec<T> {
    let mut known = std::collections::BTreeSet::new();
    items.retain(|item| known.insert(place(item).trim_end_matches('/').to_owned()));
    items
}

fn attachments() -> BoxedStrategy<BTreeMap<String, NetworkAttachment>> {
    let attachment = (texts(), of(v4()), of(any::<Ipv6Addr>()), vec(ip(), 0..2), pairs()).prop_map(
        |(aliases, ipv4_address, ipv6_address, link_local_ips, driver_opts)| NetworkAttachment {
            aliases,
            ipv4_address,
            ipv6_address: ipv6_address.map(IpAddr::from),
            link_local_ips,
            driver_opts,
        },
    );
    let attachment = prop_oneof![Just(NetworkAttachment::default()), attachment];
    prop_oneof![Just(BTreeMap::new()), btree_map(select(&NETWORKS[..]).prop_map(str::to_owned), attachment, 0..3)]
        .boxed()
}

fn resources() -> impl Strategy<Value = Resources> {
    (of(1..100_000_u64), of(bytes()), of(1..100_000_u64), of(bytes())).prop_map(
        |(cpu_millis, memory, reserved_cpu_millis, reserved)| {
            let memory_bytes = memory.map(|bytes| bytes.max(6 << 20));
            let reserved_memory_bytes = reserved.map(|bytes| bytes.min(memory_bytes.unwrap_or(bytes)));
            Resources { cpu_millis, memory_bytes, reserved_cpu_millis, reserved_memory_bytes }
        },
    )
}

fn check() -> impl Strategy<Value = ContainerCheck> {
    let command = prop_oneof![
        vec(text(), 1..4).prop_map(CheckCommand::Exec),
        text().prop_map(CheckCommand::Shell),
        Just(CheckCommand::Disabled),
    ];
    let period = || prop_oneof![Just(Duration::from_secs(30)), duration(1)];
    (command, period(), period(), prop_oneof![Just(3), any::<u32>()], duration(0)).prop_map(
        |(command, interval, timeout, retries, start_period)| ContainerCheck {
            command,
            interval,
            timeout,
            retries,
            start_period,
        },
    )
}

fn block_io() -> impl Strategy<Value = BlockIo> {
    let rates = || btree_map(text(), bytes(), 0..2);
    (of(any::<u16>()), btree_map(text(), any::<u16>(), 0..2), rates(), rates(), rates(), rates()).prop_map(
        |(weight, weight_device, device_read_bps, device_read_iops, device_write_bps, device_write_iops)| BlockIo {
            weight,
            weight_device,
            device_read_bps,
            device_read_iops,
            device_write_bps,
            device_write_iops,
        },
    )
}

fn device() -> impl Strategy<Value = Device> {
    (text(), text(), prop_oneof![Just("rwm".to_owned()), text()]).prop_map(|(source, target, permissions)| Device {
        source,
        target,
        permissions,
    })
}

fn device_request() -> impl Strategy<Value = DeviceRequest> {
    (of(text()), of(-1..9_i64), texts(), texts(), pairs()).prop_map(
        |(driver, count, device_ids, capabilities, options)| DeviceRequest {
            driver,
            count: count.or(device_ids.is_empty().then_some(-1)),
            device_ids,
            capabilities,
            options,
        },
    )
}

fn container() -> BoxedStrategy<ContainerOptions> {
    let some = |known: &'static [&'static str]| of(select(known).prop_map(str::to_owned));
    let number = || of(any::<i64>());
    let security = vec(
        select(
            &["no-new-privileges=true", "seccomp=unconfined", "seccomp={\"a\": \"$x\"}", "apparmor=yes", "label"][..],
        ),
        0..3,
    );
    let limit = (any::<i64>(), any::<i64>()).prop_map(|(soft, hard)| Ulimit { soft, hard });
    (
        (block_io(), texts(), texts(), some(&["host", "private"]), of(text()), of(text()), texts(), texts()),
        (number(), number(), number(), number(), number(), number(), of(-1000..=1000_i64), number()),
        (vec(device(), 0..2), texts(), texts(), of(text()), hosts(), vec(device_request(), 0..2), texts()),
        (
            some(&["none", "shareable", "host"]),
            of((of(text()), pairs()).prop_map(|(driver, options)| Logging { driver, options })),
            of(prop_oneof![Just(-1), 0..i64::MAX]),
            some(&["host"]),
            of(select(&["linux/amd64", "linux/arm64/v8"][..]).prop_map(str::to_owned)),
            of(text()),
            security.prop_map(|options| options.into_iter().map(str::to_owned).collect::<Vec<_>>()),
        ),
        ([flag(), flag(), flag(), flag()], of(bytes()), pairs(), pairs(), btree_map(text(), limit, 0..2)),
        (some(&["host"]), some(&["host"]), texts()),
    )
        .prop_map(
            |(
                (blkio_config, cap_add, cap_drop, cgroup, cgroup_parent, cpuset, device_cgroup_rules, dns),
                (
                    cpu_period,
                    cpu_quota,
                    cpu_rt_period,
                    cpu_rt_runtime,
                    cpu_shares,
                    swappiness,
                    oom_score_adj,
                    pids_limit,
                ),
                (devices, dns_opt, dns_search, domainname, extra_hosts, gpus, group_add),
                (ipc, logging, memswap_limit, pid, platform, runtime, security_opt),
                ([oom_kill_disable, privileged, stdin_open, tty], shm_size, storage_opt, sysctls, ulimits),
                (userns_mode, uts, _),
            )| ContainerOptions {
                blkio_config,
                cap_add,
                cap_drop,
                cgroup,
                cgroup_parent,
                cpu_period,
                cpu_quota,
                cpu_rt_period,
                cpu_rt_runtime,
                cpu_shares,
                cpuset,
                device_cgroup_rules,
                devices,
                dns,
                dns_opt,
                dns_search,
                domainname,
                extra_hosts,
                gpus,
                group_add,
                ipc,
                logging,
                mem_swappiness: swappiness,
                memswap_limit,
                oom_kill_disable,
                oom_score_adj,
                pid,
                pids_limit,
                platform,
                privileged,
                runtime,
                security_opt,
                shm_size,
                stdin_open,
                storage_opt,
                sysctls,
                tty,
                ulimits,
                userns_mode,
                uts,
            },
        )
        .boxed()
}

fn env() -> BoxedStrategy<BTreeMap<String, EnvValue>> {
    let plain = (word(), text().prop_map(EnvValue::Plain));
    let secret = (word().prop_map(|name| name.replace('=', "")).prop_map(or("E")), secret().prop_map(EnvValue::Secret));
    vec(prop_oneof![plain, secret], 0..4).prop_map(|entries| entries.into_iter().collect()).boxed()
}

fn workload() -> BoxedStrategy<Workload> {
    let restart = prop_oneof![
        3 => Just(Restart::UnlessStopped),
        1 => Just(Restart::Always),
        1 => Just(Restart::No),
        1 => of(any::<u32>()).prop_map(|max_retries| Restart::OnFailure { max_retries }),
    ];
    let signal = of(select(&["SIGINT", "1", "SIGRTMIN+3"][..]).prop_map(str::to_owned));
    let stop = (signal, duration(0)).prop_map(|(signal, grace)| Stop { signal, grace });
    let container = prop_oneof![Just(ContainerOptions::default()), container()];
    (
        (of(vec(text(), 0..3)), of(vec(text(), 0..3)), env(), vec(mount(), 0..4), vec(file(), 0..4), attachments()),
        (resources(), of(check()), stop, restart, of(text()), of(text()), of(text())),
        (flag(), flag(), pairs(), container),
    )
        .prop_map(
            |(
                (entrypoint, command, env, mounts, files, networks),
                (resources, check, stop, restart, user, working_dir, hostname),
                (init, read_only, labels, container),
            )| {
                let mut files = once(files, |file| &file.target);
                files.sort_by_key(|file| matches!(file.content, FileContent::Secret(_)));
                Workload {
                    entrypoint,
                    command,
                    env,
                    ports: Vec::new(),
                    mounts: once(mounts, |mount| &mount.target),
                    files,
                    networks,
                    resources,
                    check,
                    stop,
                    restart,
                    user,
                    working_dir,
                    hostname,
                    init,
                    read_only,
                    labels: own(labels),
                    container,
                }
            },
        )
        .boxed()
}

fn readiness() -> BoxedStrategy<Readiness> {
    let probe = prop_oneof![
        (text(), 1..=u16::MAX).prop_map(|(path, port)| Probe::Http { path: format!("/{path}"), port }),
        (1..=u16::MAX).prop_map(|port| Probe::Tcp { port }),
    ];
    let other = (
        of(probe),
        duration(0),
        duration(0),
        of(duration(0)),
        prop_oneof![Just(Duration::from_secs(120)), duration(1)],
        of(duration(0)),
        prop_oneof![Just(2), any::<u32>()],
    )
        .prop_map(|(probe, interval, timeout, min_healthy, deadline, progress_deadline, crashes_allowed)| Readiness {
            probe,
            interval,
            timeout,
            min_healthy,
            deadline,
            progress_deadline,
            crashes_allowed,
        });
    prop_oneof![Just(Readiness::default()), other].boxed()
}

fn rollout() -> BoxedStrategy<Rollout> {
    prop_oneof![
        Just(Rollout::default()),
        Just(Rollout::Recreate),
        (0..4_u32, 0..4_u32).prop_map(|(surge, unavailable)| Rollout::Rolling { surge: surge.max(1), unavailable }),
        (0..4_u32).prop_map(|more| Rollout::Rolling { surge: 0, unavailable: more + 1 }),
        (duration(0), duration(0)).prop_map(|(bake, keep_warm)| Rollout::BlueGreen { bake, keep_warm }),
        (btree_set(1..=100_u8, 1..4), duration(0)).prop_map(|(weights, hold)| Rollout::Canary {
            steps: weights.into_iter().map(|weight| CanaryStep { weight, hold }).collect()
        }),
        (1..=100_u8, duration(0)).prop_map(|(step, interval)| Rollout::Linear { step, interval }),
    ]
    .boxed()
}

fn gate() -> BoxedStrategy<GateSpec> {
    let least = || prop_oneof![Just(1), any::<u64>()];
    let check = prop_oneof![
        (text(), 1..=u16::MAX, prop_oneof![Just(200), 100..600_u16], of(text())).prop_map(
            |(path, port, status, contains)| GateCheck::Smoke { path: format!("/{path}"), port, status, contains }
        ),
        (0..=1_000_u16, least())
            .prop_map(|(max_permille, min_requests)| GateCheck::ErrorRate { max_permille, min_requests }),
        (duration(0), least()).prop_map(|(max, min_requests)| GateCheck::Latency { max, min_requests }),
        duration(0).prop_map(|timeout| GateCheck::Approval { timeout }),
        text().prop_map(|name| GateCheck::Callback { name }),
    ];
    let at = select(&[GatePoint::BeforeTraffic, GatePoint::Holding][..]);
    let policy = select(&[OnInconclusive::Fail, OnInconclusive::Proceed][..]);
    let interval = prop_oneof![Just(Duration::from_secs(1)), duration(10)];
    (text().prop_map(or("g")), check, at, interval, prop_oneof![Just(0), any::<u32>()], policy)
        .prop_map(|(name, check, at, interval, failures_allowed, on_inconclusive)| GateSpec {
            name,
            check,
            at,
            interval,
            failures_allowed,
            on_inconclusive,
        })
        .boxed()
}

fn hooks() -> BoxedStrategy<Vec<Hook>> {
    let points = [HookPoint::PreDeploy, HookPoint::PostDeploy, HookPoint::PreStop];
    let names = subsequence(vec!["migrate", "null", "1"], 0..=3);
    let rest = (select(points.to_vec()), texts(), prop_oneof![Just(Duration::from_secs(300)), duration(1)]);
    let work = (names, vec(rest, 3)).prop_map(|(names, rest)| {
        let hook =
            |(name, (point, command, timeout)): (&str, _)| Hook { name: name.to_owned(), point, command, timeout };
        names.into_iter().zip(rest).map(hook).collect::<Vec<_>>()
    });
    // What a service that others wait for to complete is made of.
    (work, flag())
        .prop_map(|(mut hooks, task)| {
            hooks.extend(task.then(super::super::app::task_hook));
            hooks
        })
        .boxed()
}

fn scaling() -> BoxedStrategy<Scaling> {
    let percent = || of(1..=100_u8);
    let target = (percent(), percent(), of(1..=u32::MAX));
    let zone = of(select(&["Europe/Berlin", "Etc/GMT+1"][..]).prop_map(str::to_owned));
    let cron = select(&["0 22 * * *", "*/5 1-3,5 * jan mon-fri", "1 2 3 4 *"][..]);
    let schedule = (cron, zone, any::<[bool; 2]>());
    (1..9_u32, 0..9_u32, target, vec(schedule, 0..3))
        .prop_map(|(min, more, (cpu, memory, requests), schedules)| {
            let max = min + more;
            let mut targets: Vec<ScalingTarget> = Vec::new();
            targets.extend(cpu.map(|percent| ScalingTarget::Cpu { percent }));
            targets.extend(memory.map(|percent| ScalingTarget::Memory { percent }));
            targets.extend(requests.map(|per_minute| ScalingTarget::Requests { per_minute }));
            let schedule =
                |(number, (cron, timezone, [has_min, has_max])): (usize, (&str, _, [bool; 2]))| ScalingSchedule {
                    name: number.to_string(),
                    cron: cron.parse().unwrap(),
                    timezone,
                    min: (has_min || !has_max).then_some(min),
                    max: has_max.then_some(max),
                };
            Scaling { min, max, targets, schedules: schedules.into_iter().enumerate().map(schedule).collect() }
        })
        .boxed()
}

/// A service as far as it can be said without the others.
#[derive(Clone, Debug)]
struct Draft {
    spec: ServiceSpec,
    ports: Vec<(u16, bool, bool, Option<Option<IpAddr>>)>,
    /// On which of the services before it depends.
    depends_on: Vec<(Index, Condition)>,
}

fn draft() -> BoxedStrategy<Draft> {
    let route = (of("[a-z]{1,5}"), text().prop_map(|path| path.replace(['?', '#', ' '], "")), 1..=u16::MAX);
    let replicas = prop_oneof![2 => Just(1), 1 => Just(0), 1 => any::<u32>()];
    let condition = select(&[Condition::Started, Condition::Healthy, Condition::Healthy][..]);
    (
        (image(), workload(), replicas, vec(route, 0..3), readiness(), rollout()),
        (vec(gate(), 0..3), hooks(), of(duration(0)), proptest::option::weighted(0.3, scaling())),
        (vec(port(), 0..5), vec((any::<Index>(), condition), 0..3)),
    )
        .prop_map(|((image, workload, replicas, routes, readiness, strategy), (gates, hooks, drain, scaling), rest)| {
            let route = |(host, path, port)| Route { host, path: format!("/{path}"), port };
            let spec = Service {
                image,
                workload,
                replicas,
                depends_on: BTreeMap::new(),
                routes: routes.into_iter().map(route).collect(),
                readiness,
                strategy,
                gates: once(gates, |gate| &gate.name),
                hooks,
                drain,
                scaling,
            };
            Draft { spec, ports: rest.0, depends_on: rest.1 }
        })
        .boxed()
}

/// Brings what a draft says into agreement with itself and the services before it.
fn settled(draft: Draft, index: usize) -> ServiceSpec {
    let Draft { mut spec, ports: drafts, depends_on } = draft;
    for (number, route) in spec.routes.iter_mut().enumerate() {
        route.host = route.host.take().map(|host| format!("{host}{index}"));
        if route.host.is_none() || number > 0 {
            route.path = format!("/{index}{number}{}", route.path);
        }
    }
    if let Some(scaling) = &mut spec.scaling {
        spec.replicas = spec.replicas.clamp(scaling.min, scaling.max);
        if spec.routes.is_empty() {
            scaling.targets.retain(|target| !matches!(target, ScalingTarget::Requests { .. }));
        }
        if scaling.targets.is_empty() && scaling.schedules.is_empty() {
            spec.scaling = None;
        }
    }
    for gate in &mut spec.gates {
        if matches!(gate.check, GateCheck::ErrorRate { .. } | GateCheck::Latency { .. }) {
            gate.at = GatePoint::Holding;
            if spec.routes.is_empty() {
                gate.check = GateCheck::Callback { name: "c".to_owned() };
            }
        }
    }
    if spec.replicas > 1 {
        for attachment in spec.workload.networks.values_mut() {
            (attachment.ipv4_address, attachment.ipv6_address) = (None, None);
        }
    }
    spec.workload.ports = ports(drafts, 1_000 + 100 * u16::try_from(index).unwrap(), spec.replicas);
    for (before, condition) in depends_on.iter().filter(|_| index > 0) {
        spec.depends_on.insert(ServiceName::new(SERVICES[before.index(index)]).unwrap(), *condition);
    }
    spec
}

fn network() -> impl Strategy<Value = NetworkSpec> {
    let subnet = || of(select(&["172.28.0.0/16", "fd00::/64"][..]).prop_map(str::to_owned));
    let pool = (subnet(), subnet(), of(ip().prop_map(|ip| ip.to_string())), pairs())
        .prop_map(|(subnet, ip_range, gateway, aux_addresses)| IpamPool { subnet, ip_range, gateway, aux_addresses });
    let ipam = (of(text()), pairs(), vec(pool, 0..3))
        .prop_map(|(driver, options, pools)| Ipam { driver, options, pools })
        .prop_map(|ipam| (ipam != Ipam::default()).then_some(ipam));
    (of(text()), flag(), flag(), of(text()), pairs(), pairs(), flag(), flag(), ipam).prop_map(
        |(name, external, internal, driver, driver_opts, labels, attachable, enable_ipv6, ipam)| NetworkSpec {
            name,
            external,
            internal,
            driver,
            driver_opts,
            labels: own(labels),
            attachable,
            enable_ipv6,
            ipam,
        },
    )
}

fn volume() -> impl Strategy<Value = VolumeSpec> {
    (of(text()), flag(), of(text()), pairs(), pairs()).prop_map(|(name, external, driver, driver_opts, labels)| {
        VolumeSpec { name, external, driver, driver_opts, labels: own(labels) }
    })
}

/// Any application that is valid.
pub(super) fn spec() -> BoxedStrategy<AppSpec> {
    let name = select(&["shop", "1", "null", "0x1f"][..]);
    (name, vec(draft(), 1..=3), vec(network(), NETWORKS.len()), vec(volume(), VOLUMES.len()))
        .prop_map(|(name, drafts, networks, volumes)| {
            let service = |(index, draft)| (ServiceName::new(SERVICES[index]).unwrap(), settled(draft, index));
            AppSpec {
                name: name.parse().unwrap(),
                services: drafts.into_iter().enumerate().map(service).collect(),
                networks: NETWORKS.iter().map(|name| (*name).to_owned()).zip(networks).collect(),
                volumes: VOLUMES.iter().map(|name| (*name).to_owned()).zip(volumes).collect(),
            }
        })
        .boxed()
}
