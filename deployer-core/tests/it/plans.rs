//! Plans as people review them.

use std::time::Duration;

use deployer_core::{CanaryStep, DeployOptions, Hook, HookPoint, Strategy};
use deployer_testkit::simulate;

use crate::shop::{app, blue_green, deploy_well, only, shop, web, world};

/// A plan's text with the hashes of revisions named by their order.
fn readable(text: &str) -> String {
    let mut names: Vec<String> = Vec::new();
    let mut out = String::new();
    let is_hash = |word: &str| word.len() == 12 && word.bytes().all(|b| b.is_ascii_hexdigit());
    for piece in text.split_inclusive(|c: char| !c.is_ascii_alphanumeric()) {
        let word = piece.trim_end_matches(|c: char| !c.is_ascii_alphanumeric());
        if is_hash(word) {
            let index = names.iter().position(|name| name == word).unwrap_or_else(|| {
                names.push(word.to_owned());
                names.len() - 1
            });
            out.push_str(&format!("#{index}{}", &piece[word.len()..]));
        } else {
            out.push_str(piece);
        }
    }
    out
}

#[test]
fn a_plan_reads_well() {
    let (_world, deployer) = world();
    let text = simulate(async {
        deploy_well(&deployer, shop(web(1), 1, 1)).await;
        let canary = Strategy::Canary { steps: vec![CanaryStep { weight: 10, hold: Duration::from_secs(60) }] };
        let web = web(2).with_strategy(canary).with_hook(Hook::new("migrate", HookPoint::PreDeploy, ["migrate"]));
        let preview = deployer.plan(&shop(web, 1, 2), &DeployOptions::default()).await.unwrap();
        readable(&preview.to_string())
    });
    insta::assert_snapshot!(text);
}

#[test]
fn rolling_plans_keep_their_bounds() {
    let (_world, deployer) = world();
    let text = simulate(async {
        deploy_well(&deployer, only(web(1))).await;
        let spec = only(web(2).with_strategy(Strategy::Rolling { surge: 1, unavailable: 0 }));
        readable(&deployer.plan(&spec, &DeployOptions::default()).await.unwrap().to_string())
    });
    insta::assert_snapshot!(text);
}

#[test]
fn a_warm_rollback_moves_traffic_first() {
    let (_world, deployer) = world();
    let text = simulate(async {
        deploy_well(&deployer, only(web(1).with_strategy(blue_green(60)))).await;
        deploy_well(&deployer, only(web(2).with_strategy(blue_green(60)))).await;
        readable(&deployer.plan_rollback(&app(), None).await.unwrap().to_string())
    });
    insta::assert_snapshot!(text);
}
