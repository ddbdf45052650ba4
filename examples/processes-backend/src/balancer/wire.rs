//! What is said over the proxy's socket: one line of JSON there, one back.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use deployer_core::{
    AppName, Error, ErrorKind, InstanceId, ObservedRouting, Outcome, PoolVersion, RevisionId, Route, ServiceName,
};
use serde::{Deserialize, Serialize};

/// Asks the proxy for something. Each one describes what shall be, as the trait's requests do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    Observe { app: AppName },
    Ensure { app: AppName, entries: BTreeMap<ServiceName, Entrances> },
    SetTargets { app: AppName, revision: RevisionId, port: u16, targets: Vec<TargetRow> },
    SetWeights { app: AppName, service: ServiceName, weights: BTreeMap<RevisionId, u8>, expected: PoolVersion },
    Retain { app: AppName, entries: BTreeMap<ServiceName, Entrances>, pools: Vec<RevisionId> },
}

/// What the proxy answers.
pub(crate) type Reply = Result<Answer, Refusal>;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Answer {
    Observed(Vec<ObservedRouting>),
    Done(Outcome),
}

/// Where traffic for a service enters.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entrances {
    /// What comes in on the address for HTTP from outside.
    pub(crate) routes: Vec<Route>,
    /// Addresses of its own: those by which other services call it, and published ports.
    pub(crate) listeners: Vec<Listener>,
}

/// An address on which the proxy listens for a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Listener {
    pub(crate) at: SocketAddr,
    /// The port of the instances.
    pub(crate) port: u16,
    /// Whether single requests are routed, rather than whole connections.
    pub(crate) http: bool,
}

/// One target of a pool.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct TargetRow {
    pub(crate) instance: InstanceId,
    pub(crate) address: IpAddr,
    pub(crate) draining: bool,
}

/// Why something was not done. Nothing of it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Refusal {
    kind: ErrorKind,
    resource: String,
    message: String,
    context: Option<String>,
}

impl Refusal {
    pub(crate) fn new(kind: ErrorKind, resource: impl ToString, message: impl Into<String>) -> Self {
        Self { kind, resource: resource.to_string(), message: message.into(), context: None }
    }

    pub(crate) fn found(mut self, what: impl ToString) -> Self {
        self.context = Some(what.to_string());
        self
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        let error = Self::new(refusal.kind, refusal.message).with_resource(refusal.resource);
        match refusal.context {
            Some(found) => error.with_context("found", found),
            None => error,
        }
    }
}
