//! `deploy`: how many instances there are, and what each may take.

use super::formats;
use super::yaml::Map;
use crate::model::{DeviceRequest, Resources};

pub(super) fn deploy(replicas: u32, resources: &Resources, devices: &[DeviceRequest]) -> Map {
    let Resources { cpu_millis, memory_bytes, reserved_cpu_millis, reserved_memory_bytes } = resources;
    let pair = |cpu: &Option<u64>, memory: &Option<u64>| {
        let mut map = Map::default();
        map.put_some("cpus", cpu.map(formats::cores));
        map.put_some("memory", memory.map(formats::size));
        map
    };
    let mut reservations = pair(reserved_cpu_millis, reserved_memory_bytes);
    reservations.put_filled("devices", devices.iter().map(request).collect::<Vec<_>>());
    let mut both = Map::default();
    both.put_filled("limits", pair(cpu_millis, memory_bytes));
    both.put_filled("reservations", reservations);
    let mut map = Map::default();
    map.put_unless("replicas", replicas, 1);
    map.put_filled("resources", both);
    map
}

/// A request for devices. The key `gpus` would add a capability to each.
fn request(request: &DeviceRequest) -> Map {
    let DeviceRequest { driver, count, device_ids, capabilities, options } = request;
    let mut map = Map::default();
    // Compose wants to be told that there are none.
    map.put("capabilities", capabilities.as_slice());
    map.put_some("driver", driver.as_ref());
    match count {
        Some(-1) => map.put("count", "all"),
        count => map.put_some("count", *count),
    }
    map.put_filled("device_ids", device_ids.as_slice());
    map.put_filled("options", options);
    map
}
