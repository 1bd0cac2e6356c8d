//! What `init` sees at an end, of whichever engine it is.

use crate::config::Url;
use crate::error::Result;
use crate::mysql::{self, MyConnInfo};
use crate::postgres::{ConnInfo, connect};

const POSTGRES: &str = "SELECT split_part(current_setting('server_version'), ' ', 1), current_setting('wal_level'),
    (SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
      WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition
        AND n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'cutwater')),
    pg_database_size(current_database())";

const MYSQL: &str = "SELECT CAST(count(*) AS CHAR), CAST(coalesce(sum(data_length + index_length), 0) AS CHAR)
      FROM information_schema.tables
     WHERE table_schema = coalesce(database(), '') AND table_type IN ('BASE TABLE', 'SYSTEM VERSIONED')";

/// The engine of an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Engine {
    Postgres,
    MySql,
}

/// Where an end is.
pub(super) enum End {
    Postgres(ConnInfo),
    MySql(MyConnInfo),
}

/// What was seen there.
pub(super) struct Seen {
    /// As the server says it.
    pub version: String,
    /// Why it cannot be followed as it is set, as a comment's line.
    pub not_followed: Option<String>,
    pub tables: u64,
    pub bytes: u64,
}

impl End {
    pub(super) fn of(url: &Url) -> Result<End> {
        let mysql = ["mysql://", "mariadb://"].iter().any(|scheme| url.expose().starts_with(scheme));
        Ok(if mysql { End::MySql(MyConnInfo::parse(url)?) } else { End::Postgres(ConnInfo::parse(url)?) })
    }

    pub(super) fn engine(&self) -> Engine {
        match self {
            End::Postgres(_) => Engine::Postgres,
            End::MySql(_) => Engine::MySql,
        }
    }

    pub(super) fn label(&self) -> String {
        match self {
            End::Postgres(info) => info.label(),
            End::MySql(info) => info.label(),
        }
    }

    pub(super) fn database(&self) -> &str {
        match self {
            End::Postgres(info) => &info.database,
            End::MySql(info) => info.database.as_deref().unwrap_or_default(),
        }
    }

    pub(super) async fn look(&self) -> Result<Seen> {
        match self {
            End::Postgres(info) => {
                let row = connect(info, "cutwater init").await?.query_one(POSTGRES, &[]).await?;
                let level: &str = row.get(1);
                let count = |at: usize| u64::try_from(row.get::<_, i64>(at)).unwrap_or(0);
                Ok(Seen {
                    version: row.get(0),
                    not_followed: (level != "logical")
                        .then(|| format!("wal_level is {level:?} there and must be \"logical\"")),
                    tables: count(2),
                    bytes: count(3),
                })
            }
            End::MySql(info) => {
                let mut session = mysql::connect(info, "cutwater init").await?;
                let row = session.rows(MYSQL).await?.into_iter().next().unwrap_or_default();
                let count = |at: usize| row.get(at).and_then(|text| text.as_deref()?.parse().ok()).unwrap_or(0);
                let server = session.server();
                let format = server.variable("binlog_format").unwrap_or("ROW");
                let not_followed = match () {
                    () if !server.logs() => Some("log_bin is OFF there and must be ON".to_owned()),
                    () if format != "ROW" => Some(format!("binlog_format is {format} there and must be ROW")),
                    () => None,
                };
                Ok(Seen { version: server.version_text.clone(), not_followed, tables: count(0), bytes: count(1) })
            }
        }
    }
}
