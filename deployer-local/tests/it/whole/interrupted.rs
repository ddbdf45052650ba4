//! Deployments that somebody stops, or that meet another one.

use std::time::Duration;

use deployer_core::{Action, AppSpec, DeployOptions, Deployment, ErrorKind, JournalEvent, StepId, Strategy, Verdict};

use super::site::{Site, assert_none_lost, promoted, service};

/// The shop with a web service that is watched for longer than any test waits.
fn baking(mut spec: AppSpec) -> AppSpec {
    let hour = Duration::from_secs(3600);
    service(&mut spec, "web").strategy = Strategy::BlueGreen { bake: hour, keep_warm: hour };
    spec
}

/// Waits until a deployment holds: its traffic has moved.
async fn held(deployment: &mut Deployment) {
    let mut holds: Option<StepId> = None;
    while let Some(event) = deployment.next_event().await {
        match event.journal() {
            Some(JournalEvent::Opened { plan, .. }) => {
                let hold = plan.steps.iter().find(|step| matches!(step.action, Action::Hold { .. }));
                holds = Some(hold.unwrap().id);
            }
            Some(JournalEvent::StepStarted { step, .. }) if Some(*step) == holds => return,
            _ => {}
        }
    }
    panic!("it never held");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_is_cancelled_refused_to_others_and_superseded() {
    let site = Site::new("interrupted").await;
    site.deploy_well(site.version("v1")).await;
    let web = site.instances("web").await;
    let load = site.load("/version", 200).start();

    let mut second = site.deploy(baking(site.version("v2")));
    held(&mut second).await;
    assert_eq!(site.get("/version").await, (200, "v2".to_owned()));
    let busy = site.deploy(site.version("v3")).finished().await.unwrap_err();
    assert_eq!(busy.kind(), ErrorKind::Busy, "{busy}");
    let signalled = site.deployer.cancel(site.app(), "anna").await.unwrap();
    assert!(signalled.driven);
    let record = second.finished().await.unwrap();
    assert_eq!(record.verdict, Some(Verdict::Cancelled { by: "anna".to_owned() }));
    assert_eq!(site.get("/version").await, (200, "v1".to_owned()));
    assert_eq!(site.instances("web").await, web, "the cancelled version is gone");

    let mut second = site.deploy(baking(site.version("v2")));
    held(&mut second).await;
    let third = site.deployer.deploy(site.version("v3"), DeployOptions::default().superseding());
    let by = third.id().to_string();
    let (second, third) = tokio::join!(second.finished(), promoted(third));
    assert_eq!(second.unwrap().verdict, Some(Verdict::Superseded { by }));
    assert_eq!(third.target, site.deployer.status(site.app()).await.unwrap().serving);
    assert_eq!(site.get("/version").await, (200, "v3".to_owned()));

    assert_none_lost(&load.stop().await, &["v1", "v2", "v3"]);
}
