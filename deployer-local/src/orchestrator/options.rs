//! The options of containers in the engine's words.

use std::collections::{BTreeMap, HashMap};

use bollard::models::{
    DeviceMapping, DeviceRequest, HostConfig, HostConfigLogConfig, ResourcesBlkioWeightDevice, ResourcesUlimits,
    ThrottleDevice,
};
use deployer_core::ContainerOptions;

/// Adds the options that are set.
pub(super) fn apply(options: &ContainerOptions, config: HostConfig) -> HostConfig {
    let io = &options.blkio_config;
    HostConfig {
        blkio_weight: io.weight,
        blkio_weight_device: list(&io.weight_device, |path, weight| ResourcesBlkioWeightDevice {
            path: Some(path.to_owned()),
            weight: Some(usize::from(*weight)),
        }),
        blkio_device_read_bps: list(&io.device_read_bps, throttle),
        blkio_device_read_iops: list(&io.device_read_iops, throttle),
        blkio_device_write_bps: list(&io.device_write_bps, throttle),
        blkio_device_write_iops: list(&io.device_write_iops, throttle),
        cap_add: texts(&options.cap_add),
        cap_drop: texts(&options.cap_drop),
        cgroupns_mode: options.cgroup.as_ref().and_then(|mode| mode.parse().ok()),
        cgroup_parent: options.cgroup_parent.clone(),
        cpu_period: options.cpu_period,
        cpu_quota: options.cpu_quota,
        cpu_realtime_period: options.cpu_rt_period,
        cpu_realtime_runtime: options.cpu_rt_runtime,
        cpu_shares: options.cpu_shares.or(config.cpu_shares),
        cpuset_cpus: options.cpuset.clone(),
        device_cgroup_rules: texts(&options.device_cgroup_rules),
        devices: some(options.devices.iter().map(|device| DeviceMapping {
            path_on_host: Some(device.source.clone()),
            path_in_container: Some(device.target.clone()),
            cgroup_permissions: Some(device.permissions.clone()),
        })),
        device_requests: some(options.gpus.iter().map(|request| DeviceRequest {
            driver: request.driver.clone(),
            count: request.count,
            device_ids: texts(&request.device_ids),
            capabilities: Some(vec![request.capabilities.clone()]),
            options: pairs(&request.options),
        })),
        dns: texts(&options.dns),
        dns_options: texts(&options.dns_opt),
        dns_search: texts(&options.dns_search),
        extra_hosts: texts(&options.extra_hosts),
        group_add: texts(&options.group_add),
        ipc_mode: options.ipc.clone(),
        log_config: options
            .logging
            .as_ref()
            .map(|logging| HostConfigLogConfig { typ: logging.driver.clone(), config: pairs(&logging.options) }),
        memory_swappiness: options.mem_swappiness,
        oom_kill_disable: options.oom_kill_disable.then_some(true),
        oom_score_adj: options.oom_score_adj,
        pid_mode: options.pid.clone(),
        pids_limit: options.pids_limit,
        privileged: options.privileged.then_some(true),
        runtime: options.runtime.clone(),
        security_opt: texts(&options.security_opt),
        shm_size: options.shm_size.map(|size| i64::try_from(size).unwrap_or(i64::MAX)),
        storage_opt: pairs(&options.storage_opt),
        sysctls: pairs(&options.sysctls),
        ulimits: list(&options.ulimits, |name, limit| ResourcesUlimits {
            name: Some(name.to_owned()),
            soft: Some(limit.soft),
            hard: Some(limit.hard),
        }),
        userns_mode: options.userns_mode.clone(),
        uts_mode: options.uts.clone(),
        ..config
    }
}

fn throttle(path: &str, rate: &u64) -> ThrottleDevice {
    ThrottleDevice { path: Some(path.to_owned()), rate: Some(i64::try_from(*rate).unwrap_or(i64::MAX)) }
}

fn some<T>(items: impl Iterator<Item = T>) -> Option<Vec<T>> {
    let items: Vec<T> = items.collect();
    if items.is_empty() { None } else { Some(items) }
}

fn list<V, T>(map: &BTreeMap<String, V>, item: impl Fn(&str, &V) -> T) -> Option<Vec<T>> {
    some(map.iter().map(|(key, value)| item(key, value)))
}

fn texts(texts: &[String]) -> Option<Vec<String>> {
    some(texts.iter().cloned())
}

pub(super) fn pairs(map: &BTreeMap<String, String>) -> Option<HashMap<String, String>> {
    if map.is_empty() { None } else { Some(map.clone().into_iter().collect()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the engines that tests run on cannot do, or do without a word. The rest is shown on containers.
    #[test]
    fn options_are_in_the_engines_words() {
        let options: ContainerOptions = serde_json::from_value(serde_json::json!({
            "blkio_config": {
                "weight": 300, "weight_device": {"/dev/a": 400}, "device_read_bps": {"/dev/a": 1},
                "device_read_iops": {"/dev/a": 2}, "device_write_bps": {"/dev/a": 3}, "device_write_iops": {"/dev/a": 4},
            },
            "cpu_rt_period": 5, "cpu_rt_runtime": 6, "storage_opt": {"size": "1G"},
            "gpus": [{"driver": "d", "count": -1, "capabilities": ["gpu"]}],
        }))
        .unwrap();
        let config = apply(&options, HostConfig::default());
        assert_eq!(config.blkio_weight, Some(300));
        assert_eq!(config.blkio_weight_device.unwrap()[0].weight, Some(400));
        let rates = [
            config.blkio_device_read_bps,
            config.blkio_device_read_iops,
            config.blkio_device_write_bps,
            config.blkio_device_write_iops,
        ];
        assert_eq!(rates.map(|rate| rate.unwrap()[0].rate), [Some(1), Some(2), Some(3), Some(4)]);
        assert_eq!((config.cpu_realtime_period, config.cpu_realtime_runtime), (Some(5), Some(6)));
        assert_eq!(config.storage_opt.unwrap()["size"], "1G");
        let gpu = &config.device_requests.unwrap()[0];
        assert_eq!((gpu.driver.as_deref(), gpu.count), (Some("d"), Some(-1)));
        assert_eq!(gpu.capabilities, Some(vec![vec!["gpu".to_owned()]]));
        assert_eq!(apply(&ContainerOptions::default(), HostConfig::default()), HostConfig::default());
    }
}
