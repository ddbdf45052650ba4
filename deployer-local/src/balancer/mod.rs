//! Bringing traffic to instances with HAProxy: one ingress for the host, and a proxy for each service that listens.

mod entries;
mod layout;
mod observe;
mod options;
mod state;
mod weights;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use bollard::query_parameters::ListContainersOptionsBuilder;
use deployer_core::{
    AppName, BalancerCapabilities, Effect, EnsureRoutes, Error, ErrorKind, LoadBalancer, ObservedRouting, Outcome,
    Result, RetainRoutes, RevisionId, ServiceName, SetTargets, SetWeights, TargetRegistration,
};
use futures_util::future::{try_join, try_join_all};

pub use options::{IngressOptions, Placement, TlsOptions};

use crate::engine::{Engine, classify};
use crate::naming::{self, compose, ours};
use crate::proxy::{Addresses, Config, ContainerSpec, EngineChooses, Place, Proxy};
use observe::{Seen, Sight};
use state::{AppState, Ledger, ServiceState, State, TargetEntry, Turn};

/// A [`LoadBalancer`] of HAProxy containers, for an engine on this host or one that only its API leads to: see
/// [`Placement`].
///
/// Traffic from outside enters through one ingress that all applications share. Calls between services go through a small proxy for each service, which answers to the service's
/// name in the application's networks. Both follow the same targets and weights, and both go on without this process.
#[derive(Clone, Debug)]
pub struct HaproxyBalancer {
    engine: Engine,
    options: IngressOptions,
    directory: PathBuf,
    ledger: Ledger,
    addresses: Arc<dyn Addresses>,
}

impl HaproxyBalancer {
    /// The balancer with this ingress, which need not exist yet. Its files are kept in `state_dir`, which an
    /// engine on this host must see under the same path; all processes that use the ingress must name the same.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] if the directory cannot be named absolutely.
    pub fn new(engine: Engine, state_dir: impl Into<PathBuf>, options: IngressOptions) -> Result<Self> {
        Self::with_addresses(engine, state_dir, options, Arc::new(EngineChooses))
    }

    /// The same with addresses of service proxies that stay when the engine starts them again.
    pub(crate) fn with_addresses(
        engine: Engine,
        state_dir: impl Into<PathBuf>,
        mut options: IngressOptions,
        addresses: Arc<dyn Addresses>,
    ) -> Result<Self> {
        options.placement.get_or_insert_with(|| Placement::of(&engine));
        let state_dir = std::path::absolute(state_dir.into()).map_err(|error| {
            Error::new(ErrorKind::InvalidInput, "the state directory has no absolute path").with_source(error)
        })?;
        let directory = state_dir.join("proxy").join(&options.name);
        let ledger = Ledger::new(directory.clone());
        Ok(Self { engine, options, directory, ledger, addresses })
    }

    fn is_relayed(&self) -> bool {
        self.options.placement == Some(Placement::Relayed)
    }

    fn ingress(&self, wanted: &State) -> Proxy {
        let place = match self.is_relayed() {
            false => Place::Host,
            true => Place::Published {
                // The engine publishes ports through the network with the first name, and moves them when there is
                // another first one: ours comes before those of applications.
                own: format!("0-{}", self.options.name),
                joined: layout::networks(wanted),
                addresses: layout::addresses(wanted, &self.options),
            },
        };
        let spec = ContainerSpec {
            name: self.options.name.clone(),
            image: self.options.image.clone(),
            labels: HashMap::from([(ours::ROLE.to_owned(), ours::ROLE_INGRESS.to_owned())]),
            place,
            certificates: self.options.tls.as_ref().map(|tls| tls.certificates.clone()),
            relayed: self.is_relayed(),
        };
        Proxy::new(self.engine.clone(), spec, self.directory.clone())
    }

    fn service_proxy(&self, app: &AppName, service: &ServiceName, networks: BTreeMap<String, Vec<String>>) -> Proxy {
        let name = naming::service_proxy(app, service);
        // To Compose it is a one-off container: `down` removes it, and `up` and `ps` take no notice of it.
        let labels = [
            (compose::PROJECT, app.as_str()),
            (compose::SERVICE, service.as_str()),
            (compose::NUMBER, "1"),
            (compose::ONEOFF, "True"),
            (ours::APP, app.as_str()),
            (ours::ROLE, ours::ROLE_SERVICE_PROXY),
        ];
        let spec = ContainerSpec {
            name: name.clone(),
            image: self.options.image.clone(),
            labels: labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
            place: Place::Networks(networks),
            certificates: None,
            relayed: self.is_relayed(),
        };
        Proxy::new(self.engine.clone(), spec, self.directory.join("services").join(name))
    }

