//! Postgres under test.

use cutwater::cli::demo::server::{LocalPostgres, SUPERUSER, ServerOptions, StopMode};
use tokio_postgres::{Client, NoTls};

use super::engine::{Dump, Engine, Session};
use super::postgres_random::POSTGRES;
use super::random::Dialect;
use crate::support::{compare, postgres_with};

const DATABASE: &str = "postgres";

/// A Postgres server.
pub struct Postgres(pub LocalPostgres);

impl Postgres {
    /// A server with settings of one's own.
    pub async fn with(options: ServerOptions) -> Postgres {
        Postgres(postgres_with(options).await)
    }
}

impl Engine for Postgres {
    const NAME: &'static str = "postgres";
    const COMMIT: &'static [u8] = b"COMMIT\0";
    const BEGIN: &'static [u8] = b"BEGIN\0";

    type Session = Client;

    async fn start() -> Postgres {
        Postgres::with(ServerOptions::new()).await
    }

    fn port(&self) -> u16 {
        self.0.port()
    }

    fn url_at(port: u16) -> String {
        format!("postgres://{SUPERUSER}@127.0.0.1:{port}/{DATABASE}")
    }

    fn crash(&mut self) {
        tokio::task::block_in_place(|| self.0.stop(StopMode::Immediate)).unwrap();
    }

    fn start_again(&mut self) {
        tokio::task::block_in_place(|| self.0.start_again()).unwrap_or_else(|error| panic!("{error}"));
    }

    async fn read_only(&self, on: bool) {
        let setting = format!("ALTER SYSTEM SET default_transaction_read_only = {on}");
        let client = self.0.connect(DATABASE).await.unwrap();
        client.batch_execute("SET default_transaction_read_only = off").await.unwrap();
        client.batch_execute(&setting).await.unwrap();
        client.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    }

    async fn connect(url: &str) -> Result<Client, String> {
        let (client, connection) = tokio_postgres::connect(url, NoTls).await.map_err(|error| error.to_string())?;
        tokio::spawn(connection);
        Ok(client)
    }

    async fn dump(url: &str, table: &str) -> Dump {
        compare::dump(url, table).await
    }

    fn whole_number(expression: &str) -> String {
        format!("CAST({expression} AS bigint)")
    }

    fn series(from: i64, to: i64) -> String {
        format!("generate_series({from}, {to}) AS n")
    }

    async fn sessions_of_cutwater(url: &str) -> Vec<i64> {
        let sql = "SELECT pid::bigint FROM pg_stat_activity WHERE application_name LIKE 'cutwater\\_%'";
        let client = Self::connect(url).await.unwrap();
        client.query(sql, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
    }

    async fn confirmed(url: &str) -> i64 {
        let sql = "SELECT max(confirmed_flush_lsn - '0/0')::bigint FROM pg_replication_slots";
        Self::connect(url).await.unwrap().query_one(sql, &[]).await.unwrap().get(0)
    }

    fn keep_a_copy(&self) -> tempfile::TempDir {
        self.0.process().keep_a_copy().unwrap()
    }

    fn restore(&self, kept: tempfile::TempDir) {
        self.0.process().restore(&kept).unwrap();
    }

    async fn create_database(&self, name: &str) -> String {
        self.0.execute(DATABASE, &format!("CREATE DATABASE {name}")).await.unwrap();
        self.0.url(SUPERUSER, name)
    }

    async fn drop_database(&self, name: &str) {
        // Sessions of ours that have just ended may still be listed.
        self.0.execute(DATABASE, &format!("DROP DATABASE {name} WITH (FORCE)")).await.unwrap();
    }

    fn dialect() -> &'static Dialect {
        &POSTGRES
    }

    async fn end_session(url: &str, id: i64) {
        let client = Self::connect(url).await.unwrap();
        client.query("SELECT pg_terminate_backend($1::bigint::int)", &[&id]).await.unwrap();
    }
}

impl Session for Client {
    async fn execute(&mut self, sql: &str) -> Result<(), String> {
        self.batch_execute(sql).await.map_err(|error| format!("{error:?}"))
    }

    async fn numbers(&mut self, sql: &str) -> Result<Vec<i64>, String> {
        let row = self.query_one(sql, &[]).await.map_err(|error| format!("{error:?}"))?;
        Ok((0..row.len()).map(|column| row.get(column)).collect())
    }
}
