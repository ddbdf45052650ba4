//! What has not changed stays as it is, and what writes to a volume is alone on it.

use std::collections::{BTreeSet, HashMap};
use std::time::{SystemTime, UNIX_EPOCH};

use bollard::models::EventMessage;
use bollard::query_parameters::EventsOptionsBuilder;
use deployer_core::EnvValue;
use futures_util::{Stream, StreamExt as _};

use super::site::{Site, assert_none_lost, service};

/// Starts and ends of the cache's containers, from now on.
fn cache_events(site: &Site) -> impl Stream<Item = EventMessage> + Send + use<> {
    let labels = [
        format!("deployer.app={}", site.app()),
        "com.docker.compose.service=cache".to_owned(),
        "deployer.role=instance".to_owned(),
    ];
    let filters = HashMap::from([
        ("label".to_owned(), labels.to_vec()),
        ("event".to_owned(), ["start", "die"].map(str::to_owned).to_vec()),
    ]);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let since = format!("{}.{:09}", now.as_secs(), now.subsec_nanos());
    let options = EventsOptionsBuilder::default().since(&since).filters(&filters).build();
    site.docker.events(Some(options)).map(Result::unwrap)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_on_a_volume_is_replaced_and_never_runs_twice_on_it() {
    let site = Site::new("volumes").await;
    site.deploy_well(site.version("v1")).await;
    let (web, cache) = (site.instances("web").await, site.instances("cache").await);

    let mut events = Box::pin(cache_events(&site));
    let until_started = tokio::spawn(async move {
        let mut seen = Vec::new();
        while let Some(event) = events.next().await {
            let action = event.action.unwrap();
            seen.push((action.clone(), event.actor.unwrap().id.unwrap()));
            if action == "start" {
                break;
            }
        }
        seen
    });
    let load = site.load("/version", 200).start();
    let mut spec = site.version("v1");
    service(&mut spec, "cache").workload.env.insert("TUNED".to_owned(), EnvValue::Plain("yes".to_owned()));
    site.deploy_well(spec.clone()).await;
    assert_none_lost(&load.stop().await, &["v1"]);

    let replaced = site.instances("cache").await;
    let only = |instances: &std::collections::BTreeMap<String, BTreeSet<String>>| {
        assert_eq!(instances.len(), 1, "one revision: {instances:?}");
        instances.values().flatten().next().unwrap().clone()
    };
    let (old, new) = (only(&cache), only(&replaced));
    assert_eq!(until_started.await.unwrap(), [("die".to_owned(), old), ("start".to_owned(), new)]);
    assert_eq!(site.instances("web").await, web, "what has not changed is left alone");
    let (status, migrations) = site.get("/migrations").await;
    assert_eq!((status, migrations.as_str()), (200, "v1 1\n"), "what was written is still there");

    // Once more the same: nothing is touched at all.
    site.deploy_well(spec).await;
    assert_eq!((site.instances("web").await, site.instances("cache").await), (web, replaced));
    site.assert_no_strays().await;
}