    /// Writes down what shall be, tells the proxies, and notes that they did it. Answers whether anything had to be
    /// changed. `before` is what was written.
    async fn commit(&self, turn: &mut Turn, before: &State, app: &AppName, scope: Scope<'_>) -> Result<bool> {
        let written = turn.state != *before;
        if written {
            turn.state.pending.insert(app.clone());
            turn.save().await?;
        }
        // What an earlier process may have left undone is not to be taken for somebody's wish.
        let mut trusted = before.pending.is_empty().then(|| before.clone());
        if let (Scope::Weights(service), Some(trusted)) = (scope, &mut trusted)
            && let Some(services) = trusted.apps.get_mut(app)
        {
            services.remove(service);
        }
        let mut changed = match self.apply_ingress(&turn.state, trusted.as_ref()).await {
            Ok(changed) => changed,
            Err(error) => {
                if written && error.effect() == Effect::None {
                    turn.state = before.clone();
                    turn.save().await?;
                    // A relayed one was made anew for it, and is not there now.
                    if self.is_relayed()
                        && let Err(error) = self.apply_ingress(before, None).await
                    {
                        tracing::warn!(%error, "the ingress could not be brought back");
                    }
                }
                return Err(error);
            }
        };
        let everything = before.pending.contains(app);
        for (name, service) in turn.state.apps.get(app).into_iter().flatten() {
            if everything || scope.has(name) {
                let earlier = trusted.as_ref().and_then(|trusted| trusted.apps.get(app)?.get(name));
                let earlier = earlier.map(|earlier| layout::service_proxy(earlier, &self.options));
                let proxy = self.service_proxy(app, name, service.networks.clone());
                let wanted = layout::service_proxy(service, &self.options);
                changed |= proxy.apply(&wanted, earlier.as_ref(), &*self.addresses).await?;
            }
        }
        if matches!(scope, Scope::Removal) {
            changed |= self.remove_strays(turn.state.apps.get(app), app).await?;
        }
        turn.settle(app).await?;
        self.finish_others(turn, app).await;
        Ok(changed)
    }

    /// Removes the proxies of services that have no entry, as the engine knows them: what is written need not know them
    /// any more.
    async fn remove_strays(&self, services: Option<&AppState>, app: &AppName) -> Result<bool> {
        let filter = naming::label_filter(&[(ours::APP, app.as_str()), (ours::ROLE, ours::ROLE_SERVICE_PROXY)]);
        let options = ListContainersOptionsBuilder::default().all(true).filters(&filter).build();
        let containers = self.engine.docker().list_containers(Some(options)).await;
        let containers = containers.map_err(|error| classify("balancer.retain", app.as_str(), error))?;
        let mut removed = false;
        for container in containers {
            let service = container.labels.unwrap_or_default().remove(compose::SERVICE);
            let Some(service) = service.and_then(|service| ServiceName::new(service).ok()) else { continue };
            if !services.is_some_and(|services| services.contains_key(&service)) {
                removed |= self.service_proxy(app, &service, BTreeMap::new()).remove().await?;
            }
        }
        Ok(removed)
    }

    async fn apply_ingress(&self, wanted: &State, before: Option<&State>) -> Result<bool> {
        let config = layout::ingress(wanted, &self.options);
        if config.entries.is_empty() {
            return self.ingress(wanted).remove_container().await;
        }
        let before = before.map(|before| layout::ingress(before, &self.options));
        self.ingress(wanted).apply(&config, before.as_ref(), &EngineChooses).await
    }

    /// Finishes what was begun for other applications and not finished. The ingress has it all already.
    async fn finish_others(&self, turn: &mut Turn, app: &AppName) {
        let others: BTreeSet<AppName> = turn.state.pending.iter().filter(|other| *other != app).cloned().collect();
        for other in others {
            let services = turn.state.apps.get(&other).cloned().unwrap_or_default();
            let mut finished = true;
            for (name, service) in &services {
                let proxy = self.service_proxy(&other, name, service.networks.clone());
                let applied = proxy.apply(&layout::service_proxy(service, &self.options), None, &*self.addresses).await;
                if let Err(error) = applied {
                    // Its own next operation says so.
                    tracing::warn!(%error, app = %other, service = %name, "the service's proxy could not be repaired");
                    finished = false;
                }
            }
            if finished && let Err(error) = turn.settle(&other).await {
                tracing::warn!(%error, app = %other, "the repair could not be noted");
            }
        }
    }

    /// Looks at one proxy.
    async fn see(&self, proxy: &Proxy, wanted: Config) -> Result<Seen> {
        if wanted.entries.is_empty() {
            return Ok(Seen::default());
        }
        let (live, leaving) = proxy.look().await?.unzip();
        let leaving = leaving.unwrap_or_default();
        Ok(Seen { wanted, live, leaving })
    }

