//! The published suites on the fakes of the simulated world.

use std::process::ExitCode;

use deployer_testkit::conformance::{Conformance, Simulated};

mod memory {
    use std::collections::BTreeMap;
    use std::sync::{Arc, Mutex, PoisonError};

    use async_trait::async_trait;
    use deployer_core::ReleaseStore;
    use deployer_testkit::MemoryStore;
    use deployer_testkit::conformance::{CaseResult, Need, Profile, StoreBench};

    /// Stores in this process's memory.
    #[derive(Debug, Default)]
    pub(crate) struct Memory(Mutex<BTreeMap<String, Arc<MemoryStore>>>);

    #[async_trait]
    impl StoreBench for Memory {
        fn profile(&self) -> Profile {
            let ours = "it is in the memory of one process";
            Profile::new("memory")
                .lacking(Need::Processes, ours)
                .lacking(Need::OwnerDeath, ours)
                .lacking(Need::Damage, ours)
        }

        async fn place(&self) -> CaseResult<String> {
            let mut stores = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let place = format!("store {}", stores.len());
            stores.insert(place.clone(), Arc::default());
            Ok(place)
        }

        async fn open(&self, place: &str) -> CaseResult<Arc<dyn ReleaseStore>> {
            let stores = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let store = stores.get(place).ok_or("no such place")?;
            Ok(Arc::<MemoryStore>::clone(store))
        }

        async fn examine(&self, _place: &str) -> CaseResult {
            Ok(())
        }

        async fn remove(&self, _place: &str) -> CaseResult {
            Ok(())
        }
    }
}

/// Another number has other faults strike and other instances killed.
fn seed() -> u64 {
    std::env::var("DEPLOYER_CONFORMANCE_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or_default()
}

fn main() -> ExitCode {
    Conformance::new()
        .seed(seed())
        .store(memory::Memory::default())
        .site(Simulated::single_host())
        .site(Simulated::cluster())
        .run()
}
