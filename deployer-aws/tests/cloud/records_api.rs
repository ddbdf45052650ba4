//! The operations of DynamoDB on the one table, as far as a release store uses them.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::expression::Expression;
use super::{Cloud, Refusal};

type Answer = Result<Value, Refusal>;

/// An item's attributes, as DynamoDB writes them.
pub(super) type Item = Map<String, Value>;

/// The one table.
pub(crate) const TABLE: &str = "releases";
/// How many bytes an item may have.
const ITEM: usize = 400 * 1024;
/// How many items a page of a query has: in truth 1 MB.
const PAGE: usize = 4;
/// For how long a transaction is known by its token, in milliseconds.
const TOKEN: u64 = 600_000;
/// How long a transaction is under way for whoever comes to its items, or sends it again.
const UNDER_WAY: u64 = 8;
/// How long a table takes to be made, and then until it can have backups.
const MAKING: u64 = 6_000;
const BACKUPS: u64 = 5_000;

/// The items of the table by their keys.
#[derive(Clone, Debug, Default)]
pub(crate) struct Records {
    pub(crate) items: BTreeMap<(String, String), Item>,
    /// Transactions that were carried out, by their tokens: what was asked for, and when.
    tokens: BTreeMap<String, (String, u64)>,
    /// When the items were written that a transaction has written.
    written: BTreeMap<(String, String), u64>,
    batches: u64,
    /// When the table was made, and whether it can be restored to any time; none, if it was there before.
    made: Option<(u64, bool)>,
    /// How many transactions are too much from now on.
    pub(crate) throttled: u32,
}

fn invalid(message: impl Into<String>) -> Refusal {
    Refusal::rude("ValidationException", message)
}

fn refused() -> Refusal {
    Refusal::fair("ConditionalCheckFailedException", "The conditional request failed")
}

fn cancelled(reasons: Vec<&'static str>) -> Refusal {
    let message = "Transaction cancelled, please refer cancellation reasons for specific reasons";
    Refusal { reasons, ..Refusal::fair("TransactionCanceledException", message) }
}

/// The key that is in these attributes.
fn key_of(attributes: &Value) -> Result<(String, String), Refusal> {
    let part = |name: &str| match attributes[name]["S"].as_str() {
        Some(text) if !text.is_empty() && text.len() <= 1024 => Ok(text.to_owned()),
        _ => Err(invalid(format!("the key has no valid {name}"))),
    };
    Ok((part("pk")?, part("sk")?))
}

fn read_item(request: &Value) -> Result<((String, String), Item), Refusal> {
    let item = request["Item"].as_object().cloned().ok_or_else(|| invalid("there is no item"))?;
    let key = key_of(&request["Item"])?;
    if request["Item"].to_string().len() > ITEM {
        return Err(invalid("Item size has exceeded the maximum allowed size"));
    }
    Ok((key, item))
}

/// What one part of a transaction does.
enum Write {
    Nothing,
    Put(Item),
    Delete,
}

impl Cloud {
    pub(super) fn dynamodb(&mut self, operation: &str, request: &Value) -> Option<Answer> {
        if !matches!(operation, "TransactWriteItems" | "BatchWriteItem" | "CreateTable")
            && request["TableName"] != TABLE
        {
            return Some(Err(Refusal::rude("ResourceNotFoundException", "Requested resource not found")));
        }
        Some(match operation {
            "GetItem" => self.get_item(request),
            "Query" => self.query(request),
            "UpdateItem" => self.update_item(request),
            "TransactWriteItems" => self.transact(request),
            "BatchWriteItem" => self.batch_write(request),
            "CreateTable" => self.create_table(request),
            "DescribeTable" => self.describe_table(),
            "UpdateContinuousBackups" => self.update_backups(request),
            _ => return None,
        })
    }

    fn create_table(&mut self, request: &Value) -> Answer {
        if request["TableName"] != TABLE || request["BillingMode"] != "PAY_PER_REQUEST" {
            return Err(invalid("there is one table here"));
        }
        if self.records.made.is_some() {
            return Err(Refusal::fair("ResourceInUseException", "Table already exists"));
        }
        self.records.made = Some((self.now, false));
        self.describe_table()
    }

    fn describe_table(&self) -> Answer {
        let made = self.records.made.map_or(0, |(made, _)| made);
        let status = if self.now < made + MAKING { "CREATING" } else { "ACTIVE" };
        let keys = json!([{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}]);
        Ok(json!({"Table": {"TableName": TABLE, "TableStatus": status, "KeySchema": keys},
                  "TableDescription": {"TableName": TABLE, "TableStatus": status}}))
    }

