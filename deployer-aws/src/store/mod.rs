//! The release store on DynamoDB.

mod body;
mod failure;
mod item;
mod journals;
mod leases;
mod releases;
mod table;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use aws_config::SdkConfig;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::operation::update_item::builders::UpdateItemFluentBuilder;
use aws_sdk_dynamodb::types::{AttributeValue, ConditionCheck, Put, TransactWriteItem, Update};
use deployer_core::{
    AcquireLease, AppName, Append, DeploymentId, DeploymentQuery, DeploymentRecord, Entry, Error, ErrorKind, Lease,
    LeaseHolder, Release, ReleaseNumber, ReleaseQuery, ReleaseStore, Result, Retry, SendSignal, Signal, Timestamp,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use self::failure::{Cancelled, cancelled, code, complete, failed};
use self::item::{APPS, Item, Key, number, number_of, text, text_of};
use self::releases::pause;

/// How often a write is begun anew that others were in the way of.
const ATTEMPTS: u32 = 8;

/// Keeps releases, journals and leases in one DynamoDB table, which any number of hosts and applications may share.
///
/// Reads are strongly consistent. Writes of more than one item are transactions, so that an append is there as a whole
/// or not at all, and every write for an application is checked against the fence of its lease in the same transaction.
/// The table needs a partition key `pk` and a sort key `sk`, both strings; [`ensure_table`](Self::ensure_table) makes it
/// with point-in-time recovery.
///
/// Leases end by the time that their owners tell: clocks of hosts that share a table should be kept in step to within a
/// few seconds, as they are by any time service. The fence keeps writers apart even if they are not.
#[derive(Clone, Debug)]
pub struct DynamoStore {
    client: Client,
    table: String,
    /// The deployments that were written and had no verdict yet, with their applications and positions, which never change.
    written: Arc<Mutex<HashMap<DeploymentId, (AppName, u64)>>>,
}

impl DynamoStore {
    /// A store in this table, by the configuration of the host program. Its retries are those of that, and never adaptive ones by
    /// themselves: what waits for others to be throttled less renews no lease.
    #[must_use]
    pub fn new(config: &SdkConfig, table: impl Into<String>) -> Self {
        Self { client: Client::new(config), table: table.into(), written: Arc::default() }
    }

    fn written(&self) -> MutexGuard<'_, HashMap<DeploymentId, (AppName, u64)>> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One item, as it is now.
    async fn item(&self, key: &Key) -> Result<Option<Item>> {
        let get = self.client.get_item().table_name(&self.table).set_key(Some(key.attributes())).consistent_read(true);
        Ok(get.send().await.map_err(|error| failed("dynamodb:GetItem", &self.table, error))?.item)
    }

    /// The items of a partition whose sort keys begin so, in their order.
    async fn query(&self, pk: &str, prefix: &str, limit: Option<usize>) -> Result<Vec<Item>> {
        self.range(pk, (prefix, &format!("{prefix}~")), true, limit).await
    }

    /// The items of a partition whose sort keys are in a range, both ends included; at most so many.
    async fn range(&self, pk: &str, (from, to): (&str, &str), rising: bool, limit: Option<usize>) -> Result<Vec<Item>> {
        let mut items = Vec::new();
        let mut start = None;
        // A condition on a key may not hold an empty text; nothing sorts before this one.
        let from = if from.is_empty() { "!" } else { from };
        while limit.is_none_or(|limit| items.len() < limit) {
            let left = limit.map(|limit| i32::try_from(limit - items.len()).unwrap_or(i32::MAX));
            let query = self
                .client
                .query()
                .table_name(&self.table)
                .key_condition_expression("pk = :pk AND sk BETWEEN :from AND :to")
                .expression_attribute_values(":pk", text(pk))
                .expression_attribute_values(":from", text(from))
                .expression_attribute_values(":to", text(to))
                .scan_index_forward(rising)
                .consistent_read(true)
                .set_limit(left)
                .set_exclusive_start_key(start);
            let page = query.send().await.map_err(|error| failed("dynamodb:Query", &self.table, error))?;
            items.extend(page.items.unwrap_or_default());
            start = page.last_evaluated_key;
            if start.is_none() {
                break;
            }
        }
        Ok(items)
    }

    /// Writes several items as one. Answers whether their conditions held; if not, nothing was written.
    async fn transact(&self, writes: Vec<TransactWriteItem>) -> Result<bool> {
        // The client gives each request a token of its own: one that it sends again is carried out once.
        let call = self.client.transact_write_items().set_transact_items(Some(writes));
        let mut attempts = 0;
        loop {
            let Err(error) = call.clone().send().await else { return Ok(true) };
            let why = match cancelled(&error) {
                Some(Cancelled::Condition) => return Ok(false),
                Some(why) => why,
                None => return Err(failed("dynamodb:TransactWriteItems", &self.table, error)),
            };
            self.again(why, &mut attempts).await?;
        }
    }

    /// Waits until a write that was in somebody's way may be tried again, or says at last why it was not made.
    async fn again(&self, why: Cancelled, attempts: &mut u32) -> Result<()> {
        if *attempts + 1 >= why.attempts() {
            return Err(why.at_last(&self.table));
        }
        pause(*attempts).await;
        *attempts += 1;
        Ok(())
    }

    /// Writes one item. Answers whether its condition held; if not, nothing was written.
    async fn update(
        &self,
        key: Key,
        update: impl Fn(UpdateItemFluentBuilder) -> UpdateItemFluentBuilder,
    ) -> Result<bool> {
        let mut attempts = 0;
        loop {
            let call = self.client.update_item().table_name(&self.table).set_key(Some(key.attributes()));
            let Err(error) = update(call).send().await else { return Ok(true) };
            match code(&error) {
                Some("ConditionalCheckFailedException") => return Ok(false),
                // A transaction is writing the item, such as an append that checks the lease.
                Some("TransactionConflictException") => self.again(Cancelled::Contention, &mut attempts).await?,
                _ => return Err(failed("dynamodb:UpdateItem", &self.table, error)),
            }
        }
    }

    /// That the fence is the last one granted for an application.
    fn fenced(&self, app: &AppName, fence: u64) -> TransactWriteItem {
        let check = ConditionCheck::builder()
            .table_name(&self.table)
            .set_key(Some(Key::app(app).attributes()))
            .condition_expression("fence = :fence")
            .expression_attribute_values(":fence", number(fence))
            .build();
        let check = check.unwrap_or_else(complete);
        TransactWriteItem::builder().condition_check(check).build()
    }

    /// An update of the head of an application under its fence.
    fn fenced_update(&self, app: &AppName, fence: u64, also: &str, set: &str, values: Item) -> TransactWriteItem {
        let update = Update::builder()
            .table_name(&self.table)
            .set_key(Some(Key::app(app).attributes()))
            .condition_expression(format!("fence = :fence AND {also}"))
            .update_expression(set)
            .set_expression_attribute_values(Some(values))
            .expression_attribute_values(":fence", number(fence))
            .build();
        let update = update.unwrap_or_else(complete);
        TransactWriteItem::builder().update(update).build()
    }

    fn put(&self, item: Item, condition: Option<(&str, Item)>) -> TransactWriteItem {
        let mut put = Put::builder().table_name(&self.table).set_item(Some(item));
        if let Some((condition, values)) = condition {
            let values = (!values.is_empty()).then_some(values);
            put = put.condition_expression(condition).set_expression_attribute_values(values);
        }
        let put = put.build().unwrap_or_else(complete);
        TransactWriteItem::builder().put(put).build()
    }

    /// That an application is known.
    fn known(&self, app: &AppName) -> TransactWriteItem {
        self.put(Key::known_app(app).attributes(), None)
    }

    /// Fails unless the fence is the last one granted for an application.
    async fn check_fence(&self, app: &AppName, fence: u64) -> Result<Item> {
        let head = self.item(&Key::app(app)).await?.unwrap_or_default();
        let last = number_of(&head, "fence")?;
        if last == fence && fence > 0 {
            return Ok(head);
        }
        Err(Error::new(ErrorKind::Conflict, "somebody else has taken the lease since")
            .with_resource(app.as_str())
            .with_context("fence", fence.to_string())
            .with_context("last fence granted", last.to_string())
            .with_retry(Retry::Never))
    }

    async fn forget(&self, app: &AppName, fence: u64) -> Result<()> {
        self.check_fence(app, fence).await?;
        let unnamed = "REMOVE newest_hash";
        let fenced = self.fenced_update(app, fence, "attribute_exists(pk)", unnamed, Item::new());
        if !self.transact(vec![fenced]).await? {
            return self.check_fence(app, fence).await.map(drop);
        }
        let (mut below, mut records) = (Vec::new(), Vec::new());
        let of_app = item::of_app(app);
        for item in self.query(&of_app, item::RELEASES, None).await? {
            below.extend(self.parts_of(&item).await?);
            records.push(Key::new(&of_app, text_of(&item, "sk")?));
        }
        for item in self.query(&of_app, item::DEPLOYMENTS, None).await? {
            below.extend(self.parts_of(&item).await?);
            let deployment = format!("deployment#{}", text_of(&item, "deployment")?);
            for part in self.query(&deployment, "", None).await? {
                below.extend(self.parts_of(&part).await?);
                below.push(Key::new(&deployment, text_of(&part, "sk")?));
            }
            records.push(Key::new(&of_app, text_of(&item, "sk")?));
        }
        // Whoever dies on the way and comes again finds what is left by the records, and the application by its name.
        for doomed in [below, records, vec![Key::known_app(app)]] {
            self.write_all(doomed.iter().map(body::delete).collect()).await?;
        }
        Ok(())
    }
}

/// The JSON of a value.
fn encode<T: Serialize>(value: &T) -> Result<String> {
    serde_json::to_string(value)
        .map_err(|error| Error::new(ErrorKind::Internal, "it cannot be written as JSON").with_source(error))
}

fn decode<T: DeserializeOwned>(what: impl ToString, text: &str) -> Result<T> {
    serde_json::from_str(text).map_err(|error| {
        Error::new(ErrorKind::Corrupt, "what is kept cannot be read").with_resource(what.to_string()).with_source(error)
    })
}

/// Values of an expression.
fn values<const N: usize>(values: [(&str, AttributeValue); N]) -> Item {
    values.map(|(name, value)| (name.to_owned(), value)).into()
}

#[async_trait]
impl ReleaseStore for DynamoStore {
    async fn acquire_lease(&self, request: AcquireLease) -> Result<Lease> {
        self.acquire(request).await
    }

    async fn renew_lease(&self, lease: &Lease, now: Timestamp) -> Result<Lease> {
        self.renew(lease, now).await
    }

    async fn release_lease(&self, lease: &Lease) -> Result<()> {
        self.give_back(lease).await
    }

    async fn lease_holder(&self, app: &AppName) -> Result<Option<LeaseHolder>> {
        self.holder(app).await
    }

    async fn put_release(&self, release: Release, fence: u64) -> Result<Release> {
        self.keep_release(release, fence).await
    }

    async fn release(&self, app: &AppName, number: ReleaseNumber) -> Result<Option<Release>> {
        self.kept_release(app, number).await
    }

    async fn releases(&self, query: ReleaseQuery) -> Result<Vec<Release>> {
        self.kept_releases(query).await
    }

    async fn remove_releases(&self, app: &AppName, numbers: &[ReleaseNumber], fence: u64) -> Result<()> {
        self.drop_releases(app, numbers, fence).await
    }

    async fn append(&self, request: Append) -> Result<()> {
        self.write_entries(request).await
    }

    async fn journal(&self, deployment: &DeploymentId, from: u64) -> Result<Vec<Entry>> {
        self.read_entries(deployment, from).await
    }

    async fn deployments(&self, query: DeploymentQuery) -> Result<Vec<DeploymentRecord>> {
        self.records(query).await
    }

    async fn send_signal(&self, request: SendSignal) -> Result<()> {
        self.leave_signal(&request).await
    }

    async fn signals(&self, deployment: &DeploymentId) -> Result<Vec<Signal>> {
        self.left_signals(deployment).await
    }

    async fn apps(&self) -> Result<Vec<AppName>> {
        let items = self.query(APPS, "", None).await?;
        let names = items.iter().map(|item| {
            let name = text_of(item, "sk")?;
            AppName::new(name.as_str()).map_err(|error| Error::new(ErrorKind::Corrupt, error.to_string()))
        });
        names.collect()
    }

    async fn forget_app(&self, app: &AppName, fence: u64) -> Result<()> {
        self.forget(app, fence).await
    }
}
