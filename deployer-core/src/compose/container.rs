//! The keys of a service that only a platform of containers can heed.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::cursor::{Cursor, Field, Fields};
use super::report::Report;
use super::{Project, formats, keys};
use crate::model::{BlockIo, ContainerOptions, Device, DeviceRequest, Logging, Ulimit};

pub(super) fn read(report: &mut Report, project: &Project<'_>, service: &Fields<'_>) -> ContainerOptions {
    let mut options = ContainerOptions::default();
    if let Some(cursor) = service.get("blkio_config") {
        options.blkio_config = block_io(report, &cursor);
    }
    options.cap_add = texts(report, service, "cap_add");
    options.cap_drop = texts(report, service, "cap_drop");
    options.cgroup = one_of(report, service, "cgroup", &["host", "private"]);
    options.cgroup_parent = service.text(report, "cgroup_parent");
    options.cpu_period = micros(report, service, "cpu_period");
    options.cpu_quota = micros(report, service, "cpu_quota");
    options.cpu_rt_period = micros(report, service, "cpu_rt_period");
    options.cpu_rt_runtime = micros(report, service, "cpu_rt_runtime");
    options.cpu_shares = service.number(report, "cpu_shares");
    options.cpuset = service.text(report, "cpuset");
    options.device_cgroup_rules = texts(report, service, "device_cgroup_rules");
    if let Some(cursor) = service.get("devices") {
        options.devices = report.items(&cursor).iter().filter_map(|item| device(report, item)).collect();
    }
    options.dns = texts(report, service, "dns");
    options.dns_opt = texts(report, service, "dns_opt");
    options.dns_search = texts(report, service, "dns_search");
    options.domainname = service.text(report, "domainname");
    options.extra_hosts = extra_hosts(report, service);
    if let Some(cursor) = service.get("gpus") {
        options.gpus = gpus(report, &cursor);
    }
    options.group_add = texts(report, service, "group_add");
    options.ipc = one_of(report, service, "ipc", &["none", "private", "shareable", "host"]);
    options.logging = service.get("logging").and_then(|cursor| logging(report, &cursor));
    options.mem_swappiness = service.number(report, "mem_swappiness");
    options.memswap_limit = service.get("memswap_limit").and_then(|cursor| {
        let size = |text: &str| if text == "-1" { Some(-1) } else { i64::try_from(formats::bytes(text)?).ok() };
        report.parsed(&cursor, "a size such as `1gb`, or `-1`", size)
    });
    options.oom_kill_disable = service.flag(report, "oom_kill_disable").unwrap_or_default();
    options.oom_score_adj = service.get("oom_score_adj").and_then(|cursor| {
        let score = |text: &str| text.parse().ok().filter(|score| (-1000..=1000).contains(score));
        report.parsed(&cursor, "a number from -1000 to 1000", score)
    });
    options.pid = one_of(report, service, "pid", &["host"]);
    options.platform = service.get("platform").and_then(|cursor| {
        let platform = |text: &str| (text.split('/').filter(|part| !part.is_empty()).count() >= 2).then(|| text.into());
        report.parsed(&cursor, "a platform such as `linux/amd64`", platform)
    });
    options.privileged = service.flag(report, "privileged").unwrap_or_default();
    options.runtime = service.text(report, "runtime");
    options.security_opt = security_opt(report, project, service);
    options.shm_size = service.get("shm_size").and_then(|cursor| report.bytes(&cursor));
    options.stdin_open = service.flag(report, "stdin_open").unwrap_or_default();
    options.storage_opt = pairs(report, service, "storage_opt");
    options.sysctls = pairs(report, service, "sysctls");
    options.tty = service.flag(report, "tty").unwrap_or_default();
    if let Some(cursor) = service.get("ulimits") {
        for Field { key, value, .. } in report.entries(&cursor) {
            if let Some(limit) = ulimit(report, &value) {
                options.ulimits.insert(key.to_owned(), limit);
            }
        }
    }
    options.userns_mode = one_of(report, service, "userns_mode", &["host"]);
    options.uts = one_of(report, service, "uts", &["host"]);
    options
}

/// A list of texts, or one that stands for a list of it.
fn texts(report: &mut Report, service: &Fields<'_>, key: &str) -> Vec<String> {
    let Some(cursor) = service.get(key) else { return Vec::new() };
    report.one_or_more(&cursor).iter().filter_map(|item| report.text(item)).collect()
}

