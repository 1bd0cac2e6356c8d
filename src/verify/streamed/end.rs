//! One end of a comparison, as rows in the layout of [`Row`].
//!
//! In: a statement. Out: its rows, one after the other, as the server sends them: nothing is gathered, and the server waits
//! for us. A MySQL or MariaDB server gives values in the canonical form of a source ([`canonical`]), a Postgres server as
//! its types' output functions print them (that is what the simple query protocol does). What can go wrong: whoever reads
//! goes away in mid-statement; then the statement is ended at the server too.

use std::pin::pin;
use std::time::Duration;

use futures::TryStreamExt as _;
use mysql_async::Value;
use mysql_async::prelude::Queryable as _;
use tokio_postgres::SimpleQueryMessage;
use tokio_util::task::TaskTracker;

use crate::change::{Datum, Row, RowBuilder};
use crate::error::{Error, Kind, Result};
use crate::mysql::{MyConnInfo, Role, Session, connect_as};
use crate::postgres::{Client, ConnInfo, connect};
use crate::verify::Options;
use crate::verify::postgres::read_only;

/// How long ending a statement at a server may take.
const ENDING: Duration = Duration::from_secs(5);

/// A session that reads.
pub(super) enum End {
    Postgres(PgEnd),
    MySql(MyEnd),
}

pub(super) struct PgEnd {
    pub(super) client: Client,
    info: ConnInfo,
    pid: i32,
    ending: Ending,
}

pub(super) struct MyEnd {
    session: Session,
    info: MyConnInfo,
    ending: Ending,
}

/// Whether a statement is under way, and who ends it if we do not see its end.
struct Ending {
    under_way: bool,
    name: String,
    tracker: TaskTracker,
}

impl End {
    pub(super) async fn postgres(info: &ConnInfo, name: &str, options: &Options, tracker: &TaskTracker) -> Result<End> {
        let client = connect(info, name).await?;
        read_only(&client, options).await?;
        let pid = client.query_one("SELECT pg_backend_pid()", &[]).await?.get(0);
        Ok(End::Postgres(PgEnd { client, info: info.clone(), pid, ending: Ending::new(name, tracker) }))
    }

    pub(super) async fn mysql(info: &MyConnInfo, name: &str, options: &Options, tracker: &TaskTracker) -> Result<End> {
        let mut session = connect_as(info, name, Role::Reader).await?;
        session.execute("SET SESSION TRANSACTION READ ONLY").await?;
        if let Some(budget) = options.budget {
            // Milliseconds in MySQL, seconds in MariaDB.
            let (millis, seconds) = (budget.as_millis().max(1), budget.as_secs_f64().max(0.001));
            let limits = [("max_execution_time", millis.to_string()), ("max_statement_time", format!("{seconds:.3}"))];
            for (name, limit) in limits {
                if session.server().variable(name).is_none() {
                    continue;
                }
                session.execute(format!("SET SESSION {name} = {limit}")).await?;
            }
        }
        Ok(End::MySql(MyEnd { session, info: info.clone(), ending: Ending::new(name, tracker) }))
    }

    /// Reads the rows of a statement; `binary` says of which columns the values are bytes and not text.
    pub(super) async fn scan(
        &mut self,
        sql: &str,
        binary: &[bool],
        each: impl FnMut(Row) -> Result<()> + Send,
    ) -> Result<()> {
        match self {
            End::Postgres(end) => end.scan(sql, each).await,
            End::MySql(end) => end.scan(sql, binary, each).await,
        }
    }
}

impl PgEnd {
    async fn scan(&mut self, sql: &str, mut each: impl FnMut(Row) -> Result<()> + Send) -> Result<()> {
        self.ending.under_way = true;
        let mut builder = RowBuilder::with_capacity(64 << 10);
        {
            let mut rows = pin!(self.client.simple_query_raw(sql).await?);
            while let Some(message) = rows.try_next().await? {
                let SimpleQueryMessage::Row(row) = message else { continue };
                for place in 0..row.len() {
                    builder.push(row.get(place).map_or(Datum::Null, |text| Datum::Text(text.as_bytes())));
                }
                each(builder.take())?;
            }
        }
        self.ending.under_way = false;
        Ok(())
    }
}

impl MyEnd {
    async fn scan(&mut self, sql: &str, binary: &[bool], mut each: impl FnMut(Row) -> Result<()> + Send) -> Result<()> {
        self.ending.under_way = true;
        let mut builder = RowBuilder::with_capacity(64 << 10);
        {
            let mut rows = self.session.conn().query_iter(sql).await?;
            while let Some(row) = rows.next().await? {
                for (place, binary) in binary.iter().enumerate() {
                    builder.push(match row.as_ref(place) {
                        Some(Value::NULL) => Datum::Null,
                        Some(Value::Bytes(bytes)) if *binary => Datum::Binary(bytes),
                        Some(Value::Bytes(bytes)) => Datum::Text(bytes),
                        _ => return Err(Error::new(Kind::Protocol, "the server's answer is not text")),
                    });
                }
                each(builder.take())?;
            }
        }
        self.ending.under_way = false;
        Ok(())
    }
}

impl Ending {
    fn new(name: &str, tracker: &TaskTracker) -> Ending {
        Ending { under_way: false, name: name.to_owned(), tracker: tracker.clone() }
    }

    fn end(&self, ending: impl Future<Output = Result<()>> + Send + 'static) {
        // Without a runtime the process ends, and our connections with it.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let ended = async {
            match tokio::time::timeout(ENDING, ending).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!(%error, "a statement that nobody waits for was not ended"),
                Err(_) => tracing::debug!("a statement that nobody waits for could not be ended in time"),
            }
        };
        runtime.spawn(self.tracker.track_future(ended));
    }
}

impl Drop for PgEnd {
    fn drop(&mut self) {
        if self.ending.under_way {
            let (info, name, pid) = (self.info.clone(), self.ending.name.clone(), self.pid);
            self.ending.end(async move {
                connect(&info, &name).await?.execute("SELECT pg_cancel_backend($1)", &[&pid]).await?;
                Ok(())
            });
        }
    }
}

impl Drop for MyEnd {
    fn drop(&mut self) {
        if self.ending.under_way {
            let (info, name, id) = (self.info.clone(), self.ending.name.clone(), self.session.id());
            // The whole connection: the driver would otherwise read what is left of the answer.
            self.ending.end(async move {
                connect_as(&info, &name, Role::Metadata).await?.execute(format!("KILL {id}")).await?;
                Ok(())
            });
        }
    }
}
