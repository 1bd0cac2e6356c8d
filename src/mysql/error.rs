//! One table from the servers' error codes to what Cutwater does about them.
//!
//! <https://dev.mysql.com/doc/mysql-errors/8.4/en/server-error-reference.html>,
//! <https://mariadb.com/kb/en/mariadb-error-code-reference/>. Up to 1899 both have the same codes; 1900–1999 and from 4000
//! on are MariaDB's, 3000 and up MySQL's, with few exceptions (4031).

use mysql_async::{DriverError, IoError};

use crate::error::{Error, Kind};

/// The kind of a server's error.
pub fn code_kind(code: u16) -> Kind {
    match code {
        // Access denied, host not allowed or blocked, unknown plugin, password expired, account locked, TLS required.
        1045 | 1129 | 1130 | 1251 | 1524 | 1698 | 1820 | 1862 | 1873 | 3118 | 3159 | 3955 | 4151 => Kind::Authentication,
        // On a database, table, column or routine; for want of a global privilege.
        1044 | 1095 | 1141 | 1142 | 1143 | 1147 | 1211 | 1227 | 1370 | 1410 | 1419 => Kind::Privilege,
        // No such database; no such variable, collation, character set or engine here.
        1049 | 1115 | 1193 | 1273 | 1286 => Kind::Config,
        // Read-only servers and transactions: it may become writable, but not by waiting.
        1290 | 1792 | 1836 | 1874
        // Packets that are too large.
        | 1153 | 1301
        // LOAD DATA LOCAL is switched off.
        | 1148 | 3948 | 4166
        // Binary logging that is off, or does not do with what is asked.
        | 1381 | 1665 | 1785 => Kind::ServerSetting,
        // A replica of the same name took our place; the position is not in the log any more: see `binlog_kind`.
        1236 | 1789 | 1945 | 1955 => Kind::SlotLost,
        // The same of MariaDB.
        4052 => Kind::SlotInUse,
        // Tables, columns, routines that are not there, or there already.
        1050 | 1051 | 1054 | 1072 | 1091 | 1109 | 1118 | 1146 | 1305 | 1356 => Kind::Schema,
        // Lock time-outs, dead-locks (also of XA and of a cluster), too many of something, memory, disk.
        1205 | 1213 | 1613 | 1614 | 3058 | 3101 | 3572 | 1020 | 1037 | 1038 | 1040 | 1041 | 1203 | 1206 | 1226 | 1637
        | 1021 | 1026 | 1030 | 1114 | 3675
        // The statement was killed, or ran into a time-out; the table was altered behind the snapshot; a cluster's node
        // is not ready.
        | 1317 | 1969 | 3024 | 1412 | 1047 => Kind::Transient,
        // The server goes down; the connection was aborted or killed.
        1053 | 1077 | 1079 | 1152 | 1154 | 1158..=1161 | 1184 | 1927 | 3169 | 4031 => Kind::Connection,
        // Values that do not fit, keys that are there already, constraints.
        1048 | 1062 | 1264 | 1265 | 1292 | 1300 | 1364 | 1365 | 1366 | 1367 | 1406 | 1411 | 1416 | 1526 | 1586 | 1690
        | 1216 | 1217 | 1451 | 1452 | 1748 | 1761 | 1762 | 3140..=3146 | 3156 | 3819 | 4025 => Kind::BadRow,
        _ => Kind::Internal,
    }
}

/// 1236 is all that can go wrong with reading a binary log; only the text says what.
fn binlog_kind(message: &str) -> Kind {
    if message.contains("same server_uuid/server_id") || message.contains("same server_id") {
        Kind::SlotInUse
    } else if message.contains("max_allowed_packet") || message.contains("checksum") {
        Kind::ServerSetting
    } else {
        Kind::SlotLost
    }
}

/// What to do about it, where that is known.
fn advice(code: u16, message: &str) -> Option<&'static str> {
    Some(match code {
        1045 | 1698 => {
            "check user and password in the URL, [client] of ~/.my.cnf or MYSQL_PWD, and the host of the account"
        }
        1130 => "make an account for this client's address: CREATE USER 'name'@'%'",
        1129 => "the server counts failed connections of this host: FLUSH HOSTS, and look for what makes them fail",
        1251 | 1524 => {
            "give the account a plugin that the server has: caching_sha2_password, mysql_native_password or ed25519"
        }
        1820 | 1862 => "give the account a new password: ALTER USER … IDENTIFIED BY …",
        3118 | 3955 | 4151 => "ALTER USER … ACCOUNT UNLOCK",
        3159 => "the server takes TLS alone: leave ssl-mode out of the URL, or set it to REQUIRED or higher",
        1049 => "check the database name at the end of the URL",
        1290 if !message.contains("read-only") => return None,
        1290 | 1836 => {
            "is it a replica, or was it set so on purpose? SET GLOBAL super_read_only = OFF, read_only = OFF makes it writable"
        }
        1153 | 1301 => "raise max_allowed_packet at the server; it must hold the largest row (up to 1 GB)",
        1148 | 3948 | 4166 => "SET GLOBAL local_infile = ON at the target",
        1040 => "raise max_connections at the server, or free some of its connections",
        1203 | 1226 => "raise the account's limits: ALTER USER … WITH MAX_USER_CONNECTIONS …",
        1021 | 1114 | 3675 => "free some space at the server",
        1381 => "start the server with log_bin",
        1419 => "SET GLOBAL log_bin_trust_function_creators = ON, or give the role SUPER",
        1236 | 4052 if code == 4052 || binlog_kind(message) == Kind::SlotInUse => {
            "another reader uses the same server id: end it, or give one of the two another [source] server_id"
        }
        1236 if message.contains("max_allowed_packet") => "raise max_allowed_packet at the source",
        1236 | 1789 | 1945 | 1955 => {
            "the source has purged what comes next: begin again with a new copy, and keep its binary logs longer \
             (binlog_expire_logs_seconds, expire_logs_days)"
        }
        _ => return None,
    })
}