pub(super) fn pairs(report: &mut Report, service: &Fields<'_>, key: &str) -> BTreeMap<String, String> {
    let Some(cursor) = service.get(key) else { return BTreeMap::new() };
    report.pairs(&cursor).into_iter().map(|(name, value, _)| (name, value.unwrap_or_default())).collect()
}

fn one_of(report: &mut Report, service: &Fields<'_>, key: &str, known: &[&str]) -> Option<String> {
    let cursor = service.get(key)?;
    let needed: Vec<String> = known.iter().map(|value| format!("`{value}`")).collect();
    let value = |text: &str| known.contains(&text).then(|| text.to_owned());
    report.parsed(&cursor, &needed.join(" or "), value)
}

/// Microseconds: a number of them, or a duration.
fn micros(report: &mut Report, service: &Fields<'_>, key: &str) -> Option<i64> {
    let cursor = service.get(key)?;
    report.parsed(&cursor, "a number of microseconds, or a duration such as `50ms`", |text| {
        text.parse().ok().or_else(|| formats::micros(text))
    })
}

fn block_io(report: &mut Report, cursor: &Cursor<'_>) -> BlockIo {
    let mut io = BlockIo::default();
    let Some(fields) = report.fields(cursor, &keys::BLKIO) else { return io };
    io.weight = fields.number(report, "weight");
    if let Some(cursor) = fields.get("weight_device") {
        for item in report.items(&cursor) {
            let Some(fields) = report.fields(&item, &keys::WEIGHT) else { continue };
            let path = fields.require(report, "path").and_then(|cursor| report.text(&cursor));
            let weight = fields.require(report, "weight").and_then(|cursor| report.number(&cursor));
            io.weight_device.extend(path.zip(weight));
        }
    }
    for (key, rates) in [
        ("device_read_bps", &mut io.device_read_bps),
        ("device_read_iops", &mut io.device_read_iops),
        ("device_write_bps", &mut io.device_write_bps),
        ("device_write_iops", &mut io.device_write_iops),
    ] {
        let Some(cursor) = fields.get(key) else { continue };
        for item in report.items(&cursor) {
            let Some(fields) = report.fields(&item, &keys::RATE) else { continue };
            let path = fields.require(report, "path").and_then(|cursor| report.text(&cursor));
            let rate = fields.require(report, "rate").and_then(|cursor| report.bytes(&cursor));
            rates.extend(path.zip(rate));
        }
    }
    io
}

/// `SOURCE[:TARGET[:PERMISSIONS]]`, or a mapping.
fn device(report: &mut Report, cursor: &Cursor<'_>) -> Option<Device> {
    let all = || "rwm".to_owned();
    if cursor.is_map() {
        let fields = report.fields(cursor, &keys::DEVICE)?;
        let source = fields.require(report, "source").and_then(|cursor| report.text(&cursor));
        let (target, permissions) = (fields.text(report, "target"), fields.text(report, "permissions"));
        let source = source?;
        let (target, permissions) = (target.unwrap_or_else(|| source.clone()), permissions.unwrap_or_else(all));
        return Some(Device { source, target, permissions });
    }
    report.parsed(cursor, "a device such as `/dev/ttyUSB0:/dev/ttyUSB0:rwm`", |text| {
        let parts: Vec<&str> = text.split(':').collect();
        let (source, target, permissions) = match parts[..] {
            [source] => (source, source, "rwm"),
            [source, target] => (source, target, "rwm"),
            [source, target, permissions] => (source, target, permissions),
            _ => return None,
        };
        let good = source.starts_with('/') && target.starts_with('/') && permissions.chars().all(|c| "rwm".contains(c));
        let own = |text: &str| text.to_owned();
        good.then(|| Device { source: own(source), target: own(target), permissions: own(permissions) })
    })
}

/// `all`, or a list of requests.
fn gpus(report: &mut Report, cursor: &Cursor<'_>) -> Vec<DeviceRequest> {
    if cursor.scalar().is_some() {
        let all = report.parsed(cursor, "`all`, or a list", |text| (text == "all").then_some(-1));
        let capabilities = vec!["gpu".to_owned()];
        return all
            .map(|count| DeviceRequest { count: Some(count), capabilities, ..DeviceRequest::default() })
            .into_iter()
            .collect();
    }
    let mut requests = device_requests(report, cursor);
    for request in &mut requests {
        if !request.capabilities.iter().any(|capability| capability == "gpu") {
            request.capabilities.push("gpu".to_owned());
        }
    }
    requests
}

