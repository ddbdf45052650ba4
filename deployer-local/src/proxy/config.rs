//! The text of HAProxy's configuration, from what it shall do.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;

use deployer_core::{AppProtocol, Digest};

/// Where the proxy's directory is inside its container.
pub(crate) const HOME: &str = "/run/deployer";

/// Where a proxy is told what to do that shares no directory with this process: on its container's own loopback, which
/// no other container reaches. Outside of the ports from which the engine's name server chooses.
pub(crate) const CONTROL_PORT: u16 = 61_001;

/// The same for its master process.
pub(crate) const MASTER_PORT: u16 = 61_002;

/// Where certificates are inside the proxy's container.
pub(crate) const CERTIFICATES: &str = "/run/deployer-tls";

/// How a server is checked. An instance that does not answer is out of rotation after one failed connection or two
/// failed checks, and back after one that succeeds. Sessions waiting for a retry are never shut down for it.
const CHECK: &str =
    "check inter 1s fastinter 100ms downinter 100ms fall 2 rise 1 observe layer4 error-limit 1 on-error mark-down";

/// Everything that one HAProxy does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Config {
    /// How many threads it has; none lets it choose.
    pub(crate) threads: Option<u16>,
    /// The most file descriptors that it uses, two for each connection. It takes fewer where the engine allows fewer.
    pub(crate) descriptors: u32,
    /// Whether it shares no directory with this process, and listens for commands on its loopback.
    pub(crate) relayed: bool,
    /// Where connections enter.
    pub(crate) entries: BTreeMap<String, Entry>,
    /// Where requests go that enter through [`EntryKind::Routes`].
    pub(crate) routes: Vec<RouteRule>,
    /// Where connections and requests go.
    pub(crate) backends: BTreeMap<String, Backend>,
}

/// Where connections enter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// What it listens on, such as `127.0.0.1:8080` or `:6379`.
    pub(crate) bind: String,
    /// Whether clients speak TLS to it.
    pub(crate) tls: bool,
    /// What happens to the connections.
    pub(crate) kind: EntryKind,
}

/// What happens to connections that enter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum EntryKind {
    /// Each request goes where the routes say.
    Routes,
    /// All go to this backend; from outside, if the client's address is to be told to it.
    Backend {
        /// The backend's name.
        name: String,
        /// Whether clients are outside of the application.
        outside: bool,
    },
}

/// One route of the routing table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RouteRule {
    /// The host in lower case; none for every host that has no route of its own.
    pub(crate) host: Option<String>,
    /// The path without a trailing slash; empty for the root.
    pub(crate) path: String,
    /// The backend.
    pub(crate) backend: String,
}

/// Where connections and requests go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Backend {
    /// What is spoken.
    pub(crate) protocol: AppProtocol,
    /// Its servers by name.
    pub(crate) servers: BTreeMap<String, Server>,
}

/// One server of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Server {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// Its share of new requests, 0 to 256.
    pub(crate) weight: u16,
    /// Whether it shall get no new requests.
    pub(crate) draining: bool,
    /// Whether it gets requests only while no server answers that is no backup.
    pub(crate) backup: bool,
}

impl Server {
    /// The words after the server's name that define it, for the file and for the runtime API alike.
    pub(crate) fn definition(&self, weight: u16) -> String {
        let backup = if self.backup { " backup" } else { "" };
        format!("{} weight {weight}{backup} {CHECK}", self.address)
    }
}

impl Config {
    /// Identifies everything that only a reload can change: all but servers. A running proxy shows it as its description.
    pub(crate) fn layout(&self) -> String {
        let mut bare = self.clone();
        for backend in bare.backends.values_mut() {
            backend.servers.clear();
        }
        let text = bare.text("") + &bare.hosts_map() + &bare.routes_map();
        Digest::of(text.as_bytes()).short().to_owned()
    }

    /// The configuration file.
    pub(crate) fn render(&self) -> String {
        self.text(&self.layout())
    }

    /// The map files' names and contents. Names include the layout, so that a file never changes under a running proxy.
    pub(crate) fn maps(&self) -> [(String, String); 2] {
        let layout = self.layout();
        [(format!("hosts-{layout}.map"), self.hosts_map()), (format!("routes-{layout}.map"), self.routes_map())]
    }

    /// The addresses it listens on.
    pub(crate) fn binds(&self) -> BTreeSet<&str> {
        self.entries.values().map(|entry| entry.bind.as_str()).collect()
    }

    /// The addresses that the proxy with this configuration file listens on.
    pub(crate) fn binds_in(text: &str) -> BTreeSet<&str> {
        text.lines().filter_map(|line| line.strip_prefix("  bind ")?.split(' ').next()).collect()
    }

    fn hosts_map(&self) -> String {
        let hosts: BTreeSet<&str> = self.routes.iter().filter_map(|route| route.host.as_deref()).collect();
        hosts.iter().map(|host| format!("{host} {host}\n")).collect()
    }