fn server_error(error: &mysql_async::ServerError) -> Error {
    let code = error.code;
    // Two servers, two meanings.
    let kind = match code {
        1236 => binlog_kind(&error.message),
        4031 if !error.message.contains("inactivity") => Kind::Internal,
        code => code_kind(code),
    };
    let made = Error::new(kind, format!("{} (error {code})", error.message));
    match advice(code, &error.message) {
        Some(advice) => made.fix(advice),
        None => made,
    }
}

/// What the driver says of itself. Its texts hold no values of rows, but some variants do: those are not printed.
fn driver_error(error: &DriverError) -> Error {
    let plugin_fix = "give the account caching_sha2_password, mysql_native_password or ed25519";
    match error {
        DriverError::ConnectionClosed => Error::new(Kind::Connection, "the connection was closed"),
        DriverError::UnknownAuthPlugin { name } => {
            Error::new(Kind::Authentication, format!("the account's authentication plugin {name:?} is not known here"))
                .fix(plugin_fix)
        }
        DriverError::CleartextPluginDisabled => {
            Error::new(Kind::Authentication, "the server asks for the password in the clear, and does not get it")
                .fix(plugin_fix)
        }
        DriverError::MysqlOldPasswordDisabled => Error::new(
            Kind::Authentication,
            "the account has a password of before MySQL 4.1, which can be broken by whoever listens",
        )
        .fix(plugin_fix),
        DriverError::PacketTooLarge => {
            Error::new(Kind::ServerSetting, "a packet is larger than 1 GB, which no server takes")
        }
        DriverError::LocalInfile(error) => Error::new(Kind::Io, format!("the data to load could not be read: {error}")),
        DriverError::PacketOutOfOrder
        | DriverError::UnexpectedPacket { .. }
        | DriverError::BadCompressedPacketHeader
        | DriverError::InvalidParsecSalt
        | DriverError::CantParseServerVersion { .. } => Error::new(Kind::Protocol, error.to_string()),
        _ => Error::new(Kind::Internal, error.to_string()),
    }
}

impl From<mysql_async::Error> for Error {
    fn from(error: mysql_async::Error) -> Error {
        match &error {
            mysql_async::Error::Server(error) => server_error(error),
            mysql_async::Error::Driver(error) => driver_error(error),
            // The driver puts its own errors into an io::Error when they come up between two packets.
            mysql_async::Error::Io(IoError::Io(io)) => {
                match io.get_ref().and_then(|inner| inner.downcast_ref::<DriverError>()) {
                    Some(error) => driver_error(error),
                    None => Error::new(Kind::Connection, format!("the connection broke: {io}")),
                }
            }
            mysql_async::Error::Io(IoError::Tls(error)) => {
                Error::new(Kind::Connection, format!("the TLS connection broke: {error}"))
            }
            mysql_async::Error::Other(_) | mysql_async::Error::Url(_) => Error::new(Kind::Internal, error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(code: u16, message: &str) -> Error {
        mysql_async::Error::Server(mysql_async::ServerError { code, message: message.into(), state: "HY000".into() })
            .into()
    }

    #[test]
    fn a_code_decides_and_is_told() {
        let error = of(1213, "Deadlock found when trying to get lock; try restarting transaction");
        assert_eq!(error.kind(), Kind::Transient);
        assert!(error.why().ends_with("(error 1213)"), "{error}");
        assert_eq!(of(1062, "Duplicate entry").kind(), Kind::BadRow);
        assert_eq!(of(9999, "news").kind(), Kind::Internal);
    }

    #[test]
    fn where_one_code_has_several_meanings_the_text_decides() {
        let taken = "A slave with the same server_uuid/server_id as this slave has connected to the master";
        assert_eq!(of(1236, taken).kind(), Kind::SlotInUse);
        assert!(of(1236, taken).suggestion().expect("known").contains("server id"));
        assert_eq!(of(1236, "Could not find first log file name in binary log index file").kind(), Kind::SlotLost);
        assert_eq!(of(1236, "log event entry exceeded max_allowed_packet").kind(), Kind::ServerSetting);
        assert_eq!(
            of(4031, "The client was disconnected by the server because of inactivity.").kind(),
            Kind::Connection
        );
        assert_eq!(of(4031, "Referenced trigger 't' does not exist").kind(), Kind::Internal);
        let read_only = of(1290, "The MySQL server is running with the --read-only option so it cannot");
        assert!(read_only.suggestion().is_some() && read_only.kind() == Kind::ServerSetting);
        assert!(of(1290, "running with the --secure-file-priv option").suggestion().is_none());
    }

    #[test]
    fn what_a_driver_error_carries_of_rows_and_packets_is_not_printed() {
        let error = DriverError::UnexpectedPacket { payload: b"hunter2".to_vec() };
        assert!(!format!("{:?}", Error::from(mysql_async::Error::Driver(error))).contains("hunter2"));
        let value = mysql_async::Value::Bytes(b"hunter2".to_vec());
        let error = Error::from(mysql_async::Error::Driver(DriverError::FromValue { value }));
        assert!(!format!("{error:?}").contains("hunter2"));
    }
}
