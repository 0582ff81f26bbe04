//! One connection to PostgreSQL: set up, positions, and one transaction per batch.
//!
//! Positions stand in the database itself, in `millpond_offsets`, and move in the transaction that brings the rows: after
//! any crash of either side the rows and the position agree. Moving a position asks for the old value, so that a
//! transaction of a former connection and one of this one cannot both take effect.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::time::Duration;

use broker::{Offset, PartitionIndex};
use tokio::task::JoinHandle;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Config, Transaction};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::feed::Change;
use super::plan::{Plan, Round};

const CONNECT_MAX: Duration = Duration::from_secs(5);
/// What every session begins with; a hanging statement ends, and so does a transaction whose client is gone.
const SESSION: &str = "SET statement_timeout = '100s'; SET lock_timeout = '20s'; \
                       SET idle_in_transaction_session_timeout = '60s'; SET client_min_messages = 'warning'";
const TABLES: &str = "CREATE TABLE IF NOT EXISTS millpond_offsets (sink text, topic text, partition integer, \
                      next_offset bigint NOT NULL, log text NOT NULL, PRIMARY KEY (sink, topic, partition)); \
                      CREATE TABLE IF NOT EXISTS millpond_ddl (sink text PRIMARY KEY, ddl text NOT NULL, at timestamptz NOT NULL)";
/// Sinks set their tables up one after the other: this number is theirs.
const SETUP_LOCK: i64 = 0x6d69_6c6c_706f_6e64;

/// Why a batch is not in the database.
#[derive(Debug)]
pub enum LoadError {
    /// Positions are not where they were thought to be: they must be read again.
    Moved,
    /// A row's foreign key is not there yet; the reason of the first one.
    Reference(String),
    /// Anything else; the connection is not to be used again.
    Failed(String),
}

/// A row that the database does not take.
#[derive(Clone, Debug, PartialEq)]
pub struct Refused {
    /// The row.
    pub change: Change,
    /// The SQLSTATE.
    pub code: String,
    /// The constraint, where there is one.
    pub constraint: Option<String>,
    /// In the database's words.
    pub reason: String,
}

/// A position that moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Move {
    /// The partition.
    pub partition: PartitionIndex,
    /// Where it stands.
    pub from: Offset,
    /// Where it goes.
    pub to: Offset,
}

/// A connection. Everything that must survive is in the database.
pub struct Database {
    client: Client,
    connection: JoinHandle<()>,
    sink: String,
    topic: String,
}

/// Reads a URL or key-value text.
///
/// # Errors
/// What is wrong with it; never the password.
pub fn check_url(url: &str) -> Result<(), String> {
    let parsed = Config::from_str(url);
    parsed
        .map(drop)
        .map_err(|error| format!("not a URL such as postgres://user:secret@localhost:5432/database: {error}"))
}

/// An error with what PostgreSQL says about it.
fn told(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(db) => {
            let detail = db.detail().map(|detail| format!(" ({detail})")).unwrap_or_default();
            format!("{}{detail} [{}]", db.message(), db.code().code())
        }
        None => match std::error::Error::source(error) {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        },
    }
}