pub(super) fn device_requests(report: &mut Report, cursor: &Cursor<'_>) -> Vec<DeviceRequest> {
    let mut requests = Vec::new();
    for item in report.items(cursor) {
        let Some(fields) = report.fields(&item, &keys::DEVICE_REQUEST) else { continue };
        let count = fields.get("count").and_then(|cursor| {
            let count = |text: &str| if text == "all" { Some(-1) } else { text.parse().ok() };
            report.parsed(&cursor, "a number, or `all`", count)
        });
        let device_ids = fields.get("device_ids").map(|cursor| report.texts(&cursor)).unwrap_or_default();
        requests.push(DeviceRequest {
            driver: fields.text(report, "driver"),
            // All of them is what is asked for by saying nothing.
            count: count.or(device_ids.is_empty().then_some(-1)),
            device_ids,
            capabilities: fields.get("capabilities").map(|cursor| report.texts(&cursor)).unwrap_or_default(),
            options: pairs(report, &fields, "options"),
        });
    }
    requests
}

/// Names with addresses, as a mapping or as a list of `NAME=ADDRESS`.
pub(super) fn extra_hosts(report: &mut Report, service: &Fields<'_>) -> Vec<String> {
    const NEEDED: &str = "a host such as `db=10.0.0.5` or `host=host-gateway`";
    let Some(cursor) = service.get("extra_hosts") else { return Vec::new() };
    let address = |text: &str| {
        let plain = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
        (plain == "host-gateway" || plain.parse::<IpAddr>().is_ok()).then(|| plain.to_owned())
    };
    let mut hosts = Vec::new();
    if cursor.is_map() {
        for Field { key, value, .. } in cursor.entries() {
            for item in report.one_or_more(&value) {
                if let Some(address) = report.parsed(&item, "an IP address, or `host-gateway`", address) {
                    hosts.push(format!("{key}:{address}"));
                }
            }
        }
        return hosts;
    }
    for item in report.items(&cursor) {
        let host = report.parsed(&item, NEEDED, |text| {
            let (name, rest) = text.split_once('=').or_else(|| text.split_once(':'))?;
            (!name.is_empty()).then_some(())?;
            Some(format!("{name}:{}", address(rest)?))
        });
        hosts.extend(host);
    }
    hosts
}

fn logging(report: &mut Report, cursor: &Cursor<'_>) -> Option<Logging> {
    let fields = report.fields(cursor, &keys::LOGGING)?;
    Some(Logging { driver: fields.text(report, "driver"), options: pairs(report, &fields, "options") })
}

/// Options of security; a seccomp profile is read from its file.
fn security_opt(report: &mut Report, project: &Project<'_>, service: &Fields<'_>) -> Vec<String> {
    let Some(cursor) = service.get("security_opt") else { return Vec::new() };
    let mut options = Vec::new();
    for item in report.items(&cursor) {
        let Some(text) = report.text(&item) else { continue };
        // Engines of today want `=`, files of the past have `:`.
        let (name, value) = text.split_once('=').or_else(|| text.split_once(':')).unwrap_or((&text, ""));
        if name != "seccomp" || value == "unconfined" {
            options.push(if value.is_empty() { text } else { format!("{name}={value}") });
            continue;
        }
        // The profile itself, where it was read before.
        if value.starts_with('{') {
            match serde_json::from_str::<serde_json::Value>(value) {
                Ok(_) => options.push(format!("seccomp={value}")),
                Err(error) => report.error(&item, format!("the profile is not JSON: {error}")),
            }
            continue;
        }
        let Some(profile) = project.file_text(report, &item, value) else { continue };
        match serde_json::from_str::<serde_json::Value>(&profile) {
            Ok(profile) => options.push(format!("seccomp={profile}")),
            Err(error) => report.error(&item, format!("the profile {value} is not JSON: {error}")),
        }
    }
    options
}

/// A number for both limits, or a mapping of them.
fn ulimit(report: &mut Report, cursor: &Cursor<'_>) -> Option<Ulimit> {
    if !cursor.is_map() {
        let limit = report.number(cursor)?;
        return Some(Ulimit { soft: limit, hard: limit });
    }
    let fields = report.fields(cursor, &keys::ULIMIT)?;
    let soft = fields.require(report, "soft").and_then(|cursor| report.number(&cursor));
    let hard = fields.require(report, "hard").and_then(|cursor| report.number(&cursor));
    Some(Ulimit { soft: soft?, hard: hard? })
}

