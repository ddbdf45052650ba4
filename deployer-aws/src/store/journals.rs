//! Journals, records and signals of deployments.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use aws_sdk_dynamodb::types::{AttributeValue, TransactWriteItem};
use deployer_core::{
    Append, DeploymentId, DeploymentQuery, DeploymentRecord, Entry, Error, ErrorKind, Result, Retry, SendSignal, Signal,
};

use super::body::{NAME, PART};
use super::failure::{Cancelled, complete};
use super::item::{DEPLOYMENTS, ENTRIES, Item, Key, number, number_of, numbered, of_app, of_deployment, text, text_of};
use super::releases::pause;
use super::{ATTEMPTS, DynamoStore, decode, encode, values};

/// How many items a transaction may write, less those that are not entries, and how many bytes of entries leave room for those
/// others (100 items and 4 MB, see "Transactions" under "Quotas in Amazon DynamoDB").
const ITEMS: usize = 90;
const BYTES: usize = 3 * 1024 * 1024;

impl DynamoStore {
    pub(super) async fn write_entries(&self, request: Append) -> Result<()> {
        let Append { record, fence, entries, .. } = &request;
        if self.write_on(&request).await? {
            return Ok(());
        }
        let refused = |kind, message: &'static str| Error::new(kind, message).with_resource(record.id.as_str());
        for attempt in 0..ATTEMPTS {
            let head = self.check_fence(&record.app, *fence).await?;
            let known = self.item(&Key::deployment(&record.id)).await?;
            let (position, last) = match &known {
                None => (number_of(&head, "opened")? + 1, 0),
                Some(known) if text_of(known, "app")? != record.app.as_str() => {
                    return Err(refused(ErrorKind::InvalidInput, "the deployment is another application's"));
                }
                Some(known) => (number_of(known, "position")?, number_of(known, "last_seq")?),
            };
            check_numbers(record, entries, last + 1)?;
            let lease = match known {
                // Records are in the order in which their journals were opened.
                None => {
                    let also = "(attribute_not_exists(opened) OR opened = :before)";
                    let given = values([(":before", number(position - 1)), (":opened", number(position))]);
                    self.fenced_update(&record.app, *fence, also, "SET opened = :opened", given)
                }
                Some(_) => self.fenced(&record.app, *fence),
            };
            if self.write_after(&request, lease, position, last).await? {
                return Ok(());
            }
            // Somebody else has opened or moved on a journal since: what is wrong is found above.
            pause(attempt).await;
        }
        Err(Cancelled::Contention.at_last(&self.table))
    }

    /// Writes entries that go on with a journal which this process has written before, without asking for anything first.
    /// Answers whether that was possible; if not, nothing was written.
    async fn write_on(&self, request: &Append) -> Result<bool> {
        let Append { record, fence, entries, .. } = request;
        let known = self.written().get(&record.id).filter(|(app, _)| *app == record.app).map(|(_, position)| *position);
        let next = entries.first().map_or(0, |entry| entry.seq);
        let Some(position) = known.filter(|_| next > 1 && check_numbers(record, entries, next).is_ok()) else {
            return Ok(false);
        };
        let lease = self.fenced(&record.app, *fence);
        self.write_after(request, lease, position, next - 1).await
    }

    /// Writes entries and record if the journal ends with this number and the lease holds, and answers whether that is so.
    async fn write_after(&self, request: &Append, lease: TransactWriteItem, position: u64, last: u64) -> Result<bool> {
        let Append { record, entries, .. } = request;
        let mut writes = vec![lease, self.moved_on(record, position, last)];
        writes.push(self.put(self.record_item(record, position).await?, None));
        if last == 0 {
            writes.push(self.known(&record.app));
        }
        let (batches, bytes) = self.batches(&record.id, entries).await?;
        if batches.len() > ITEMS || bytes > BYTES {
            return Err(Error::new(ErrorKind::Exhausted, "that is more than one transaction can hold")
                .with_resource(record.id.as_str())
                .with_retry(Retry::Never));
        }
        writes.extend(batches);
        let written = self.transact(writes).await?;
        if written {
            let mut open = self.written();
            match record.verdict {
                None => open.insert(record.id.clone(), (record.app.clone(), position)),
                Some(_) => open.remove(&record.id),
            };
        }
        Ok(written)
    }

