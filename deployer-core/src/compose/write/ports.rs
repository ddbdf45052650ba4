//! `ports` and `expose`.

use super::yaml::Map;
use crate::model::{AppProtocol, Port, Published, Transport};

/// Puts in the ports. Plain internal ones at the end are exposed; others keep their place among those of the host.
pub(super) fn put(map: &mut Map, ports: &[Port]) {
    let plain = |port: &Port| port.published.is_none() && port.protocol == AppProtocol::Tcp;
    // What is exposed is not taken for a further port where there is one like it.
    let alike = |one: &Port, other: &Port| one.target == other.target && one.transport == other.transport;
    let exposed =
        |(index, port): &(usize, &Port)| plain(port) && !ports[..*index].iter().any(|other| alike(other, port));
    let count = ports.iter().enumerate().rev().take_while(exposed).count();
    let (listed, exposed) = ports.split_at(ports.len() - count);
    map.put_filled("ports", listed.iter().map(port).collect::<Vec<_>>());
    map.put_filled("expose", exposed.iter().map(expose).collect::<Vec<_>>());
}

fn port(port: &Port) -> Map {
    let Port { target, transport, protocol, published } = port;
    let mut map = Map::default();
    if let Some(Published { ip, port }) = published {
        map.put_some("host_ip", ip.map(|ip| ip.to_string()));
        map.put("target", *target);
        map.put("published", port.to_string());
    } else {
        map.put("target", *target);
    }
    match transport {
        Transport::Tcp => {}
        Transport::Udp => map.put("protocol", "udp"),
    }
    match protocol {
        AppProtocol::Tcp => {}
        AppProtocol::Http => map.put("app_protocol", "http"),
    }
    map
}

fn expose(port: &Port) -> String {
    match port.transport {
        Transport::Tcp => port.target.to_string(),
        Transport::Udp => format!("{}/udp", port.target),
    }
}
