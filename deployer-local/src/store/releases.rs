//! Releases and the applications that have them.

use deployer_core::{AppName, Release, ReleaseNumber, ReleaseQuery, Result};
use rusqlite::{Connection, OptionalExtension as _, Transaction, params};
use serde::Deserialize;

use super::failure::{corrupt, newer, sqlite};
use super::leases::check_fence;
use super::{from_sql, to_sql};

/// What can be read of every stored form.
#[derive(Deserialize)]
struct Format {
    format: u16,
}

fn parse(app: &AppName, number: i64, json: &str) -> Result<Release> {
    let what = || format!("release v{number} of {app}");
    let Format { format } = serde_json::from_str(json).map_err(|error| corrupt(what(), error))?;
    if format > Release::FORMAT {
        return Err(newer(what(), format, Release::FORMAT));
    }
    serde_json::from_str(json).map_err(|error| corrupt(what(), error))
}

pub(super) fn put(transaction: &Transaction<'_>, mut release: Release, fence: u64) -> Result<Release> {
    check_fence(transaction, &release.app, fence)?;
    let content = release.content_hash();
    let newest: Option<(i64, String, String)> = transaction
        .prepare("SELECT number, content, json FROM releases WHERE app = ?1 ORDER BY number DESC LIMIT 1")
        .map_err(sqlite)?
        .query_row([release.app.as_str()], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .optional()
        .map_err(sqlite)?;
    if let Some((number, kept, json)) = newest
        && kept == content.as_str()
    {
        return parse(&release.app, number, &json);
    }
    let number: i64 = transaction
        .prepare("UPDATE apps SET last_release = last_release + 1 WHERE app = ?1 RETURNING last_release")
        .and_then(|mut statement| statement.query_row([release.app.as_str()], |row| row.get(0)))
        .map_err(sqlite)?;
    release.number = ReleaseNumber(from_sql("the number of the last release", number)?);
    let json = serde_json::to_string(&release).map_err(|error| corrupt("a release that is to be kept", error))?;
    transaction
        .prepare("INSERT INTO releases (app, number, content, json) VALUES (?1, ?2, ?3, ?4)")
        .and_then(|mut statement| statement.execute(params![release.app.as_str(), number, content.as_str(), json]))
        .map_err(sqlite)?;
    Ok(release)
}

pub(super) fn get(connection: &Connection, app: &AppName, number: ReleaseNumber) -> Result<Option<Release>> {
    let Ok(number) = to_sql(number.0) else { return Ok(None) };
    let json: Option<String> = connection
        .prepare("SELECT json FROM releases WHERE app = ?1 AND number = ?2")
        .map_err(sqlite)?
        .query_row(params![app.as_str(), number], |row| row.get(0))
        .optional()
        .map_err(sqlite)?;
    json.map(|json| parse(app, number, &json)).transpose()
}

pub(super) fn list(connection: &Connection, query: &ReleaseQuery) -> Result<Vec<Release>> {
    let before = query.before.map_or(i64::MAX, |number| to_sql(number.0).unwrap_or(i64::MAX));
    let mut statement = connection
        .prepare("SELECT number, json FROM releases WHERE app = ?1 AND number < ?2 ORDER BY number DESC LIMIT ?3")
        .map_err(sqlite)?;
    let rows = statement
        .query_map(params![query.app.as_str(), before, query.limit], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?))
        })
        .map_err(sqlite)?;
    rows.map(|row| {
        let (number, json) = row.map_err(sqlite)?;
        parse(&query.app, number, &json)
    })
    .collect()
}

pub(super) fn remove(
    transaction: &Transaction<'_>,
    app: &AppName,
    numbers: &[ReleaseNumber],
    fence: u64,
) -> Result<()> {
    check_fence(transaction, app, fence)?;
    let mut statement = transaction.prepare("DELETE FROM releases WHERE app = ?1 AND number = ?2").map_err(sqlite)?;
    for number in numbers {
        let Ok(number) = to_sql(number.0) else { continue };
        statement.execute(params![app.as_str(), number]).map_err(sqlite)?;
    }
    Ok(())
}

pub(super) fn apps(connection: &Connection) -> Result<Vec<AppName>> {
    let mut statement = connection
        .prepare("SELECT app FROM releases UNION SELECT app FROM deployments ORDER BY app")
        .map_err(sqlite)?;
    let rows = statement.query_map([], |row| row.get::<_, String>(0)).map_err(sqlite)?;
    rows.map(|row| AppName::new(row.map_err(sqlite)?).map_err(|error| corrupt("the name of an application", error)))
        .collect()
}

pub(super) fn forget(transaction: &Transaction<'_>, app: &AppName) -> Result<()> {
    transaction.execute("DELETE FROM releases WHERE app = ?1", [app.as_str()]).map_err(sqlite)?;
    Ok(())
}
