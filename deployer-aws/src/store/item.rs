//! Items of the table: their keys, and reading and writing their attributes.
//!
//! One table holds everything. `pk` groups what is read together, `sk` orders it:
//!
//! ```text
//! pk                sk                            what
//! app#<name>        head                          fence, lease, last release number, number of deployments opened
//! app#<name>        release#<number>              a release
//! app#<name>        deployment#<position>         a deployment's record; positions are given in order of opening
//! deployment#<id>   head                          which application and position it has, and its signals
//! deployment#<id>   entries#<first number>        the entries of one append
//! blob#<hash>       <number>                      a part of a text that is too long for an item
//! apps              <name>                        the applications that are known
//! ```

use std::collections::HashMap;

use aws_sdk_dynamodb::types::AttributeValue;
use deployer_core::{AppName, DeploymentId, Error, ErrorKind, ReleaseNumber, Result, Timestamp};

pub(super) type Item = HashMap<String, AttributeValue>;

/// The key of an item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) pk: String,
    pub(super) sk: String,
}

pub(super) const HEAD: &str = "head";
pub(super) const RELEASES: &str = "release#";
pub(super) const DEPLOYMENTS: &str = "deployment#";
pub(super) const ENTRIES: &str = "entries#";
pub(super) const APPS: &str = "apps";

impl Key {
    pub(super) fn new(pk: impl Into<String>, sk: impl Into<String>) -> Self {
        Self { pk: pk.into(), sk: sk.into() }
    }

    pub(super) fn app(app: &AppName) -> Self {
        Self::new(of_app(app), HEAD)
    }

    pub(super) fn release(app: &AppName, number: ReleaseNumber) -> Self {
        Self::new(of_app(app), numbered(RELEASES, number.0))
    }

    pub(super) fn record(app: &AppName, position: u64) -> Self {
        Self::new(of_app(app), numbered(DEPLOYMENTS, position))
    }

    pub(super) fn deployment(id: &DeploymentId) -> Self {
        Self::new(of_deployment(id), HEAD)
    }

    pub(super) fn entries(id: &DeploymentId, first: u64) -> Self {
        Self::new(of_deployment(id), numbered(ENTRIES, first))
    }

    pub(super) fn known_app(app: &AppName) -> Self {
        Self::new(APPS, app.as_str())
    }

    pub(super) fn attributes(&self) -> Item {
        Item::from([("pk".to_owned(), text(&self.pk)), ("sk".to_owned(), text(&self.sk))])
    }

    /// The item of this key with these attributes.
    pub(super) fn with<const N: usize>(&self, attributes: [(&str, AttributeValue); N]) -> Item {
        let mut item = self.attributes();
        item.extend(attributes.map(|(name, value)| (name.to_owned(), value)));
        item
    }
}

pub(super) fn of_app(app: &AppName) -> String {
    format!("app#{app}")
}

pub(super) fn of_deployment(id: &DeploymentId) -> String {
    format!("deployment#{id}")
}

/// Numbers as texts that are in the same order: 20 digits hold every one.
pub(super) fn numbered(prefix: &str, number: u64) -> String {
    format!("{prefix}{number:020}")
}

pub(super) fn text(value: impl Into<String>) -> AttributeValue {
    AttributeValue::S(value.into())
}

pub(super) fn number(value: u64) -> AttributeValue {
    AttributeValue::N(value.to_string())
}

pub(super) fn time(value: Timestamp) -> AttributeValue {
    AttributeValue::N(value.as_millis().to_string())
}

/// A text that an item must have.
pub(super) fn text_of(item: &Item, name: &str) -> Result<String> {
    match item.get(name) {
        Some(AttributeValue::S(value)) => Ok(value.clone()),
        _ => Err(unreadable(item, name)),
    }
}

/// A number; 0 if the item does not have it.
pub(super) fn number_of(item: &Item, name: &str) -> Result<u64> {
    match item.get(name) {
        None => Ok(0),
        Some(AttributeValue::N(value)) => value.parse().map_err(|_| unreadable(item, name)),
        Some(_) => Err(unreadable(item, name)),
    }
}

pub(super) fn time_of(item: &Item, name: &str) -> Result<Timestamp> {
    match item.get(name) {
        Some(AttributeValue::N(value)) => value.parse().map(Timestamp::from_millis).map_err(|_| unreadable(item, name)),
        _ => Err(unreadable(item, name)),
    }
}

fn unreadable(item: &Item, name: &str) -> Error {
    let part = |name| match item.get(name) {
        Some(AttributeValue::S(value)) => value.clone(),
        _ => "?".to_owned(),
    };
    Error::new(ErrorKind::Corrupt, format!("the item has no readable {name}")).with_resource(format!(
        "{} {}",
        part("pk"),
        part("sk")
    ))
}