impl Database {
    /// Connects.
    ///
    /// # Errors
    /// Why it cannot.
    pub async fn connect(url: &str, sink: &str, topic: &str) -> Result<Database, String> {
        let mut config = Config::from_str(url).map_err(|error| error.to_string())?;
        config.connect_timeout(CONNECT_MAX).application_name(format!("millpond {sink}"));
        config.keepalives_idle(Duration::from_secs(10)).tcp_user_timeout(Duration::from_secs(30));
        let connecting = config.connect(MakeRustlsConnect::with_webpki_roots());
        let connected = tokio::time::timeout(2 * CONNECT_MAX, connecting).await;
        let (client, connection) =
            connected.map_err(|_| "the database does not answer".to_owned())?.map_err(|error| told(&error))?;
        let connection = tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection to postgres ended");
            }
        });
        client.batch_execute(SESSION).await.map_err(|error| told(&error))?;
        Ok(Database { client, connection, sink: sink.to_owned(), topic: topic.to_owned() })
    }

    /// Makes the table and runs the sink's own SQL once.
    ///
    /// # Errors
    /// What the database says.
    pub async fn set_up(&mut self, plan: &Plan, create: bool, ddl: Option<&str>) -> Result<(), String> {
        let done = async {
            let transaction = self.client.transaction().await?;
            transaction.execute("SELECT pg_advisory_xact_lock($1)", &[&SETUP_LOCK]).await?;
            transaction.batch_execute(TABLES).await?;
            if create {
                transaction.batch_execute(&plan.create()).await?;
            }
            if let Some(ddl) = ddl {
                let known =
                    transaction.query_opt("SELECT ddl FROM millpond_ddl WHERE sink = $1", &[&self.sink]).await?;
                if known.is_none_or(|row| row.get::<_, String>(0) != ddl) {
                    transaction.batch_execute(ddl).await?;
                    let note = "INSERT INTO millpond_ddl VALUES ($1, $2, now()) \
                                ON CONFLICT (sink) DO UPDATE SET ddl = EXCLUDED.ddl, at = now()";
                    transaction.execute(note, &[&self.sink, &ddl]).await?;
                }
            }
            transaction.commit().await
        };
        done.await.map_err(|error: tokio_postgres::Error| told(&error))
    }

    /// Where each partition stands: as the database says for the same log, else at its start. `logs` gives for each
    /// partition the log's identity, its start and its end.
    ///
    /// # Errors
    /// What the database says.
    pub async fn positions(
        &mut self,
        logs: &BTreeMap<PartitionIndex, (String, Offset, Offset)>,
    ) -> Result<BTreeMap<PartitionIndex, Offset>, String> {
        let mut positions = BTreeMap::new();
        for (partition, (log, start, end)) in logs {
            let insert = "INSERT INTO millpond_offsets VALUES ($1, $2, $3, $4, $5) ON CONFLICT (sink, topic, partition) \
                          DO UPDATE SET next_offset = CASE WHEN millpond_offsets.log = EXCLUDED.log \
                          THEN least(greatest(millpond_offsets.next_offset, EXCLUDED.next_offset), $6) \
                          ELSE EXCLUDED.next_offset END, log = EXCLUDED.log RETURNING next_offset";
            let row = self.client.query_one(insert, &[&self.sink, &self.topic, partition, start, log, end]).await;
            positions.insert(*partition, row.map_err(|error| told(&error))?.get(0));
        }
        Ok(positions)
    }

    /// Whether the database still answers.
    ///
    /// # Errors
    /// Why not.
    pub async fn ping(&self) -> Result<(), String> {
        let answer = tokio::time::timeout(CONNECT_MAX, self.client.simple_query("SELECT 1")).await;
        answer.map_err(|_| "the database does not answer".to_owned())?.map(drop).map_err(|error| told(&error))
    }

    /// Brings changes and positions in one transaction, up to its commit, which the caller makes with
    /// [`Loading::commit`] once what was refused is written down elsewhere.
    ///
    /// # Errors
    /// See [`LoadError`]; then nothing happened.
    pub async fn load(
        &mut self,
        plan: &Plan,
        rounds: &[Round],
        moves: &[Move],
        at_once: bool,
    ) -> Result<Loading<'_>, LoadError> {
        let failed = |error: tokio_postgres::Error| LoadError::Failed(told(&error));
        let transaction = self.client.transaction().await.map_err(failed)?;
        if at_once {
            // What a deferred constraint refuses would show at the commit only, and not in which row.
            transaction.batch_execute("SET CONSTRAINTS ALL IMMEDIATE").await.map_err(failed)?;
        }
        let update = "UPDATE millpond_offsets SET next_offset = $5 WHERE sink = $1 AND topic = $2 AND partition = $3 \
                      AND next_offset = $4";
        for to in moves {
            let params: [&(dyn ToSql + Sync); 5] = [&self.sink, &self.topic, &to.partition, &to.from, &to.to];
            if transaction.execute(update, &params).await.map_err(failed)? != 1 {
                return Err(LoadError::Moved);
            }
        }
        let mut refused = Vec::new();
        for round in rounds {
            apply(&transaction, &plan.delete(), (plan, &round.gone, true), &mut refused).await?;
            apply(&transaction, &plan.upsert(), (plan, &round.kept, false), &mut refused).await?;
        }
        Ok(Loading { transaction, refused })
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