    /// Looks at the proxies of one application's services.
    async fn see_all(&self, state: &State, app: &AppName) -> Result<(Seen, BTreeMap<ServiceName, Seen>)> {
        let ingress = self.ingress(state);
        let ingress = self.see(&ingress, layout::ingress(state, &self.options));
        let proxies = try_join_all(state.apps.get(app).into_iter().flatten().map(async |(name, service)| {
            let proxy = self.service_proxy(app, name, service.networks.clone());
            Ok((name.clone(), self.see(&proxy, layout::service_proxy(service, &self.options)).await?))
        }));
        let (ingress, proxies) = try_join(ingress, proxies).await?;
        Ok((ingress, proxies.into_iter().collect()))
    }
}

/// What of an application an operation is about.
#[derive(Clone, Copy, Debug)]
enum Scope<'a> {
    /// All of its services.
    App,
    /// All of its services, and what is left of those that it has no more.
    Removal,
    /// The targets of one service.
    Targets(&'a ServiceName),
    /// The weights of one service; those that somebody has changed by hand are set too.
    Weights(&'a ServiceName),
}

impl Scope<'_> {
    fn has(self, service: &ServiceName) -> bool {
        match self {
            Self::App | Self::Removal => true,
            Self::Targets(one) | Self::Weights(one) => one == service,
        }
    }
}

/// The service's entry, which must exist.
fn entry<'a>(state: &'a mut State, app: &AppName, service: &ServiceName) -> Result<&'a mut ServiceState> {
    state.apps.get_mut(app).and_then(|services| services.get_mut(service)).ok_or_else(|| {
        Error::new(ErrorKind::NotFound, "the service has no entry at the load balancer")
            .with_resource(format!("{app}/{service}"))
            .with_help("its routes and ports must be ensured first")
    })
}

fn no_pool(revision: &RevisionId) -> Error {
    Error::new(ErrorKind::NotFound, "the revision has no pool to give weight to").with_resource(revision.to_string())
}

fn outcome(changed: bool) -> Outcome {
    if changed { Outcome::Changed } else { Outcome::AlreadyThere }
}

#[async_trait]
impl LoadBalancer for HaproxyBalancer {
    fn capabilities(&self) -> BalancerCapabilities {
        BalancerCapabilities::new(TargetRegistration::Engine)
    }

    async fn ensure(&self, request: EnsureRoutes) -> Result<Outcome> {
        let named = |error: Error| error.with_operation("balancer.ensure");
        if self.engine.is_desktop() && !self.is_relayed() {
            let message = "proxies on Docker Desktop cannot be reached from here";
            return Err(named(Error::new(ErrorKind::Unsupported, message))
                .with_help("leave the placement to the engine's kind, or choose `Placement::Relayed`"));
        }
        let mut turn = self.ledger.open().await.map_err(named)?;
        let before = turn.state.clone();
        let release = &request.release;
        entries::expect_unclaimed(&before, release, &self.options).map_err(named)?;
        entries::add(&mut turn.state, release, &self.options);
        if self.is_relayed() {
            entries::expect_one_address_each(&layout::addresses(&turn.state, &self.options)).map_err(named)?;
        }
        let changed = self.commit(&mut turn, &before, &release.app, Scope::App).await.map_err(named)?;
        let fresh = !before.apps.contains_key(&release.app);
        Ok(if changed && fresh { Outcome::Created } else { outcome(changed) })
    }

    async fn observe(&self, app: &AppName) -> Result<Vec<ObservedRouting>> {
        let named = |error: Error| error.with_operation("balancer.observe").with_resource(app.as_str());
        let mut turn = self.ledger.open().await.map_err(named)?;
        if !turn.state.apps.contains_key(app) {
            return Ok(Vec::new());
        }
        let mut seen = self.see_all(&turn.state, app).await.map_err(named)?;
        let all = || std::iter::once(&seen.0).chain(seen.1.values());
        // A proxy that somebody has removed or stopped is made anew by the next change, not by looking.
        let (runs, differs) = (all().all(Seen::runs), all().any(Seen::differs));
        if runs && (differs || turn.state.pending.contains(app)) {
            let before = turn.state.clone();
            self.commit(&mut turn, &before, app, Scope::App).await.map_err(named)?;
            seen = self.see_all(&turn.state, app).await.map_err(named)?;
        }
        let (ingress, proxies) = seen;
        let services = turn.state.apps.get(app).into_iter().flatten();
        let sights = services.map(|(name, service)| {
            let proxy = &proxies[name];
            Sight { app, name, service, ingress: &ingress, proxy }.routing()
        });
        Ok(sights.collect())
    }