    fn update_backups(&mut self, request: &Value) -> Answer {
        let wanted = request["PointInTimeRecoverySpecification"]["PointInTimeRecoveryEnabled"] == true;
        let Some((made, restores)) = self.records.made.as_mut().filter(|_| wanted) else {
            return Err(invalid("nobody turns that off"));
        };
        if self.now < *made + MAKING + BACKUPS {
            let message = "Backups are being enabled for the table. Please retry later";
            return Err(Refusal::fair("ContinuousBackupsUnavailableException", message));
        }
        *restores = true;
        Ok(json!({"ContinuousBackupsDescription": {"ContinuousBackupsStatus": "ENABLED"}}))
    }

    /// Whether the table can be restored to any time.
    pub(crate) fn restores(&self) -> bool {
        self.records.made.is_some_and(|(_, restores)| restores)
    }

    fn get_item(&self, request: &Value) -> Answer {
        let key = key_of(&request["Key"])?;
        Ok(self.records.items.get(&key).map_or_else(|| json!({}), |item| json!({"Item": item})))
    }

    fn query(&self, request: &Value) -> Answer {
        let mut condition =
            Expression::new(request, "KeyConditionExpression")?.ok_or_else(|| invalid("no condition"))?;
        let mut found = Vec::new();
        for (key, item) in &self.records.items {
            if condition.holds(Some(item))? {
                found.push((key, item));
            }
        }
        condition.check_used()?;
        let rising = request["ScanIndexForward"] != false;
        if !rising {
            found.reverse();
        }
        if request["ExclusiveStartKey"].is_object() {
            let start = key_of(&request["ExclusiveStartKey"])?;
            found.retain(|(key, _)| if rising { **key > start } else { **key < start });
        }
        let limit = match request["Limit"].as_u64() {
            Some(0) => return Err(invalid("Limit must be greater than or equal to 1")),
            Some(limit) => usize::try_from(limit).unwrap_or(PAGE),
            None => usize::MAX,
        };
        let most = limit.min(PAGE);
        // Whoever has a limit is not told whether there is more.
        let more = found.len() > most || found.len() == limit;
        found.truncate(most);
        let items: Vec<&Item> = found.iter().map(|(_, item)| *item).collect();
        let mut answer = json!({"Items": items, "Count": items.len(), "ScannedCount": items.len()});
        if let Some(((pk, sk), _)) = found.last().filter(|_| more) {
            answer["LastEvaluatedKey"] = json!({"pk": {"S": pk}, "sk": {"S": sk}});
        }
        Ok(answer)
    }

    /// Whether a transaction is writing an item at this moment.
    fn is_being_written(&self, key: &(String, String)) -> bool {
        self.records.written.get(key).is_some_and(|at| self.now < at + UNDER_WAY)
    }

    fn update_item(&mut self, request: &Value) -> Answer {
        let key = key_of(&request["Key"])?;
        if self.is_being_written(&key) {
            return Err(Refusal::fair("TransactionConflictException", "Transaction is ongoing for the item"));
        }
        match self.change(&key, request)? {
            Some(Write::Put(item)) => drop(self.records.items.insert(key, item)),
            _ => return Err(refused()),
        }
        Ok(json!({}))
    }

    /// What an update makes of an item; nothing if its condition does not hold.
    fn change(&self, key: &(String, String), request: &Value) -> Result<Option<Write>, Refusal> {
        let item = self.records.items.get(key);
        let update = Expression::new(request, "UpdateExpression")?.ok_or_else(|| invalid("no update"))?;
        let condition = Expression::new(request, "ConditionExpression")?;
        let holds = match condition {
            Some(mut condition) => {
                let holds = condition.holds(item)?;
                condition.check_used_with(&update)?;
                holds
            }
            None => {
                update.check_used()?;
                true
            }
        };
        if !holds {
            return Ok(None);
        }
        let fresh =
            || Item::from_iter([("pk".to_owned(), json!({"S": key.0})), ("sk".to_owned(), json!({"S": key.1}))]);
        let mut changed = item.cloned().unwrap_or_else(fresh);
        update.apply(&mut changed)?;
        if key_of(&Value::Object(changed.clone()))? != *key || Value::Object(changed.clone()).to_string().len() > ITEM {
            return Err(invalid("Cannot update attributes of the key, or more than an item can have"));
        }
        Ok(Some(Write::Put(changed)))
    }

