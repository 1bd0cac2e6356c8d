//! Every way to connect that libpq has, for ordinary sessions and for the replication connection alike; and those that
//! MySQL's clients have (`connect/mysql.rs`).
#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

#[path = "connect/mysql.rs"]
mod mysql;
mod support;

use std::path::{Path, PathBuf};
use std::process::Command;

use cutwater::config::Url;
use cutwater::error::{Error, Kind};
use cutwater::postgres::{ConnInfo, Purpose, Wire, connect};
use support::{LocalPostgres, ServerOptions, StopMode};

/// What the server says of a session: port, application name, whether it is encrypted, the client certificate's subject.
const ABOUT: &str =
    "SELECT inet_server_port()::text, a.application_name::text, coalesce(s.ssl, false)::text, s.client_dn::text
    FROM pg_stat_activity a LEFT JOIN pg_stat_ssl s USING (pid) WHERE a.pid = pg_backend_pid()";

#[derive(Debug, PartialEq)]
struct About {
    port: Option<u16>,
    application: String,
    encrypted: bool,
    certificate: Option<String>,
}

impl About {
    fn new(fields: [Option<String>; 4]) -> About {
        let [port, application, encrypted, certificate] = fields;
        let port = port.map(|port| port.parse().unwrap());
        About { port, application: application.unwrap(), encrypted: encrypted.as_deref() == Some("true"), certificate }
    }
}

/// Connects in both ways; they must come out the same.
async fn both(url: &str) -> Result<About, Error> {
    let info = ConnInfo::parse(&Url::new(url))?;
    let sql = async {
        let client = connect(&info, "cutwater_test").await?;
        let row = client.query_one(ABOUT, &[]).await.unwrap();
        Ok::<_, Error>(About::new([row.get(0), row.get(1), row.get(2), row.get(3)]))
    };
    let wire = async {
        let mut wire = Wire::connect(&info, "cutwater_test", Purpose::Replication).await?;
        let system = wire.query("IDENTIFY_SYSTEM").await?;
        assert!(system[0][0].is_some(), "a replication connection");
        Ok::<_, Error>(About::new(wire.query(ABOUT).await?.remove(0).try_into().unwrap()))
    };
    match (sql.await, wire.await) {
        (Ok(sql), Ok(wire)) => {
            assert_eq!(sql, wire, "{url}");
            Ok(sql)
        }
        (Err(sql), Err(wire)) => {
            assert_eq!((sql.kind(), sql.suggestion()), (wire.kind(), wire.suggestion()), "{sql} / {wire}");
            Err(wire)
        }
        (sql, wire) => panic!("{url}: {sql:?}, but for replication {wire:?}"),
    }
}

async fn connects(url: &str) -> About {
    both(url).await.unwrap_or_else(|error| panic!("{url}: {error}"))
}

async fn refused(url: &str, says: &[&str]) {
    let error = both(url).await.expect_err(url);
    let text = error.to_string();
    for part in says {
        assert!(text.contains(part), "{part:?} is missing for {url} in: {text}");
    }
    assert!(!text.contains("secret"), "{text}");
}

/// An authority of one's own, and what it signs.
struct Authority {
    folder: PathBuf,
    name: &'static str,
}

impl Authority {
    fn new(folder: &Path, name: &'static str) -> Authority {
        let authority = Authority { folder: folder.to_owned(), name };
        authority.openssl(
            &["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"],
            &[("-keyout", &format!("{name}.key")), ("-out", &format!("{name}.pem")), ("-subj", &format!("/CN={name}"))],
        );
        authority
    }

    fn file(&self, name: &str) -> String {
        self.folder.join(name).to_str().unwrap().to_owned()
    }

    fn pem(&self) -> String {
        self.file(&format!("{}.pem", self.name))
    }

