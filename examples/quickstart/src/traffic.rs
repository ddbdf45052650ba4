//! Visitors who come all the while, and what became of each of them.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::Result;
use crate::stage::{Place, Visitors};

/// So many answers are awaited before something is done, and after it.
const SETTLED: u64 = 200;

/// How often is looked whether they are there.
const LOOK: Duration = Duration::from_millis(10);

/// What has become of visitors.
#[derive(Debug)]
pub(crate) struct Account {
    /// Visitors who came.
    pub(crate) sent: u64,
    /// Visitors who were served.
    pub(crate) answered: u64,
    /// Visitors who were not served.
    pub(crate) lost: u64,
    /// When each version served its first visitor and its last, since visitors come.
    pub(crate) by_version: BTreeMap<String, (Duration, Duration)>,
}

/// Visitors, and when something was done to what they visit.
pub(crate) struct Traffic<V> {
    visitors: V,
    began: Duration,
}

impl<V: Visitors> Traffic<V> {
    /// Lets visitors come, and returns when they are served.
    pub(crate) async fn start<P: Place<Visitors = V>>(place: &P) -> Result<Self> {
        let visitors = place.open();
        served(&visitors).await?;
        let began = visitors.elapsed();
        Ok(Self { visitors, began })
    }

    /// Lets some more visitors come, then none, and says what became of all.
    pub(crate) async fn finish(self) -> Result<Seen> {
        let ended = self.visitors.elapsed();
        served(&self.visitors).await?;
        let account = self.visitors.stop().await?;
        Ok(Seen { account, began: self.began, ended })
    }
}

/// Waits until some more visitors were served; losing as many is an error, so that this ends.
async fn served(visitors: &impl Visitors) -> Result<()> {
    let before = visitors.account().await?;
    loop {
        let now = visitors.account().await?;
        if now.answered >= before.answered + SETTLED {
            return Ok(());
        }
        if now.lost >= before.lost + SETTLED {
            return Err(format!("the shop does not answer: {now:?}").into());
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// What became of the visitors.
pub(crate) struct Seen {
    account: Account,
    began: Duration,
    ended: Duration,
}

/// What a step meant for the visitors.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moved {
    /// From the call until the first visitor was served by the other version; none, if there is no other.
    pub(crate) first: Option<Duration>,
    /// From the call until the last visitor was served by the version before.
    pub(crate) all: Option<Duration>,
    /// Visitors who came.
    pub(crate) sent: u64,
    /// Visitors who were not served.
    pub(crate) lost: u64,
}

impl Seen {
    /// All visitors have to be served by this version.
    pub(crate) fn stayed(&self, version: &str) -> Result<()> {
        let versions: Vec<&str> = self.account.by_version.keys().map(String::as_str).collect();
        if versions == [version] {
            return Ok(());
        }
        Err(format!("only {version} should have answered, but so did others: {}", versions.join(", ")).into())
    }

    /// What it meant if traffic moved from one version to the other, and to no third one.
    pub(crate) fn moved(&self, from: &str, to: &str) -> Result<Moved> {
        let versions = &self.account.by_version;
        match (versions.get(from), versions.get(to), versions.len()) {
            (Some((_, last_before)), Some((first_after, _)), 2) if *last_before <= self.ended => Ok(Moved {
                first: Some(first_after.saturating_sub(self.began)),
                all: Some(last_before.saturating_sub(self.began)),
                ..self.untouched()
            }),
            _ => Err(format!("traffic should have moved from {from} to {to}: {:?}", self.account).into()),
        }
    }

    /// What it meant if no traffic moved.
    pub(crate) fn untouched(&self) -> Moved {
        Moved { first: None, all: None, sent: self.account.sent, lost: self.account.lost }
    }
}
