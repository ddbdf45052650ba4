//! Releases: numbered by the head of their application.

use std::time::Duration;

use deployer_core::{AppName, Error, ErrorKind, Release, ReleaseNumber, ReleaseQuery, Result};

use super::failure::{Cancelled, complete};
use super::item::{Item, Key, RELEASES, number, number_of, numbered, of_app, text, text_of};
use super::{ATTEMPTS, DynamoStore, body, decode, encode, values};

impl DynamoStore {
    pub(super) async fn keep_release(&self, mut release: Release, fence: u64) -> Result<Release> {
        let (app, hash) = (release.app.clone(), release.content_hash().as_str().to_owned());
        for attempt in 0..ATTEMPTS {
            let head = self.check_fence(&app, fence).await?;
            let last = number_of(&head, "last_number")?;
            if head.contains_key("newest_hash") && text_of(&head, "newest_hash")? == hash {
                let newest = number_of(&head, "newest")?;
                if let Some(known) = self.kept_release(&app, ReleaseNumber(newest)).await? {
                    return Ok(known);
                }
            }
            release.number = ReleaseNumber(last + 1);
            let item = Key::release(&app, release.number).with([("body", self.body(encode(&release)?).await?)]);
            // The number of the last one that was given, if there is one.
            let also = if last == 0 { "attribute_not_exists(last_number)" } else { "last_number = :last" };
            let mut given = values([(":number", number(last + 1)), (":hash", text(&hash))]);
            if last > 0 {
                given.insert(":last".to_owned(), number(last));
            }
            let set = "SET last_number = :number, newest = :number, newest_hash = :hash";
            let numbered = self.fenced_update(&app, fence, also, set, given);
            if self.transact(vec![numbered, self.put(item, None), self.known(&app)]).await? {
                return Ok(release);
            }
            pause(attempt).await;
        }
        Err(Cancelled::Contention.at_last(&self.table))
    }

    pub(super) async fn kept_release(&self, app: &AppName, number: ReleaseNumber) -> Result<Option<Release>> {
        match self.item(&Key::release(app, number)).await? {
            Some(item) => self.read_release(app, &item).await.map(Some),
            None => Ok(None),
        }
    }

    async fn read_release(&self, app: &AppName, item: &Item) -> Result<Release> {
        let name = text_of(item, "sk")?;
        let missing = || Error::new(ErrorKind::Corrupt, "the release has no content").with_resource(name.clone());
        let text = self.text(item.get("body").ok_or_else(missing)?).await?;
        let release: Release = decode(format!("{app} {name}"), &text)?;
        if release.format > Release::FORMAT {
            let known = Release::FORMAT;
            let message = format!("it was written in format {}, and only {known} and older are known", release.format);
            return Err(Error::new(ErrorKind::Corrupt, message)
                .with_resource(format!("{app} {}", release.number))
                .with_help("use the newest version of this program on all hosts that share the release store"));
        }
        Ok(release)
    }

    pub(super) async fn kept_releases(&self, query: ReleaseQuery) -> Result<Vec<Release>> {
        let Some(last) = query.before.map_or(Some(u64::MAX), |before| before.0.checked_sub(1)) else {
            return Ok(Vec::new());
        };
        let (from, to) = (numbered(RELEASES, 0), numbered(RELEASES, last));
        let limit = usize::try_from(query.limit).unwrap_or(usize::MAX);
        let items = self.range(&of_app(&query.app), (&from, &to), false, Some(limit)).await?;
        let mut releases = Vec::with_capacity(items.len());
        for item in &items {
            releases.push(self.read_release(&query.app, item).await?);
        }
        Ok(releases)
    }

    pub(super) async fn drop_releases(&self, app: &AppName, numbers: &[ReleaseNumber], fence: u64) -> Result<()> {
        self.check_fence(app, fence).await?;
        for number in numbers {
            let key = Key::release(app, *number);
            let Some(item) = self.item(&key).await? else { continue };
            let parts = self.parts_of(&item).await?;
            let delete = aws_sdk_dynamodb::types::Delete::builder()
                .table_name(&self.table)
                .set_key(Some(key.attributes()))
                .build()
                .unwrap_or_else(complete);
            let delete = aws_sdk_dynamodb::types::TransactWriteItem::builder().delete(delete).build();
            if !self.transact(vec![self.fenced(app, fence), delete]).await? {
                return self.check_fence(app, fence).await.map(drop);
            }
            self.write_all(parts.iter().map(body::delete).collect()).await?;
        }
        Ok(())
    }
}

/// Lets others finish who write the same items.
pub(super) async fn pause(attempt: u32) {
    tokio::time::sleep(Duration::from_millis(20 << attempt.min(6))).await;
}
