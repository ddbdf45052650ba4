//! The keys of a service that only a platform of containers can heed.

use std::collections::BTreeMap;

use super::yaml::{Map, Yaml};
use super::{build, formats};
use crate::model::{BlockIo, ContainerOptions, Device, Logging, Ulimit};

/// Puts in all of them but `gpus`, which are reservations.
pub(super) fn put(map: &mut Map, options: &ContainerOptions) {
    let ContainerOptions {
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
        gpus: _,
        group_add,
        ipc,
        logging,
        mem_swappiness,
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
    } = options;
    map.put_filled("blkio_config", block_io(blkio_config));
    for (key, texts) in [
        ("cap_add", cap_add),
        ("cap_drop", cap_drop),
        ("device_cgroup_rules", device_cgroup_rules),
        ("dns", dns),
        ("dns_opt", dns_opt),
        ("dns_search", dns_search),
        ("extra_hosts", &build::hosts(extra_hosts)),
        ("group_add", group_add),
        ("security_opt", security_opt),
    ] {
        map.put_filled(key, texts.as_slice());
    }
    for (key, text) in [
        ("cgroup", cgroup),
        ("cgroup_parent", cgroup_parent),
        ("cpuset", cpuset),
        ("domainname", domainname),
        ("ipc", ipc),
        ("pid", pid),
        ("platform", platform),
        ("runtime", runtime),
        ("userns_mode", userns_mode),
        ("uts", uts),
    ] {
        map.put_some(key, text.as_ref());
    }
    for (key, number) in [
        ("cpu_period", cpu_period),
        ("cpu_quota", cpu_quota),
        ("cpu_rt_period", cpu_rt_period),
        ("cpu_rt_runtime", cpu_rt_runtime),
        ("cpu_shares", cpu_shares),
        ("mem_swappiness", mem_swappiness),
        ("oom_score_adj", oom_score_adj),
        ("pids_limit", pids_limit),
    ] {
        map.put_some(key, *number);
    }
    for (key, flag) in
        [("oom_kill_disable", oom_kill_disable), ("privileged", privileged), ("stdin_open", stdin_open), ("tty", tty)]
    {
        map.put_unless(key, *flag, false);
    }
    map.put_filled("devices", devices.iter().map(device).collect::<Vec<_>>());
    map.put_some("logging", logging.as_ref().map(self::logging));
    map.put_some("memswap_limit", memswap_limit.map(|limit| u64::try_from(limit).map_or(limit.into(), formats::size)));
    map.put_some("shm_size", shm_size.map(formats::size));
    map.put_filled("storage_opt", storage_opt);
    map.put_filled("sysctls", sysctls);
    map.put_filled("ulimits", ulimits.iter().map(|(name, limit)| (name, ulimit(*limit))).collect::<Map>());
}

fn block_io(io: &BlockIo) -> Map {
    let BlockIo { weight, weight_device, device_read_bps, device_read_iops, device_write_bps, device_write_iops } = io;
    let mut map = Map::default();
    map.put_some("weight", *weight);
    map.put_filled("weight_device", by_path(weight_device, "weight", |weight| (*weight).into()));
    for (key, rates) in [("device_read_bps", device_read_bps), ("device_write_bps", device_write_bps)] {
        map.put_filled(key, by_path(rates, "rate", |rate| formats::size(*rate)));
    }
    for (key, rates) in [("device_read_iops", device_read_iops), ("device_write_iops", device_write_iops)] {
        map.put_filled(key, by_path(rates, "rate", |rate| (*rate).into()));
    }
    map
}

/// A list of mappings, each with the path of a device and its value.
fn by_path<T>(values: &BTreeMap<String, T>, key: &str, value: impl Fn(&T) -> Yaml) -> Vec<Map> {
    let item = |(path, of)| {
        let mut item = Map::default();
        item.put("path", path);
        item.put(key, value(of));
        item
    };
    values.iter().map(item).collect()
}

fn device(Device { source, target, permissions }: &Device) -> Map {
    let mut map = Map::default();
    map.put("source", source);
    map.put_unless("target", target, source);
    map.put_unless("permissions", permissions.as_str(), "rwm");
    map
}

fn logging(Logging { driver, options }: &Logging) -> Map {
    let mut map = Map::default();
    map.put_some("driver", driver.as_ref());
    map.put_filled("options", options);
    map
}

fn ulimit(Ulimit { soft, hard }: Ulimit) -> Map {
    Map::from_iter([("soft", soft), ("hard", hard)])
}
