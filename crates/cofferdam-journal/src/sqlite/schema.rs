//! The database: how it is recognised, made and opened.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _},
    os::unix::fs::OpenOptionsExt as _,
    time::Duration,
};

use rusqlite::{Connection, OpenFlags, config::DbConfig};

use super::failure::Location;
use crate::JournalError;

/// The version of the tables, kept as the database's `user_version`. Records have a version of their own,
/// [`FORMAT_VERSION`](crate::FORMAT_VERSION).
pub const STORE_VERSION: u32 = 1;

/// "CoJl".
const APPLICATION_ID: u32 = 0x436f_4a6c;

/// How long a write waits for one of another process.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Bytes to which the log is cut when it starts anew.
const LOG_BYTES: u32 = 16 << 20;

/// Bytes of a page, as SQLite makes them.
const PAGE_BYTES: u32 = 4096;

/// Prepared statements that a connection keeps; there are fewer than these.
const STATEMENTS: usize = 32;

/// The length of a database's header, and where in it are what is looked at.
const HEADER_BYTES: usize = 100;
const MAGIC: &[u8; 16] = b"SQLite format 3\0";
const APPLICATION_ID_AT: usize = 68;

const TABLES: &str = "
CREATE TABLE runs (
  run TEXT PRIMARY KEY,
  epoch INTEGER NOT NULL,
  owner TEXT,
  expires INTEGER NOT NULL,
  records INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE records (
  run TEXT NOT NULL,
  seq INTEGER NOT NULL,
  time INTEGER NOT NULL,
  format INTEGER NOT NULL,
  body TEXT NOT NULL,
  hash TEXT NOT NULL,
  UNIQUE (run, seq)
) STRICT;

CREATE TABLE newest_epoch (epoch INTEGER NOT NULL) STRICT;
INSERT INTO newest_epoch VALUES (0);

CREATE VIEW history AS
  SELECT run, seq, strftime('%Y-%m-%dT%H:%M:%fZ', time / 1000.0, 'unixepoch') AS at,
         CASE WHEN json_valid(body) THEN body ->> '$.kind' END AS kind, body
  FROM records ORDER BY run, seq;
";

/// Looks at what is there without changing it, and makes an empty file if nothing is. SQLite itself would begin to mend a
/// database before anybody could see whose it is.
pub(super) fn prepare(location: &Location) -> Result<(), JournalError> {
    let path = location.database();
    let mut header = Vec::with_capacity(HEADER_BYTES);
    match File::open(path) {
        Ok(file) => {
            let file_type = file.metadata().map_err(|e| location.io("look at its file", e))?;
            if !file_type.is_file() {
                return Err(location.foreign("it is not a regular file"));
            }
            file.take(HEADER_BYTES as u64)
                .read_to_end(&mut header)
                .map_err(|error| location.io("read its file", error))?;
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(path)
                .map_err(|error| location.io("make its database", error))?;
        }
        Err(error) => return Err(location.io("open its database", error)),
    }
    if header.is_empty() {
        // SQLite would delete the log of an empty database, and with it what was acknowledged.
        return match std::fs::metadata(location.beside("-wal")) {
            Ok(log) if log.len() > 0 => {
                Err(location.damaged("the database is empty, but its log (-wal) is not"))
            }
            _ => Ok(()),
        };
    }
    if header.len() < HEADER_BYTES || !header.starts_with(MAGIC) {
        // The making of a database that was cut off, which SQLite undoes by the journal beside it.
        let undone = header.iter().all(|byte| *byte == 0)
            && std::fs::metadata(location.beside("-journal")).is_ok_and(|file| file.len() > 0);
        return if undone { Ok(()) } else { Err(location.foreign("it is not a SQLite database")) };
    }
    match u32_at(&header, APPLICATION_ID_AT) {
        APPLICATION_ID => Ok(()),
        0 => Err(location.foreign("it is a SQLite database of no application")),
        other => Err(location
            .foreign(format!("it is a SQLite database of another application (0x{other:08x})"))),
    }
}

fn u32_at(header: &[u8], at: usize) -> u32 {
    header[at..at + 4].iter().fold(0, |value, byte| (value << 8) | u32::from(*byte))
}

/// Opens a connection. The file is there.
pub(super) fn connect(location: &Location) -> Result<Connection, JournalError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let open = || {
        let connection = Connection::open_with_flags(location.database(), flags)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        connection.set_prepared_statement_cache_capacity(STATEMENTS);
        // The file may have been tampered with: nothing in its schema is run or trusted.
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
        connection.pragma_update(None, "cell_size_check", true)?;
        connection.pragma_update(None, "secure_delete", true)?;
        connection.pragma_update(None, "journal_size_limit", LOG_BYTES)?;
        // The bound. Long before it the thread that writes moves the log into the database, while nobody waits.
        connection.pragma_update(None, "wal_autocheckpoint", LOG_BYTES / PAGE_BYTES)?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        Ok(connection)
    };
    let connection = open().map_err(|error| location.sqlite("open its database", error))?;
    if connection.is_readonly("main").unwrap_or(false) {
        let detail = "its file may not be written".to_owned();
        return Err(JournalError::ReadOnly { location: location.text(), detail });
    }
    Ok(connection)
}

/// Makes the tables if there are none, and checks the version of those that are there.
pub(super) fn make(connection: &Connection, location: &Location) -> Result<(), JournalError> {
    let failed = |error| location.sqlite("make its tables", error);
    // Two processes that make the same database take turns, and the second finds the first one's. Turning on the log does not
    // wait for another who does so, hence a lock around all.
    let lock = File::open(location.beside("-leases"))
        .and_then(|directory| directory.lock().map(|()| directory))
        .map_err(|error| location.io("lock the directory of its leases", error))?;
    if user_version(connection).map_err(failed)? == 0 {
        let used = "SELECT EXISTS (SELECT 1 FROM sqlite_schema)";
        if connection.query_row(used, [], |row| row.get(0)).map_err(failed)? {
            return Err(location.foreign("it is a SQLite database with other tables"));
        }
        // All in one transaction: a database that is not empty is one of ours, whole.
        connection
            .execute_batch(&format!(
                "BEGIN IMMEDIATE; PRAGMA application_id = {APPLICATION_ID}; \
                 PRAGMA user_version = {STORE_VERSION}; {TABLES} COMMIT;"
            ))
            .map_err(|error| {
                // Closing the connection would roll it back as well.
                let _ = connection.execute_batch("ROLLBACK");
                failed(error)
            })?;
    }
    let found = user_version(connection).map_err(failed)?;
    if found != STORE_VERSION {
        let (location, supported) = (location.text(), STORE_VERSION);
        return Err(JournalError::NewerStore { location, found, supported });
    }
    let mode: String =
        connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0)).map_err(failed)?;
    drop(lock);
    if mode != "wal" {
        let error = format!("its file system has no shared memory for a log (mode {mode})");
        return Err(JournalError::store("turn on its log", error));
    }
    Ok(())
}

fn user_version(connection: &Connection) -> rusqlite::Result<u32> {
    connection.query_row("PRAGMA user_version", [], |row| row.get(0))
}