    /// That the journal ends with this number, and does not any more.
    fn moved_on(&self, record: &DeploymentRecord, position: u64, last: u64) -> TransactWriteItem {
        let key = Key::deployment(&record.id);
        if last == 0 {
            let item = key.with([
                ("app", text(record.app.as_str())),
                ("position", number(position)),
                ("last_seq", number(record.last_seq)),
            ]);
            return self.put(item, Some(("attribute_not_exists(pk)", Item::new())));
        }
        let update = aws_sdk_dynamodb::types::Update::builder()
            .table_name(&self.table)
            .set_key(Some(key.attributes()))
            .update_expression("SET last_seq = :now")
            .condition_expression("last_seq = :before")
            .expression_attribute_values(":now", number(record.last_seq))
            .expression_attribute_values(":before", number(last))
            .build()
            .unwrap_or_else(complete);
        TransactWriteItem::builder().update(update).build()
    }

    async fn record_item(&self, record: &DeploymentRecord, position: u64) -> Result<Item> {
        let body = self.body(encode(record)?).await?;
        Ok(Key::record(&record.app, position).with([("deployment", text(record.id.as_str())), ("body", body)]))
    }

    /// The entries in as few items as they fit into, and how many bytes they have there.
    async fn batches(&self, id: &DeploymentId, entries: &[Entry]) -> Result<(Vec<TransactWriteItem>, usize)> {
        let encoded = entries.iter().map(encode).collect::<Result<Vec<String>>>()?;
        let apart = apart(&encoded.iter().map(String::len).collect::<Vec<_>>());
        let mut items: Vec<(u64, Vec<AttributeValue>, usize)> = Vec::new();
        for (index, (entry, encoded)) in entries.iter().zip(encoded).enumerate() {
            let (value, size) = match apart.contains(&index) {
                true => (self.parts(&encoded).await?, NAME),
                false => (text(&encoded), encoded.len()),
            };
            match items.last_mut() {
                Some((_, values, used)) if *used + size <= PART => {
                    values.push(value);
                    *used += size;
                }
                _ => items.push((entry.seq, vec![value], size)),
            }
        }
        let bytes = items.iter().map(|(_, _, size)| size).sum();
        let puts = items.into_iter().map(|(first, values, _)| {
            let item = Key::entries(id, first).with([("first", number(first)), ("entries", AttributeValue::L(values))]);
            self.put(item, None)
        });
        Ok((puts.collect(), bytes))
    }

    pub(super) async fn read_entries(&self, id: &DeploymentId, from: u64) -> Result<Vec<Entry>> {
        let partition = of_deployment(id);
        // The item that holds the first one wanted begins with it or with an earlier one.
        let (lowest, wanted) = (numbered(ENTRIES, 0), numbered(ENTRIES, from));
        let around = self.range(&partition, (&lowest, &wanted), false, Some(1)).await?;
        let after = numbered(ENTRIES, from.saturating_add(1));
        let highest = numbered(ENTRIES, u64::MAX);
        let mut items = around;
        if from < u64::MAX {
            items.extend(self.range(&partition, (&after, &highest), true, None).await?);
        }
        let mut entries = Vec::new();
        for item in &items {
            let first = number_of(item, "first")?;
            let listed = item.get("entries").and_then(|value| value.as_l().ok());
            let missing =
                || Error::new(ErrorKind::Corrupt, "entries are missing").with_resource(format!("entry {first}"));
            for (value, seq) in listed.ok_or_else(missing)?.iter().zip(first..) {
                if seq >= from {
                    let what = format!("entry {seq} of {id}");
                    let text = self.text(value).await.map_err(|error| error.with_resource(what.clone()))?;
                    entries.push(decode(what, &text)?);
                }
            }
        }
        Ok(entries)
    }

    pub(super) async fn records(&self, query: DeploymentQuery) -> Result<Vec<DeploymentRecord>> {
        let last = match &query.before {
            None => u64::MAX,
            Some(id) => {
                let known = self.item(&Key::deployment(id)).await?;
                match known.map(|known| number_of(&known, "position")).transpose()? {
                    None | Some(0) => return Ok(Vec::new()),
                    Some(position) => position - 1,
                }
            }
        };
        let (from, to) = (numbered(DEPLOYMENTS, 0), numbered(DEPLOYMENTS, last));
        let limit = usize::try_from(query.limit).unwrap_or(usize::MAX);
        let items = self.range(&of_app(&query.app), (&from, &to), false, Some(limit)).await?;
        let mut records = Vec::with_capacity(items.len());
        for item in &items {
            let id = text_of(item, "deployment")?;
            let missing = || Error::new(ErrorKind::Corrupt, "the record has no content").with_resource(id.clone());
            let text = self.text(item.get("body").ok_or_else(missing)?).await?;
            records.push(decode(id, &text)?);
        }
        Ok(records)
    }

