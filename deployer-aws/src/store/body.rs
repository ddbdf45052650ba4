//! Long texts. An item may have 400 KB; what is longer is kept in parts, in items of their own that never change.

use std::collections::HashMap;

use aws_sdk_dynamodb::types::{AttributeValue, WriteRequest};
use deployer_core::{Digest, Error, ErrorKind, Result};

use super::DynamoStore;
use super::failure::{complete, failed};
use super::item::{Item, Key, number, numbered, text, text_of};
use super::releases::pause;

/// What is longer than so many bytes is kept in parts of that size. An item has room for this and its other attributes
/// (400 KB, see "Item size" under "Quotas in Amazon DynamoDB").
pub(super) const PART: usize = 300 * 1024;
/// How many bytes there are in place of what is kept in parts, at the most.
pub(super) const NAME: usize = 256;
/// How many items one call may write.
const BATCH: usize = 25;

/// Where the parts of a text are.
fn place(hash: &str) -> String {
    format!("blob#{hash}")
}

impl DynamoStore {
    /// A text as an attribute: itself, or the name of its parts, which are then kept already. Whoever dies before the
    /// attribute is kept leaves parts that nothing refers to.
    pub(super) async fn body(&self, body: String) -> Result<AttributeValue> {
        if body.len() <= PART { Ok(text(body)) } else { self.parts(&body).await }
    }

    /// The name of the parts of a text, which are then kept already, however long it is.
    pub(super) async fn parts(&self, body: &str) -> Result<AttributeValue> {
        let hash = Digest::of(body.as_bytes()).as_str().to_owned();
        let parts = parts(body);
        let count = parts.len() as u64;
        let items = parts
            .iter()
            .enumerate()
            .map(|(index, part)| Key::new(place(&hash), numbered("", index as u64)).with([("part", text(*part))]));
        self.write_all(items.map(put).collect()).await?;
        Ok(AttributeValue::M(HashMap::from([("hash".to_owned(), text(hash)), ("parts".to_owned(), number(count))])))
    }

    /// The text of an attribute that [`body`](Self::body) made.
    pub(super) async fn text(&self, body: &AttributeValue) -> Result<String> {
        match body {
            AttributeValue::S(text) => Ok(text.clone()),
            AttributeValue::M(named) => {
                let hash = text_of(named, "hash")?;
                let parts = self.query(&place(&hash), "", None).await?;
                let whole = parts.iter().map(|part| text_of(part, "part")).collect::<Result<String>>()?;
                if Digest::of(whole.as_bytes()).as_str() == hash {
                    return Ok(whole);
                }
                Err(Error::new(ErrorKind::Corrupt, "parts of a long text are missing").with_resource(hash))
            }
            _ => Err(Error::new(ErrorKind::Corrupt, "an attribute is no text")),
        }
    }

    /// What has to be removed with an item.
    pub(super) async fn parts_of(&self, item: &Item) -> Result<Vec<Key>> {
        let mut keys = Vec::new();
        let listed = item.values().flat_map(|value| match value {
            AttributeValue::L(list) => list.as_slice(),
            other => std::slice::from_ref(other),
        });
        for named in listed.filter_map(|value| value.as_m().ok()) {
            for part in self.query(&place(&text_of(named, "hash")?), "", None).await? {
                keys.push(Key::new(text_of(&part, "pk")?, text_of(&part, "sk")?));
            }
        }
        Ok(keys)
    }

    /// Writes and removes items, in no order and not as one.
    pub(super) async fn write_all(&self, requests: Vec<WriteRequest>) -> Result<()> {
        for batch in requests.chunks(BATCH) {
            let (mut left, mut pauses) = (batch.to_vec(), 0);
            while !left.is_empty() {
                let sent = left.len();
                let written = self.client.batch_write_item().request_items(&self.table, left).send().await;
                let written = written.map_err(|error| failed("dynamodb:BatchWriteItem", &self.table, error))?;
                // What was throttled comes back, and is no error that the client would pause for.
                left = written.unprocessed_items.and_then(|mut left| left.remove(&self.table)).unwrap_or_default();
                pauses = if left.len() < sent { 0 } else { pauses + 1 };
                if !left.is_empty() {
                    pause(pauses).await;
                }
            }
        }
        Ok(())
    }
}

pub(super) fn put(item: Item) -> WriteRequest {
    let put = aws_sdk_dynamodb::types::PutRequest::builder().set_item(Some(item)).build();
    let put = put.unwrap_or_else(complete);
    WriteRequest::builder().put_request(put).build()
}

pub(super) fn delete(key: &Key) -> WriteRequest {
    let delete = aws_sdk_dynamodb::types::DeleteRequest::builder().set_key(Some(key.attributes())).build();
    let delete = delete.unwrap_or_else(complete);
    WriteRequest::builder().delete_request(delete).build()
}

/// A text in parts of at most [`PART`] bytes, cut between characters.
fn parts(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut rest = text;
    while rest.len() > PART {
        let (part, left) = rest.split_at(rest.floor_char_boundary(PART));
        parts.push(part);
        rest = left;
    }
    parts.push(rest);
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_cut_between_characters() {
        let long = "é".repeat(PART);
        let cut = parts(&long);
        assert_eq!(cut.len(), 2);
        assert!(cut.iter().all(|part| part.len() <= PART));
        assert_eq!(cut.concat(), long);
        let odd = format!("x{}", "é".repeat(PART / 2));
        assert_eq!(parts(&odd).len(), 2);
        assert_eq!(parts(&odd).concat(), odd);
        assert_eq!(parts(""), [""]);
    }
}
