//! Compose files that people know, those of `docker/awesome-compose`: what becomes of each is told in `docs/compose.md`.
//! Their images cannot be had everywhere, so others stand in for them, which listen at the same ports.

mod guide;
mod sample;
mod standin;

use std::error::Error;

use deployer_core::{Deployment, Retention, Verdict};
use deployer_local::HostSecrets;
use futures_util::StreamExt as _;

use crate::whole::site::Site;
use guide::Row;
use sample::{Copy, Sample};

/// So many are played at once: most of the time they wait for a check of their health.
const AT_ONCE: usize = 6;

/// What went wrong, as one line.
type Told<T> = Result<T, String>;

#[test]
fn the_guide_says_which_samples_are_read() {
    let read: Vec<Vec<String>> = Sample::all()
        .map(|sample| {
            let read = sample.read("sample").map_or_else(|problems| guide::refused(&problems), |app| guide::read(&app));
            vec![format!("`{}`", sample.name), read]
        })
        .collect();
    let told: Vec<Vec<String>> = guide::rows().into_iter().map(|row| row[..2].to_vec()).collect();
    assert_eq!(told, read, "{}", guide::HOW_TO_ACCEPT);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_guide_says_what_becomes_of_each_sample() {
    let plays = Sample::all().map(|sample| tokio::spawn(play(sample)));
    let rows: Vec<Row> = futures_util::stream::iter(plays).buffered(AT_ONCE).map(Result::unwrap).collect().await;
    guide::assert_told(&rows);
}

/// Deploys a sample, updates it, goes back, and removes it.
async fn play(sample: Sample) -> Row {
    let mut site = Site::new(&sample.name.to_lowercase()).await;
    let mut row = Row::of(&sample);
    let copy = sample.copy(&site.state().join("sample"));
    let read = copy.sample.read(site.app().as_str());
    let read = match read {
        Ok(app) => app,
        Err(problems) => {
            row.tell(&guide::refused(&problems));
            return row;
        }
    };
    row.tell(&guide::read(&read));
    site.deployer = site.place.deployer_with(HostSecrets::new().with_compose(&read.secrets)).await.build();
    let copy = copy.stood_in(&read.spec);
    for step in [Step::Deploy, Step::Update, Step::RollBack, Step::Destroy] {
        match step.take(&site, &copy).await {
            Ok(()) => row.tell("yes"),
            Err(why) => {
                row.tell(&format!("no: {}", why.trim_start_matches("no: ")));
                break;
            }
        }
    }
    row
}

#[derive(Clone, Copy)]
enum Step {
    Deploy,
    Update,
    RollBack,
    Destroy,
}

impl Step {
    async fn take(self, site: &Site, copy: &Copy) -> Told<()> {
        let release = match self {
            Self::Deploy | Self::Update => {
                let release = if matches!(self, Self::Deploy) { 1 } else { 2 };
                let app = copy.read(site.app().as_str(), release).map_err(|problems| guide::refused(&problems))?;
                promoted(site.deploy(app.spec)).await?;
                release
            }
            Self::RollBack => {
                promoted(site.deployer.rollback(site.app(), None)).await?;
                1
            }
            Self::Destroy => {
                promoted(site.deployer.destroy(site.app(), true)).await?;
                let pruned = site.deployer.prune(site.app(), Retention::releases(0)).await;
                pruned.map_err(|error| error.to_string())?;
                return none(site.everything().await);
            }
        };
        none(site.strays().await)?;
        none(copy.unanswered(release).await)?;
        none(copy.unreachable(site).await)
    }
}

/// What there is of what should not be there.
fn none(found: Vec<String>) -> Told<()> {
    if found.is_empty() { Ok(()) } else { Err(found.join(", ")) }
}

async fn promoted(deployment: Deployment) -> Told<()> {
    let record =
        deployment.finished().await.map_err(|error| match error.source().and_then(<dyn Error>::downcast_ref) {
            Some(problems) => guide::refused(problems),
            None => error.to_string(),
        })?;
    match record.verdict {
        Some(Verdict::Promoted { leftovers }) => none(leftovers.iter().map(ToString::to_string).collect()),
        verdict => Err(verdict.map_or_else(String::new, |verdict| verdict.to_string())),
    }
}
