//! The answers of HAProxy's runtime API.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

/// What a running worker says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Live {
    /// The layout of the configuration that it runs.
    pub(crate) layout: String,
    /// Its servers, by backend and name.
    pub(crate) servers: BTreeMap<(String, String), LiveServer>,
}

/// One server as the worker has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LiveServer {
    /// Where it listens.
    pub(crate) address: Option<SocketAddr>,
    /// The weight that it was given.
    pub(crate) weight: u16,
    /// Whether it is in maintenance: out of use and ready to be deleted.
    pub(crate) maintenance: bool,
    /// Whether it gets no new requests.
    pub(crate) draining: bool,
    /// Whether it does not answer the proxy's check.
    pub(crate) down: bool,
    /// What has gone through it.
    pub(crate) traffic: Traffic,
}

/// What goes and has gone through a server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Traffic {
    /// Requests or connections in work, and those that wait for it.
    pub(crate) in_flight: u64,
    /// Requests answered or failed.
    pub(crate) requests: u64,
    /// Those answered with a status of 500 and above, or not at all.
    pub(crate) errors: u64,
    /// The mean time to answer over the latest requests, in milliseconds.
    pub(crate) mean_millis: u64,
    /// What the check said last.
    pub(crate) check: String,
}

/// The commands whose answers [`parse_live`] reads.
pub(crate) fn show_live() -> Vec<String> {
    vec!["show info".to_owned(), "show servers state".to_owned(), SHOW_SERVER_STATS.to_owned()]
}

/// Asks for the statistics of servers only.
const SHOW_SERVER_STATS: &str = "show stat -1 4 -1";

/// Reads the answer to [`show_live`]. What makes no sense is left out.
pub(crate) fn parse_live(text: &str) -> Live {
    let layout =
        text.lines().find_map(|line| line.strip_prefix("description: ").or(line.strip_prefix("Description: ")));
    let mut servers = parse_servers(text);
    for (name, traffic) in parse_stats(text) {
        if let Some(server) = servers.get_mut(&name) {
            server.traffic = traffic;
        }
    }
    Live { layout: layout.unwrap_or_default().trim().to_owned(), servers }
}

fn parse_servers(text: &str) -> BTreeMap<(String, String), LiveServer> {
    let mut servers = BTreeMap::new();
    let mut lines = text.lines().skip_while(|line| !line.starts_with("# be_id "));
    let header: Vec<&str> = lines.next().unwrap_or_default().trim_start_matches("# ").split(' ').collect();
    for line in lines.take_while(|line| !line.is_empty()) {
        let fields: Vec<&str> = line.split(' ').collect();
        let field = |name| Some(*fields.get(header.iter().position(|column| *column == name)?)?);
        let number = |name| field(name)?.parse::<u32>().ok();
        let (Some(backend), Some(name)) = (field("be_name"), field("srv_name")) else { continue };
        let (Some(weight), Some(admin)) = (number("srv_uweight"), number("srv_admin_state")) else { continue };
        let ip = field("srv_addr").and_then(|ip| ip.parse::<IpAddr>().ok());
        let port = number("srv_port").and_then(|port| u16::try_from(port).ok());
        let server = LiveServer {
            address: ip.zip(port).map(SocketAddr::from),
            weight: u16::try_from(weight).unwrap_or(u16::MAX),
            // The bits are HAProxy's `SRV_ADMF_*`: forced, inherited, by resolution and by configuration.
            maintenance: admin & (0x01 | 0x02 | 0x04 | 0x20) != 0,
            draining: admin & (0x08 | 0x10) != 0,
            down: number("srv_op_state") == Some(0),
            traffic: Traffic::default(),
        };
        servers.insert((backend.to_owned(), name.to_owned()), server);
    }
    servers
}

/// The largest count that makes sense: whatever is summed up of such counts stays a number.
const MOST: u64 = 1 << 48;

/// Reads the answer to [`SHOW_SERVER_STATS`].
fn parse_stats(text: &str) -> BTreeMap<(String, String), Traffic> {
    let mut stats = BTreeMap::new();
    let mut lines = text.lines().skip_while(|line| !line.starts_with("# pxname,"));
    let header: Vec<&str> = lines.next().unwrap_or_default().trim_start_matches("# ").split(',').collect();
    for line in lines.take_while(|line| !line.is_empty()) {
        let fields: Vec<&str> = line.split(',').collect();
        let field =
            |name| header.iter().position(|column| *column == name).and_then(|index| fields.get(index).copied());
        let number = |name| field(name).and_then(|text| text.parse().ok()).filter(|n| *n <= MOST).unwrap_or(0);
        let (Some(backend), Some(name)) = (field("pxname"), field("svname")) else { continue };
        let unanswered = number("econ") + number("eresp");
        let answered: u64 = ANSWERS.iter().map(|column| number(column)).sum();
        let http = field("mode") == Some("http");
        let traffic = Traffic {
            in_flight: number("scur") + number("qcur"),
            requests: if http { answered + unanswered } else { number("stot") },
            errors: number("hrsp_5xx") + unanswered,
            mean_millis: number("ctime") + number("rtime"),
            check: [field("check_status"), field("last_chk")].into_iter().flatten().collect::<Vec<_>>().join(" "),
        };
        stats.insert((backend.to_owned(), name.to_owned()), traffic);
    }
    stats
}

/// The columns that count answers by the class of their status.
const ANSWERS: [&str; 6] = ["hrsp_1xx", "hrsp_2xx", "hrsp_3xx", "hrsp_4xx", "hrsp_5xx", "hrsp_other"];