    fn openssl(&self, words: &[&str], options: &[(&str, &str)]) {
        let output = Command::new("openssl")
            .args(words)
            .args(options.iter().flat_map(|(name, value)| [*name, *value]))
            .current_dir(&self.folder)
            .output()
            .expect("openssl, which comes with the Postgres package");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// `<name>.crt` and `<name>.key` for a common name and alternative names.
    fn sign(&self, name: &str, common_name: &str, alternatives: &str) {
        std::fs::write(self.folder.join("ext"), format!("subjectAltName={alternatives}\n")).unwrap();
        let (key, request, certificate) = (format!("{name}.key"), format!("{name}.csr"), format!("{name}.crt"));
        self.openssl(
            &["req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"],
            &[("-keyout", &key), ("-out", &request), ("-subj", &format!("/CN={common_name}"))],
        );
        self.openssl(
            &["x509", "-req", "-days", "2", "-set_serial", "1"],
            &[
                ("-in", &request),
                ("-out", &certificate),
                ("-CA", &format!("{}.pem", self.name)),
                ("-CAkey", &format!("{}.key", self.name)),
                ("-extfile", "ext"),
            ],
        );
    }
}

/// A server whose certificate is for 127.0.0.1 and db.example.com, and not for localhost. Roles are named for how they
/// prove themselves; every password is `secret`.
async fn server(folder: &Path) -> (LocalPostgres, Authority) {
    let authority = Authority::new(folder, "authority");
    authority.sign("server", "db.example.com", "DNS:db.example.com,IP:127.0.0.1");
    let server = support::postgres_with(
        ServerOptions::new()
            .hba("hostssl all tls 127.0.0.1/32 trust")
            .hba("hostnossl all plain 127.0.0.1/32 trust")
            .hba("host all scram 127.0.0.1/32 scram-sha-256")
            .hba("host all md5 127.0.0.1/32 md5")
            .hba("host all clear 127.0.0.1/32 password")
            .hba("hostssl all certified 127.0.0.1/32 cert")
            .hba("host all whoever 127.0.0.1/32 trust"),
    )
    .await;
    let data = server.data_directory();
    let owner = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(&data).unwrap());
    for (from, to) in [("server.crt", "server.crt"), ("server.key", "server.key"), ("authority.pem", "root.crt")] {
        std::fs::copy(folder.join(from), data.join(to)).unwrap();
        std::os::unix::fs::chown(data.join(to), Some(owner), None).unwrap();
        std::fs::set_permissions(data.join(to), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    }
    server
        .execute(
            "postgres",
            "CREATE ROLE tls LOGIN REPLICATION; CREATE ROLE plain LOGIN REPLICATION; CREATE ROLE whoever LOGIN REPLICATION;
             CREATE ROLE certified LOGIN REPLICATION; CREATE ROLE clear LOGIN REPLICATION PASSWORD 'secret';
             SET password_encryption = 'scram-sha-256'; CREATE ROLE scram LOGIN REPLICATION PASSWORD 'secret';
             SET password_encryption = 'md5'; CREATE ROLE md5 LOGIN REPLICATION PASSWORD 'secret'",
        )
        .await
        .unwrap();
    (server, authority)
}

/// TLS from here on.
async fn switch_tls_on(server: &LocalPostgres) {
    let client = server.connect("postgres").await.unwrap();
    for statement in
        ["ALTER SYSTEM SET ssl = on", "ALTER SYSTEM SET ssl_ca_file = 'root.crt'", "SELECT pg_reload_conf()"]
    {
        client.batch_execute(statement).await.unwrap();
    }
    support::wait_for("TLS", std::time::Duration::from_secs(60), async || {
        let url = format!("postgres://whoever@127.0.0.1:{}/postgres?sslmode=require", server.port());
        both(&url).await.is_ok()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_means_what_libpq_means_by_it() {
    let folder = tempfile::tempdir().unwrap();
    let (server, authority) = server(folder.path()).await;
    let port = server.port();
    let url = |user: &str, host: &str, rest: &str| format!("postgres://{user}@{host}:{port}/postgres?{rest}");

    // A server without TLS.
    assert!(!connects(&url("whoever", "127.0.0.1", "sslmode=prefer")).await.encrypted);
    refused(&url("whoever", "127.0.0.1", "sslmode=require"), &["does not speak TLS", "ssl = on", "sslmode=disable"])
        .await;
    refused(&url("whoever", "127.0.0.1", "sslmode=verify-full"), &["does not speak TLS"]).await;
    switch_tls_on(&server).await;

    // disable, allow, prefer, require: whether, not with whom.
    for (mode, encrypted) in [("disable", false), ("allow", false), ("prefer", true), ("require", true)] {
        assert_eq!(
            connects(&url("whoever", "127.0.0.1", &format!("sslmode={mode}"))).await.encrypted,
            encrypted,
            "{mode}"
        );
    }
    refused(&url("tls", "127.0.0.1", "sslmode=disable"), &["no pg_hba.conf entry", "no encryption"]).await;
    assert!(connects(&url("tls", "127.0.0.1", "sslmode=allow")).await.encrypted, "the second try is encrypted");
    assert!(!connects(&url("plain", "127.0.0.1", "sslmode=prefer")).await.encrypted, "the second try is not");
    refused(&url("plain", "127.0.0.1", "sslmode=require"), &["no pg_hba.conf entry"]).await;

    // verify-ca and verify-full, and require with an authority: with whom.
    let other = Authority::new(folder.path(), "another");
    let (right, wrong) = (format!("sslrootcert={}", authority.pem()), format!("sslrootcert={}", other.pem()));
    for mode in ["require", "verify-ca", "verify-full"] {
        assert!(connects(&url("tls", "127.0.0.1", &format!("sslmode={mode}&{right}"))).await.encrypted, "{mode}");
        let refusal = url("tls", "127.0.0.1", &format!("sslmode={mode}&{wrong}"));
        refused(&refusal, &["is not trusted", "issuer", "sslrootcert="]).await;
    }
    // Another name than the certificate's.
    assert!(connects(&url("tls", "localhost", &format!("sslmode=verify-ca&{right}"))).await.encrypted);
    refused(&url("tls", "localhost", &format!("sslmode=verify-full&{right}")), &["another host name", "verify-ca"])
        .await;
    // Without one of ours: the system's authorities, which do not know this one.
    for mode in ["verify-ca", "verify-full"] {
        let error = both(&url("tls", "127.0.0.1", &format!("sslmode={mode}"))).await.unwrap_err();
        assert!(error.suggestion().is_some(), "{error}");
    }
    refused(&url("tls", "127.0.0.1", "sslmode=verify-ca&sslrootcert=/nowhere.pem"), &["/nowhere.pem"]).await;

    // A client certificate is the proof of who we are.
    authority.sign("certified", "certified", "DNS:client");
    authority.sign("mistaken", "somebody", "DNS:client");
    let client = |name: &str| {
        format!(
            "sslmode=verify-full&{right}&sslcert={}&sslkey={}",
            authority.file(&format!("{name}.crt")),
            authority.file(&format!("{name}.key"))
        )
    };
    let about = connects(&url("certified", "127.0.0.1", &client("certified"))).await;
    assert_eq!(about.certificate.as_deref(), Some("/CN=certified"));
    refused(&url("certified", "127.0.0.1", &client("mistaken")), &["certificate authentication failed"]).await;
    let without = both(&url("certified", "127.0.0.1", "sslmode=require")).await.unwrap_err();
    assert_eq!(without.kind(), Kind::Authentication, "{without}");
    refused(&url("certified", "127.0.0.1", "sslmode=require&sslcert=/x.pem"), &["/x.pem", "sslkey="]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_password_method_is_spoken_and_a_wrong_password_says_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let (server, _) = server(folder.path()).await;
    let port = server.port();
    let url = |user: &str, password: &str, rest: &str| {
        format!("postgres://{user}:{password}@127.0.0.1:{port}/postgres?application_name=mine&{rest}")
    };
    let bound = "channel_binding=require";
    for user in ["scram", "md5", "clear"] {
        refused(&url(user, "secret", bound), &["channel_binding=require", "fix: "]).await;
    }
    switch_tls_on(&server).await;
    for user in ["scram", "md5", "clear"] {
        for mode in ["sslmode=disable", "sslmode=require"] {
            let about = connects(&url(user, "secret", mode)).await;
            assert_eq!(about.application, "cutwater_test mine");
        }
        refused(
            &url(user, "not-the-secret", ""),
            &[&format!("password authentication failed for user \"{user}\""), "fix: check the password"],
        )
        .await;
        let missing = format!("postgres://{user}@127.0.0.1:{port}/postgres");
        refused(&missing, &["asks for a password", "fix: put it into the URL"]).await;
    }
    // SCRAM-SHA-256-PLUS: over TLS alone, and by no other method.
    assert!(connects(&url("scram", "secret", &format!("sslmode=require&{bound}"))).await.encrypted);
    connects(&url("scram", "secret", "sslmode=require&channel_binding=disable")).await;
    refused(&url("scram", "secret", &format!("sslmode=disable&{bound}")), &["channel_binding=require"]).await;
    for user in ["md5", "clear", "whoever"] {
        refused(&url(user, "secret", &format!("sslmode=require&{bound}")), &["channel_binding=require", "fix: "]).await;
    }
    // The Unix socket, in both spellings.
    let socket = server.folder().to_str().unwrap().to_owned();
    assert_eq!(connects(&server.socket_url("clear", "postgres")).await.port, None);
    assert_eq!(connects(&format!("postgres:///postgres?user=clear&host={socket}&port={port}")).await.port, None);
    refused("postgres:///postgres?user=clear&host=/nowhere", &["there is no socket /nowhere"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_several_hosts_the_first_that_is_as_wanted_is_taken() {
    let read_only = ServerOptions::new().setting("default_transaction_read_only", "on");
    let (primary, mut standby, read_only) =
        tokio::join!(support::postgres(), support::postgres(), support::postgres_with(read_only));
    // A standby that follows nobody: it stays in recovery and answers questions.
    standby.stop(StopMode::Fast).unwrap();
    std::fs::write(standby.data_directory().join("standby.signal"), "").unwrap();
    standby.start_again().unwrap();
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();

    let url = |ports: &[u16], wanted: &str| {
        let hosts: Vec<String> = ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
        format!("postgres://postgres@{}/postgres?target_session_attrs={wanted}", hosts.join(","))
    };
    let (a, b, c) = (standby.port(), read_only.port(), primary.port());
    let all = [nobody, a, b, c];
    for (wanted, port) in
        [("any", a), ("read-write", c), ("primary", b), ("standby", a), ("read-only", a), ("prefer-standby", a)]
    {
        assert_eq!(connects(&url(&all, wanted)).await.port, Some(port), "{wanted}");
    }
    assert_eq!(connects(&url(&[c, b], "read-only")).await.port, Some(b));
    assert_eq!(connects(&url(&[c, b], "prefer-standby")).await.port, Some(c), "without a standby, whoever answers");
    refused(&url(&[a, b], "read-write"), &["is a standby", "default_transaction_read_only", "no server will do"]).await;
    refused(&url(&[c], "standby"), &["is not a standby"]).await;
    refused(&url(&[nobody, a], "primary"), &["no server listens there", "is a standby"]).await;
    let failure = both(&url(&[a], "primary")).await.unwrap_err();
    assert_eq!(failure.kind(), Kind::Connection, "a promotion may be under way: it is tried again");
}
