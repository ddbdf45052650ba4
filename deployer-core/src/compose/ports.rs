//! `ports` and `expose`.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use super::cursor::{Cursor, Fields};
use super::project::MAX_ALL_PORTS;
use super::report::Report;
use super::{Project, keys};
use crate::model::{AppProtocol, Port, Published, Transport};

/// The most ports that one service may have after ranges are written out.
const MAX_PORTS: usize = 1_000;

pub(super) fn read(report: &mut Report, project: &Project<'_>, service: &Fields<'_>, model: &str) -> Vec<Port> {
    let mut ports = Vec::new();
    let mut add = |report: &mut Report, cursor: &Cursor<'_>, found: Vec<Port>, once: bool| {
        if ports.len() + found.len() > MAX_PORTS {
            report.error(cursor, format!("a service has at most {MAX_PORTS} ports"));
            return;
        }
        let Some(left) = project.ports_left.get().checked_sub(found.len()) else {
            report.error(cursor, format!("all services together have at most {MAX_ALL_PORTS} ports"));
            return;
        };
        project.ports_left.set(left);
        for port in found {
            // A port is often exposed and published, or exposed twice; that is one port.
            let known = |other: &Port| other.target == port.target && other.transport == port.transport;
            if once && ports.iter().any(known) {
                continue;
            }
            // The same port in two files, where the later one counts.
            if let Some(index) = ports.iter().position(|other| known(other) && other.published == port.published) {
                report.mark(format!("{model}.ports[{index}]"), cursor);
                ports[index] = port;
                continue;
            }
            report.mark(format!("{model}.ports[{}]", ports.len()), cursor);
            ports.push(port);
        }
    };
    if let Some(cursor) = service.get("ports") {
        for item in report.items(&cursor) {
            let found = if item.is_map() { long(report, &item) } else { short(report, &item) };
            add(report, &item, found.unwrap_or_default(), false);
        }
    }
    if let Some(cursor) = service.get("expose") {
        for item in report.items(&cursor) {
            let found = report.parsed(&item, "a port such as `3000`, `3000-3005` or `53/udp`", |text| {
                let (text, transport) = split_transport(text)?;
                let targets = range(text).filter(|targets| targets.len() <= MAX_PORTS)?;
                Some(targets.map(|target| Port { transport, ..Port::internal(target) }).collect())
            });
            add(report, &item, found.unwrap_or_default(), true);
        }
    }
    ports
}

/// `[[IP:]HOST:]CONTAINER[/PROTOCOL]`, where both ports may be ranges.
fn short(report: &mut Report, cursor: &Cursor<'_>) -> Option<Vec<Port>> {
    let needed = "a port such as `8080:80`, `127.0.0.1:8080:80/tcp` or `80`";
    let text = report.text(cursor)?;
    let Some((ip, host, container, transport)) = parts(&text) else { return report.mismatch(cursor, needed) };
    let ip = match ip {
        Some(ip) => match ip.parse::<IpAddr>() {
            Ok(ip) => Some(ip),
            Err(_) => return report.mismatch(cursor, needed),
        },
        None => None,
    };
    let Some(targets) = range(container) else { return report.mismatch(cursor, needed) };
    let hosts = match host {
        Some(host) => match range(host) {
            Some(hosts) => Some(hosts),
            None => return report.mismatch(cursor, needed),
        },
        None => None,
    };
    publish(report, cursor, ip, hosts, targets, transport)
}