/// Reads the answer to `show sess`: how many requests or connections each server works on. A worker that is leaving
/// shows no statistics any more, but it does show these.
pub(crate) fn parse_sessions(text: &str) -> BTreeMap<(String, String), u64> {
    let mut sessions = BTreeMap::new();
    for line in text.lines() {
        let word = |start| line.split(' ').find_map(|word: &str| word.strip_prefix(start));
        if let (Some(backend), Some(server)) = (word("be="), word("srv=")) {
            *sessions.entry((backend.to_owned(), server.to_owned())).or_default() += 1;
        }
    }
    sessions
}

/// The processes of one HAProxy, from the master's `show proc`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Processes {
    /// How many reloads have failed since the last that succeeded.
    pub(crate) failed_reloads: u32,
    /// Workers that only finish what they have.
    pub(crate) leaving: Vec<u32>,
}

/// Reads the answer to `show proc`; none if it is not one.
pub(crate) fn parse_processes(text: &str) -> Option<Processes> {
    let mut processes = Processes::default();
    let mut master = false;
    let mut old = false;
    for line in text.lines() {
        if let Some(title) = line.strip_prefix("# ") {
            old = title.trim() == "old workers";
            continue;
        }
        let mut words = line.split_whitespace();
        let (Some(pid), Some(kind)) = (words.next().and_then(|pid| pid.parse().ok()), words.next()) else { continue };
        match kind {
            "master" => {
                master = true;
                let failed = line.split_once("[failed: ").and_then(|(_, rest)| rest.split(']').next()?.parse().ok());
                processes.failed_reloads = failed.unwrap_or(0);
            }
            "worker" if old => processes.leaving.push(pid),
            _ => {}
        }
    }
    master.then_some(processes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATE: &str = "\
Name: HAProxy
description: 0123456789ab

1
# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight srv_iweight srv_time srv_port
3 shop:web 1 abc-1 127.0.0.1 2 0 7 10 23 18490
3 shop:web 2 abc-2 ::1 0 8 256 256 23 18491
3 shop:web 3 abc-3 127.0.0.1 2 1 x 10 23 18490

# pxname,svname,qcur,scur,stot,econ,eresp,mode,hrsp_2xx,hrsp_5xx,ctime,rtime,check_status,last_chk,
shop:web,abc-1,1,2,30,1,0,http,25,4,3,20,L4OK,,

";

    #[test]
    fn answers_are_read() {
        let live = parse_live(STATE);
        assert_eq!(live.layout, "0123456789ab");
        assert_eq!(live.servers.len(), 2, "a line that makes no sense is left out");
        let first = &live.servers[&("shop:web".to_owned(), "abc-1".to_owned())];
        assert_eq!(first.address, Some("127.0.0.1:18490".parse().unwrap()));
        assert_eq!((first.weight, first.draining, first.maintenance, first.down), (7, false, false, false));
        let traffic = &first.traffic;
        assert_eq!((traffic.in_flight, traffic.requests, traffic.errors, traffic.mean_millis), (3, 30, 5, 23));
        let second = &live.servers[&("shop:web".to_owned(), "abc-2".to_owned())];
        assert_eq!(second.address, Some("[::1]:18491".parse().unwrap()));
        assert!(second.draining && second.down);
    }

    #[test]
    fn counts_that_make_no_sense_are_left_out() {
        let most = u64::MAX.to_string();
        let absurd = format!(",{most},2,{most},{most},1,http,25,{most},");
        let live = parse_live(&STATE.replace(",1,2,30,1,0,http,25,4,", &absurd));
        let traffic = &live.servers[&("shop:web".to_owned(), "abc-1".to_owned())].traffic;
        assert_eq!((traffic.in_flight, traffic.requests, traffic.errors), (2, 26, 1));
    }

    #[test]
    fn processes_are_read() {
        let text = "#<PID>  <type>  <reloads>  <uptime>\n1  master  2 [failed: 1]  0d\n# workers\n12 worker 1 0d\n\
                    # old workers\n9 worker 2 0d\n# programs\n\n";
        assert_eq!(parse_processes(text), Some(Processes { failed_reloads: 1, leaving: vec![9] }));
        assert_eq!(parse_processes("Unknown command\n"), None);
    }

    #[test]
    fn sessions_are_read() {
        let text = "0x1: proto=tcpv4 src=127.0.0.1:1 fe=in be=shop:web srv=abc-1 ts=00 age=1s\n\
                    0x2: proto=tcpv4 src=127.0.0.1:2 fe=in be=shop:web srv=abc-1 ts=00 age=1s\n\
                    0x3: proto=unix_stream fe=GLOBAL be=<NONE> srv=<none> ts=00 age=0s\n";
        let sessions = parse_sessions(text);
        assert_eq!(sessions[&("shop:web".to_owned(), "abc-1".to_owned())], 2);
    }

    #[test]
    fn garbage_is_harmless() {
        let mut seed = 7_u32;
        for length in 0..2000 {
            let bytes: Vec<u8> = STATE
                .bytes()
                .cycle()
                .take(length)
                .map(|byte| {
                    seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    if seed >> 28 == 0 { (seed >> 16) as u8 } else { byte }
                })
                .collect();
            let text = String::from_utf8_lossy(&bytes);
            parse_live(&text);
            parse_sessions(&text);
            parse_processes(&text);
        }
    }
}
