//! The networks of applications, and addresses in them that do not change when a container is started again.
//!
//! The engine gives a container a new address with every start, and the proxies know containers by address. So a network
//! that we create has a subnet of its own of which the engine hands out only the lower half: the upper half is ours to
//! give to containers for as long as they exist.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bollard::errors::Error as DockerError;
use bollard::models::{Ipam, IpamConfig, NetworkCreateRequest, NetworkInspect};
use bollard::query_parameters::{InspectNetworkOptions, ListContainersOptionsBuilder, ListNetworksOptionsBuilder};
use deployer_core::{AppName, Error, ErrorKind, NetworkSpec, Outcome, Result, Retry};

use crate::engine::{Engine, classify};
use crate::naming::{self, compose, ours};
use crate::proxy::{Addresses, Reservation};
use crate::subnet::Subnet;

const ENSURE: &str = "network.ensure";
const RESERVE: &str = "network.reserve";

/// How often a subnet is looked for that nobody else takes in the meantime.
const ATTEMPTS: u32 = 5;

/// The networks of one engine. Clones share their reservations, and all that give out addresses must be clones of one.
#[derive(Clone, Debug)]
pub(crate) struct Networks {
    engine: Engine,
    // Held while addresses are chosen or a network is made, so that two callers never choose the same.
    turn: Arc<tokio::sync::Mutex<()>>,
    held: Arc<Held>,
}

/// Addresses that were given out and that no container has yet.
#[derive(Debug, Default)]
struct Held(Mutex<HashSet<(String, Ipv4Addr)>>);

/// An address that nobody else gets while this exists. Drop it when a container has it: from then on the engine knows.
#[derive(Debug)]
pub(crate) struct Reserved {
    network: String,
    address: Ipv4Addr,
    held: Arc<Held>,
}

impl Reserved {
    /// The address.
    pub(crate) fn address(&self) -> Ipv4Addr {
        self.address
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        let mut held = self.held.0.lock().unwrap_or_else(PoisonError::into_inner);
        held.remove(&(std::mem::take(&mut self.network), self.address));
    }
}

#[async_trait]
impl Addresses for Networks {
    async fn reserve(&self, network: &str) -> Result<Option<Reservation>> {
        let reserved = Self::reserve(self, network, 1, &[]).await?.and_then(|mut reserved| reserved.pop());
        Ok(reserved.map(|reserved| -> Reservation { (reserved.address, Box::new(reserved)) }))
    }
}

impl Networks {
    /// The networks of this engine.
    pub(crate) fn new(engine: Engine) -> Self {
        Self { engine, turn: Arc::default(), held: Arc::default() }
    }

    /// Makes a network of an application exist, with these labels beside ours and the spec's. One that exists is taken
    /// as it is, whoever made it; an external one must exist.
    ///
    /// # Errors
    /// `NotFound` if an external one is missing, `Exhausted` if the engine has no subnet left.
    pub(crate) async fn ensure(
        &self,
        app: &AppName,
        key: &str,
        spec: Option<&NetworkSpec>,
        labels: &[(&str, &str)],
    ) -> Result<Outcome> {
        let name = naming::network(app, key, spec);
        let _turn = self.turn.lock().await;
        if self.inspect(&name).await.map_err(|error| classify(ENSURE, &name, error))?.is_some() {
            return Ok(Outcome::AlreadyThere);
        }
        if spec.is_some_and(|spec| spec.external) {
            return Err(Error::new(ErrorKind::NotFound, "no such network, and it is declared external")
                .with_operation(ENSURE)
                .with_help(format!("create it with `docker network create {name}`, or drop `external`"))
                .with_resource(name));
        }
        self.create(&request(app, key, spec, labels)).await.map_err(|error| {
            let classified = classify(ENSURE, &name, error);
            match is_overlap(classified.message()) {
                false => classified,
                true if spec.is_some_and(|spec| spec.ipam.is_some()) => taken(&name),
                true => exhausted(&name),
            }
        })?;
        Ok(Outcome::Created)
    }

