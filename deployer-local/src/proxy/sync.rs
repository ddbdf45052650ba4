//! What must be said to a running proxy so that it has the servers that it shall have.

use std::collections::BTreeSet;

use super::config::{Config, Server};
use super::runtime::{Live, LiveServer};

/// The commands that lead from the live servers to the wanted ones, in an order in which there is never less capacity
/// than before or after: what gains comes before what loses.
///
/// Weights that somebody changed by hand are left alone where `before` already wanted what is wanted now.
pub(crate) fn commands(live: &Live, wanted: &Config, before: Option<&Config>) -> Vec<String> {
    let mut gain = Vec::new();
    let mut lose = Vec::new();
    let mut known = BTreeSet::new();
    for (backend, servers) in wanted.backends.iter().map(|(name, backend)| (name, &backend.servers)) {
        for (name, server) in servers {
            let at = format!("{backend}/{name}");
            let key = (backend.clone(), name.clone());
            match live.servers.get(&key) {
                Some(present) => {
                    let earlier = before.and_then(|before| before.backends.get(backend)?.servers.get(name));
                    change(&at, present, *server, earlier, &mut gain, &mut lose);
                }
                None => add(&at, *server, &mut gain),
            }
            known.insert(key);
        }
    }
    for ((backend, name), present) in live.servers.iter().filter(|(key, _)| !known.contains(*key)) {
        if !present.maintenance {
            lose.push(format!("set server {backend}/{name} state maint"));
        }
        // Refused while it has connections: it then stays in maintenance until the next time.
        lose.push(format!("del server {backend}/{name}"));
    }
    gain.append(&mut lose);
    gain
}

fn add(at: &str, server: Server, gain: &mut Vec<String>) {
    gain.push(format!("add server {at} {}", server.definition(server.weight)));
    gain.push(format!("enable health {at}"));
    gain.push(format!("set server {at} state {}", if server.draining { "drain" } else { "ready" }));
}

fn change(
    at: &str,
    present: &LiveServer,
    wanted: Server,
    earlier: Option<&Server>,
    gain: &mut Vec<String>,
    lose: &mut Vec<String>,
) {
    if present.address != Some(wanted.address) {
        gain.push(format!("set server {at} addr {} port {}", wanted.address.ip(), wanted.address.port()));
    }
    let by_hand = earlier.is_some_and(|earlier| earlier.weight == wanted.weight);
    if present.weight != wanted.weight && !by_hand {
        let list = if wanted.weight > present.weight { &mut *gain } else { &mut *lose };
        list.push(format!("set server {at} weight {}", wanted.weight));
    }
    match (present.maintenance, present.draining, wanted.draining) {
        (false, true, true) | (false, false, false) => {}
        (_, _, false) => gain.push(format!("set server {at} state ready")),
        (_, _, true) => lose.push(format!("set server {at} state drain")),
    }
}

/// Why the live servers are not the wanted ones, if they are not. Servers left in maintenance do not count, and neither
/// do weights changed by hand.
pub(crate) fn difference(live: &Live, wanted: &Config, before: Option<&Config>) -> Option<String> {
    let rest = commands(live, wanted, before);
    rest.into_iter().find(|command| !command.starts_with("del server "))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use deployer_core::AppProtocol;

    use super::super::config::Backend;
    use super::super::runtime::Traffic;
    use super::*;

    fn server(weight: u16, draining: bool) -> Server {
        Server { address: ([127, 0, 0, 1], 80).into(), weight, draining, backup: false }
    }

    fn wanted(servers: &[(&str, Server)]) -> Config {
        let servers = servers.iter().map(|(name, server)| ((*name).to_owned(), *server)).collect();
        let backend = Backend { protocol: AppProtocol::Http, servers };
        Config { backends: BTreeMap::from([("b".to_owned(), backend)]), ..Config::default() }
    }

    fn live(servers: &[(&str, u16, bool)]) -> Live {
        let servers = servers.iter().map(|(name, weight, draining)| {
            let live = LiveServer {
                address: Some(([127, 0, 0, 1], 80).into()),
                weight: *weight,
                maintenance: false,
                draining: *draining,
                down: false,
                traffic: Traffic::default(),
            };
            (("b".to_owned(), (*name).to_owned()), live)
        });
        Live { layout: String::new(), servers: servers.collect() }
    }

    #[test]
    fn what_gains_comes_before_what_loses() {
        let commands = commands(
            &live(&[("a", 256, false), ("b", 0, false), ("gone", 1, false)]),
            &wanted(&[("a", server(0, false)), ("b", server(256, false))]),
            None,
        );
        assert_eq!(
            commands,
            [
                "set server b/b weight 256",
                "set server b/a weight 0",
                "set server b/gone state maint",
                "del server b/gone"
            ]
        );
    }

    #[test]
    fn nothing_to_say_when_all_is_well() {
        let wanted = wanted(&[("a", server(256, false)), ("b", server(3, true))]);
        let live = live(&[("a", 256, false), ("b", 3, true)]);
        assert!(commands(&live, &wanted, None).is_empty());
    }

    #[test]
    fn weights_changed_by_hand_stay_unless_they_shall_change() {
        let before = wanted(&[("a", server(256, false))]);
        let live = live(&[("a", 100, false)]);
        assert!(commands(&live, &before, Some(&before)).is_empty());
        let after = wanted(&[("a", server(30, false))]);
        assert_eq!(commands(&live, &after, Some(&before)), ["set server b/a weight 30"]);
        assert_eq!(commands(&live, &before, None), ["set server b/a weight 256"]);
    }
}