/// A transaction that only lacks its commit.
pub struct Loading<'a> {
    transaction: Transaction<'a>,
    /// What the database did not take.
    pub refused: Vec<Refused>,
}

impl Loading<'_> {
    /// Takes effect.
    ///
    /// # Errors
    /// [`LoadError::Reference`] when a deferred constraint does not hold.
    pub async fn commit(self) -> Result<(), LoadError> {
        self.transaction.commit().await.map_err(|error| deferred(&error))
    }

    /// Has deferred constraints looked at now, so that a commit cannot fail by them any more.
    ///
    /// # Errors
    /// [`LoadError::Reference`] when one does not hold.
    pub async fn check_deferred(&self) -> Result<(), LoadError> {
        self.transaction.batch_execute("SET CONSTRAINTS ALL IMMEDIATE").await.map_err(|error| deferred(&error))
    }

    /// Whether a foreign key was not there; the reason of the first such row.
    pub fn reference(&self) -> Option<String> {
        let missing = self.refused.iter().find(|row| row.code == SqlState::FOREIGN_KEY_VIOLATION.code());
        missing.map(|row| row.reason.clone())
    }
}

/// What an error means that a deferred constraint may have caused.
fn deferred(error: &tokio_postgres::Error) -> LoadError {
    match error.code().is_some_and(|code| refuses(code.code())) {
        true => LoadError::Reference(told(error)),
        false => LoadError::Failed(told(error)),
    }
}

/// Whether an error is about rows, not about the database: cardinality, data exceptions, integrity constraints, and what
/// a trigger raises.
fn refuses(code: &str) -> bool {
    ["21", "22", "23"].iter().any(|class| code.starts_with(class)) || code == "P0001"
}

/// Runs a statement for all changes; halves them until the rows that are refused stand alone.
async fn apply(
    transaction: &Transaction<'_>,
    statement: &str,
    (plan, changes, gone): (&Plan, &[Change], bool),
    refused: &mut Vec<Refused>,
) -> Result<(), LoadError> {
    if changes.is_empty() {
        return Ok(());
    }
    let failed = |error: tokio_postgres::Error| LoadError::Failed(told(&error));
    let statement = transaction.prepare(statement).await.map_err(failed)?;
    let mut open = vec![changes];
    while let Some(part) = open.pop() {
        transaction.batch_execute("SAVEPOINT part").await.map_err(failed)?;
        let arrays = plan.arrays(part, gone);
        let params: Vec<&(dyn ToSql + Sync)> = arrays.iter().map(|array| array as &(dyn ToSql + Sync)).collect();
        let Err(error) = transaction.execute(&statement, &params).await else {
            transaction.batch_execute("RELEASE SAVEPOINT part").await.map_err(failed)?;
            continue;
        };
        let Some(db) = error.as_db_error().filter(|db| refuses(db.code().code())) else {
            return Err(failed(error));
        };
        transaction.batch_execute("ROLLBACK TO SAVEPOINT part").await.map_err(failed)?;
        match part {
            [one] => refused.push(Refused {
                change: one.clone(),
                code: db.code().code().to_owned(),
                constraint: db.constraint().map(str::to_owned),
                reason: told(&error),
            }),
            many => {
                let (first, second) = many.split_at(many.len() / 2);
                open.push(second);
                open.push(first);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_rows_are_told_from_errors_of_the_database() {
        for code in ["23505", "23503", "23514", "23502", "22P02", "22003", "21000", "P0001"] {
            assert!(refuses(code), "{code}");
        }
        for code in ["40001", "42P01", "57P01", "53100", "08006", "42P10"] {
            assert!(!refuses(code), "{code}");
        }
    }

    #[test]
    fn urls_are_checked() {
        assert!(check_url("postgres://u:p@localhost:5432/d").is_ok());
        assert!(check_url("host=/tmp user=u").is_ok());
        let error = check_url("localhost:5432").unwrap_err();
        assert!(error.contains("postgres://"), "{error}");
    }
}