    /// Keys end in a slash and so do the texts that are looked up: the longest key then matches by whole segments.
    fn routes_map(&self) -> String {
        let line = |rule: &RouteRule| {
            format!("{}{}/ {}\n", rule.host.as_deref().unwrap_or("*"), rule.path.trim_end_matches('/'), rule.backend)
        };
        self.routes.iter().map(line).collect()
    }

    fn text(&self, layout: &str) -> String {
        let mut out = String::with_capacity(4096);
        self.write(&mut out, layout).map(|()| out).unwrap_or_default()
    }

    fn write(&self, out: &mut String, layout: &str) -> std::fmt::Result {
        writeln!(out, "# Written by Deployer for each change; changes made here are lost.")?;
        writeln!(out, "global\n  description {layout}")?;
        // Without `noreuseport` a second proxy could listen on the same address and take half of the connections.
        writeln!(out, "  noreuseport\n  log stdout format raw daemon notice")?;
        let control = match self.relayed {
            true => format!("ipv4@127.0.0.1:{CONTROL_PORT}"),
            false => format!("{HOME}/admin.sock mode 600"),
        };
        writeln!(out, "  stats socket {control} level admin expose-fd listeners")?;
        writeln!(out, "  hard-stop-after 15m\n  fd-hard-limit {}", self.descriptors)?;
        if let Some(threads) = self.threads {
            writeln!(out, "  nbthread {threads}")?;
        }
        writeln!(out, "  lua-load {HOME}/hold.lua")?;
        out.push_str(DEFAULTS);
        for (name, entry) in &self.entries {
            self.write_entry(out, layout, name, entry)?;
        }
        for (name, backend) in &self.backends {
            write_backend(out, name, backend)?;
        }
        Ok(())
    }

    fn write_entry(&self, out: &mut String, layout: &str, name: &str, entry: &Entry) -> std::fmt::Result {
        let protocol = match &entry.kind {
            EntryKind::Routes => AppProtocol::Http,
            EntryKind::Backend { name, .. } => {
                self.backends.get(name).map_or(AppProtocol::Tcp, |backend| backend.protocol)
            }
        };
        writeln!(out, "frontend {name} from {}\n  bind {}{}", defaults(protocol), entry.bind, tls(entry.tls))?;
        let outside = !matches!(entry.kind, EntryKind::Backend { outside: false, .. });
        if protocol == AppProtocol::Http && outside {
            let scheme = if entry.tls { "https" } else { "http" };
            writeln!(out, "  option forwardfor\n  http-request set-header X-Forwarded-Proto {scheme}")?;
        }
        match &entry.kind {
            EntryKind::Backend { name, .. } => writeln!(out, "  default_backend {name}"),
            EntryKind::Routes => {
                writeln!(out, "  http-request set-var(txn.path) path")?;
                writeln!(
                    out,
                    "  http-request set-var(txn.host) \
                     req.hdr(host),host_only,lower,rtrim(.),map({HOME}/hosts-{layout}.map,*)"
                )?;
                writeln!(
                    out,
                    "  http-request set-var(txn.backend) \
                     var(txn.host),concat(,txn.path,/),map_beg({HOME}/routes-{layout}.map)"
                )?;
                writeln!(
                    out,
                    "  http-request return status 404 content-type text/plain \
                     string \"no route for this host and path\\n\" unless {{ var(txn.backend) -m found }}"
                )?;
                writeln!(out, "  use_backend %[var(txn.backend)]")
            }
        }
    }
}

const DEFAULTS: &str = "\
defaults stream
  log global
  mode tcp
  timeout connect 1s
  timeout client 24h
  timeout server 24h
  timeout queue 5s
  balance roundrobin
  option allbackups
  option redispatch 1
  option clitcpka
  option srvtcpka
  retries 3
defaults http
  log global
  mode http
  timeout connect 1s
  timeout client 60s
  timeout server 5m
  timeout queue 5s
  timeout http-request 10s
  timeout http-keep-alive 60s
  timeout tunnel 24h
  balance roundrobin
  option redispatch 1
  option idle-close-on-response
  retries 3
  retry-on conn-failure empty-response response-timeout
  default-server pool-max-conn 0
";

fn defaults(protocol: AppProtocol) -> &'static str {
    match protocol {
        AppProtocol::Tcp => "stream",
        AppProtocol::Http => "http",
    }
}

fn tls(wanted: bool) -> String {
    if wanted { format!(" ssl crt {CERTIFICATES} alpn h2,http/1.1") } else { String::new() }
}