#[cfg(test)]
mod tests {
    use super::super::tests::{complaints, given, web};
    use super::*;

    fn options(keys: &str) -> ContainerOptions {
        web(keys).workload.container
    }

    /// What was read, as JSON without what is not set.
    fn read(keys: &str) -> String {
        serde_json::to_string(&options(keys)).unwrap()
    }

    #[test]
    fn every_option_is_read_in_every_form() {
        for (keys, expected) in [
            ("cap_add: [NET_ADMIN]\ncap_drop: [ALL]", r#"{"cap_add":["NET_ADMIN"],"cap_drop":["ALL"]}"#),
            ("cgroup: host\ncgroup_parent: m", r#"{"cgroup":"host","cgroup_parent":"m"}"#),
            ("cpu_period: 100ms\ncpu_quota: 50000", r#"{"cpu_period":100000,"cpu_quota":50000}"#),
            ("cpu_rt_period: 1400us\ncpu_rt_runtime: 95ms", r#"{"cpu_rt_period":1400,"cpu_rt_runtime":95000}"#),
            ("cpu_shares: 512\ncpuset: 0,1", r#"{"cpu_shares":512,"cpuset":"0,1"}"#),
            ("device_cgroup_rules: [\"c 1:3 mr\"]", r#"{"device_cgroup_rules":["c 1:3 mr"]}"#),
            (
                "devices: [/dev/a, \"/dev/b:/dev/c:r\"]",
                r#"{"devices":[{"source":"/dev/a","target":"/dev/a","permissions":"rwm"},{"source":"/dev/b","target":"/dev/c","permissions":"r"}]}"#,
            ),
            (
                "devices: [{source: /dev/a, target: /dev/b, permissions: rw}]",
                r#"{"devices":[{"source":"/dev/a","target":"/dev/b","permissions":"rw"}]}"#,
            ),
            (
                "dns: 8.8.8.8\ndns_opt: [use-vc]\ndns_search: [a, b]",
                r#"{"dns":["8.8.8.8"],"dns_opt":["use-vc"],"dns_search":["a","b"]}"#,
            ),
            ("domainname: d\ngroup_add: [mail, 12]", r#"{"domainname":"d","group_add":["mail","12"]}"#),
            (
                "extra_hosts: [\"a:10.0.0.1\", \"b=10.0.0.2\", \"c=[::1]\", \"d:host-gateway\"]",
                r#"{"extra_hosts":["a:10.0.0.1","b:10.0.0.2","c:::1","d:host-gateway"]}"#,
            ),
            (
                "extra_hosts: {a: 10.0.0.1, b: [10.0.0.2, ::1]}",
                r#"{"extra_hosts":["a:10.0.0.1","b:10.0.0.2","b:::1"]}"#,
            ),
            (
                "ipc: shareable\npid: host\nuserns_mode: host\nuts: host",
                r#"{"ipc":"shareable","pid":"host","userns_mode":"host","uts":"host"}"#,
            ),
            (
                "logging: {driver: json-file, options: {max-size: 10m, max-file: 3}}",
                r#"{"logging":{"driver":"json-file","options":{"max-file":"3","max-size":"10m"}}}"#,
            ),
            ("mem_swappiness: 0\nmemswap_limit: 1gb", r#"{"mem_swappiness":0,"memswap_limit":1073741824}"#),
            (
                "memswap_limit: -1\noom_kill_disable: true\noom_score_adj: -5",
                r#"{"memswap_limit":-1,"oom_kill_disable":true,"oom_score_adj":-5}"#,
            ),
            (
                "pids_limit: 10\nplatform: linux/amd64\nprivileged: true",
                r#"{"pids_limit":10,"platform":"linux/amd64","privileged":true}"#,
            ),
            ("deploy: {resources: {limits: {pids: 10}}}", r#"{"pids_limit":10}"#),
            (
                "runtime: runc\nsecurity_opt: [\"no-new-privileges:true\", seccomp:unconfined]",
                r#"{"runtime":"runc","security_opt":["no-new-privileges=true","seccomp=unconfined"]}"#,
            ),
            ("shm_size: 64m\nstdin_open: true\ntty: true", r#"{"shm_size":67108864,"stdin_open":true,"tty":true}"#),
            (
                "storage_opt: {size: 1G}\nsysctls: {net.core.somaxconn: 1024}",
                r#"{"storage_opt":{"size":"1G"},"sysctls":{"net.core.somaxconn":"1024"}}"#,
            ),
            ("sysctls: [net.core.somaxconn=1024]", r#"{"sysctls":{"net.core.somaxconn":"1024"}}"#),
            (
                "ulimits: {nproc: 65535, nofile: {soft: 20, hard: 40}}",
                r#"{"ulimits":{"nofile":{"soft":20,"hard":40},"nproc":{"soft":65535,"hard":65535}}}"#,
            ),
            ("privileged: false\ntty: false", "{}"),
        ] {
            assert_eq!(read(keys), expected, "{keys}");
        }
    }

    #[test]
    fn devices_by_driver_are_read_at_both_places() {
        let gpu = |count, capabilities: &[&str]| DeviceRequest {
            count,
            capabilities: capabilities.iter().map(|name| (*name).to_owned()).collect(),
            ..DeviceRequest::default()
        };
        assert_eq!(options("gpus: all").gpus, [gpu(Some(-1), &["gpu"])]);
        assert_eq!(options("gpus: [{count: 2}]").gpus, [gpu(Some(2), &["gpu"])]);
        let keys =
            "deploy: {resources: {reservations: {devices: [{capabilities: [tpu], device_ids: [a], driver: d}]}}}";
        let expected = DeviceRequest { driver: Some("d".into()), device_ids: vec!["a".into()], ..gpu(None, &["tpu"]) };
        assert_eq!(options(keys).gpus, [expected]);
    }

    #[test]
    fn input_and_output_are_limited_by_device() {
        let io = options(
            "blkio_config: {weight: 300, weight_device: [{path: /dev/sda, weight: 400}], \
             device_read_bps: [{path: /dev/sda, rate: 12mb}], device_write_iops: [{path: /dev/sda, rate: 30}]}",
        )
        .blkio_config;
        assert_eq!((io.weight, io.weight_device["/dev/sda"]), (Some(300), 400));
        assert_eq!((io.device_read_bps["/dev/sda"], io.device_write_iops["/dev/sda"]), (12 << 20, 30));
    }

    #[test]
    fn profiles_of_seccomp_are_read_from_their_files() {
        let text = "services: {web: {image: x, security_opt: [\"seccomp:./profile.json\"]}}";
        let dir = given(&[("compose.yaml", text), ("profile.json", "{\"defaultAction\":\n  \"SCMP_ACT_ALLOW\"}")]);
        let read = || crate::compose::ComposeReader::new().with_project_name("shop").read_dir(dir.path());
        let expected = r#"seccomp={"defaultAction":"SCMP_ACT_ALLOW"}"#;
        assert_eq!(read().unwrap().spec.services["web"].workload.container.security_opt, [expected]);
        std::fs::write(dir.path().join("profile.json"), "{").unwrap();
        assert!(read().unwrap_err().to_string().contains("the profile ./profile.json is not JSON"));
        std::fs::remove_file(dir.path().join("profile.json")).unwrap();
        assert!(read().unwrap_err().to_string().contains("profile.json does not exist"));
    }

    #[test]
    fn what_is_wrong_is_refused() {
        for (keys, expected) in [
            ("ipc: service:db", "ipc: \"service:db\" is not `none` or `private` or `shareable` or `host`"),
            ("pid: container:x", "pid: \"container:x\" is not `host`"),
            ("extra_hosts: [db]", "extra_hosts[0]: \"db\" is not a host such as `db=10.0.0.5` or `host=host-gateway`"),
            ("extra_hosts: {db: x}", "extra_hosts.db: \"x\" is not an IP address, or `host-gateway`"),
            ("devices: [a]", "devices[0]: \"a\" is not a device such as `/dev/ttyUSB0:/dev/ttyUSB0:rwm`"),
            ("ulimits: {nofile: {soft: 1}}", "ulimits.nofile: `hard` is missing"),
            ("ulimits: {nofile: many}", "ulimits.nofile: \"many\" is not a whole number in range"),
            ("oom_score_adj: 2000", "oom_score_adj: \"2000\" is not a number from -1000 to 1000"),
            ("platform: amd64", "platform: \"amd64\" is not a platform such as `linux/amd64`"),
            (
                "pids_limit: 1\ndeploy: {resources: {limits: {pids: 2}}}",
                "pids_limit: `services.web.deploy.resources.limits.pids` says something else",
            ),
            ("logging: {drivr: x}", "logging.drivr: `drivr` is no key of `logging`"),
            ("gpus: some", "gpus: \"some\" is not `all`, or a list"),
        ] {
            assert_eq!(complaints(keys), [expected], "{keys}");
        }
    }
}