    /// Takes `count` free addresses of a network, none of them among `others`. None if the network is not one in which
    /// addresses can be chosen: it is somebody else's, or was there before us, or is no bridge.
    ///
    /// # Errors
    /// `NotFound` if there is no such network, `Exhausted` if it has not so many addresses left.
    pub(crate) async fn reserve(
        &self,
        network: &str,
        count: usize,
        others: &[Ipv4Addr],
    ) -> Result<Option<Vec<Reserved>>> {
        let failed = |error| classify(RESERVE, network, error);
        let _turn = self.turn.lock().await;
        let Some(inspected) = self.inspect(network).await.map_err(failed)? else {
            return Err(Error::new(ErrorKind::NotFound, "no such network")
                .with_operation(RESERVE)
                .with_resource(network));
        };
        let Some((subnet, dynamic)) = divided(&inspected) else { return Ok(None) };
        // What is held is read before what exists: a reservation that is dropped in between belongs to a container that
        // the list has.
        let held = self.held.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut taken: HashSet<Ipv4Addr> =
            held.iter().filter(|(of, _)| of == network).map(|(_, address)| *address).collect();
        taken.extend(addresses_of(&inspected));
        taken.extend(others);
        taken.extend(self.configured(network, inspected.id.as_deref()).await.map_err(failed)?);
        let free = subnet.free(dynamic, &taken, count);
        if free.len() < count {
            return Err(Error::new(ErrorKind::Exhausted, "the network has no addresses left")
                .with_operation(RESERVE)
                .with_resource(network)
                .with_context("subnet", subnet.to_string())
                .with_context("wanted", count.to_string())
                .with_context("free", free.len().to_string()));
        }
        let mut held = self.held.0.lock().unwrap_or_else(PoisonError::into_inner);
        let reserved = free.into_iter().map(|address| {
            held.insert((network.to_owned(), address));
            Reserved { network: network.to_owned(), address, held: Arc::clone(&self.held) }
        });
        Ok(Some(reserved.collect()))
    }