fn publish(
    report: &mut Report,
    cursor: &Cursor<'_>,
    ip: Option<IpAddr>,
    hosts: Option<RangeInclusive<u16>>,
    targets: RangeInclusive<u16>,
    transport: Transport,
) -> Option<Vec<Port>> {
    let port = |target| Port { transport, ..Port::internal(target) };
    // The bound is checked before the range is written out.
    if targets.len() > MAX_PORTS {
        report.error(cursor, format!("a service has at most {MAX_PORTS} ports"));
        return None;
    }
    let Some(hosts) = hosts else {
        let help = "write `HOST:CONTAINER` to publish it, or use `expose`, or a route of `x-deployer`";
        report.warn(cursor, "no host port is named, so the port is not published", help);
        return Some(targets.map(port).collect());
    };
    if hosts.len() != targets.len() {
        let help = "let both have the same number of ports";
        report.error_with_help(cursor, "a host port cannot be chosen from a range", help);
        return None;
    }
    let published = |(host, target)| Port { published: Some(Published { ip, port: host }), ..port(target) };
    Some(hosts.zip(targets).map(published).collect())
}

fn long(report: &mut Report, cursor: &Cursor<'_>) -> Option<Vec<Port>> {
    let fields = report.fields(cursor, &keys::PORT)?;
    let target = fields.require(report, "target").and_then(|cursor| report.port(&cursor));
    let transport = match fields.get("protocol") {
        Some(cursor) => report.parsed(&cursor, "`tcp` or `udp`", self::transport),
        None => Some(Transport::Tcp),
    };
    let ip = fields.get("host_ip").map(|cursor| report.parsed(&cursor, "an IP address", |text| text.parse().ok()));
    let published = fields.get("published").map(|cursor| report.parsed(&cursor, "a port from 1 to 65535", range));
    let protocol = fields.get("app_protocol").and_then(|cursor| app_protocol(report, &cursor));
    let (target, transport) = (target?, transport?);
    let ip = match ip {
        Some(ip) => Some(ip?),
        None => None,
    };
    let published = match published {
        Some(published) => Some(published?),
        None => None,
    };
    let mut ports = match published {
        // The long form is how a port that is not published is often written.
        None => vec![Port { transport, ..Port::internal(target) }],
        Some(hosts) => publish(report, cursor, ip, Some(hosts), target..=target, transport)?,
    };
    for port in &mut ports {
        port.protocol = protocol.unwrap_or_default();
    }
    Some(ports)
}

fn app_protocol(report: &mut Report, cursor: &Cursor<'_>) -> Option<AppProtocol> {
    match report.text(cursor)?.as_str() {
        "http" => Some(AppProtocol::Http),
        "tcp" => Some(AppProtocol::Tcp),
        other => {
            let help = "only `http` is routed by single requests";
            report.warn(cursor, format!("{other:?} is routed by whole connections"), help);
            Some(AppProtocol::Tcp)
        }
    }
}

type Parts<'t> = (Option<&'t str>, Option<&'t str>, &'t str, Transport);

fn parts(text: &str) -> Option<Parts<'_>> {
    let (text, transport) = split_transport(text)?;
    if let Some(rest) = text.strip_prefix('[') {
        let (ip, rest) = rest.split_once("]:")?;
        let (host, container) = rest.split_once(':')?;
        return Some((Some(ip), Some(host), container, transport));
    }
    let Some((rest, container)) = text.rsplit_once(':') else {
        return Some((None, None, text, transport));
    };
    match rest.rsplit_once(':') {
        Some((ip, host)) => Some((Some(ip), Some(host), container, transport)),
        None => Some((None, Some(rest), container, transport)),
    }
}

fn split_transport(text: &str) -> Option<(&str, Transport)> {
    match text.split_once('/') {
        Some((text, name)) => Some((text, transport(name)?)),
        None => Some((text, Transport::Tcp)),
    }
}

fn transport(text: &str) -> Option<Transport> {
    match text {
        "tcp" => Some(Transport::Tcp),
        "udp" => Some(Transport::Udp),
        _ => None,
    }
}

