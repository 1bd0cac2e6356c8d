//! One table from SQLSTATE to what Cutwater does about it.

use tokio_postgres::error::SqlState;

use crate::error::{Error, Kind};

/// The kind of a server error. <https://www.postgresql.org/docs/current/errcodes-appendix.html>
pub fn sqlstate_kind(code: &SqlState) -> Kind {
    match code.code() {
        "28P01" | "28000" => Kind::Authentication,
        "42501" => Kind::Privilege,
        // Read-only target: a standby, or default_transaction_read_only. It may be promoted, but not by waiting.
        "25006" => Kind::ServerSetting,
        // 26000, 42P05: behind a pooler, see is_pooler.
        "3D000" | "26000" | "42P05" => Kind::Config,
        "55006" => Kind::SlotInUse,
        "42P01" | "42703" | "42804" | "3F000" | "42704" | "42883" => Kind::Schema,
        // The session is ended with them: idle in a transaction too long, a transaction too long.
        "25P03" | "25P04" => Kind::Connection,
        "40001" | "40P01" | "55P03" | "57014" => Kind::Transient,
        code => match code.get(..2).unwrap_or_default() {
            "08" | "57" => Kind::Connection,
            "53" | "58" => Kind::Transient,
            "22" | "23" => Kind::BadRow,
            _ => Kind::Internal,
        },
    }
}

/// What a server's error says, however it reached us.
pub(crate) struct ServerError<'a> {
    /// SQLSTATE.
    pub code: &'a str,
    /// `M`
    pub message: &'a str,
    /// `D`
    pub detail: Option<&'a str>,
    /// `H`
    pub hint: Option<&'a str>,
    /// `W`
    pub context: Option<&'a str>,
}

/// The place in a COPY that an error's context names, without the value: `line 3, column email`.
fn copy_place(context: &str) -> Option<&str> {
    let (_, place) = context.lines().find(|line| line.starts_with("COPY "))?.split_once(", line ")?;
    let end = place.find([':', '\n']).unwrap_or(place.len());
    Some(&place[..end])
}

impl From<ServerError<'_>> for Error {
    fn from(server: ServerError<'_>) -> Error {
        let mut why = server.message.to_owned();
        if let Some(detail) = server.detail {
            why.push_str(&format!(" ({detail})"));
        }
        if let Some(place) = server.context.and_then(copy_place) {
            why.push_str(&format!(" (line {place})"));
        }
        let made = Error::new(sqlstate_kind(&SqlState::from_code(server.code)), why);
        match (server.hint, server.code) {
            (Some(hint), code) if !is_pooler(code, server.message) => made.fix(hint),
            _ if is_pooler(server.code, server.message) => {
                made.fix("a connection pooler is in the way: put the database server's own host and port into the URL")
            }
            (None, "28P01") => made.fix("check the password in the URL, PGPASSWORD or ~/.pgpass"),
            (None, "28000") => made.fix("add a line for this client, role and database to the server's pg_hba.conf"),
            (None, "3D000") => made.fix("check the database name at the end of the URL"),
            (None, "22021" | "22P05") => made.fix(
                "these bytes are no text in the encoding that is expected, or it has no such character: correct the row at the \
                 source, or make the target's database in an encoding that has it",
            ),
            // What `stringinfo.c` and `mcxt.c` say of a message that would be larger than 1 GB.
            (None, "54000" | "XX000")
                if why_has(&made, "enlarge string buffer") || why_has(&made, "invalid memory alloc request size") =>
            {
                made.fix(
                    "the server cannot put a row of more than 1 GB into one message: find it by the octet_length of its \
                     columns, make it smaller at the source, or leave the column out in a [[transform]]",
                )
            }
            _ => made,
        }
    }
}

fn why_has(error: &Error, words: &str) -> bool {
    error.why().contains(words)
}

/// What only a pooler says, or what goes wrong behind one: it takes no replication connection, and a prepared statement is
/// gone, or there already, because the next statement runs in another server process.
fn is_pooler(code: &str, message: &str) -> bool {
    matches!(code, "26000" | "42P05") || message.contains("unsupported startup parameter")
}

/// The server wants a password and there is none.
pub(crate) fn no_password(user: &str) -> Error {
    Error::new(Kind::Authentication, format!("the server asks for a password of role {user:?}, and none is set"))
        .fix("put it into the URL, PGPASSWORD or ~/.pgpass")
}

/// `channel_binding=require`, and the server lets us in without.
pub(crate) fn unbound() -> Error {
    Error::new(
        Kind::Authentication,
        "channel_binding=require was asked for, and the server does not bind the password's proof to the TLS connection",
    )
    .fix("it takes TLS and scram-sha-256 in the server's pg_hba.conf; or leave channel_binding out of the URL")
}

impl From<tokio_postgres::Error> for Error {
    fn from(error: tokio_postgres::Error) -> Self {
        if let Some(db) = error.as_db_error() {
            return ServerError {
                code: db.code().code(),
                message: db.message(),
                detail: db.detail(),
                hint: db.hint(),
                context: db.where_(),
            }
            .into();
        }
        if error.is_closed() {
            return Error::new(Kind::Connection, "the connection was closed");
        }
        // tokio-postgres says what it did ("error communicating with the server"); its source says why.
        let source = std::error::Error::source(&error);
        let why = source.map_or_else(|| error.to_string(), |source| format!("{error}: {source}"));
        let kind = match source {
            Some(source) if source.is::<std::io::Error>() => Kind::Connection,
            _ if why.contains("authentication") || why.contains("password") => Kind::Authentication,
            _ => Kind::Protocol,
        };
        Error::new(kind, why)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_in_a_copy_is_told_and_the_value_is_not() {
        let place = |context| copy_place(context);
        assert_eq!(place("COPY t, line 3, column email: \"secret\""), Some("3, column email"));
        assert_eq!(place("JSON data, line 1: {x\nCOPY t, line 7, column j: \"{x\""), Some("7, column j"));
        assert_eq!(place("PL/pgSQL function f() line 3 at RAISE"), None);
    }
}
