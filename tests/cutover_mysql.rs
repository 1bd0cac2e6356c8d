//! The fence of a MySQL or MariaDB source on real servers: whom it stops, when it lets go, and what a driver finds that
//! comes after one that died.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test dies of its errors, and prints what it measured")]

#[path = "cutover_mysql/clients.rs"]
mod clients;
mod support;
#[path = "cutover_mysql/whole.rs"]
mod whole;

use std::sync::Arc;
use std::time::Duration;

use clients::Clients;
use cutwater::config::{CutoverConfig, FenceWay, Url};
use cutwater::error::{Kind, Result};
use cutwater::mysql::{Flavour, MyConnInfo};
use cutwater::schema::{Patterns, TableName, TableSchema};
use cutwater::source::Source;
use cutwater::source::fence::{Armed, Behind, DrainedBy, FenceStep, Journalled, Outcome, Request};
use cutwater::source::mysql::MySource;
use cutwater::source::mysql::fence::MyFence;
use support::mysql::{ADMIN, APPLICATION, DATABASE, connect};
use support::{LocalMySql, MyOptions, my_server, wait_for};

const LONG: Duration = Duration::from_secs(60);
const TABLES: &str = "
    CREATE TABLE plain (id int PRIMARY KEY AUTO_INCREMENT, client varchar(20) NOT NULL, v int);
    CREATE TABLE other (id int PRIMARY KEY, v int);
    INSERT INTO other VALUES (1, 1), (2, 2);
    CREATE DATABASE elsewhere; CREATE TABLE elsewhere.t (id int PRIMARY KEY);
    CREATE USER app@'%' IDENTIFIED BY 'app'; GRANT SELECT, INSERT, UPDATE, DELETE ON shop.* TO app@'%';
    CREATE USER boss@'%' IDENTIFIED BY 'boss'; GRANT ALL ON *.* TO boss@'%';
    CREATE USER reader@'%' IDENTIFIED BY 'reader'; GRANT SELECT ON shop.* TO reader@'%';";
/// What every way needs; and what each needs more.
const RIGHTS: &str = "
    CREATE USER cutwater@'%' IDENTIFIED BY 'cutwater';
    GRANT SELECT, LOCK TABLES, PROCESS, REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO cutwater@'%';
    GRANT ALL ON cutwater.* TO cutwater@'%';";

/// No list of tables: all of the URL's database.
fn every() -> Patterns {
    Patterns::parse::<&str>(&[]).unwrap()
}

/// A server with tables, applications' accounts, and ours, which may do what `way` needs and no more.
struct Stage {
    server: LocalMySql,
    tables: Vec<Arc<TableSchema>>,
    config: CutoverConfig,
}

impl Stage {
    async fn set(flavour: Flavour, test: &str) -> Option<Stage> {
        let server = my_server(flavour, MyOptions::new(), test).await?;
        server.execute(DATABASE, TABLES).await;
        server.execute(DATABASE, RIGHTS).await;
        let config =
            CutoverConfig { keep_accounts: vec![ADMIN.to_owned(), APPLICATION.to_owned()], ..CutoverConfig::default() };
        let mut stage = Stage { server, tables: Vec::new(), config };
        stage
            .may(match flavour {
                Flavour::MySql => "XA_RECOVER_ADMIN",
                Flavour::MariaDb => "SLAVE MONITOR, REPLICATION MASTER ADMIN",
            })
            .await;
        stage.tables = stage.source().tables(&every()).await.unwrap();
        assert_eq!(stage.tables.len(), 2);
        Some(stage)
    }

    fn flavour(&self) -> Flavour {
        self.server.flavour()
    }

    async fn may(&self, rights: &str) {
        self.server.execute(DATABASE, &format!("GRANT {rights} ON *.* TO cutwater@'%'")).await;
    }

