//! The application's session at Postgres.

use std::collections::HashMap;
use std::time::Duration;

use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, SimpleQueryMessage, Statement};

use super::{Answer, Broken, Engine, Rows, Write};
use crate::error::{Error, Kind, Result};

/// What the sessions are called.
const NAME: &str = "cutwater-demo-writer";

pub(super) struct PgSession {
    client: Client,
    backend: i32,
    prepared: HashMap<&'static str, Statement>,
}

impl From<tokio_postgres::Error> for Broken {
    fn from(error: tokio_postgres::Error) -> Broken {
        Broken { answered: error.as_db_error().is_some(), error: error.into() }
    }
}

/// The statement of a write, in tables that were made by `origin`.
fn sql(write: Write, origin: Engine) -> &'static str {
    match (write, origin) {
        (Write::Journal, _) => "INSERT INTO journal (writer, sequence) VALUES ($1::bigint::int, $2)",
        (Write::Transfer, _) => {
            "UPDATE accounts SET balance = $2, version = $3, updated_at = clock_timestamp() WHERE id = $1"
        }
        (Write::NewOrder, Engine::Postgres) => {
            "INSERT INTO orders (account_id, total, tags, attributes) VALUES ($1, $2::bigint / 100.0,
                ARRAY['live', NULL, 'ü\"\\'], jsonb_build_object('writer', $3::bigint)) RETURNING id"
        }
        (Write::NewOrder, Engine::MySql) => {
            "INSERT INTO orders (account_id, total, tags, attributes) VALUES ($1, $2::bigint / 100.0,
                jsonb_build_array('live', NULL, 'ü\"\\'), jsonb_build_object('writer', $3::bigint)) RETURNING id"
        }
        (Write::NewItems, _) => {
            "INSERT INTO order_items (order_id, line, sku, quantity, price)
             SELECT $1, line, 'SKU-' || line, line, line * 1.25 FROM generate_series(1, $2::bigint::int) line"
        }
        (Write::ChangeOrder, Engine::Postgres) => {
            "UPDATE orders SET status = (enum_range(status))[1 + $2::bigint % 4], version = $2 WHERE id = $1"
        }
        (Write::ChangeOrder, Engine::MySql) => {
            "UPDATE orders SET status = (ARRAY['new', 'paid', 'shipped', 'returned'])[1 + $2::bigint % 4], version = $2
              WHERE id = $1"
        }
        (Write::DeleteOrder, Engine::Postgres) => "DELETE FROM orders WHERE id = $1",
        (Write::DeleteOrder, Engine::MySql) => {
            "WITH items AS (DELETE FROM order_items WHERE order_id = $1) DELETE FROM orders WHERE id = $1"
        }
        (Write::NewDocument, Engine::Postgres) => {
            "INSERT INTO documents (id, title, body) VALUES ($1, 'live', $2::text)"
        }
        (Write::NewDocument, Engine::MySql) => {
            "INSERT INTO documents (id, reference, title, body) VALUES ($1, gen_random_uuid()::text, 'live', $2::text)"
        }
        (Write::ChangeDocument, _) => {
            "UPDATE documents SET title = 'version ' || $2::bigint, version = $2 WHERE id = $1"
        }
        (Write::MoveDocument, _) => "UPDATE documents SET id = $3, version = $2 WHERE id = $1",
        (Write::NewEvents, _) => {
            "INSERT INTO events (happened_on, kind, payload, weight)
             SELECT date '2026-01-01' + (random() * 400)::int, 'live', jsonb_build_object('n', n), random()
               FROM generate_series(1, $1::bigint) n RETURNING id"
        }
        (Write::DeleteEvent, _) => "DELETE FROM events WHERE id = $1",
    }
}

impl PgSession {
    pub(super) async fn connect(url: &str) -> Result<PgSession> {
        let mut config: tokio_postgres::Config =
            url.parse().map_err(|_| Error::new(Kind::Config, "the URL cannot be read"))?;
        config.application_name(NAME).connect_timeout(Duration::from_secs(5));
        let (client, connection) = config.connect(tokio_postgres::NoTls).await?;
        tokio::spawn(async move {
            // The client sees the same error.
            let _ = connection.await;
        });
        client.batch_execute("SET search_path = public; SET TIME ZONE 'UTC'").await?;
        let backend = client.query_one("SELECT pg_catalog.pg_backend_pid()", &[]).await?.get(0);
        Ok(PgSession { client, backend, prepared: HashMap::new() })
    }

    pub(super) fn name(&self) -> String {
        self.backend.to_string()
    }

    pub(super) async fn is_there(&mut self, name: &str) -> Result<bool> {
        let pid: i32 = name.parse().map_err(|_| Error::new(Kind::Internal, "a session's name is no number"))?;
        let query = "SELECT count(*) FROM pg_catalog.pg_stat_activity
                      WHERE pid = $1 AND pid <> pg_catalog.pg_backend_pid() AND application_name = $2";
        Ok(self.client.query_one(query, &[&pid, &NAME]).await?.get::<_, i64>(0) > 0)
    }

    pub(super) fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    pub(super) async fn execute(&mut self, sql: &str) -> Answer<()> {
        Ok(self.client.batch_execute(sql).await?)
    }

    pub(super) async fn commit(&mut self) -> Answer<()> {
        let Err(error) = self.client.batch_execute("COMMIT").await else { return Ok(()) };
        // The server's own word that the commit failed is an answer, unless it was shutting down while it said so.
        let answered = error.as_db_error().is_some_and(|db| !db.code().code().starts_with("57P"));
        Err(Broken { error: error.into(), answered })
    }

    pub(super) async fn rows(&mut self, sql: &str) -> Answer<Rows> {
        let messages = self.client.simple_query(sql).await?;
        let rows = messages.into_iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => {
                Some((0..row.len()).map(|column| row.get(column).map(str::to_owned)).collect())
            }
            _ => None,
        });
        Ok(rows.collect())
    }

    pub(super) async fn write(&mut self, write: Write, origin: Engine, values: &[i64], text: &str) -> Answer<Vec<i64>> {
        let sql = sql(write, origin);
        let statement = match self.prepared.get(sql) {
            Some(statement) => statement.clone(),
            None => {
                let statement = self.client.prepare(sql).await?;
                self.prepared.insert(sql, statement.clone());
                statement
            }
        };
        let mut parameters: Vec<&(dyn ToSql + Sync)> = values.iter().map(|value| value as _).collect();
        if write == Write::NewDocument {
            parameters.push(&text);
        }
        let rows = self.client.query(&statement, &parameters).await?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }
}
