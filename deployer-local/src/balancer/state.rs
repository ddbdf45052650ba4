//! What the proxies shall do, as it is kept on disk: written before a proxy is told, so that whoever comes next can tell
//! what was meant.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use deployer_core::{AppName, AppProtocol, Error, ErrorKind, InstanceId, Result, RevisionId, Route, ServiceName};
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::proxy::create_private;

/// The version of the stored form that this build writes.
const FORMAT: u16 = 1;

/// Everything that an ingress and the service proxies beside it shall do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct State {
    pub(super) format: u16,
    /// Applications for which a change was begun and not finished: what runs need not be what is written here.
    pub(super) pending: BTreeSet<AppName>,
    /// Counts claims of entries, so that it can be told which is the latest.
    pub(super) claims: u64,
    pub(super) apps: BTreeMap<AppName, AppState>,
}

impl Default for State {
    fn default() -> Self {
        Self { format: FORMAT, pending: BTreeSet::new(), claims: 0, apps: BTreeMap::new() }
    }
}

/// The services of an application that have an entry.
pub(super) type AppState = BTreeMap<ServiceName, ServiceState>;

/// One service that has an entry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ServiceState {
    /// Counts changes of weights.
    pub(super) version: u64,
    pub(super) routes: Vec<RouteEntry>,
    pub(super) published: Vec<PublishedEntry>,
    /// The ports on which other services reach it.
    pub(super) internal: BTreeMap<u16, AppProtocol>,
    /// The engine's names of its networks, and its names on each.
    pub(super) networks: BTreeMap<String, Vec<String>>,
    pub(super) pools: BTreeMap<RevisionId, PoolState>,
}

/// A route, and when it was claimed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RouteEntry {
    pub(super) route: Route,
    pub(super) claim: u64,
}

/// A published port, and when it was claimed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PublishedEntry {
    pub(super) address: SocketAddr,
    pub(super) protocol: AppProtocol,
    pub(super) claim: u64,
}

/// The targets of one revision.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PoolState {
    pub(super) weight: u8,
    /// Whether it has no weight and had some before: it stands by in case that nothing that has weight answers.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) standby: bool,
    /// The routes as the revision has them: the same host and path may lead to another port than before.
    pub(super) routes: Vec<Route>,
    /// The published addresses as the revision has them, each with the port that it leads to.
    pub(super) published: Vec<(SocketAddr, u16)>,
    pub(super) internal: Vec<u16>,
    pub(super) targets: Vec<TargetEntry>,
}

/// One instance in a pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct TargetEntry {
    pub(super) instance: InstanceId,
    pub(super) address: IpAddr,
    pub(super) draining: bool,
}

impl PoolState {
    /// The targets that get new requests.
    pub(super) fn active(&self) -> impl Iterator<Item = &TargetEntry> {
        self.targets.iter().filter(|target| !target.draining)
    }
}

impl ServiceState {
    /// Whether some of its instances would get requests.
    pub(super) fn is_live(&self) -> bool {
        self.pools.values().any(|pool| pool.weight > 0 && pool.active().next().is_some())
    }
}

/// Whether two routes have the same host and path.
pub(super) fn same_route(a: &Route, b: &Route) -> bool {
    route_key(a) == route_key(b)
}

/// What tells routes apart: the host in lower case and the path without a slash at its end.
pub(super) fn route_key(route: &Route) -> (Option<String>, &str) {
    let host = route.host.as_deref().map(|host| host.trim_end_matches('.').to_ascii_lowercase());
    (host, route.path.trim_end_matches('/'))
}

/// Where the state is kept. Several processes may have the same one open.
#[derive(Clone, Debug)]
pub(super) struct Ledger {
    directory: PathBuf,
    // Keeps this process's turns apart without a thread waiting for each.
    turn: Arc<Mutex<()>>,
}

/// The state while nobody else may change it.
#[derive(Debug)]
pub(super) struct Turn {
    pub(super) state: State,
    directory: PathBuf,
    held: Arc<Held>,
}

/// What keeps others away until it is dropped.
#[derive(Debug)]
struct Held {
    _file: File,
    _turn: OwnedMutexGuard<()>,
}

impl Ledger {
    pub(super) fn new(directory: PathBuf) -> Self {
        Self { directory, turn: Arc::default() }
    }

