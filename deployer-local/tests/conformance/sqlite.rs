//! Stores in files of their own.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use deployer_core::{DeploymentId, ReleaseStore};
use deployer_local::SqliteStore;
use deployer_testkit::conformance::{CaseResult, Profile, StoreBench};
use rusqlite::Connection;

#[derive(Debug)]
pub(crate) struct Sqlite;

/// A connection of a program that is not ours.
fn raw(place: &str) -> CaseResult<Connection> {
    Connection::open(place).map_err(|error| error.to_string().into())
}

#[async_trait]
impl StoreBench for Sqlite {
    fn profile(&self) -> Profile {
        Profile::new("sqlite")
    }

    async fn place(&self) -> CaseResult<String> {
        let directory = tempfile::tempdir()?.keep();
        Ok(directory.join("deployer.db").display().to_string())
    }

    async fn open(&self, place: &str) -> CaseResult<Arc<dyn ReleaseStore>> {
        Ok(Arc::new(SqliteStore::open(place)?))
    }

    async fn damage(&self, place: &str, deployment: &DeploymentId, seq: u64) -> CaseResult {
        let sql = "UPDATE entries SET json = 'nonsense' WHERE deployment = ?1 AND seq = ?2";
        let changed = raw(place)?.execute(sql, (deployment.as_str(), i64::try_from(seq).unwrap()));
        match changed {
            Ok(1) => Ok(()),
            other => Err(format!("the entry could not be damaged: {other:?}").into()),
        }
    }

    async fn examine(&self, place: &str) -> CaseResult {
        let answer = raw(place)?.query_row("PRAGMA integrity_check", [], |row| row.get::<_, String>(0));
        match answer.as_deref() {
            Ok("ok") => Ok(()),
            other => Err(format!("the file is broken: {other:?}").into()),
        }
    }

    async fn remove(&self, place: &str) -> CaseResult {
        let directory = Path::new(place).parent().ok_or("a place is a file in a directory of its own")?;
        Ok(std::fs::remove_dir_all(directory)?)
    }
}
