//! MySQL and MariaDB under test.

use std::marker::PhantomData;

use bytes::Bytes;
use cutwater::mysql::{self, Flavour, MyIdent};
use futures::stream;

use super::engine::{Dump, Engine, Session};
use super::mysql_random::MYSQL;
use super::random::Dialect;
use crate::support::mysql::{ADMIN, DATABASE, connect};
use crate::support::{LocalMySql, MyOptions, Programs, my_programs, not_run};

/// Which of the two.
pub trait Kind: Send + Sync + 'static {
    /// MySQL or MariaDB.
    const FLAVOUR: Flavour;
    /// `mysql`.
    const NAME: &'static str;
}

/// MySQL.
pub struct IsMySql;
/// MariaDB.
pub struct IsMariaDb;

impl Kind for IsMySql {
    const FLAVOUR: Flavour = Flavour::MySql;
    const NAME: &'static str = "mysql";
}

impl Kind for IsMariaDb {
    const FLAVOUR: Flavour = Flavour::MariaDb;
    const NAME: &'static str = "mariadb";
}

/// A server of either.
pub struct Server<K: Kind>(pub LocalMySql, PhantomData<K>);

/// A MySQL server.
pub type MySql = Server<IsMySql>;
/// A MariaDB server.
pub type MariaDb = Server<IsMariaDb>;

impl<K: Kind> Server<K> {
    /// A server with options of one's own. Ask [`Engine::is_here`] before.
    pub async fn with(options: MyOptions) -> Self {
        let programs: Programs = programs::<K>().await.unwrap_or_else(|why| panic!("{why}"));
        Server(LocalMySql::start(programs, options).await, PhantomData)
    }
}

async fn programs<K: Kind>() -> Result<Programs, String> {
    tokio::task::spawn_blocking(|| my_programs(K::FLAVOUR)).await.unwrap()
}

impl<K: Kind> Engine for Server<K> {
    const NAME: &'static str = K::NAME;
    const COMMIT: &'static [u8] = b"\x03COMMIT";
    const BEGIN: &'static [u8] = b"START TRANSACTION;\n";

    type Session = mysql::Session;

    async fn start() -> Self {
        Self::with(MyOptions::new()).await
    }

    async fn is_here(test: &str) -> bool {
        programs::<K>().await.inspect_err(|why| not_run(&format!("{test} on {}: {why}", K::NAME))).is_ok()
    }

    fn port(&self) -> u16 {
        self.0.port()
    }

    fn url_at(port: u16) -> String {
        format!("{}://{ADMIN}:{ADMIN}@127.0.0.1:{port}/{DATABASE}", K::NAME)
    }

    fn application_url(&self) -> String {
        self.0.application_url()
    }

    fn crash(&mut self) {
        tokio::task::block_in_place(|| self.0.crash());
    }

    fn start_again(&mut self) {
        tokio::task::block_in_place(|| self.0.start_again());
    }

    async fn read_only(&self, on: bool) {
        let variable = match K::FLAVOUR {
            Flavour::MySql if on => "super_read_only",
            _ => "read_only",
        };
        self.0.execute(DATABASE, &format!("SET GLOBAL {variable} = {on}")).await;
    }

    async fn connect(url: &str) -> Result<mysql::Session, String> {
        connect(url).await.map_err(|error| error.to_string())
    }

    async fn dump(url: &str, table: &str) -> Dump {
        let mut session = connect(url).await.unwrap();
        let columns = format!(
            "SELECT column_name, data_type FROM information_schema.columns
              WHERE table_schema = database() AND table_name = '{table}' ORDER BY ordinal_position"
        );
        let columns = session.rows(&columns).await.unwrap();
        let shown = columns.iter().map(|column| {
            let (name, ty) = (column[0].as_deref().unwrap(), column[1].as_deref().unwrap());
            let name = MyIdent(name);
            match ty {
                "blob" | "binary" | "varbinary" | "bit" => format!("HEX({name})"),
                // Otherwise cut to six digits.
                "float" => format!("CAST({name} + 0e0 AS CHAR)"),
                _ => format!("CAST({name} AS CHAR)"),
            }
        });
        let rows =
            session.rows(&format!("SELECT {} FROM {table}", shown.collect::<Vec<_>>().join(", "))).await.unwrap();
        let line = |row: Vec<Option<String>>| {
            let field = |field: Option<String>| match field {
                Some(text) => text.replace('\\', "\\\\").replace('\n', "\\n").replace('\t', "\\t"),
                None => "\\N".to_owned(),
            };
            row.into_iter().map(field).collect::<Vec<_>>().join("\t") + "\n"
        };
        let mut lines: Vec<String> = rows.into_iter().map(line).collect();
        lines.sort_unstable();
        Box::pin(stream::iter(lines.into_iter().map(Bytes::from)))
    }

    fn whole_number(expression: &str) -> String {
        format!("CAST({expression} AS SIGNED)")
    }

    fn series(from: i64, to: i64) -> String {
        let digits: Vec<String> = (0..7)
            .map(|place| {
                let ten = (0..10).map(|digit| format!("SELECT {digit} AS d")).collect::<Vec<_>>().join(" UNION ALL ");
                format!("({ten}) AS d{place}")
            })
            .collect();
        let sum: Vec<String> = (0..7).map(|place| format!("d{place}.d * {}", 10_i64.pow(place))).collect();
        let (sum, digits) = (sum.join(" + "), digits.join(" CROSS JOIN "));
        format!("(SELECT {from} + {sum} AS n FROM {digits} WHERE {from} + {sum} <= {to}) AS series")
    }

    async fn sessions_of_cutwater(url: &str) -> Vec<i64> {
        // The application's name is a connection attribute, which is kept nowhere here: all but our own are its.
        let sql = "SELECT id FROM information_schema.processlist WHERE id <> connection_id() AND user = 'admin'
                      AND command <> 'Daemon'";
        let mut session = connect(url).await.unwrap();
        let rows = session.rows(sql).await.unwrap();
        rows.into_iter().flatten().flatten().map(|id| id.parse().unwrap()).collect()
    }

    async fn end_session(url: &str, id: i64) {
        // It may have ended by itself.
        let _ = connect(url).await.unwrap().execute(format!("KILL {id}")).await;
    }

    /// Nothing is told to a MySQL source.
    async fn confirmed(_: &str) -> i64 {
        0
    }

    fn keep_a_copy(&self) -> tempfile::TempDir {
        self.0.keep_a_copy()
    }

    fn restore(&self, kept: tempfile::TempDir) {
        self.0.restore(&kept);
    }

    async fn create_database(&self, name: &str) -> String {
        self.0.execute(DATABASE, &format!("CREATE DATABASE {name}")).await;
        self.0.url(name)
    }

    async fn drop_database(&self, name: &str) {
        self.0.execute(DATABASE, &format!("DROP DATABASE {name}")).await;
    }

    fn dialect() -> &'static Dialect {
        &MYSQL
    }
}

impl Session for mysql::Session {
    async fn execute(&mut self, sql: &str) -> Result<(), String> {
        mysql::Session::execute(self, sql).await.map(drop).map_err(|error| error.to_string())
    }

    async fn numbers(&mut self, sql: &str) -> Result<Vec<i64>, String> {
        let rows = self.rows(sql).await.map_err(|error| error.to_string())?;
        let row = rows.into_iter().next().ok_or("no row")?;
        row.into_iter().map(|text| text.and_then(|text| text.parse().ok()).ok_or(format!("no number: {sql}"))).collect()
    }
}
