//! The tables, and how a file comes to have them.

use std::path::Path;
use std::time::Duration;

use deployer_core::{Error, ErrorKind, Result};
use rusqlite::{Connection, TransactionBehavior};

use super::failure::{files, sqlite};
use super::owners::Owners;

/// Marks the file as ours: the letters `Dply`.
const APPLICATION_ID: i32 = 0x4470_6c79;

/// How long a statement waits for other processes.
const BUSY: Duration = Duration::from_secs(30);

/// What brings a file from one version to the next. The version is how many of these have been applied; published ones
/// never change.
const MIGRATIONS: &[&str] = &["
    -- One row for each application that a lease was ever granted for. It is never deleted: fences and numbers only rise.
    CREATE TABLE apps (
        app          TEXT PRIMARY KEY,
        fence        INTEGER NOT NULL,
        last_release INTEGER NOT NULL DEFAULT 0,
        owner        TEXT,
        owner_id     TEXT,
        expires_at   INTEGER
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE releases (
        app     TEXT NOT NULL,
        number  INTEGER NOT NULL,
        content TEXT NOT NULL,
        json    TEXT NOT NULL,
        PRIMARY KEY (app, number)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE deployments (
        id   TEXT PRIMARY KEY,
        app  TEXT NOT NULL,
        json TEXT NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX deployments_of_app ON deployments (app, id);
    CREATE TABLE entries (
        deployment TEXT NOT NULL,
        seq        INTEGER NOT NULL,
        json       TEXT NOT NULL,
        PRIMARY KEY (deployment, seq)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE signals (
        position   INTEGER PRIMARY KEY,
        deployment TEXT NOT NULL,
        json       TEXT NOT NULL,
        at         INTEGER NOT NULL,
        UNIQUE (deployment, json)
    ) STRICT;
",
    // Deployments in the order in which their journals were opened. Ids tell when a handle was made, which may be long
    // before, by a clock that somebody may have set.
    "
    CREATE TABLE opened_deployments (
        position INTEGER PRIMARY KEY AUTOINCREMENT,
        id       TEXT NOT NULL UNIQUE,
        app      TEXT NOT NULL,
        json     TEXT NOT NULL
    ) STRICT;
    INSERT INTO opened_deployments (id, app, json) SELECT id, app, json FROM deployments ORDER BY id;
    DROP TABLE deployments;
    ALTER TABLE opened_deployments RENAME TO deployments;
    CREATE INDEX deployments_of_app ON deployments (app, position);
",
];

/// Opens the file, makes it if there is none, and brings it to this version.
pub(super) fn open(path: &Path, owners: &Owners) -> Result<Connection> {
    // Switching to WAL does not wait for others that do the same, so one process prepares at a time.
    let _opening = owners.lock_opening().map_err(files)?;
    let mut connection = Connection::open(path).map_err(sqlite)?;
    prepare(&mut connection, MIGRATIONS)?;
    Ok(connection)
}

fn prepare(connection: &mut Connection, migrations: &[&str]) -> Result<()> {
    connection.busy_timeout(BUSY).map_err(sqlite)?;
    let mode: String = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0)).map_err(sqlite)?;
    if !mode.eq_ignore_ascii_case("wal") {
        return Err(Error::new(ErrorKind::Unsupported, format!("the file system allows only journal mode {mode}"))
            .with_help("keep the release store on a local file system"));
    }
    // An acknowledged append must survive a power cut: every commit is synced.
    connection.pragma_update(None, "synchronous", "FULL").map_err(sqlite)?;
    migrate(connection, migrations)
}

fn migrate(connection: &mut Connection, migrations: &[&str]) -> Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(sqlite)?;
    let number = |sql: &str| transaction.query_row(sql, [], |row| row.get::<_, i64>(0)).map_err(sqlite);
    let version = number("PRAGMA user_version")?;
    let tables = number("SELECT count(*) FROM sqlite_schema")?;
    let owner = number("PRAGMA application_id")?;
    if (tables > 0 || version > 0) && owner != i64::from(APPLICATION_ID) {
        return Err(Error::new(ErrorKind::InvalidInput, "the file is another program's database")
            .with_help("name another file for the release store"));
    }
    let known = i64::try_from(migrations.len()).unwrap_or(i64::MAX);
    if version > known {
        return Err(Error::new(
            ErrorKind::Unsupported,
            format!("the release store is of version {version}, and this program knows only {known} and older"),
        )
        .with_help("use the version of this program that wrote it last, or a newer one"));
    }
    for migration in migrations.iter().skip(usize::try_from(version).unwrap_or(0)) {
        transaction.execute_batch(migration).map_err(sqlite)?;
    }
    transaction.pragma_update(None, "application_id", APPLICATION_ID).map_err(sqlite)?;
    transaction.pragma_update(None, "user_version", known).map_err(sqlite)?;
    transaction.commit().map_err(sqlite)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_file_is_brought_to_this_version_and_keeps_its_rows() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("db");
        let mut connection = Connection::open(&path).unwrap();
        prepare(&mut connection, &["CREATE TABLE a (x INTEGER)"]).unwrap();
        connection.execute("INSERT INTO a VALUES (7)", []).unwrap();
        drop(connection);
        let newer = ["CREATE TABLE a (x INTEGER)", "ALTER TABLE a ADD COLUMN y INTEGER NOT NULL DEFAULT 1"];
        let mut connection = Connection::open(&path).unwrap();
        prepare(&mut connection, &newer).unwrap();
        let row: (i64, i64) =
            connection.query_row("SELECT x, y FROM a", [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
        assert_eq!(row, (7, 1));
        drop(connection);
        let error = prepare(&mut Connection::open(&path).unwrap(), &newer[..1]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.to_string().contains("version 2"), "{error}");
    }

    #[test]
    fn a_migration_that_fails_changes_nothing() {
        let mut connection = Connection::open_in_memory().unwrap();
        let broken = ["CREATE TABLE a (x INTEGER)", "CREATE TABLE a (x INTEGER)"];
        assert!(migrate(&mut connection, &broken).is_err());
        migrate(&mut connection, &broken[..1]).unwrap();
    }

    #[test]
    fn every_commit_is_synced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("db");
        let connection = open(&path, &Owners::beside(&path)).unwrap();
        let synchronous: i64 = connection.query_row("PRAGMA synchronous", [], |row| row.get(0)).unwrap();
        assert_eq!(synchronous, 2);
    }
}
