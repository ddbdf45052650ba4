//! The store in memory does what the model does, alone and with several writers at once.

use std::sync::Arc;

use deployer_core::ReleaseStore;
use deployer_testkit::model::{StoreModel, Wish, Writer, linearise, race};
use deployer_testkit::{MemoryStore, simulate};
use proptest::collection::vec;
use proptest::prelude::*;

proptest! {
    #[test]
    fn it_answers_every_call_as_the_model_does(wishes in vec((0..3_u8, any::<[u8; 3]>(), 0..4_i64), 1..80)) {
        simulate(async {
            let (store, mut model) = (MemoryStore::new(), StoreModel::default());
            let mut writers = [Writer::new(0), Writer::new(1), Writer::new(2)];
            let mut now = 0;
            for (writer, wish, passed) in wishes {
                now += passed;
                let writer = &mut writers[usize::from(writer)];
                let request = writer.request(Wish(wish), now);
                let answer = request.send(&store).await;
                prop_assert_eq!(&answer, &model.answer(&request), "{:?}", request);
                writer.learn(&request, &answer);
            }
            Ok(())
        })?;
    }

    #[test]
    fn writers_at_once_are_answered_as_if_one_came_after_the_other(
        wishes in vec(vec(any::<[u8; 3]>().prop_map(Wish), 1..30), 2..5),
    ) {
        let store: Arc<dyn ReleaseStore> = Arc::new(MemoryStore::new());
        let writers: Vec<_> = wishes.into_iter().map(|wishes| (Arc::clone(&store), wishes)).collect();
        let made = race(&writers);
        let order = linearise(&made).map_err(TestCaseError::fail)?;
        prop_assert_eq!(order.len(), made.iter().map(Vec::len).sum::<usize>());
    }
}

#[test]
fn an_order_that_explains_nothing_is_not_found() {
    // Two writers that both hold what only one can hold.
    let grant = |number: u8| {
        let store: Arc<dyn ReleaseStore> = Arc::new(MemoryStore::new());
        let made = race(&[(store, vec![Wish([0, 0, 1])])]);
        let mut call = made[0][0].clone();
        (call.began, call.ended) = (u64::from(number), 9);
        call.request = Writer::new(number).request(Wish([0, 0, 1]), 0);
        if let deployer_testkit::model::Answer::Lease(lease) = &mut call.answer {
            lease.owner_id = format!("writer-{number}");
        }
        vec![call]
    };
    let error = linearise(&[grant(0), grant(1)]).unwrap_err();
    assert!(error.contains("none of"), "{error}");
}