    async fn set_targets(&self, request: SetTargets) -> Result<Outcome> {
        let resource = request.revision.to_string();
        let named = |error: Error| error.with_operation("balancer.set_targets").with_resource(resource.clone());
        let mut targets = Vec::with_capacity(request.targets.len());
        for target in request.targets {
            let address = target.address.parse().map_err(|error| {
                named(Error::new(ErrorKind::InvalidInput, format!("{:?} is not an IP address", target.address)))
                    .with_source(error)
            });
            let (instance, draining) = (target.instance, target.draining);
            targets.push(TargetEntry { instance, address: address?, draining });
        }
        targets.sort_by(|a, b| a.instance.cmp(&b.instance));
        targets.dedup_by(|a, b| a.instance == b.instance);
        let mut turn = self.ledger.open().await.map_err(named)?;
        let before = turn.state.clone();
        let service = entry(&mut turn.state, &request.app, request.revision.service()).map_err(named)?;
        let fresh = !service.pools.contains_key(&request.revision);
        let pool = service.pools.entry(request.revision.clone()).or_default();
        entries::set_ports(pool, &request.service, &self.options);
        pool.targets = targets;
        let changed = self
            .commit(&mut turn, &before, &request.app, Scope::Targets(request.revision.service()))
            .await
            .map_err(named)?;
        Ok(if fresh { Outcome::Created } else { outcome(changed || turn.state != before) })
    }

    async fn set_weights(&self, request: SetWeights) -> Result<Outcome> {
        let SetWeights { app, service: name, weights, expected, .. } = request;
        let resource = format!("{app}/{name}");
        let named = |error: Error| error.with_operation("balancer.set_weights").with_resource(resource.clone());
        let mut turn = self.ledger.open().await.map_err(named)?;
        let service = entry(&mut turn.state, &app, &name).map_err(named)?.clone();
        for (revision, weight) in &weights {
            if *weight > 0 && !service.pools.contains_key(revision) {
                return Err(named(no_pool(revision)));
            }
        }
        let weight = |revision| weights.get(revision).copied().unwrap_or(0);
        let wanted = service.pools.iter().all(|(revision, pool)| pool.weight == weight(revision));
        let (ingress, proxy) = (self.ingress(&turn.state), self.service_proxy(&app, &name, service.networks.clone()));
        let ingress = self.see(&ingress, layout::ingress(&turn.state, &self.options));
        let proxy = self.see(&proxy, layout::service_proxy(&service, &self.options));
        let (ingress, proxy) = try_join(ingress, proxy).await.map_err(named)?;
        let sight = Sight { app: &app, name: &name, service: &service, ingress: &ingress, proxy: &proxy };
        // What was begun and not finished is not somebody else's change.
        let unfinished = turn.state.pending.contains(&app);
        if wanted && (unfinished || !sight.is_changed_by_hand()) {
            let before = turn.state.clone();
            let changed = self.commit(&mut turn, &before, &app, Scope::Weights(&name)).await.map_err(named)?;
            return Ok(outcome(changed));
        }
        let version = sight.version();
        if version != expected && !(unfinished && service.version.to_string() == expected.0) {
            return Err(named(
                Error::new(ErrorKind::Conflict, "the weights have been changed since they were looked at")
                    .with_context("expected", expected.0)
                    .with_context("found", version.0),
            ));
        }
        let before = turn.state.clone();
        let service = entry(&mut turn.state, &app, &name).map_err(named)?;
        service.version += 1;
        for (revision, pool) in &mut service.pools {
            let before = std::mem::replace(&mut pool.weight, weight(revision));
            pool.standby = pool.weight == 0 && (pool.standby || before > 0);
        }
        self.commit(&mut turn, &before, &app, Scope::Weights(&name)).await.map_err(named)?;
        Ok(Outcome::Changed)
    }

    async fn retain(&self, request: RetainRoutes) -> Result<Outcome> {
        let app = &request.app;
        let named = |error: Error| error.with_operation("balancer.retain").with_resource(app.as_str());
        let mut turn = self.ledger.open().await.map_err(named)?;
        let before = turn.state.clone();
        match (&request.release, turn.state.apps.get_mut(app)) {
            (Some(release), Some(services)) => {
                entries::retain(services, release, &self.options);
                for service in services.values_mut() {
                    service.pools.retain(|revision, _| request.pools.contains(revision));
                }
                if services.is_empty() {
                    turn.state.apps.remove(app);
                }
            }
            _ => {
                turn.state.apps.remove(app);
            }
        }
        let changed = self.commit(&mut turn, &before, app, Scope::Removal).await.map_err(named)?;
        Ok(outcome(changed || turn.state != before))
    }
}
