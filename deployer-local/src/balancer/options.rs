//! How the ingress is set up.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use crate::engine::Engine;

/// How the proxy is set up through which traffic from outside enters. Applications share one by using the same name.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct IngressOptions {
    /// The name of its container.
    pub name: String,
    /// The HAProxy image, 2.6 or later and with Lua, that it and the proxies of services run.
    pub image: String,
    /// Where it listens for HTTP requests, which routes lead on.
    pub http: SocketAddr,
    /// Where it listens for HTTPS requests, if at all.
    pub tls: Option<TlsOptions>,
    /// Where published ports listen unless they say so themselves.
    pub publish_on: IpAddr,
    /// Where proxies run and how they are reached; none lets the engine's kind decide.
    pub placement: Option<Placement>,
}

/// Where proxies run, and how they are reached from this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Placement {
    /// The engine is on this host: the ingress is in the host's network, and each proxy shares a directory with us.
    HostNetwork,
    /// The engine is in a virtual machine, on another host, or rootless: the ingress is in bridge networks and publishes
    /// its ports, and proxies and instances are reached through `exec` in the proxies' containers. Works with any engine
    /// and costs about 0.1 s for each step. When a published port is added, the ingress is made anew: for about a second
    /// nothing gets in.
    Relayed,
}

impl Placement {
    /// What works with this engine.
    pub(crate) fn of(engine: &Engine) -> Self {
        if engine.shares_host() { Self::HostNetwork } else { Self::Relayed }
    }
}

impl Default for IngressOptions {
    /// Listens on 127.0.0.1 only: port 8080 for HTTP, and the published ports.
    fn default() -> Self {
        Self {
            name: "deployer-ingress".to_owned(),
            image: "haproxy:2.6-alpine".to_owned(),
            http: SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)),
            tls: None,
            publish_on: IpAddr::V4(Ipv4Addr::LOCALHOST),
            placement: None,
        }
    }
}

impl IngressOptions {
    /// The ingress with this container name. Ingresses of different names share nothing but the host's addresses.
    #[must_use]
    pub fn named(name: impl Into<String>) -> Self {
        Self { name: name.into(), ..Self::default() }
    }

    /// Sets the HAProxy image.
    #[must_use]
    pub fn with_image(mut self, image: impl Into<String>) -> Self {
        self.image = image.into();
        self
    }

    /// Sets where it listens for HTTP requests.
    #[must_use]
    pub fn with_http(mut self, address: SocketAddr) -> Self {
        self.http = address;
        self
    }

    /// Listens for HTTPS requests too.
    #[must_use]
    pub fn with_tls(mut self, tls: TlsOptions) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Sets where published ports listen unless they say so themselves.
    #[must_use]
    pub fn with_publish_on(mut self, address: IpAddr) -> Self {
        self.publish_on = address;
        self
    }

    /// Sets where proxies run. Remove the proxies of another placement first.
    #[must_use]
    pub fn with_placement(mut self, placement: Placement) -> Self {
        self.placement = Some(placement);
        self
    }
}

/// Where and with which certificates the ingress speaks TLS. It reads them when it starts.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TlsOptions {
    /// Where it listens.
    pub address: SocketAddr,
    /// The directory of PEM files, each a certificate with its chain and key. The certificate is chosen by host name.
    pub certificates: PathBuf,
}

impl TlsOptions {
    /// Speaks TLS here with the certificates in this directory.
    #[must_use]
    pub fn new(address: SocketAddr, certificates: impl Into<PathBuf>) -> Self {
        Self { address, certificates: certificates.into() }
    }
}
