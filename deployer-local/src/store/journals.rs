//! Journals, the records of their deployments, and signals.

use deployer_core::{
    AppName, Append, DeploymentId, DeploymentQuery, DeploymentRecord, Entry, Error, ErrorKind, Result, Retry,
    SendSignal, Signal,
};
use rusqlite::{Connection, OptionalExtension as _, Transaction, params};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::failure::{corrupt, newer, sqlite};
use super::leases::check_fence;
use super::{from_sql, to_sql};

/// What can be read of every stored form of an entry.
#[derive(Deserialize)]
struct Format {
    format: u16,
}

pub(super) fn append(transaction: &Transaction<'_>, request: &Append) -> Result<()> {
    let record = &request.record;
    check_fence(transaction, &record.app, request.fence)?;
    let conflict = |message: String| {
        Error::new(ErrorKind::Conflict, message).with_resource(record.id.as_str()).with_retry(Retry::Never)
    };
    let app: Option<String> = transaction
        .prepare("SELECT app FROM deployments WHERE id = ?1")
        .map_err(sqlite)?
        .query_row([record.id.as_str()], |row| row.get(0))
        .optional()
        .map_err(sqlite)?;
    if let Some(app) = app.filter(|app| app != record.app.as_str()) {
        return Err(conflict(format!("the deployment is one of {app}, not of {}", record.app)));
    }
    let last: i64 = transaction
        .prepare("SELECT coalesce(max(seq), 0) FROM entries WHERE deployment = ?1")
        .and_then(|mut statement| statement.query_row([record.id.as_str()], |row| row.get(0)))
        .map_err(sqlite)?;
    let next = from_sql("the number of a journal's last entry", last)? + 1;
    let mut insert =
        transaction.prepare("INSERT INTO entries (deployment, seq, json) VALUES (?1, ?2, ?3)").map_err(sqlite)?;
    for (expected, entry) in (next..).zip(&request.entries) {
        if entry.seq != expected {
            return Err(conflict(format!("the journal's next entry is {expected}, not {}", entry.seq)));
        }
        let json = serde_json::to_string(entry).map_err(|error| corrupt("an entry that is to be kept", error))?;
        insert.execute(params![record.id.as_str(), to_sql(entry.seq)?, json]).map_err(sqlite)?;
    }
    let json = serde_json::to_string(record).map_err(|error| corrupt("a record that is to be kept", error))?;
    transaction
        .prepare("INSERT INTO deployments (id, app, json) VALUES (?1, ?2, ?3) ON CONFLICT (id) DO UPDATE SET json = ?3")
        .and_then(|mut statement| statement.execute(params![record.id.as_str(), record.app.as_str(), json]))
        .map_err(sqlite)?;
    Ok(())
}

pub(super) fn entries(connection: &Connection, deployment: &DeploymentId, from: u64) -> Result<Vec<Entry>> {
    let Ok(from) = to_sql(from) else { return Ok(Vec::new()) };
    let mut statement = connection
        .prepare("SELECT seq, json FROM entries WHERE deployment = ?1 AND seq >= ?2 ORDER BY seq")
        .map_err(sqlite)?;
    let rows = statement
        .query_map(params![deployment.as_str(), from], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?)))
        .map_err(sqlite)?;
    rows.map(|row| {
        let (seq, json) = row.map_err(sqlite)?;
        let what = || format!("entry {seq} of deployment {deployment}");
        let Format { format } = serde_json::from_str(&json).map_err(|error| corrupt(what(), error))?;
        if format > Entry::FORMAT {
            return Err(newer(what(), format, Entry::FORMAT));
        }
        serde_json::from_str(&json).map_err(|error| corrupt(what(), error))
    })
    .collect()
}

pub(super) fn records(connection: &Connection, query: &DeploymentQuery) -> Result<Vec<DeploymentRecord>> {
    let before = query.before.as_ref().map(DeploymentId::as_str);
    let mut statement = connection
        .prepare(
            "SELECT id, json FROM deployments
             WHERE app = ?1 AND (?2 IS NULL OR position < (SELECT position FROM deployments WHERE id = ?2))
             ORDER BY position DESC LIMIT ?3",
        )
        .map_err(sqlite)?;
    let rows = statement
        .query_map(params![query.app.as_str(), before, query.limit], |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?))
        })
        .map_err(sqlite)?;
    rows.map(|row| {
        let (id, json) = row.map_err(sqlite)?;
        parse(|| format!("the record of deployment {id}"), &json)
    })
    .collect()
}

pub(super) fn send_signal(transaction: &Transaction<'_>, request: &SendSignal) -> Result<()> {
    let known = transaction
        .prepare("SELECT 1 FROM deployments WHERE id = ?1")
        .and_then(|mut statement| statement.exists([request.deployment.as_str()]))
        .map_err(sqlite)?;
    if !known {
        return Err(
            Error::new(ErrorKind::NotFound, "there is no such deployment").with_resource(request.deployment.as_str())
        );
    }
    let json = serde_json::to_string(&request.signal).map_err(|error| corrupt("a signal that is to be kept", error))?;
    transaction
        .prepare("INSERT OR IGNORE INTO signals (deployment, json, at) VALUES (?1, ?2, ?3)")
        .and_then(|mut statement| {
            statement.execute(params![request.deployment.as_str(), json, request.now.as_millis()])
        })
        .map_err(sqlite)?;
    Ok(())
}

pub(super) fn signals(connection: &Connection, deployment: &DeploymentId) -> Result<Vec<Signal>> {
    let mut statement =
        connection.prepare("SELECT json FROM signals WHERE deployment = ?1 ORDER BY position").map_err(sqlite)?;
    let rows = statement.query_map([deployment.as_str()], |row| row.get::<_, String>(0)).map_err(sqlite)?;
    rows.map(|row| parse(|| format!("a signal for deployment {deployment}"), &row.map_err(sqlite)?)).collect()
}

pub(super) fn forget(transaction: &Transaction<'_>, app: &AppName) -> Result<()> {
    for sql in [
        "DELETE FROM entries WHERE deployment IN (SELECT id FROM deployments WHERE app = ?1)",
        "DELETE FROM signals WHERE deployment IN (SELECT id FROM deployments WHERE app = ?1)",
        "DELETE FROM deployments WHERE app = ?1",
    ] {
        transaction.execute(sql, [app.as_str()]).map_err(sqlite)?;
    }
    Ok(())
}

fn parse<T: DeserializeOwned>(what: impl FnOnce() -> String, json: &str) -> Result<T> {
    serde_json::from_str(json).map_err(|error| corrupt(what(), error))
}
