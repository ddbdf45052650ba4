//! The store on disk does what the model does, alone and with several handles and threads at once.

use std::sync::Arc;

use deployer_core::ReleaseStore;
use deployer_local::SqliteStore;
use deployer_testkit::model::{StoreModel, Wish, Writer, linearise, race};
use proptest::collection::vec;
use proptest::prelude::*;

/// Every write is synced to the disk, so a case takes a while: so many in an ordinary run.
fn config() -> ProptestConfig {
    let asked = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok());
    ProptestConfig { cases: asked.unwrap_or(24), ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn it_answers_every_call_as_the_model_does(wishes in vec((0..3_u8, any::<[u8; 3]>(), 0..4_i64), 1..80)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("db");
            // Every writer has a handle of its own, as processes have.
            let open = |number| (SqliteStore::open(&path).unwrap(), Writer::new(number));
            let mut writers = [open(0), open(1), open(2)];
            let (mut model, mut now) = (StoreModel::default(), 0);
            for (writer, wish, passed) in wishes {
                now += passed;
                let (store, writer) = &mut writers[usize::from(writer)];
                let request = writer.request(Wish(wish), now);
                let answer = request.send(store).await;
                prop_assert_eq!(&answer, &model.answer(&request), "{:?}", request);
                writer.learn(&request, &answer);
            }
            Ok(())
        })?;
    }

    #[test]
    fn writers_at_once_are_answered_as_if_one_came_after_the_other(
        wishes in vec((any::<bool>(), vec(any::<[u8; 3]>().prop_map(Wish), 1..20)), 2..5),
    ) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("db");
        let shared = SqliteStore::open(&path).unwrap();
        let writers = wishes.into_iter().map(|(shares, wishes)| {
            let store = if shares { shared.clone() } else { SqliteStore::open(&path).unwrap() };
            (Arc::new(store) as Arc<dyn ReleaseStore>, wishes)
        });
        let writers: Vec<_> = writers.collect();
        let made = race(&writers);
        let order = linearise(&made).map_err(TestCaseError::fail)?;
        prop_assert_eq!(order.len(), made.iter().map(Vec::len).sum::<usize>());
    }
}