    async fn by(&mut self, way: FenceWay) {
        let rights = match (way, self.flavour()) {
            (FenceWay::ReadOnly, Flavour::MySql) => "RELOAD, SYSTEM_VARIABLES_ADMIN, CONNECTION_ADMIN, SYSTEM_USER",
            (FenceWay::ReadOnly, Flavour::MariaDb) => "RELOAD, READ_ONLY ADMIN, CONNECTION ADMIN, CREATE USER, EVENT",
            (_, Flavour::MySql) => "CREATE USER, CONNECTION_ADMIN, EVENT, SYSTEM_USER",
            (_, Flavour::MariaDb) => "CREATE USER, CONNECTION ADMIN, EVENT",
        };
        // MySQL's dynamic privileges are granted apart from the others.
        for right in rights.split(", ") {
            self.may(right).await;
        }
        self.config.fence = way;
    }

    fn source(&self) -> MySource {
        let url = self.server.url_of("cutwater", "cutwater", DATABASE);
        MySource::new(MyConnInfo::parse(&Url::new(url)).unwrap(), "shop")
    }

    async fn fence(&self) -> MyFence {
        MyFence::open(&self.source(), &self.config).await.unwrap_or_else(|error| panic!("{error}"))
    }

    fn names(&self) -> Vec<TableName> {
        self.tables.iter().map(|table| table.name.clone()).collect()
    }

    async fn arm(&self, fence: &mut MyFence, nonce: &str, hold: Duration) -> Result<Armed> {
        self.arm_within(fence, nonce, hold, Duration::from_secs(30)).await
    }

    async fn arm_within(&self, fence: &mut MyFence, nonce: &str, hold: Duration, budget: Duration) -> Result<Armed> {
        let (names, patterns) = (self.names(), every());
        fence.arm(&Request { budget, ..request(&names, &patterns, nonce, hold) }).await
    }

    async fn pass(&self, fence: &mut MyFence, nonce: &str, armed: &Armed) -> Result<Outcome> {
        let (names, patterns) = (self.names(), every());
        fence.make_permanent(&request(&names, &patterns, nonce, LONG), &self.behind(armed)).await
    }

    fn behind(&self, armed: &Armed) -> Behind {
        let DrainedBy::Position(position) = &armed.drained_by else { panic!("{:?}", armed.drained_by) };
        Behind { position: position.clone(), tables: self.tables.clone() }
    }

    /// What the journal says of an attempt that was drained.
    fn drained(&self, nonce: &str, armed: &Armed) -> Journalled {
        Journalled { nonce: nonce.to_owned(), passed: false, behind: Some(self.behind(armed)) }
    }

    async fn step(&self, journalled: Option<&Journalled>) -> Option<FenceStep> {
        let found = self.fence().await.state(journalled).await.unwrap_or_else(|error| panic!("{error}"));
        found.map(|found| found.step)
    }

    async fn rows(&self) -> i64 {
        let count = self.server.connect(DATABASE).await.value("SELECT count(*) FROM plain").await.unwrap();
        count.unwrap().parse().unwrap()
    }

    /// Writes as an application that opens a new session.
    async fn write(&self, user: &str) -> Result<()> {
        clients::write_once(&self.server.url_of(user, user, DATABASE)).await
    }
}

fn request<'a>(names: &'a [TableName], patterns: &'a Patterns, nonce: &'a str, hold: Duration) -> Request<'a> {
    Request {
        migration: "shop",
        tables: names,
        patterns,
        nonce,
        epoch: 7,
        max_downtime: hold,
        budget: Duration::from_secs(30),
        target: "postgres new:5432/shop",
    }
}

const WAYS: [FenceWay; 2] = [FenceWay::ReadOnly, FenceWay::Accounts];

