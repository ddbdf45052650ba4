//! From version to version and back, while requests come in.

use deployer_core::ReleaseNumber;

use super::site::{Site, assert_none_lost, promoted};

/// Deploys three versions and goes back, once to what stands by and once to what has to be started again.
async fn there_and_back(name: &str, path: &str, delay_millis: &str) {
    let site = Site::new(name).await;
    let version = |version: &str| site.place.shop(&[("VERSION", version), ("DELAY_MS", delay_millis)]);
    site.deploy_well(version("v1")).await;
    let first = site.instances("web").await;
    let cache = site.instances("cache").await;

    let load = site.load(path, 200).start();
    site.deploy_well(version("v2")).await;
    let record = promoted(site.deployer.rollback(site.app(), None)).await;
    assert_eq!(record.target, Some(ReleaseNumber(1)));
    let now = site.instances("web").await;
    assert!(first.iter().all(|(revision, ids)| now.get(revision) == Some(ids)), "a warm rollback starts nothing");
    assert_eq!(site.get("/version").await, (200, "v1".to_owned()));

    site.deploy_well(version("v3")).await;
    let standby = site.instances("web").await;
    let record = promoted(site.deployer.rollback(site.app(), Some(ReleaseNumber(2)))).await;
    assert_eq!(record.target, Some(ReleaseNumber(2)));
    let now = site.instances("web").await;
    assert!(now.keys().any(|revision| !standby.contains_key(revision)), "version 2 was gone: {standby:?} {now:?}");
    assert_eq!(site.get("/version").await, (200, "v2".to_owned()));

    assert_none_lost(&load.stop().await, &["v1", "v2", "v3"]);
    // A rollback does not migrate.
    assert_eq!(site.get("/migrations").await, (200, "v1 1\nv2 1\nv3 1\n".to_owned()));
    assert_eq!(site.instances("cache").await, cache, "what has not changed is left alone");
    site.assert_no_strays().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_is_lost_from_version_to_version_and_back() {
    there_and_back("versions", "/version", "0").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_is_lost_when_each_takes_long() {
    there_and_back("slowly", "/", "300-500").await;
}
