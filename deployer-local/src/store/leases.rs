//! Leases and fences.

use deployer_core::{AcquireLease, AppName, Error, ErrorKind, Human, Lease, LeaseHolder, Result, Retry, Timestamp};
use rusqlite::{Connection, OptionalExtension as _, Transaction, params};

use super::failure::{files, sqlite};
use super::owners::Owners;
use super::{from_sql, to_sql};

/// What is kept of an application's lease.
struct Row {
    fence: u64,
    held: Option<Held>,
}

struct Held {
    owner: String,
    owner_id: String,
    expires_at: Timestamp,
}

fn row(connection: &Connection, app: &AppName) -> Result<Option<Row>> {
    let found = connection
        .prepare("SELECT fence, owner, owner_id, expires_at FROM apps WHERE app = ?1")
        .map_err(sqlite)?
        .query_row([app.as_str()], |row| {
            let held = match (row.get(1)?, row.get(2)?, row.get(3)?) {
                (Some(owner), Some(owner_id), Some(expires_at)) => {
                    Some(Held { owner, owner_id, expires_at: Timestamp::from_millis(expires_at) })
                }
                _ => None,
            };
            Ok((row.get(0)?, held))
        })
        .optional()
        .map_err(sqlite)?;
    found.map(|(fence, held)| Ok(Row { fence: from_sql("a fence", fence)?, held })).transpose()
}

pub(super) fn acquire(transaction: &Transaction<'_>, owners: &mut Owners, request: AcquireLease) -> Result<Lease> {
    let AcquireLease { app, owner, owner_id, ttl, now, .. } = request;
    let found = row(transaction, &app)?;
    if let Some(held) = found.as_ref().and_then(|row| row.held.as_ref())
        && held.owner_id != owner_id
        && held.expires_at > now
        && !owners.is_dead(&held.owner_id).map_err(files)?
    {
        return Err(Error::new(ErrorKind::Busy, "another deployment of the application is under way")
            .with_resource(app.as_str())
            .with_context("holder", held.owner.clone())
            .with_context("lease ends in", Human(held.expires_at.since(now)).to_string())
            .with_help("wait until it has ended, or cancel it"));
    }
    owners.hold(&owner_id).map_err(files)?;
    let fence = found.map_or(0, |row| row.fence) + 1;
    let expires_at = now + ttl;
    transaction
        .prepare(
            "INSERT INTO apps (app, fence, owner, owner_id, expires_at) VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT (app) DO UPDATE SET fence = ?2, owner = ?3, owner_id = ?4, expires_at = ?5",
        )
        .and_then(|mut statement| {
            statement.execute(params![app.as_str(), fence_to_sql(fence), owner, owner_id, expires_at.as_millis()])
        })
        .map_err(sqlite)?;
    Ok(Lease::new(app, owner_id, fence, ttl, expires_at))
}

pub(super) fn renew(transaction: &Transaction<'_>, owners: &mut Owners, lease: Lease, now: Timestamp) -> Result<Lease> {
    let expires_at = now + lease.ttl;
    let changed = transaction
        .prepare("UPDATE apps SET expires_at = ?1 WHERE app = ?2 AND owner_id = ?3 AND fence = ?4")
        .and_then(|mut statement| {
            statement.execute(params![
                expires_at.as_millis(),
                lease.app.as_str(),
                lease.owner_id,
                fence_to_sql(lease.fence)
            ])
        })
        .map_err(sqlite)?;
    if changed == 0 {
        let holder = row(transaction, &lease.app)?.and_then(|row| row.held).map(|held| held.owner);
        return Err(Error::new(ErrorKind::Conflict, "the lease is not ours any more")
            .with_resource(lease.app.as_str())
            .with_context("holder", holder.unwrap_or_else(|| "nobody".to_owned()))
            .with_retry(Retry::Never));
    }
    owners.hold(&lease.owner_id).map_err(files)?;
    Ok(Lease::new(lease.app, lease.owner_id, lease.fence, lease.ttl, expires_at))
}

pub(super) fn release(transaction: &Transaction<'_>, lease: &Lease) -> Result<()> {
    transaction
        .prepare(
            "UPDATE apps SET owner = NULL, owner_id = NULL, expires_at = NULL
             WHERE app = ?1 AND owner_id = ?2 AND fence = ?3",
        )
        .and_then(|mut statement| {
            statement.execute(params![lease.app.as_str(), lease.owner_id, fence_to_sql(lease.fence)])
        })
        .map_err(sqlite)?;
    Ok(())
}

pub(super) fn holder(transaction: &Transaction<'_>, owners: &Owners, app: &AppName) -> Result<Option<LeaseHolder>> {
    let Some(Row { fence, held: Some(held) }) = row(transaction, app)? else { return Ok(None) };
    let dead = owners.is_dead(&held.owner_id).map_err(files)?;
    Ok(Some(LeaseHolder::new(held.owner, fence, held.expires_at, dead)))
}

/// Refuses a write whose fence is not the last one granted.
pub(super) fn check_fence(connection: &Connection, app: &AppName, fence: u64) -> Result<()> {
    let granted = row(connection, app)?.map_or(0, |row| row.fence);
    if granted == fence && fence > 0 {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Conflict, "the lease that allowed this write is not the last one granted")
        .with_resource(app.as_str())
        .with_context("fence", fence.to_string())
        .with_context("last granted", granted.to_string())
        .with_retry(Retry::Never))
}

/// A fence that SQLite cannot hold was never granted, so it equals none.
fn fence_to_sql(fence: u64) -> i64 {
    to_sql(fence).unwrap_or(-1)
}