/// A fence that is armed stops everybody; taken back, or expired, or left by a driver that died, it stops nobody.
async fn armed(flavour: Flavour) {
    let Some(mut stage) = Stage::set(flavour, "an armed fence").await else { return };
    // What would pass `read_only` is not what this is about: it holds by locks.
    for way in WAYS {
        stage.by(way).await;
        let clients = Clients::start(&stage.server).await;
        let mut fence = stage.fence().await;
        let armed = stage.arm(&mut fence, "n1", LONG).await.unwrap_or_else(|e| panic!("{flavour} {way:?}: {e}"));
        let before = stage.rows().await;
        tokio::time::sleep(Duration::from_millis(700)).await;
        assert_eq!(stage.rows().await, before, "{flavour} {way:?}: somebody writes through the armed fence");
        assert_eq!(fence.broken(&stage.behind(&armed)).await.unwrap(), None);
        assert_eq!(stage.step(Some(&stage.drained("n1", &armed))).await, Some(FenceStep::Armed));
        // Somebody else's attempt is not taken back.
        stage.fence().await.lift("other").await.unwrap();

        // The driver takes it back.
        let mut again = stage.fence().await;
        again.lift("n1").await.unwrap();
        clients.all_write(&stage.server, "taken back").await;
        assert_eq!(stage.step(None).await, Some(FenceStep::Lifted));
        assert!(fence.broken(&stage.behind(&armed)).await.is_err(), "its sessions were ended");

        // The driver dies.
        let mut fence = stage.fence().await;
        stage.arm(&mut fence, "n2", LONG).await.unwrap();
        drop(fence);
        clients.all_write(&stage.server, "its driver died").await;

        // The driver is frozen: nothing is heard from it, and the server ends its session.
        let mut fence = stage.fence().await;
        let armed = stage.arm(&mut fence, "n3", Duration::from_secs(3)).await.unwrap();
        clients.all_write(&stage.server, "the deadline is over").await;
        assert!(armed.since.elapsed() > Duration::from_secs(2), "it let go too early");
        let passed = stage.pass(&mut fence, "n3", &armed).await;
        assert!(matches!(passed, Ok(Outcome::Expired)), "{flavour} {way:?}: {passed:?}");
        let broken = stage.fence().await.broken(&stage.behind(&armed)).await.unwrap();
        assert!(broken.is_some_and(|what| what.contains("shop.plain changed")));
        stage.fence().await.lift("n3").await.unwrap();
        clients.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_armed_fence_of_mysql_stops_everybody_until_it_is_lifted_or_expires() {
    armed(Flavour::MySql).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_armed_fence_of_mariadb_stops_everybody_until_it_is_lifted_or_expires() {
    armed(Flavour::MariaDb).await;
}

/// Past the point of no return nobody writes: not who had written before, not who comes again, not behind a restart.
async fn permanent(flavour: Flavour) {
    let Some(mut stage) = Stage::set(flavour, "a permanent fence").await else { return };
    for way in WAYS {
        stage.by(way).await;
        if (flavour, way) == (Flavour::MariaDb, FenceWay::ReadOnly) {
            // `read_only` does not stop it there, and `possible` refuses: see below.
            stage.server.execute(DATABASE, "DROP USER boss@'%'").await;
        }
        let clients = Clients::start(&stage.server).await;
        // It has written, and holds no lock that the fence waits for: a read-only server would let it be committed.
        let mut xa = connect(&stage.server.url_of("app", "app", DATABASE)).await.unwrap();
        if way == FenceWay::ReadOnly {
            xa.execute("XA START 'b'; INSERT INTO plain (client, v) VALUES ('xa', 1); XA END 'b'").await.unwrap();
        }
        let mut fence = stage.fence().await;
        let armed = stage.arm(&mut fence, "n1", LONG).await.unwrap();
        let rows = stage.rows().await;
        let passed = stage.pass(&mut fence, "n1", &armed).await.unwrap_or_else(|e| panic!("{flavour} {way:?}: {e}"));
        assert_eq!(passed, Outcome::Permanent(None), "{flavour} {way:?}");
        drop(fence);
        assert!(xa.execute("XA PREPARE 'b'").await.is_err(), "{flavour} {way:?}");
        clients.nobody_writes(&stage.server, rows).await;
        let mut journalled = stage.drained("n1", &armed);
        // The driver died before it could journal that; and after.
        assert_eq!(stage.step(Some(&journalled)).await, Some(FenceStep::Permanent), "{flavour} {way:?}");
        journalled.passed = true;
        assert_eq!(stage.step(Some(&journalled)).await, Some(FenceStep::Permanent));
        assert_eq!(stage.fence().await.broken(&stage.behind(&armed)).await.unwrap(), None);
        clients.stop().await;

        if (flavour, way) == (Flavour::MySql, FenceWay::ReadOnly) {
            // The tests' servers start without option files, and so without what was persisted: it is looked at instead.
            let persisted = stage.server.data_directory().join("mysqld-auto.cnf");
            let persisted: serde_json::Value = serde_json::from_slice(&std::fs::read(persisted).unwrap()).unwrap();
            assert!(persisted.to_string().contains("\"super_read_only\":{\"Metadata\""), "{persisted}");
        } else {
            stage.server.stop();
            stage.server.start_again();
        }
        assert!(stage.write("app").await.is_err(), "{flavour} {way:?}: a restart forgot the fence");
        assert_eq!(stage.step(Some(&journalled)).await, Some(FenceStep::Permanent));

        let removed = stage.fence().await.remove().await.unwrap();
        assert_eq!(removed, ["database cutwater"]);
        stage.write("app").await.unwrap_or_else(|e| panic!("{flavour} {way:?}: {e}"));
        assert_eq!(stage.step(Some(&journalled)).await, None);
        stage.server.execute(DATABASE, "CREATE USER IF NOT EXISTS boss@'%' IDENTIFIED BY 'boss'").await;
        stage.server.execute(DATABASE, "GRANT ALL ON *.* TO boss@'%'").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn past_the_point_of_no_return_nobody_writes_to_mysql() {
    permanent(Flavour::MySql).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn past_the_point_of_no_return_nobody_writes_to_mariadb() {
    permanent(Flavour::MariaDb).await;
}

/// The driver dies when its fence is in force and nothing says so yet: what was written since decides.
async fn in_between(flavour: Flavour) {
    let Some(mut stage) = Stage::set(flavour, "a driver that dies at the point of no return").await else { return };
    for way in WAYS {
        stage.by(way).await;
        // The statement that is the point of no return.
        let point = match (way, flavour) {
            (FenceWay::ReadOnly, Flavour::MySql) => "SET PERSIST read_only = ON, PERSIST super_read_only = ON",
            (FenceWay::ReadOnly, Flavour::MariaDb) => "SET GLOBAL read_only = ON",
            _ => "ALTER USER app@'%', boss@'%' ACCOUNT LOCK",
        };
        let mut old = connect(&stage.server.url_of("app", "app", DATABASE)).await.unwrap();
        old.execute("SELECT 1").await.unwrap();

        let mut fence = stage.fence().await;
        let armed = stage.arm(&mut fence, "n1", LONG).await.unwrap();
        stage.server.execute(DATABASE, point).await;
        drop(fence);
        let journalled = stage.drained("n1", &armed);
        assert_eq!(stage.step(Some(&journalled)).await, Some(FenceStep::Permanent), "{flavour} {way:?}");
        assert!(stage.write("app").await.is_err() && stage.write("boss").await.is_err(), "{flavour} {way:?}");
        assert!(old.execute("INSERT INTO plain (client, v) VALUES ('old', 1)").await.is_err());
        // A journal that knows nothing of it has not come that far.
        if flavour == Flavour::MySql && way == FenceWay::ReadOnly {
            assert_eq!(stage.step(None).await, Some(FenceStep::Armed));
        }
        stage.fence().await.remove().await.unwrap();

        let mut fence = stage.fence().await;
        let armed = stage.arm(&mut fence, "n2", LONG).await.unwrap();
        drop(fence);
        wait_for("the locks to be gone with their session", LONG, async || stage.write("app").await.is_ok()).await;
        stage.server.execute(DATABASE, point).await;
        let journalled = stage.drained("n2", &armed);
        assert_eq!(stage.step(Some(&journalled)).await, Some(FenceStep::Armed), "{flavour} {way:?}");
        stage.fence().await.lift("n2").await.unwrap();
        stage.write("app").await.unwrap_or_else(|e| panic!("{flavour} {way:?}: {e}"));
        stage.write("boss").await.unwrap_or_else(|e| panic!("{flavour} {way:?}: {e}"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_written_since_decides_about_a_driver_of_mysql_that_died_at_the_point() {
    in_between(Flavour::MySql).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_written_since_decides_about_a_driver_of_mariadb_that_died_at_the_point() {
    in_between(Flavour::MariaDb).await;
}

impl Stage {
    /// What stands against a fence, or in words what it is made of.
    async fn possible(&self) -> String {
        let (names, patterns) = (self.names(), every());
        match self.fence().await.possible(&names, &patterns).await.unwrap_or_else(|error| panic!("{error}")) {
            Ok(words) => words,
            Err(obstacles) => {
                obstacles.iter().map(|obstacle| format!("{} | {}\n", obstacle.what, obstacle.fix)).collect()
            }
        }
    }

    async fn stands_against_it(&self, part: &str) {
        let said = self.possible().await;
        assert!(said.contains(part) && said.contains(" | "), "{} {part:?} is missing in:\n{said}", self.flavour());
    }
}

/// What would leak through a fence, or stand in its way, is said before it is taken.
async fn obstacles(flavour: Flavour) {
    let Some(mut stage) = Stage::set(flavour, "what stands against a fence").await else { return };
    stage.stands_against_it("our account at the source lacks").await;
    if flavour == Flavour::MySql {
        stage.stands_against_it("sessions of boss@% may be ended by another SYSTEM_USER only").await;
    }
    stage.by(FenceWay::ReadOnly).await;
    match flavour {
        Flavour::MySql => {
            assert_eq!(stage.possible().await, "fence by read_only of the whole server");
            stage.config.fence = FenceWay::Auto;
            stage.stands_against_it("read_only would stop writes to elsewhere too").await;
        }
        Flavour::MariaDb => stage.stands_against_it("read_only does not stop boss@%").await,
    }
    let sleeper = connect(&stage.server.url_of("reader", "reader", DATABASE)).await.unwrap();
    let id = sleeper.id();
    let asleep = tokio::spawn(async move {
        let mut sleeper = sleeper;
        sleeper.execute("SELECT sleep(100) FROM other LIMIT 1").await
    });
    wait_for("the statement to be an old one", LONG, async || !stage.fence().await.long().await.unwrap().is_empty())
        .await;
    stage.config.fence = FenceWay::ReadOnly;
    let mut fence = stage.fence().await;
    let error = stage.arm_within(&mut fence, "n1", LONG, Duration::from_secs(2)).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Transient);
    assert!(error.to_string().contains("reader@") && error.to_string().contains("sleep(100)"), "{error}");
    assert!(error.suggestion().unwrap().contains(&format!("KILL {id}")), "{error}");
    stage.write("app").await.unwrap();
    stage.fence().await.lift("n1").await.unwrap();
    stage.server.execute(DATABASE, &format!("KILL {id}")).await;
    assert!(asleep.await.unwrap().is_err());

    stage.by(FenceWay::Accounts).await;
    assert_eq!(stage.possible().await, "fence by locking 2 tables, then app@%, boss@%");
    let mut busy = connect(&stage.server.url_of("boss", "boss", DATABASE)).await.unwrap();
    busy.execute("BEGIN; UPDATE other SET v = 3 WHERE id = 1").await.unwrap();
    let error = stage.arm_within(&mut stage.fence().await, "n2", LONG, Duration::from_secs(2)).await.unwrap_err();
    assert!(error.kind() == Kind::Transient && error.to_string().contains("boss@"), "{error}");
    stage.fence().await.lift("n2").await.unwrap();
    busy.execute("ROLLBACK").await.unwrap();

    busy.execute("XA START 'b'; UPDATE other SET v = 4 WHERE id = 1; XA END 'b'; XA PREPARE 'b'").await.unwrap();
    stage
        .stands_against_it(
            "is prepared: it may be committed behind any fence | let it end, or on the source   XA ROLLBACK",
        )
        .await;
    busy.execute("XA ROLLBACK 'b'").await.unwrap();
    for (make, part, drop) in [
        (
            "CREATE TABLE late (id int PRIMARY KEY)",
            "new since the migration began, and not migrated: shop.late",
            "DROP TABLE late",
        ),
        (
            "SET GLOBAL event_scheduler = ON; CREATE EVENT tick ON SCHEDULE EVERY 1 HOUR DO UPDATE other SET v = 5",
            "event shop.tick goes on",
            "DROP EVENT tick",
        ),
        ("SET GLOBAL read_only = ON", "read-only already", "SET GLOBAL read_only = OFF"),
        (
            "REVOKE INSERT, UPDATE, DELETE ON shop.* FROM app@'%'; ALTER USER boss@'%' ACCOUNT LOCK",
            "no account writes",
            "DO 1",
        ),
    ] {
        stage.server.execute(DATABASE, make).await;
        stage.stands_against_it(part).await;
        stage.server.execute(DATABASE, drop).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_stands_against_a_fence_of_mysql_is_said() {
    obstacles(Flavour::MySql).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_stands_against_a_fence_of_mariadb_is_said() {
    obstacles(Flavour::MariaDb).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_is_a_fence_once_the_tables_stand_still() {
    let Some(mut stage) = Stage::set(Flavour::MySql, "a fence by command").await else { return };
    let folder = tempfile::tempdir().unwrap();
    let flag = folder.path().join("stopped");
    stage.config.fence = FenceWay::Command;
    stage.stands_against_it("fence_command is not set").await;
    stage.config.fence_command = Some("test -n \"$CUTWATER_DEADLINE\" && test -z \"$CUTWATER_SOURCE_URL\"".into());
    stage.config.unfence_command = Some(format!("rm -f {}", flag.display()));
    assert_eq!(stage.possible().await, "fence by fence_command");
    // An application that goes by the flag.
    let (url, seen) = (stage.server.url_of("app", "app", DATABASE), flag.clone());
    let application = tokio::spawn(async move {
        loop {
            if !seen.exists() {
                clients::write_once(&url).await.unwrap();
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    wait_for("the application to write", LONG, async || stage.rows().await > 3).await;
    let error = stage.arm_within(&mut stage.fence().await, "n1", LONG, Duration::from_secs(1)).await.unwrap_err();
    assert!(error.to_string().contains("writes go on: shop.plain changed"), "{error}");
    stage.fence().await.lift("n1").await.unwrap();

    stage.config.fence_command = Some(format!("touch {}", flag.display()));
    let mut fence = stage.fence().await;
    let armed = stage.arm(&mut fence, "n2", LONG).await.unwrap();
    assert_eq!(fence.broken(&stage.behind(&armed)).await.unwrap(), None);
    stage.fence().await.lift("n2").await.unwrap();
    assert!(!flag.exists(), "unfence_command lets writes go on");
    let rows = stage.rows().await;
    wait_for("the application to write again", LONG, async || stage.rows().await > rows).await;

    let mut fence = stage.fence().await;
    let armed = stage.arm(&mut fence, "n3", LONG).await.unwrap();
    assert_eq!(stage.pass(&mut fence, "n3", &armed).await.unwrap(), Outcome::Permanent(None));
    assert_eq!(stage.step(None).await, Some(FenceStep::Permanent));
    // Who writes in spite of it is found.
    stage.write("boss").await.unwrap();
    assert!(stage.fence().await.broken(&stage.behind(&armed)).await.unwrap().is_some());
    application.abort();
}
