//! What is left when an application goes: nothing.

use deployer_core::Retention;

use super::site::{Site, promoted};

#[tokio::test(flavor = "multi_thread")]
async fn pruning_and_destroying_leave_nothing() {
    let site = Site::new("removal").await;
    for version in ["v1", "v2", "v3"] {
        site.deploy_well(site.version(version)).await;
    }
    let pruned = site.deployer.prune(site.app(), Retention::releases(1)).await.unwrap();
    assert_eq!(pruned.releases.len(), 1, "the one that is neither serving nor standing by: {pruned:?}");
    assert_eq!(pruned.images.len(), 2, "of web and worker: {pruned:?}");
    promoted(site.deployer.rollback(site.app(), None)).await;
    assert_eq!(site.get("/version").await, (200, "v2".to_owned()));
    site.assert_no_strays().await;

    promoted(site.deployer.destroy(site.app(), true)).await;
    site.deployer.prune(site.app(), Retention::releases(0)).await.unwrap();
    assert_eq!(site.everything().await, Vec::<String>::new());
    assert!(site.deployer.releases(site.app(), 10).await.unwrap().is_empty());
    let directory = site.state().join("proxy").join(site.place.ingress());
    let services = std::fs::read_dir(directory.join("services")).map_or(0, Iterator::count);
    assert_eq!(services, 0, "files of service proxies");
    // Only what happened is still known.
    assert_eq!(site.deployer.history(site.app()).await.unwrap().len(), 5);
}
