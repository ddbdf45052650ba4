//! The top-level `networks` and `volumes`.

use super::yaml::Map;
use crate::model::{Ipam, IpamPool, NetworkSpec, VolumeSpec};

pub(super) fn network(spec: &NetworkSpec) -> Map {
    let NetworkSpec { name, external, internal, driver, driver_opts, labels, attachable, enable_ipv6, ipam } = spec;
    let mut map = Map::default();
    map.put_some("name", name.as_ref());
    map.put_unless("external", *external, false);
    map.put_some("driver", driver.as_ref());
    map.put_filled("driver_opts", driver_opts);
    map.put_unless("internal", *internal, false);
    map.put_unless("attachable", *attachable, false);
    map.put_unless("enable_ipv6", *enable_ipv6, false);
    map.put_some("ipam", ipam.as_ref().map(self::ipam));
    map.put_filled("labels", labels);
    map
}

fn ipam(Ipam { driver, options, pools }: &Ipam) -> Map {
    let pool = |IpamPool { subnet, ip_range, gateway, aux_addresses }: &IpamPool| {
        let mut map = Map::default();
        map.put_some("subnet", subnet.as_ref());
        map.put_some("ip_range", ip_range.as_ref());
        map.put_some("gateway", gateway.as_ref());
        map.put_filled("aux_addresses", aux_addresses);
        map
    };
    let mut map = Map::default();
    map.put_some("driver", driver.as_ref());
    map.put_filled("config", pools.iter().map(pool).collect::<Vec<_>>());
    map.put_filled("options", options);
    map
}

pub(super) fn volume(VolumeSpec { name, external, driver, driver_opts, labels }: &VolumeSpec) -> Map {
    let mut map = Map::default();
    map.put_some("name", name.as_ref());
    map.put_unless("external", *external, false);
    map.put_some("driver", driver.as_ref());
    map.put_filled("driver_opts", driver_opts);
    map.put_filled("labels", labels);
    map
}