fn write_backend(out: &mut String, name: &str, backend: &Backend) -> std::fmt::Result {
    writeln!(out, "backend {name} from {}", defaults(backend.protocol))?;
    match backend.protocol {
        AppProtocol::Http => {
            // A request that an instance may have seen is repeated only if doing it twice is like doing it once.
            writeln!(out, "  http-request disable-l7-retry unless {{ method GET HEAD OPTIONS PUT DELETE }}")?;
            writeln!(out, "  http-request lua.hold_request if {{ nbsrv eq 0 }}")?;
        }
        AppProtocol::Tcp => {
            writeln!(out, "  tcp-request inspect-delay 20s")?;
            writeln!(out, "  tcp-request content lua.hold_connection if {{ nbsrv eq 0 }}")?;
        }
    }
    for (name, server) in &backend.servers {
        let weight = if server.draining { 0 } else { server.weight };
        writeln!(out, "  server {name} {}", server.definition(weight))?;
    }
    Ok(())
}

/// Whether a path is a map file of another layout than this.
pub(crate) fn is_stale_map(path: &Path, layout: &str) -> bool {
    let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    path.extension().is_some_and(|extension| extension == "map") && !stem.ends_with(layout)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Config {
        let server = Server { address: ([10, 0, 0, 2], 8080).into(), weight: 256, draining: false, backup: false };
        let standby = Server { backup: true, ..server };
        let web = Backend {
            protocol: AppProtocol::Http,
            servers: BTreeMap::from([("aaa-1".to_owned(), server), ("bbb-1-standby".to_owned(), standby)]),
        };
        let db = Backend {
            protocol: AppProtocol::Tcp,
            servers: BTreeMap::from([("bbb-1".to_owned(), Server { draining: true, ..server })]),
        };
        let http = Entry { bind: "127.0.0.1:8080".into(), tls: false, kind: EntryKind::Routes };
        let port = EntryKind::Backend { name: "shop:db:published".into(), outside: true };
        Config {
            threads: Some(1),
            descriptors: 1_000,
            relayed: false,
            entries: BTreeMap::from([
                ("http".to_owned(), http),
                ("port".to_owned(), Entry { bind: "127.0.0.1:5432".into(), tls: false, kind: port }),
            ]),
            routes: vec![RouteRule {
                host: Some("shop.example".into()),
                path: "/api".into(),
                backend: "shop:web:route".into(),
            }],
            backends: BTreeMap::from([("shop:web:route".to_owned(), web), ("shop:db:published".to_owned(), db)]),
        }
    }

    #[test]
    fn the_file_is_rendered() {
        let text = config().render();
        let own = text.split_once("default-server pool-max-conn 0\n").unwrap().1.replace(&config().layout(), "LAYOUT");
        assert_eq!(
            own,
            "\
frontend http from http
  bind 127.0.0.1:8080
  option forwardfor
  http-request set-header X-Forwarded-Proto http
  http-request set-var(txn.path) path
  http-request set-var(txn.host) req.hdr(host),host_only,lower,rtrim(.),map(/run/deployer/hosts-LAYOUT.map,*)
  http-request set-var(txn.backend) var(txn.host),concat(,txn.path,/),map_beg(/run/deployer/routes-LAYOUT.map)
  http-request return status 404 content-type text/plain string \"no route for this host and path\\n\" unless { var(txn.backend) -m found }
  use_backend %[var(txn.backend)]
frontend port from stream
  bind 127.0.0.1:5432
  default_backend shop:db:published
backend shop:db:published from stream
  tcp-request inspect-delay 20s
  tcp-request content lua.hold_connection if { nbsrv eq 0 }
  server bbb-1 10.0.0.2:8080 weight 0 check inter 1s fastinter 100ms downinter 100ms fall 2 rise 1 observe layer4 error-limit 1 on-error mark-down
backend shop:web:route from http
  http-request disable-l7-retry unless { method GET HEAD OPTIONS PUT DELETE }
  http-request lua.hold_request if { nbsrv eq 0 }
  server aaa-1 10.0.0.2:8080 weight 256 check inter 1s fastinter 100ms downinter 100ms fall 2 rise 1 observe layer4 error-limit 1 on-error mark-down
  server bbb-1-standby 10.0.0.2:8080 weight 256 backup check inter 1s fastinter 100ms downinter 100ms fall 2 rise 1 observe layer4 error-limit 1 on-error mark-down
"
        );
        assert_eq!(Config::binds_in(&text), config().binds());
    }

    #[test]
    fn maps_match_by_whole_segments() {
        let [(_, hosts), (name, routes)] = config().maps();
        assert_eq!(hosts, "shop.example shop.example\n");
        assert_eq!(routes, "shop.example/api/ shop:web:route\n");
        assert!(is_stale_map(Path::new(&name), "other") && !is_stale_map(Path::new(&name), &config().layout()));
        assert!(!is_stale_map(Path::new("haproxy.cfg"), "other"));
    }

    #[test]
    fn servers_are_not_part_of_the_layout() {
        let mut other = config();
        other.backends.values_mut().for_each(|backend| backend.servers.clear());
        assert_eq!(other.layout(), config().layout());
        other.routes.clear();
        assert_ne!(other.layout(), config().layout());
    }
}