fn range(text: &str) -> Option<RangeInclusive<u16>> {
    let port = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        if digits { text.parse::<u16>().ok().filter(|port| *port > 0) } else { None }
    };
    match text.split_once('-') {
        Some((first, last)) => Some(port(first)?..=port(last)?).filter(|range| !range.is_empty()),
        None => Some(port(text)?..=port(text)?),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{complaints, web, web_with_warnings};
    use super::*;

    fn show(port: &Port) -> String {
        let transport = if port.transport == Transport::Udp { "/udp" } else { "" };
        let protocol = if port.protocol == AppProtocol::Http { " http" } else { "" };
        match port.published {
            Some(Published { ip: Some(ip), port: host }) => {
                format!("{ip} {host}->{}{transport}{protocol}", port.target)
            }
            Some(Published { ip: None, port: host }) => format!("{host}->{}{transport}{protocol}", port.target),
            None => format!("{}{transport}{protocol}", port.target),
        }
    }

    #[test]
    fn ports_are_read_in_every_form() {
        for (keys, expected) in [
            ("ports: [8080:80]", "8080->80"),
            ("ports: [\"8080:80/tcp\"]", "8080->80"),
            ("ports: [\"127.0.0.1:8080:80\"]", "127.0.0.1 8080->80"),
            ("ports: [\"[::1]:8080:80\"]", "::1 8080->80"),
            ("ports: [\"::1:8080:80\"]", "::1 8080->80"),
            ("ports: [\"9090-9091:8080-8081\"]", "9090->8080 9091->8081"),
            ("ports: [8080:80, 8443:443]", "8080->80 8443->443"),
            ("ports: [{target: 80, published: 8080}]", "8080->80"),
            ("ports: [{target: 80, published: \"8080\", host_ip: 127.0.0.1, protocol: tcp}]", "127.0.0.1 8080->80"),
            ("ports: [{target: 80, published: 8080, app_protocol: http}]", "8080->80 http"),
            ("ports: [{target: 80}]", "80"),
            ("expose: [80, \"81\", 53/udp, 90-92]", "80 81 53/udp 90 91 92"),
            ("ports: [8080:80]\nexpose: [80, 81, 81]", "8080->80 81"),
            ("ports: []", ""),
        ] {
            let ports: Vec<String> = web(keys).workload.ports.iter().map(show).collect();
            assert_eq!(ports.join(" "), expected, "{keys}");
        }
    }

    #[test]
    fn a_port_without_a_host_port_is_not_published() {
        let (web, warnings) = web_with_warnings("ports: [80]");
        assert_eq!(web.workload.ports, [Port::internal(80)]);
        assert_eq!(warnings, ["ports[0]: no host port is named, so the port is not published"]);
    }

    #[test]
    fn wrong_ports_are_refused() {
        for port in
            ["0:80", "80:0", "x:80", "80:x", "80/sctp", "1.2.3:80:80", "65536:80", "9-8:9-8", "a:b:c:d", "+80", "-1"]
        {
            let found = complaints(&format!("ports: [\"{port}\"]"));
            assert_eq!(found.len(), 1, "{port}");
            assert!(found[0].starts_with("ports[0]: "), "{port}: {found:?}");
        }
        for (keys, expected) in [
            ("ports: [\"8000-9000:80\"]", "ports[0]: a host port cannot be chosen from a range"),
            ("ports: [{published: 80}]", "ports[0]: `target` is missing"),
            ("ports: [{target: 80, protocol: sctp}]", "ports[0].protocol: \"sctp\" is not `tcp` or `udp`"),
            ("ports: 80", "ports: \"80\" is not a list"),
            ("ports: [8080:80, 8080:81]", "ports[1]: host port 8080 is published twice"),
            (
                "scale: 2\nports: [8080:53/udp]",
                "ports[0]: a UDP port of the host leads to one instance: the load balancer routes TCP and HTTP",
            ),
            ("expose: [80/x]", "expose[0]: \"80/x\" is not a port such as `3000`, `3000-3005` or `53/udp`"),
            ("expose: [1-900, 1000-1900]", "expose[1]: a service has at most 1000 ports"),
        ] {
            assert_eq!(complaints(keys), [expected], "{keys}");
        }
    }
}
