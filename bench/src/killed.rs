//! The deploying process killed at ten moments of its way, with each tool in turn: what is left, and what the next ordinary run
//! makes of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::process::Stdio;
use std::time::{Duration, Instant};

use deployer_testkit::load::{Load, Mode};
use tokio::process::Command;

use crate::Choice;
use crate::figures::{Section, Series, table};
use crate::machine;
use crate::site::{HOST, Site, get};
use crate::tools::{Stand, Tool, build_images};

const MOMENTS: u32 = 10;
/// How long what was left is given to come to rest.
const REST: Duration = Duration::from_secs(3);
/// How many requests tell who answers.
const ASKED: usize = 30;

/// What one tool made of all moments.
#[derive(Default)]
struct Sum {
    /// By what answered after the kill.
    after: BTreeMap<String, u32>,
    strays: usize,
    right: u32,
    strays_at_the_end: usize,
    lost: u64,
    sent: u64,
    again: Series,
}

pub(crate) async fn measure(choice: &Choice) -> Section {
    build_images().await;
    let mut rows = Vec::new();
    let mut figures = "killed:".to_owned();
    // What stands by is more than what serves, and comes to be on the same way.
    let tools = Tool::all(choice).into_iter().filter(|tool| !tool.name().contains("standby"));
    for tool in tools {
        let sum = all_moments(&tool, choice.replicas).await;
        let after: Vec<String> = sum.after.iter().map(|(what, times)| format!("{what}: {times}")).collect();
        rows.push(vec![
            tool.name(),
            after.join(", "),
            sum.strays.to_string(),
            format!("{} of {MOMENTS}", sum.right),
            sum.strays_at_the_end.to_string(),
            sum.again.cell(1),
            format!("{} of {}", sum.lost, sum.sent),
        ]);
        write!(
            figures,
            " {key}_right={} {key}_strays={} {key}_lost={}",
            sum.right,
            sum.strays_at_the_end,
            sum.lost,
            key = tool.key()
        )
        .unwrap();
    }
    let mut text = format!(
        "## The deployer killed\n\n`scripts/bench killed{}` on {}, {} replicas under 200 requests/s. The command that deploys is killed \
         with all that it has started (`kill -9`) after each tenth of the time that it takes undisturbed. *Left* is what answers 3 s \
         later, *too many* the containers of the service beyond those that it shall have, over all ten; then the same command is run \
         again: *right* is how often the new version then answers alone, from as many containers as it shall have, *again* the \
         seconds that takes. A swarm goes on by itself: its command only looks on.\n\n",
        choice.options(),
        machine::describe(),
        choice.replicas
    );
    text.push_str(&table(&["tool", "left", "too many", "right", "too many at the end", "again", "lost"], &rows));
    text.push_str(&choice.left_out());
    Section { name: "killed".to_owned(), text, figures, picture: None }
}

async fn all_moments(tool: &Tool, replicas: u32) -> Sum {
    let mut sum = Sum::default();
    let whole = {
        let stand = Stand::new(tool, replicas).await;
        let began = Instant::now();
        assert!(stand.command("v2", "").output().await.unwrap().status.success());
        began.elapsed()
    };
    for moment in 1..=MOMENTS {
        let stand = Stand::new(tool, replicas).await;
        let site = &stand.site;
        let load = Load::new(site.place.http, HOST).path("/version").rate(200).mode(Mode::Mixed).start();
        let mut command = stand.command("v2", "");
        let mut victim = command.process_group(0).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        tokio::time::sleep(whole * moment / (MOMENTS + 1)).await;
        if let Some(group) = victim.id() {
            let _over = Command::new("kill").args(["-9", "--", &format!("-{group}")]).output().await.unwrap();
        }
        victim.wait().await.unwrap();
        tokio::time::sleep(REST).await;
        let left = who_answers(site).await;
        let strays = stand.containers().await.saturating_sub(replicas as usize);
        sum.strays += strays;

        let began = Instant::now();
        let again = stand.command("v2", "").output().await.unwrap();
        let took = began.elapsed();
        tokio::time::sleep(REST).await;
        let (serves, count) = (who_answers(site).await, stand.containers().await);
        let right = again.status.success() && serves == "v2" && count == replicas as usize;
        sum.right += u32::from(right);
        sum.strays_at_the_end += count.saturating_sub(replicas as usize);
        sum.again.seconds(took);
        let report = load.stop().await;
        sum.lost += report.lost;
        sum.sent += report.sent;
        println!(
            "{:<34} killed at {moment}/{}: {left} answers, {strays} too many; again {:.1} s: {serves}, {count} containers, lost {} of {}",
            tool.name(),
            MOMENTS + 1,
            took.as_secs_f64(),
            report.lost,
            report.sent
        );
        *sum.after.entry(left).or_default() += 1;
    }
    sum
}

/// The versions that answer, or `nothing`.
async fn who_answers(site: &Site) -> String {
    let mut versions = BTreeSet::new();
    for _ in 0..ASKED {
        match get(site.place.http, "/version").await {
            Ok((200, version)) => versions.insert(version),
            _ => versions.insert("nothing".to_owned()),
        };
        // It takes the proxy seconds to say so, and will again.
        if versions.contains("nothing") {
            break;
        }
    }
    versions.into_iter().collect::<Vec<_>>().join(" and ")
}
