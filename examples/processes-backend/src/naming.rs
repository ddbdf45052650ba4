//! Names that people and programs see.

use deployer_core::{AppName, InstanceId, RevisionId};

use crate::files::unique;

/// The name of an instance, such as `shop-web-3f9a1c-1`.
pub(crate) fn instance(app: &AppName, revision: &RevisionId, ordinal: u32) -> String {
    format!("{app}-{}-{}-{ordinal}", revision.service(), &revision.hash()[..6])
}

/// An id that no other instance ever has. An ordinal that is stopped and started again is another instance: the proxy
/// must not take the one for the other.
pub(crate) fn fresh_id() -> deployer_core::Result<InstanceId> {
    InstanceId::new(unique())
}

/// A name as a part of an environment variable's: `redis-cache` is `REDIS_CACHE`.
pub(crate) fn variable(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' }).collect()
}