    async fn inspect(&self, name: &str) -> Result<Option<NetworkInspect>, DockerError> {
        match self.engine.docker().inspect_network(name, None::<InspectNetworkOptions>).await {
            // The engine also finds networks by the beginning of their id.
            Ok(network) => Ok((network.name.as_deref() == Some(name)).then_some(network)),
            Err(DockerError::DockerResponseServerError { status_code: 404, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The addresses that containers in this network will have when they run.
    async fn configured(&self, name: &str, id: Option<&str>) -> Result<Vec<Ipv4Addr>, DockerError> {
        let every = ListContainersOptionsBuilder::default().all(true).build();
        let containers = self.engine.docker().list_containers(Some(every)).await?;
        let endpoints = containers.into_iter().filter_map(|container| container.network_settings?.networks).flatten();
        let here = endpoints.filter(|(key, endpoint)| {
            key == name || id.is_some_and(|id| key == id || endpoint.network_id.as_deref() == Some(id))
        });
        let addresses = here.flat_map(|(_, endpoint)| {
            [endpoint.ipam_config.and_then(|config| config.ipv4_address), endpoint.ip_address]
        });
        Ok(addresses.flatten().filter_map(|address| address.parse().ok()).collect())
    }

    /// Creates a network with a subnet of its own: the one that the engine picks when it is not told.
    async fn create(&self, wanted: &NetworkCreateRequest) -> Result<(), DockerError> {
        let docker = self.engine.docker();
        if !is_bridge(wanted.driver.as_deref()) || wanted.ipam.is_some() {
            return self.create_once(wanted).await;
        }
        let scout = NetworkCreateRequest { name: format!("{}.subnet", wanted.name), ..wanted.clone() };
        for attempt in 1..=ATTEMPTS {
            // A run that was killed here may have left its own behind.
            self.remove_all(&scout.name).await?;
            self.create_once(&scout).await?;
            let picked = self.inspect(&scout.name).await?.as_ref().and_then(first_config);
            self.remove_all(&scout.name).await?;
            let subnet: Option<Subnet> = picked.as_ref().and_then(|config| config.subnet.as_deref()?.parse().ok());
            let Some((subnet, lower)) = subnet.and_then(|subnet| Some((subnet, subnet.lower_half()?))) else {
                return self.create_once(wanted).await;
            };
            let config = IpamConfig {
                subnet: Some(subnet.to_string()),
                ip_range: Some(lower.to_string()),
                // Some engines answer with the prefix, none takes it.
                gateway: picked.and_then(|config| Some(config.gateway?.split('/').next()?.to_owned())),
                auxiliary_addresses: None,
            };
            let ipam = Ipam { config: Some(vec![config]), ..Ipam::default() };
            match docker.create_network(NetworkCreateRequest { ipam: Some(ipam), ..wanted.clone() }).await {
                Err(DockerError::DockerResponseServerError { message, .. })
                    if is_overlap(&message) && attempt < ATTEMPTS => {}
                other => return other.map(drop),
            }
        }
        Ok(())
    }

    async fn create_once(&self, wanted: &NetworkCreateRequest) -> Result<(), DockerError> {
        self.engine.docker().create_network(wanted.clone()).await.map(drop)
    }

    async fn remove_all(&self, name: &str) -> Result<(), DockerError> {
        // Older engines allow several networks of one name, so they are removed by id.
        let filters = HashMap::from([("name".to_owned(), vec![name.to_owned()])]);
        let options = ListNetworksOptionsBuilder::default().filters(&filters).build();
        for network in self.engine.docker().list_networks(Some(options)).await? {
            if network.name.as_deref() != Some(name) {
                continue;
            }
            match self.engine.docker().remove_network(&network.id.unwrap_or_default()).await {
                Ok(()) | Err(DockerError::DockerResponseServerError { status_code: 404, .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

fn exhausted(name: &str) -> Error {
    Error::new(ErrorKind::Exhausted, "other networks took every subnet that the engine offered")
        .with_operation(ENSURE)
        .with_resource(name)
        .with_retry(Retry::Soon)
        .with_help("try again, or remove networks that nothing uses with `docker network prune`")
}

fn taken(name: &str) -> Error {
    Error::new(ErrorKind::AlreadyExists, "another network has addresses of the subnet that `ipam` names")
        .with_operation(ENSURE)
        .with_resource(name)
        .with_help("name another subnet, or remove the other network")
}

/// Whether this driver, which is the default, makes networks that are this host's alone.
fn is_bridge(driver: Option<&str>) -> bool {
    driver.is_none_or(|driver| driver == "bridge")
}

fn request(app: &AppName, key: &str, spec: Option<&NetworkSpec>, labels: &[(&str, &str)]) -> NetworkCreateRequest {
    let mut all: BTreeMap<String, String> = spec.map(|spec| spec.labels.clone()).unwrap_or_default();
    all.extend(labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    let known = [(compose::PROJECT, app.as_str()), (compose::NETWORK, key), (ours::APP, app.as_str())];
    all.extend(known.map(|(name, value)| (name.to_owned(), value.to_owned())));
    NetworkCreateRequest {
        name: naming::network(app, key, spec),
        driver: spec.and_then(|spec| spec.driver.clone()),
        internal: spec.map(|spec| spec.internal),
        attachable: spec.map(|spec| spec.attachable),
        enable_ipv6: spec.map(|spec| spec.enable_ipv6),
        ipam: spec.and_then(|spec| Some(ipam(spec.ipam.as_ref()?, is_bridge(spec.driver.as_deref())))),
        options: spec.map(|spec| spec.driver_opts.clone().into_iter().collect()),
        labels: Some(all.into_iter().collect()),
        ..NetworkCreateRequest::default()
    }
}

/// Whether the engine says that somebody else has the subnet, in one of its two ways.
fn is_overlap(message: &str) -> bool {
    message.contains("ool overlaps") || message.contains("overlapping IPv4")
}

/// Addresses as the application's owner wants them. Of a bridge's subnet without a range the engine gets the lower half.
fn ipam(wanted: &deployer_core::Ipam, bridge: bool) -> Ipam {
    let pairs = |map: &BTreeMap<String, String>| Some(map.clone().into_iter().collect());
    let config = wanted.pools.iter().map(|pool| {
        let subnet: Option<Subnet> = pool.subnet.as_ref().filter(|_| bridge).and_then(|subnet| subnet.parse().ok());
        let lower = || Some(subnet?.lower_half()?.to_string());
        IpamConfig {
            subnet: pool.subnet.clone(),
            ip_range: pool.ip_range.clone().or_else(lower),
            gateway: pool.gateway.clone(),
            auxiliary_addresses: pairs(&pool.aux_addresses),
        }
    });
    Ipam { driver: wanted.driver.clone(), config: Some(config.collect()), options: pairs(&wanted.options) }
}

fn first_config(network: &NetworkInspect) -> Option<IpamConfig> {
    network.ipam.as_ref()?.config.as_ref()?.first().cloned()
}

/// The subnet of a network of ours and the part of it that the engine hands out.
///
/// An engine shows a subnet that it picked itself exactly like one that it was given, and refuses to give out chosen
/// addresses of the former. The range tells them apart: only networks that were given a subnet can have one. In a network
/// that reaches beyond this host, what is outside of the range may be somebody else's.
fn divided(network: &NetworkInspect) -> Option<(Subnet, Subnet)> {
    network.labels.as_ref()?.get(ours::APP)?;
    is_bridge(network.driver.as_deref()).then_some(())?;
    let config = first_config(network)?;
    Some((config.subnet?.parse().ok()?, config.ip_range?.parse().ok()?))
}

/// Every address that the engine has given out, gateways among them.
fn addresses_of(network: &NetworkInspect) -> impl Iterator<Item = Ipv4Addr> {
    let endpoints = network.containers.iter().flatten().filter_map(|(_, endpoint)| endpoint.ipv4_address.clone());
    let configs = network.ipam.iter().flat_map(|ipam| ipam.config.iter().flatten());
    let own = configs.flat_map(|config| {
        let auxiliary = config.auxiliary_addresses.iter().flatten().map(|(_, address)| address.clone());
        config.gateway.clone().into_iter().chain(auxiliary)
    });
    let texts: Vec<String> = endpoints.chain(own).collect();
    texts.into_iter().filter_map(|text| text.split('/').next().and_then(|address| address.parse().ok()))
}

#[cfg(test)]
mod tests {
    use bollard::models::EndpointResource;

    use super::*;

    fn network(ip_range: Option<&str>, ours: bool) -> NetworkInspect {
        let config = IpamConfig {
            subnet: Some("172.20.0.0/16".into()),
            ip_range: ip_range.map(Into::into),
            gateway: Some("172.20.0.1".into()),
            auxiliary_addresses: Some(HashMap::from([("router".into(), "172.20.200.1".into())])),
        };
        let endpoint = EndpointResource { ipv4_address: Some("172.20.128.4/16".into()), ..Default::default() };
        NetworkInspect {
            ipam: Some(Ipam { config: Some(vec![config]), ..Ipam::default() }),
            labels: ours.then(|| HashMap::from([(self::ours::APP.to_owned(), "shop".to_owned())])),
            containers: Some(HashMap::from([("id".to_owned(), endpoint)])),
            ..NetworkInspect::default()
        }
    }

    #[test]
    fn a_subnet_is_divided_only_where_all_of_it_is_ours() {
        let pool = |range: Option<&str>| {
            let json = serde_json::json!({"pools": [{"subnet": "10.9.0.0/16", "ip_range": range}]});
            serde_json::from_value::<deployer_core::Ipam>(json).unwrap()
        };
        let range = |wanted: &deployer_core::Ipam, bridge| ipam(wanted, bridge).config.unwrap().remove(0).ip_range;
        assert_eq!(range(&pool(None), true).as_deref(), Some("10.9.0.0/17"));
        assert_eq!(range(&pool(None), false), None);
        assert_eq!(range(&pool(Some("10.9.7.0/24")), true).as_deref(), Some("10.9.7.0/24"));
    }

    #[test]
    fn only_networks_that_we_divided_have_addresses_to_choose() {
        let halves = divided(&network(Some("172.20.0.0/17"), true));
        assert_eq!(halves, Some(("172.20.0.0/16".parse().unwrap(), "172.20.0.0/17".parse().unwrap())));
        assert_eq!(divided(&network(None, true)), None, "the engine picked the subnet");
        assert_eq!(divided(&network(Some("172.20.0.0/17"), false)), None, "somebody else's");
        let beyond = NetworkInspect { driver: Some("macvlan".into()), ..network(Some("172.20.0.0/17"), true) };
        assert_eq!(divided(&beyond), None, "the other half may be anybody's");
    }

    #[test]
    fn endpoints_gateways_and_auxiliary_addresses_are_taken() {
        let mut taken: Vec<String> = addresses_of(&network(None, true)).map(|address| address.to_string()).collect();
        taken.sort();
        assert_eq!(taken, ["172.20.0.1", "172.20.128.4", "172.20.200.1"]);
    }

    #[test]
    fn our_labels_win_over_the_users() {
        let app = AppName::new("shop").unwrap();
        let mut spec = NetworkSpec::default();
        spec.labels = BTreeMap::from([(ours::APP.to_owned(), "other".to_owned()), ("team".to_owned(), "a".to_owned())]);
        let request = request(&app, "back", Some(&spec), &[]);
        let labels = request.labels.unwrap();
        assert_eq!((request.name.as_str(), labels[ours::APP].as_str()), ("shop_back", "shop"));
        assert_eq!((labels["team"].as_str(), labels[compose::NETWORK].as_str()), ("a", "back"));
    }
}
