//! What the author of a release store writes.

use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;
use deployer_core::{DeploymentId, ReleaseStore};

use super::case::{CaseFailure, CaseResult};
use super::profile::Profile;

/// Hands out stores to the cases of the store suite.
///
/// A place is whatever text tells [`open`](Self::open) where a store is, here and in other processes: a path, a table's
/// name. Cases make up names of applications and ids of deployments of their own, so places may share what lies beneath.
///
/// ```
/// use std::collections::BTreeMap;
/// use std::sync::{Arc, Mutex};
///
/// use async_trait::async_trait;
/// use deployer_core::ReleaseStore;
/// use deployer_testkit::MemoryStore;
/// use deployer_testkit::conformance::{CaseResult, Need, Profile, StoreBench};
///
/// #[derive(Debug, Default)]
/// struct Memory(Mutex<BTreeMap<String, Arc<MemoryStore>>>);
///
/// #[async_trait]
/// impl StoreBench for Memory {
///     fn profile(&self) -> Profile {
///         let why = "it is in the memory of one process";
///         Profile::new("memory")
///             .lacking(Need::Processes, why)
///             .lacking(Need::OwnerDeath, why)
///             .lacking(Need::Damage, why)
///     }
///
///     async fn place(&self) -> CaseResult<String> {
///         let mut stores = self.0.lock().expect("no case panics while it holds the lock");
///         let place = format!("store {}", stores.len());
///         stores.insert(place.clone(), Arc::default());
///         Ok(place)
///     }
///
///     async fn open(&self, place: &str) -> CaseResult<Arc<dyn ReleaseStore>> {
///         let stores = self.0.lock().expect("no case panics while it holds the lock");
///         let store = stores.get(place).ok_or("no such place")?;
///         Ok(Arc::<MemoryStore>::clone(store))
///     }
///
///     async fn examine(&self, _place: &str) -> CaseResult {
///         Ok(())
///     }
///
///     async fn remove(&self, _place: &str) -> CaseResult {
///         Ok(())
///     }
/// }
/// ```
#[async_trait]
pub trait StoreBench: Debug + Send + Sync {
    /// What the store is and has. A store has no targets and drains nothing: leave that as it is.
    fn profile(&self) -> Profile;

    /// A place for one case.
    ///
    /// # Errors
    /// Why there can be none; the case fails then.
    async fn place(&self) -> CaseResult<String>;

    /// Another handle on the store at this place, as another program would open it. Where
    /// [`Need::Processes`](super::Need::Processes) is not lacking, it is called in other processes too.
    ///
    /// # Errors
    /// Why it cannot be opened; the case fails then.
    async fn open(&self, place: &str) -> CaseResult<Arc<dyn ReleaseStore>>;

    /// Makes an entry of a journal unreadable, past the store. Called unless [`Need::Damage`](super::Need::Damage) is
    /// lacking.
    ///
    /// # Errors
    /// Why that cannot be done; the case fails then.
    async fn damage(&self, place: &str, deployment: &DeploymentId, seq: u64) -> CaseResult {
        let _ = (place, deployment, seq);
        Err(CaseFailure::new("the bench cannot damage what the store keeps: its profile must say so"))
    }

    /// Looks, past the store, whether what it keeps is whole; called after processes were killed while they wrote.
    ///
    /// # Errors
    /// What is broken.
    async fn examine(&self, place: &str) -> CaseResult;

    /// Removes the place and what is kept there. Called after every case, also one that failed or panicked.
    ///
    /// # Errors
    /// What could not be removed; the case fails then.
    async fn remove(&self, place: &str) -> CaseResult;
}
