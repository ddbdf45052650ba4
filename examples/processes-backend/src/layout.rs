//! Where everything lies in the state directory. Nothing is kept anywhere else.
//!
//! ```text
//! addresses/127.84.3.9            one file for each loopback address that is taken; its content says for what
//! apps/shop/lock                  held while something of the application is changed
//! apps/shop/shared.json           what its services share, as it was made last
//! apps/shop/volumes/data/
//! apps/shop/instances/<id>/       one directory for each instance and each task: see `keeper`
//! builds/<digest>/                images that only the builder knows
//! images/<digest>/                images that can be run: see `images`
//! names/<digest of the name>      what a name such as `shop/web:1` names
//! proxy/                          the load balancer's process, with its table: see `proxy`
//! store/                          releases, journals and leases: see `store`
//! ```

use std::path::{Path, PathBuf};

use deployer_core::{AppName, Digest, InstanceId};

/// The state directory.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    root: PathBuf,
}

impl Layout {
    pub(crate) fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn addresses(&self) -> PathBuf {
        self.root.join("addresses")
    }

    pub(crate) fn apps(&self) -> PathBuf {
        self.root.join("apps")
    }

    pub(crate) fn app(&self, app: &AppName) -> PathBuf {
        self.apps().join(app.as_str())
    }

    pub(crate) fn app_lock(&self, app: &AppName) -> PathBuf {
        self.app(app).join("lock")
    }

    pub(crate) fn shared(&self, app: &AppName) -> PathBuf {
        self.app(app).join("shared.json")
    }

    pub(crate) fn volumes(&self, app: &AppName) -> PathBuf {
        self.app(app).join("volumes")
    }

    pub(crate) fn instances(&self, app: &AppName) -> PathBuf {
        self.app(app).join("instances")
    }

    pub(crate) fn instance(&self, app: &AppName, id: &InstanceId) -> PathBuf {
        self.instances(app).join(id.as_str())
    }

    pub(crate) fn build(&self, digest: &Digest) -> PathBuf {
        self.root.join("builds").join(hex(digest))
    }

    /// A new directory in which an image is made.
    pub(crate) fn build_draft(&self) -> PathBuf {
        self.root.join("builds").join(format!(".{}", crate::files::unique()))
    }

    pub(crate) fn images(&self) -> PathBuf {
        self.root.join("images")
    }

    pub(crate) fn image(&self, digest: &Digest) -> PathBuf {
        self.images().join(hex(digest))
    }

    pub(crate) fn image_name(&self, name: &str) -> PathBuf {
        self.root.join("names").join(hex(&Digest::of(name.as_bytes())))
    }

    pub(crate) fn proxy(&self) -> PathBuf {
        self.root.join("proxy")
    }

    pub(crate) fn store(&self) -> PathBuf {
        self.root.join("store")
    }
}

/// A digest as the name of a file.
fn hex(digest: &Digest) -> &str {
    digest.as_str().trim_start_matches("sha256:")
}
