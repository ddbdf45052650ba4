//! Loopback addresses of our own.
//!
//! [`ObservedInstance::address`](deployer_core::ObservedInstance) is an address without a port, because a port says what
//! a service listens on, and all its instances listen on the same ones. Processes share the host's ports; but all of
//! `127.0.0.0/8` is this host, so each instance gets an address of its own and is told it in `HOST`. Each service gets one
//! as well, where the proxy listens for the other services.

use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use deployer_core::{AppName, Digest, InstanceId, ServiceName};

use crate::files::{absent, names, unique};
use crate::layout::Layout;

/// 127.64.0.0 to 127.127.255.255.
const FIRST: u32 = 0x7f40_0000;
const MANY: u32 = 1 << 22;

/// Hands out addresses. Two processes never get the same one for different purposes.
#[derive(Clone, Debug)]
pub(crate) struct Addresses {
    layout: Layout,
}

impl Addresses {
    pub(crate) fn new(layout: Layout) -> Self {
        Self { layout }
    }

    /// Where the proxy listens for those who call this service.
    pub(crate) fn of_service(&self, app: &AppName, service: &ServiceName) -> io::Result<Ipv4Addr> {
        self.claim(&format!("{app} service {service}"))
    }

    /// Where this instance listens.
    pub(crate) fn of_instance(&self, app: &AppName, id: &InstanceId) -> io::Result<Ipv4Addr> {
        self.claim(&format!("{app} instance {id}"))
    }

    /// Gives back the address of an instance that is gone.
    pub(crate) fn release_instance(&self, app: &AppName, id: &InstanceId, address: Ipv4Addr) -> io::Result<()> {
        let path = self.path(address);
        if absent(fs::read_to_string(&path))?.is_some_and(|by| by == format!("{app} instance {id}")) {
            absent(fs::remove_file(path))?;
        }
        Ok(())
    }

    /// Gives back the addresses of an application's services but these.
    pub(crate) fn retain_services<'a>(
        &self,
        app: &AppName,
        services: impl Iterator<Item = &'a ServiceName>,
    ) -> io::Result<()> {
        let (all, kept) = (format!("{app} service "), services.map(|name| format!("{app} service {name}")));
        let kept: Vec<String> = kept.collect();
        for name in names(&self.layout.addresses())? {
            let path = self.layout.addresses().join(name);
            if absent(fs::read_to_string(&path))?.is_some_and(|by| by.starts_with(&all) && !kept.contains(&by)) {
                absent(fs::remove_file(path))?;
            }
        }
        Ok(())
    }

    /// The address that is taken for this purpose, or the first one from a random place on that is free.
    fn claim(&self, purpose: &str) -> io::Result<Ipv4Addr> {
        let directory = self.layout.addresses();
        fs::create_dir_all(&directory)?;
        // Two state directories on one host do not know of each other: where each begins, depends on its path.
        let seed = Digest::of(format!("{} {purpose}", self.layout.root().display()).as_bytes());
        let start = u32::from_str_radix(&seed.short()[..8], 16).unwrap_or(0);
        let draft = directory.join(format!(".{}", unique()));
        fs::write(&draft, purpose)?;
        let claimed = (0..MANY).find_map(|offset| {
            let address = Ipv4Addr::from(FIRST + start.wrapping_add(offset) % MANY);
            // A link is made with its content, or not at all.
            match fs::hard_link(&draft, self.path(address)) {
                Ok(()) => Some(Ok(address)),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    match fs::read_to_string(self.path(address)) {
                        Ok(by) if by == purpose => Some(Ok(address)),
                        Ok(_) => None,
                        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                        Err(error) => Some(Err(error)),
                    }
                }
                Err(error) => Some(Err(error)),
            }
        });
        fs::remove_file(draft)?;
        claimed.unwrap_or_else(|| Err(io::Error::new(io::ErrorKind::QuotaExceeded, "every loopback address is taken")))
    }

    fn path(&self, address: Ipv4Addr) -> PathBuf {
        self.layout.addresses().join(address.to_string())
    }
}