    /// Waits for its turn and reads the state. Cancel safe.
    pub(super) async fn open(&self) -> Result<Turn> {
        let turn = Arc::clone(&self.turn).lock_owned().await;
        let directory = self.directory.clone();
        let opened = tokio::task::spawn_blocking(move || {
            create_private(&directory)?;
            let file = File::options().create(true).truncate(false).write(true).open(directory.join("lock"))?;
            file.lock()?;
            let text = match std::fs::read(directory.join("state.json")) {
                Ok(text) => Some(text),
                Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                Err(error) => return Err(error),
            };
            Ok((file, text))
        });
        let (file, text) = flatten(opened.await).map_err(|error| self.failed(error))?;
        let state = text.map_or_else(|| Ok(State::default()), |text| parse(&text, &self.directory))?;
        let held = Arc::new(Held { _file: file, _turn: turn });
        Ok(Turn { state, directory: self.directory.clone(), held })
    }

    fn failed(&self, error: io::Error) -> Error {
        Error::new(ErrorKind::Internal, "the load balancer's state cannot be read")
            .with_resource(self.directory.display().to_string())
            .with_source(error)
    }
}

fn parse(text: &[u8], directory: &Path) -> Result<State> {
    let corrupt = |message: String| {
        Error::new(ErrorKind::Corrupt, message)
            .with_resource(directory.join("state.json").display().to_string())
            .with_help("move the file away and deploy again: routes and pools are made anew")
    };
    let state: State = serde_json::from_slice(text)
        .map_err(|error| corrupt("the load balancer's state makes no sense".to_owned()).with_source(error))?;
    if state.format > FORMAT {
        return Err(corrupt(format!("the load balancer's state has format {} of a later version", state.format)));
    }
    Ok(state)
}

impl Turn {
    /// Writes the state so that it survives a crash of this process and of the host.
    pub(super) async fn save(&self) -> Result<()> {
        self.write(true).await
    }

    /// Notes that what is written is what runs. If the note gets lost, it is only looked at again.
    pub(super) async fn settle(&mut self, app: &AppName) -> Result<()> {
        if self.state.pending.remove(app) { self.write(false).await } else { Ok(()) }
    }

    async fn write(&self, durable: bool) -> Result<()> {
        let failed = |error: io::Error| {
            Error::new(ErrorKind::Internal, "the load balancer's state cannot be written")
                .with_resource(self.directory.display().to_string())
                .with_source(error)
        };
        let text = serde_json::to_vec_pretty(&self.state).map_err(|error| failed(error.into()))?;
        let directory = self.directory.clone();
        let held = Arc::clone(&self.held);
        let written = tokio::task::spawn_blocking(move || {
            // Also if the caller is dropped meanwhile: the next turn must not be overtaken by this write.
            let _held = held;
            let fresh = directory.join("state.json.tmp");
            let mut file = File::create(&fresh)?;
            file.write_all(&text)?;
            if durable {
                file.sync_all()?;
            }
            std::fs::rename(&fresh, directory.join("state.json"))?;
            if durable { File::open(&directory)?.sync_all() } else { Ok(()) }
        });
        flatten(written.await).map_err(failed)
    }
}

fn flatten<T>(joined: Result<io::Result<T>, tokio::task::JoinError>) -> io::Result<T> {
    joined.unwrap_or_else(|error| Err(io::Error::other(error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_stored_form_is_read_for_ever() {
        let text = include_bytes!("state-1.json");
        let state = parse(text, Path::new(".")).unwrap();
        assert_eq!(serde_json::to_vec_pretty(&state).unwrap(), text.trim_ascii_end());
        let web = &state.apps["shop"]["web"];
        assert_eq!(web.version, 3);
        assert!(web.is_live());
    }

    #[test]
    fn what_makes_no_sense_is_corrupt() {
        let kind = |text: &[u8]| parse(text, Path::new(".")).unwrap_err().kind();
        assert_eq!(kind(b"{}"), ErrorKind::Corrupt);
        let later = br#"{"format":2,"pending":[],"claims":0,"apps":{}}"#;
        assert_eq!(kind(later), ErrorKind::Corrupt);
    }

    #[test]
    fn routes_are_equal_by_host_and_path() {
        let route = |host: &str, path: &str| Route::new(1).with_host(host).with_path(path);
        assert!(same_route(&route("A.example", "/x/"), &route("a.example.", "/x")));
        assert!(!same_route(&route("a.example", "/x"), &route("a.example", "/y")));
    }
}