    pub(super) async fn leave_signal(&self, request: &SendSignal) -> Result<()> {
        let key = Key::deployment(&request.deployment);
        let signal = encode(&request.signal)?;
        let left = self.update(key.clone(), |update| {
            update
                .update_expression("SET signals = list_append(if_not_exists(signals, :none), :new)")
                .condition_expression("attribute_exists(pk) AND NOT contains(signals, :signal)")
                .expression_attribute_values(":none", AttributeValue::L(Vec::new()))
                .expression_attribute_values(":new", AttributeValue::L(vec![text(&signal)]))
                .expression_attribute_values(":signal", text(&signal))
        });
        if left.await? || self.item(&key).await?.is_some() {
            return Ok(());
        }
        Err(Error::new(ErrorKind::NotFound, "there is no such deployment").with_resource(request.deployment.as_str()))
    }

    pub(super) async fn left_signals(&self, id: &DeploymentId) -> Result<Vec<Signal>> {
        let Some(item) = self.item(&Key::deployment(id)).await? else { return Ok(Vec::new()) };
        let Some(AttributeValue::L(signals)) = item.get("signals") else { return Ok(Vec::new()) };
        let mut read = Vec::with_capacity(signals.len());
        for signal in signals {
            read.push(decode(format!("signals of {id}"), &self.text(signal).await?)?);
        }
        Ok(read)
    }
}

/// Which of texts of these lengths are kept in parts: those that are too long for an item, and as many of the longest as it takes
/// for a transaction to hold all.
fn apart(lengths: &[usize]) -> BTreeSet<usize> {
    let mut longest: Vec<usize> = (0..lengths.len()).collect();
    longest.sort_by_key(|index| Reverse(lengths[*index]));
    let (mut bytes, mut apart) = (lengths.iter().sum::<usize>(), BTreeSet::new());
    for index in longest {
        let length = lengths[index];
        if length <= PART && (bytes <= BYTES || length <= NAME) {
            break;
        }
        bytes -= length - NAME;
        apart.insert(index);
    }
    apart
}

/// Fails unless the entries go on where the journal ends, and the record names the last of them.
fn check_numbers(record: &DeploymentRecord, entries: &[Entry], next: u64) -> Result<()> {
    let refused = |kind, message: &'static str| Error::new(kind, message).with_resource(record.id.as_str());
    for (entry, (index, wanted)) in entries.iter().zip((next..).enumerate()) {
        if entry.seq != wanted && index == 0 {
            return Err(refused(ErrorKind::Conflict, "the journal has moved on")
                .with_context("next number", next.to_string())
                .with_context("first number", entry.seq.to_string())
                .with_retry(Retry::Never));
        }
        if entry.seq != wanted {
            return Err(refused(ErrorKind::InvalidInput, "the entries are not numbered without gaps"));
        }
    }
    let last = next - 1 + entries.len() as u64;
    if record.last_seq != last {
        return Err(refused(ErrorKind::InvalidInput, "the record does not name the last entry")
            .with_context("last entry", last.to_string())
            .with_context("record", record.last_seq.to_string()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_entries_are_kept_in_parts_until_a_transaction_holds_all() {
        let apart = |lengths: &[usize]| super::apart(lengths).into_iter().collect::<Vec<_>>();
        assert_eq!(apart(&[PART, 1_000, PART]), [0_usize; 0]);
        assert_eq!(apart(&[1_000, PART + 1, PART]), [1]);
        // Eleven of them are a few bytes more than 3 MB.
        let mut many = vec![290 * 1024; 11];
        many.push(299 * 1024);
        assert_eq!(apart(&many), [0, 11]);
        assert_eq!(apart(&vec![100; BYTES / 100 + 1]), [0_usize; 0], "there is nothing to be won");
    }
}