    fn transact(&mut self, request: &Value) -> Answer {
        let writes = request["TransactItems"].as_array().cloned().unwrap_or_default();
        let token = request["ClientRequestToken"].as_str().unwrap_or_default();
        if !(1..=100).contains(&writes.len()) || !(1..=36).contains(&token.len()) || request.to_string().len() > 4 << 20
        {
            return Err(invalid("a transaction has 1 to 100 items, 4 MB at most and a token of up to 36 characters"));
        }
        let asked = request["TransactItems"].to_string();
        if let Some((known, at)) = self.records.tokens.get(token).filter(|(_, at)| self.now < at + TOKEN) {
            return match *known == asked {
                false => Err(Refusal::rude("IdempotentParameterMismatchException", "the token is another request's")),
                true if self.now < at + UNDER_WAY => {
                    let message = "Transaction is already in progress for the given request token.";
                    Err(Refusal::fair("TransactionInProgressException", message))
                }
                true => Ok(json!({})),
            };
        }
        if self.records.throttled > 0 {
            self.records.throttled -= 1;
            return Err(cancelled(writes.iter().map(|_| "ThrottlingError").collect()));
        }
        let mut keys = BTreeSet::new();
        let (mut done, mut reasons) = (Vec::new(), Vec::new());
        for write in &writes {
            let (key, what) = self.transact_one(write)?;
            if !keys.insert(key.clone()) {
                return Err(invalid("Transaction request cannot include multiple operations on one item"));
            }
            reasons.push(match &what {
                _ if self.is_being_written(&key) => "TransactionConflict",
                Some(_) => "None",
                None => "ConditionalCheckFailed",
            });
            done.push((key, what));
        }
        if reasons.iter().any(|reason| *reason != "None") {
            return Err(cancelled(reasons));
        }
        for (key, what) in done {
            self.records.written.insert(key.clone(), self.now);
            match what {
                Some(Write::Put(item)) => drop(self.records.items.insert(key, item)),
                Some(Write::Delete) => drop(self.records.items.remove(&key)),
                Some(Write::Nothing) | None => {}
            }
        }
        self.records.tokens.insert(token.to_owned(), (asked, self.now));
        Ok(json!({}))
    }

    /// The key of one part of a transaction and what it does; nothing if its condition does not hold.
    fn transact_one(&self, write: &Value) -> Result<((String, String), Option<Write>), Refusal> {
        let parts = write.as_object().filter(|parts| parts.len() == 1);
        let (kind, request) =
            parts.and_then(|parts| parts.iter().next()).ok_or_else(|| invalid("one thing at a time"))?;
        if request["TableName"] != TABLE {
            return Err(Refusal::rude("ResourceNotFoundException", "Requested resource not found"));
        }
        if kind == "Update" {
            let key = key_of(&request["Key"])?;
            let what = self.change(&key, request)?;
            return Ok((key, what));
        }
        let (key, what) = match kind.as_str() {
            "Put" => {
                let (key, item) = read_item(request)?;
                (key, Write::Put(item))
            }
            "Delete" => (key_of(&request["Key"])?, Write::Delete),
            "ConditionCheck" if request["ConditionExpression"].is_string() => {
                (key_of(&request["Key"])?, Write::Nothing)
            }
            other => return Err(invalid(format!("{other} is not known here, or has no condition"))),
        };
        let holds = match Expression::new(request, "ConditionExpression")? {
            Some(mut condition) => {
                let holds = condition.holds(self.records.items.get(&key))?;
                condition.check_used()?;
                holds
            }
            None => true,
        };
        Ok((key, holds.then_some(what)))
    }

    fn batch_write(&mut self, request: &Value) -> Answer {
        let tables = request["RequestItems"].as_object().cloned().unwrap_or_default();
        let writes = tables.get(TABLE).and_then(Value::as_array).cloned().unwrap_or_default();
        if tables.len() != 1 || !(1..=25).contains(&writes.len()) {
            return Err(invalid("a batch has 1 to 25 writes in tables that are there"));
        }
        let mut keys = BTreeSet::new();
        for write in &writes {
            let place = if write["PutRequest"].is_object() {
                &write["PutRequest"]["Item"]
            } else {
                &write["DeleteRequest"]["Key"]
            };
            if !keys.insert(key_of(place)?) {
                return Err(invalid("Provided list of item keys contains duplicates"));
            }
        }
        self.records.batches += 1;
        // Now and then it is too much at once.
        let taken = if self.records.batches % 3 == 1 && writes.len() > 1 { writes.len() - 1 } else { writes.len() };
        for write in writes.iter().take(taken) {
            if write["PutRequest"].is_object() {
                let (key, item) = read_item(&write["PutRequest"])?;
                self.records.items.insert(key, item);
            } else {
                self.records.items.remove(&key_of(&write["DeleteRequest"]["Key"])?);
            }
        }
        let left = &writes[taken..];
        let unprocessed = if left.is_empty() { json!({}) } else { json!({TABLE: left}) };
        Ok(json!({"UnprocessedItems": unprocessed}))
    }

    /// What of the table is not whole: every journal has as many entries as its head says.
    pub(crate) fn records_differ(&self) -> Vec<String> {
        let mut found = Vec::new();
        for ((pk, _), head) in self.records.items.iter().filter(|(_, item)| item.contains_key("last_seq")) {
            let of_journal = self.records.items.iter().filter(|((partition, _), _)| partition == pk);
            let entries: usize =
                of_journal.filter_map(|(_, item)| item.get("entries")?["L"].as_array()).map(Vec::len).sum();
            let last = head["last_seq"]["N"].as_str().unwrap_or_default();
            if entries.to_string() != last {
                found.push(format!("{pk} has {entries} entries and says {last}"));
            }
        }
        found
    }
}
