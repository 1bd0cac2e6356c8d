//! Every way to connect to MySQL and MariaDB, and what a session means there.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::sync::{Arc, Mutex};

use cutwater::config::Url;
use cutwater::error::{Error, Kind};
use cutwater::mysql::{Flavour, MyConnInfo, Role, Session, connect_as};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::Authority;
use super::support::mysql::{ADMIN, DATABASE};
use super::support::{LocalMySql, MyOptions, Wanted, my_server};

/// Longer than the scramble that it is mixed with.
const PASSWORD: &str = "a secret'longer\"than-the/scramble@it is mixed with";

/// An account that may do nothing but connect, at a server of ours.
async fn session(server: &LocalMySql, user: &str, rest: &str) -> Result<Session, Error> {
    by_url(&format!("{}{rest}", server.url_of(user, PASSWORD, ""))).await
}

async fn by_url(url: &str) -> Result<Session, Error> {
    connect_as(&MyConnInfo::parse(&Url::new(url))?, "cutwater_test", Role::Metadata).await
}

async fn encrypted(server: &LocalMySql, user: &str, rest: &str) -> bool {
    let mut session = session(server, user, rest).await.unwrap_or_else(|error| panic!("{user} {rest}: {error}"));
    let status = session.rows("SHOW STATUS LIKE 'Ssl_cipher'").await.unwrap();
    !status[0][1].clone().unwrap().is_empty()
}

/// `says` are parts of the error, with its fix.
async fn refused(url: &str, kind: Kind, says: &[&str]) {
    let error = match by_url(url).await {
        Ok(session) => panic!("{url}: {session:?}"),
        Err(error) => error,
    };
    let text = format!("{error} {error:?}");
    assert_eq!(error.kind(), kind, "{url}: {text}");
    for part in says {
        assert!(text.contains(part), "{part:?} is missing for {url} in: {text}");
    }
    assert!(!text.contains("secret"), "{text}");
}

/// Globals that would change what statements mean, and end those that take their time.
fn hostile(flavour: Flavour) -> MyOptions {
    let options = MyOptions::new()
        .setting("sql-mode", "ANSI,NO_BACKSLASH_ESCAPES,PAD_CHAR_TO_FULL_LENGTH,NO_ZERO_DATE,STRICT_TRANS_TABLES")
        .setting("default-time-zone", "+05:00")
        .setting("character-set-server", "latin1")
        .setting("autocommit", "0")
        .setting("wait-timeout", "5")
        .setting("net-write-timeout", "1")
        .setting("transaction-isolation", "SERIALIZABLE");
    match flavour {
        Flavour::MySql => options.setting("max-execution-time", "1").setting("performance-schema", "ON"),
        Flavour::MariaDb => options.setting("max-statement-time", "1").setting("performance-schema", "ON"),
    }
}

