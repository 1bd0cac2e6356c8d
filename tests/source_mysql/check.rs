//! What `check` says of a MySQL or MariaDB source, before anything is touched.

use cutwater::config::Config;
use cutwater::pipeline::Job;
use cutwater::pipeline::preflight::{Report, Verdict, grants, inspect};
use support::one;

use super::*;

async fn report(url: &str, target: &str) -> Report {
    let text = format!("[migration]\nname = \"checked\"\n[source]\nurl = \"{url}\"\n[target]\nurl = \"{target}\"\n");
    let job = Job::open(Config::parse(&text, "c").unwrap_or_else(|error| panic!("{error}"))).unwrap();
    let plan = job.plan().await.unwrap_or_else(|error| panic!("{error}"));
    inspect(&job, &plan).await.unwrap_or_else(|error| panic!("{error}"))
}

/// The names of what was found, by verdict.
fn names(report: &Report, verdict: Verdict) -> Vec<&'static str> {
    report.of(verdict).filter(|finding| finding.end.to_string() == "source").map(|finding| finding.name).collect()
}

fn fixes(report: &Report, name: &str) -> String {
    report
        .findings
        .iter()
        .filter(|finding| finding.name == name)
        .flat_map(|finding| finding.fix.clone())
        .collect::<Vec<_>>()
        .join("\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_can_be_followed_passes_and_what_cannot_is_named_with_its_fix() {
    let target = one().await;
    for flavour in BOTH {
        let Some(server) = my_server(flavour, MyOptions::new(), "a_source_that_can_be_followed").await else {
            continue;
        };
        server.execute(DATABASE, "CREATE TABLE good (id int PRIMARY KEY, g int) ENGINE = InnoDB").await;
        let found = report(&server.url(DATABASE), &target.url()).await;
        assert_eq!(names(&found, Verdict::Fail), [] as [&str; 0], "{flavour}: {found:#?}");
        let notes: Vec<_> = names(&found, Verdict::Note).into_iter().filter(|name| *name != "not-carried").collect();
        assert_eq!(notes, [] as [&str; 0], "{flavour}: {found:#?}");
        for name in [
            "version",
            "binary-log",
            "gtid",
            "row-image",
            "replica",
            "retention",
            "xa",
            "engines",
            "keys",
            "lock",
            "replication",
        ] {
            assert!(names(&found, Verdict::Pass).contains(&name), "{flavour}: {name} in {found:#?}");
        }

        // An account with nothing but the right to see the tables.
        server
            .execute(
                DATABASE,
                "CREATE USER few@'%' IDENTIFIED BY 'few'; GRANT SELECT ON shop.good TO few@'%'; \
                 CREATE TABLE parent (id int PRIMARY KEY) ENGINE = InnoDB; \
                 CREATE TABLE child (id int PRIMARY KEY, p int, CONSTRAINT of_parent FOREIGN KEY (p) REFERENCES parent (id) \
                     ON DELETE CASCADE) ENGINE = InnoDB; \
                 CREATE TABLE loose (id int PRIMARY KEY) ENGINE = MyISAM; CREATE TABLE keyless (id int) ENGINE = InnoDB; \
                 XA START 'x'; INSERT INTO parent VALUES (1); XA END 'x'; XA PREPARE 'x'",
            )
            .await;
        let found = report(&server.url_of("few", "few", DATABASE), &target.url()).await;
        let fails = names(&found, Verdict::Fail);
        assert!(fails.contains(&"binary-log") && fails.contains(&"lock"), "{flavour}: {found:#?}");
        assert!(names(&found, Verdict::Note).contains(&"process"));
        assert!(fixes(&found, "lock").contains("GRANT RELOAD ON *.* TO 'few'@'%';"), "{found:#?}");

        server.execute("", "SET GLOBAL binlog_row_image = MINIMAL; SET GLOBAL binlog_expire_logs_seconds = 3600").await;
        let found = report(&server.url(DATABASE), &target.url()).await;
        let (fails, notes) = (names(&found, Verdict::Fail), names(&found, Verdict::Note));
        // MySQL 9.6 and newer log what a foreign key changes.
        let unlogged = ["foreign-key-actions"].repeat(usize::from(flavour == Flavour::MariaDb));
        assert_eq!(fails, [&["xa", "engines"][..], &unlogged[..]].concat(), "{flavour}: {found:#?}");
        for name in ["row-image", "retention", "keys"] {
            assert!(notes.contains(&name), "{flavour}: {name} in {found:#?}");
        }
        assert!(fixes(&found, "engines").contains("ALTER TABLE `shop`.`loose` ENGINE = InnoDB;"), "{found:#?}");
        assert!(fixes(&found, "retention").contains("binlog_expire_logs_seconds = 86400"), "{found:#?}");
        server.execute("", "XA ROLLBACK 'x'").await;

        // With the rights that are printed, and no others, it passes.
        let text = format!(
            "[migration]\nname = \"checked\"\n[source]\nurl = \"{}\"\ntables = [\"shop.good\"]\n[target]\nurl = \"{}\"\n",
            server.url_of("few", "few", DATABASE),
            target.url()
        );
        let job = Job::open(Config::parse(&text, "c").unwrap()).unwrap();
        let plan = job.plan().await.unwrap();
        let sql: String = grants(&job, &plan).await.unwrap().source.iter().map(|grant| grant.sql.clone()).collect();
        server.execute("", &sql).await;
        let found = inspect(&job, &plan).await.unwrap();
        assert_eq!(names(&found, Verdict::Fail), [] as [&str; 0], "{flavour}: {sql} {found:#?}");
        job.source.create_slot().await.unwrap_or_else(|error| panic!("{flavour}: {error}"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_leaves_something_out_is_refused() {
    let target = one().await;
    for (flavour, name, value, says) in [
        (Flavour::MySql, "binlog-format", "STATEMENT", "binlog_format is STATEMENT"),
        (Flavour::MariaDb, "binlog-ignore-db", "logs", "binlog_do_db"),
    ] {
        let options = MyOptions::new().setting(name, value);
        let Some(server) = my_server(flavour, options, "a_log_that_leaves_something_out").await else { continue };
        server.execute(DATABASE, "CREATE TABLE good (id int PRIMARY KEY) ENGINE = InnoDB").await;
        let found = report(&server.url(DATABASE), &target.url()).await;
        let fail = found.of(Verdict::Fail).next().unwrap_or_else(|| panic!("{flavour}: {found:#?}"));
        assert!(fail.name == "binary-log" && fail.text.contains(says) && !fail.fix.is_empty(), "{flavour}: {fail:#?}");
    }
}