async fn a_session_means_the_same_wherever_it_is(wanted: Wanted) {
    let flavour = wanted.flavour();
    let Some(server) = my_server(wanted, hostile(flavour), "a_session_means_the_same_wherever_it_is").await else {
        return;
    };
    let make = format!("CREATE USER plain@'%' IDENTIFIED BY '{}'", PASSWORD.replace('\'', "\\'"));
    server.execute("", &make).await;
    let info = MyConnInfo::parse(&Url::new(server.url_of("plain", PASSWORD, ""))).unwrap();
    for role in [Role::Reader, Role::Writer, Role::Metadata] {
        let mut session = connect_as(&info, "cutwater_test", role).await.unwrap();
        let sql = "SELECT @@time_zone, @@autocommit, @@character_set_results, @@net_write_timeout > 1000, @@wait_timeout > 1000,
            \"double\", '\\'', @@foreign_key_checks, @@unique_checks";
        let keys = if role == Role::Writer { "0" } else { "1" };
        let wanted = ["+00:00", "1", "utf8mb4", "1", "1", "double", "'", keys, "1"];
        let row: Vec<String> = session.rows(sql).await.unwrap().remove(0).into_iter().flatten().collect();
        assert_eq!(row, wanted, "{role:?}");
        let isolation = if role == Role::Reader { "REPEATABLE-READ" } else { "READ-COMMITTED" };
        let name = if flavour == Flavour::MySql { "transaction_isolation" } else { "tx_isolation" };
        assert_eq!(session.value(format!("SELECT @@{name}")).await.unwrap().as_deref(), Some(isolation));
        // Longer than the global limit on a statement.
        session.execute("SELECT SLEEP(1.2)").await.unwrap();
        let text = session.rows_with("SELECT ?, ?, CAST(? AS DATE), NULL", ("ü'\\", 4711, "2024-02-29")).await.unwrap();
        let text: Vec<Option<&str>> = text[0].iter().map(Option::as_deref).collect();
        assert_eq!(text, [Some("ü'\\"), Some("4711"), Some("2024-02-29"), None]);
        session.close().await.unwrap();
    }

    let mut admin = server.connect(DATABASE).await;
    // Dates that strict servers refuse, a zero that stays one, rows that are found and not changed, a value that is cut.
    admin
        .execute("CREATE TABLE t (id int AUTO_INCREMENT PRIMARY KEY, d date, c char(3)) CHARACTER SET utf8mb4")
        .await
        .unwrap();
    admin.execute("INSERT INTO t VALUES (0, '0000-00-00', 'a'), (7, '2023-02-31', 'bü')").await.unwrap();
    let rows = admin.rows("SELECT id, d, c FROM t ORDER BY id").await.unwrap();
    assert_eq!(rows[0], ["0", "0000-00-00", "a"].map(|text| Some(text.to_owned())));
    assert_eq!(rows[1], ["7", "2023-02-31", "bü"].map(|text| Some(text.to_owned())));
    assert_eq!(admin.execute("UPDATE t SET c = c").await.unwrap(), 2);
    assert_eq!(admin.execute("INSERT INTO t VALUES (1, NULL, 'long')").await.unwrap_err().kind(), Kind::BadRow);
    assert_eq!(admin.execute("INSERT INTO t VALUES (7, NULL, 'x')").await.unwrap_err().kind(), Kind::BadRow);
    assert_eq!(admin.execute("SELECT * FROM missing").await.unwrap_err().kind(), Kind::Schema);
    // LOAD DATA LOCAL from memory.
    let lines = ["8\t2024-01-01\tx\n", "9\t2024-01-02\t\\N\n"].map(|line| Ok(bytes::Bytes::from(line)));
    let data = Box::pin(futures::stream::iter(lines));
    assert_eq!(admin.load("LOAD DATA LOCAL INFILE 'any' INTO TABLE t CHARACTER SET utf8mb4", data).await.unwrap(), 2);
    assert_eq!(admin.value("SELECT count(*) FROM t WHERE id > 7").await.unwrap().as_deref(), Some("2"));

    let known = admin.server();
    assert_eq!(known.flavour, flavour);
    assert!(known.version > (5, 6, 0) && known.logs() && known.has_gtids() && !known.is_read_only(), "{known:?}");
    assert_eq!((known.server_id(), known.server_uuid().is_some()), (1, flavour == Flavour::MySql));
    assert_eq!(known.variable("binlog_row_metadata"), Some("FULL"));
    assert!(known.max_allowed_packet() >= 1 << 20);
    // Without TLS: MySQL does not look at what the driver says of itself after the first packet, and MariaDB does.
    let mut named = by_url(&format!("{}?ssl-mode=DISABLED", server.url(""))).await.unwrap();
    let sql = "SELECT ATTR_VALUE FROM performance_schema.session_connect_attrs
        WHERE ATTR_NAME = 'program_name' AND PROCESSLIST_ID = CONNECTION_ID()";
    assert_eq!(named.value(sql).await.unwrap().as_deref(), Some("cutwater_test"));
    assert!(!format!("{admin:?}").contains(ADMIN), "{admin:?}");

    // Killed by somebody, and a server that is stopped: both are worth another try.
    let mut victim = server.connect(DATABASE).await;
    admin.execute(format!("KILL QUERY {}", victim.id())).await.unwrap();
    admin.execute(format!("KILL {}", victim.id())).await.unwrap();
    let error = victim.execute("SELECT 1").await.unwrap_err();
    assert!(matches!(error.kind(), Kind::Connection | Kind::Transient), "{error:?}");
    admin.execute("SET GLOBAL read_only = ON").await.unwrap();
    admin.execute("GRANT INSERT ON shop.* TO plain@'%'").await.ok();
    let mut plain = by_url(&server.url_of("plain", PASSWORD, DATABASE)).await.unwrap_or_else(|error| panic!("{error}"));
    assert!(plain.server().is_read_only());
    let error = plain.execute("INSERT INTO t VALUES (100, NULL, 'x')").await.unwrap_err();
    assert_eq!(error.kind(), Kind::ServerSetting, "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mysql_session_means_the_same_wherever_it_is() {
    a_session_means_the_same_wherever_it_is(Wanted::MySql).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mariadb_session_means_the_same_wherever_it_is() {
    a_session_means_the_same_wherever_it_is(Wanted::MariaDb).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mariadb_11_session_means_the_same_wherever_it_is() {
    a_session_means_the_same_wherever_it_is(Wanted::MariaDb11).await;
}

/// Accounts and how they prove themselves; all have the same password.
fn accounts(flavour: Flavour) -> &'static [(&'static str, &'static str)] {
    match flavour {
        Flavour::MySql => &[("sha2", "IDENTIFIED WITH caching_sha2_password BY")],
        Flavour::MariaDb => &[("native", "IDENTIFIED BY"), ("edwards", "IDENTIFIED VIA ed25519 USING PASSWORD")],
    }
}

async fn passwords_and_tls(wanted: Wanted) {
    let flavour = wanted.flavour();
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path(), "authority");
    authority.sign("server", "db.example.com", "DNS:db.example.com,IP:127.0.0.1");
    authority.sign("client", "client", "DNS:client");
    for (path, mode) in [("", 0o755), ("server.key", 0o644), ("server.crt", 0o644), ("authority.pem", 0o644)] {
        std::fs::set_permissions(folder.path().join(path), std::fs::Permissions::from_mode(mode)).unwrap();
    }
    // MariaDB makes itself a certificate from 11.4 on.
    let without_tls = match flavour {
        Flavour::MySql => MyOptions::new().setting("tls-version", ""),
        Flavour::MariaDb => MyOptions::new().setting("ssl", "0"),
    };
    let Some(mut server) = my_server(wanted, without_tls, "passwords_and_tls").await else { return };
    let mut accounts = accounts(flavour);
    if flavour == Flavour::MariaDb
        && let Err(error) = server.connect("").await.execute("INSTALL SONAME 'auth_ed25519'").await
    {
        // It is in the package of the whole server. Not eprintln!, which the harness keeps to itself.
        let _ = writeln!(std::io::stderr(), "\nNOT RUN: passwords_and_tls with ed25519: {error}\n");
        accounts = &accounts[..1];
    }
    let password = PASSWORD.replace('\'', "\\'");
    for (user, method) in accounts {
        let method = if method.ends_with("PASSWORD") {
            format!("{method}('{password}')")
        } else {
            format!("{method} '{password}'")
        };
        server.execute("", &format!("CREATE USER {user}@'%' {method}")).await;
    }
    server.execute("", &format!("CREATE USER certified@'%' IDENTIFIED BY '{password}' REQUIRE X509")).await;
    server.execute("", "CREATE USER nobody@'%' IDENTIFIED BY ''").await;
    let forget = "FLUSH PRIVILEGES"; // and with it the cache of caching_sha2_password

    // Without TLS. What passes the network holds no password, whether the server asks for it or for a proof of it.
    let any = accounts[0].0;
    for (user, _) in accounts {
        for cached in [false, true] {
            if !cached {
                server.execute("", forget).await;
            }
            let (port, seen) = listen_in(server.port()).await;
            let url = server.url_of(user, PASSWORD, "").replace(&format!(":{}/", server.port()), &format!(":{port}/"));
            by_url(&format!("{url}?ssl-mode=DISABLED")).await.unwrap_or_else(|error| panic!("{user}: {error}"));
            let seen = seen.lock().unwrap().clone();
            let holds = |text: &[u8]| seen.windows(text.len()).any(|bytes| bytes == text);
            assert!(
                holds(b"cutwater_test") && !holds(PASSWORD.as_bytes()) && !holds(&PASSWORD.as_bytes()[..8]),
                "{user}"
            );
        }
        assert!(!encrypted(&server, user, "").await, "PREFERRED, on this machine");
        let url = |password: &str| server.url_of(user, password, "");
        refused(&url("not the secret"), Kind::Authentication, &["Access denied", "1045", "check user and password"])
            .await;
        let missing = url("").replace(":@", "@");
        refused(&missing, Kind::Authentication, &["Access denied", "no password is set", "MYSQL_PWD"]).await;
        server.execute("", forget).await;
        let socket = format!("mysql://{user}@localhost/?socket={}&password=", server.socket().display());
        let encoded = percent_encoding::utf8_percent_encode(PASSWORD, percent_encoding::NON_ALPHANUMERIC);
        by_url(&format!("{socket}{encoded}")).await.unwrap_or_else(|error| panic!("{user}: {error}"));
        refused(&format!("{socket}wrong"), Kind::Authentication, &["Access denied"]).await;
    }
    by_url(&server.url_of("nobody", "", "")).await.unwrap();
    for mode in ["REQUIRED", "VERIFY_CA", "VERIFY_IDENTITY"] {
        let url = format!("{}?ssl-mode={mode}&ssl-ca={}", server.url_of(any, PASSWORD, ""), authority.pem());
        refused(&url, Kind::Authentication, &["does not speak TLS", "ssl_cert", "ssl-mode=DISABLED"]).await;
    }

    // With TLS.
    server.stop();
    server.set(MyOptions::new().tls(&authority.pem(), &authority.file("server.crt"), &authority.file("server.key")));
    server.start_again();
    let url = |user: &str, rest: &str| format!("{}?{rest}", server.url_of(user, PASSWORD, ""));
    for (user, _) in accounts {
        server.execute("", forget).await;
        for (mode, is) in [("DISABLED", false), ("PREFERRED", true), ("REQUIRED", true)] {
            assert_eq!(encrypted(&server, user, &format!("?ssl-mode={mode}")).await, is, "{user} {mode}");
        }
        assert!(encrypted(&server, user, "").await, "PREFERRED is the default here");
    }
    let another = Authority::new(folder.path(), "another");
    let (right, wrong) = (format!("ssl-ca={}", authority.pem()), format!("ssl-ca={}", another.pem()));
    for mode in ["REQUIRED", "VERIFY_CA", "VERIFY_IDENTITY"] {
        assert!(encrypted(&server, any, &format!("?ssl-mode={mode}&{right}")).await, "{mode}");
        let refusal = url(any, &format!("ssl-mode={mode}&{wrong}"));
        refused(&refusal, Kind::Authentication, &["is not trusted", "issuer", "ssl-ca="]).await;
    }
    refused(&url(any, &wrong), Kind::Authentication, &["is not trusted"]).await;
    // Another name than the certificate's.
    let elsewhere = |rest: &str| url(any, rest).replace("@127.0.0.1:", "@localhost:");
    by_url(&elsewhere(&format!("ssl-mode=VERIFY_CA&{right}"))).await.unwrap();
    refused(&elsewhere(&format!("ssl-mode=VERIFY_CA&{wrong}")), Kind::Authentication, &["issuer"]).await;
    let refusal = elsewhere(&format!("ssl-mode=VERIFY_IDENTITY&{right}"));
    refused(&refusal, Kind::Authentication, &["another host name", "VERIFY_CA"]).await;
    refused(&url(any, "ssl-mode=VERIFY_CA&ssl-ca=/nowhere.pem"), Kind::Config, &["/nowhere.pem"]).await;
    // A client certificate.
    let ours = format!(
        "ssl-mode=VERIFY_IDENTITY&{right}&ssl-cert={}&ssl-key={}",
        authority.file("client.crt"),
        authority.file("client.key")
    );
    by_url(&url("certified", &ours)).await.unwrap_or_else(|error| panic!("{error}"));
    refused(&url("certified", "ssl-mode=REQUIRED"), Kind::Authentication, &["Access denied"]).await;
    refused(&url(any, "ssl-mode=REQUIRED&ssl-cert=/x.pem"), Kind::Config, &["/x.pem", "ssl-key"]).await;
    // A server that insists.
    server.execute("", "SET GLOBAL require_secure_transport = ON").await;
    // MariaDB 10 only says that access is denied.
    let says: &[&str] = if flavour == Flavour::MySql { &["leave ssl-mode out"] } else { &[] };
    refused(&url(any, "ssl-mode=DISABLED"), Kind::Authentication, says).await;

    // What is not there.
    refused(&server.url_of(any, PASSWORD, "nowhere"), Kind::Privilege, &["nowhere"]).await;
    refused(&server.url("nowhere"), Kind::Config, &["nowhere", "1049", "database name"]).await;
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    refused(&format!("mysql://u:secret@127.0.0.1:{nobody}/d"), Kind::Connection, &["no server listens there"]).await;
    refused("mysql://u:secret@/d?socket=/nowhere.sock", Kind::Connection, &["there is no socket /nowhere.sock"]).await;
    // Somebody who takes the connection and says nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let url = format!("mysql://u:secret@127.0.0.1:{port}/d?connect-timeout=1");
    refused(&url, Kind::Connection, &["did not answer within 1 s", "connecting to mysql"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mysql_passwords_and_tls() {
    passwords_and_tls(Wanted::MySql).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mariadb_passwords_and_tls() {
    passwords_and_tls(Wanted::MariaDb).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mariadb_11_passwords_and_tls() {
    passwords_and_tls(Wanted::MariaDb11).await;
}

/// A port that leads to another one; and what clients have sent over it.
async fn listen_in(to: u16) -> (u16, Arc<Mutex<Vec<u8>>>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&seen);
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = tokio::net::TcpStream::connect(("127.0.0.1", to)).await.unwrap();
            let (mut from_client, mut to_client) = client.into_split();
            let (mut from_server, mut to_server) = server.into_split();
            tokio::spawn(async move { tokio::io::copy(&mut from_server, &mut to_client).await });
            let kept = Arc::clone(&kept);
            tokio::spawn(async move {
                let mut buffer = [0; 4096];
                while let Ok(count @ 1..) = from_client.read(&mut buffer).await {
                    kept.lock().unwrap().extend_from_slice(&buffer[..count]);
                    if to_server.write_all(&buffer[..count]).await.is_err() {
                        break;
                    }
                }
            });
        }
    });
    (port, seen)
}
