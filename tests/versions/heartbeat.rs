//! Heartbeats, and who the server is: what a source may be asked on each version.

use std::time::Duration;

use cutwater::change::Budget;
use cutwater::config::Url;
use cutwater::postgres::ConnInfo;
use cutwater::schema::Patterns;
use cutwater::source::postgres::PgSource;
use cutwater::source::{ChangeStream, Snapshot, Source, StreamItem};

use crate::support::{Server, on_every_version, within};

fn info(url: &str) -> ConnInfo {
    ConnInfo::parse(&Url::new(url)).unwrap()
}

on_every_version!(a_heartbeat_comes_back_through_the_stream_and_is_never_written_where_it_may_not_be);
async fn a_heartbeat_comes_back_through_the_stream_and_is_never_written_where_it_may_not_be(server: Server) {
    let name = server.database().await;
    server.execute(&name, "CREATE TABLE public.item (id int PRIMARY KEY)").await;
    let source = PgSource::new(info(&server.url(&name)), &name);
    let tables = source.tables(&Patterns::default()).await.unwrap();
    source.prepare(&tables).await.unwrap();
    let from = source.create_slot().await.unwrap().position().clone();
    let mut stream = source.stream(&from, &tables, &Budget::new(1 << 20)).await.unwrap();
    // Others write.
    let others = async || {
        server.execute("postgres", "CREATE TABLE IF NOT EXISTS o (v text); INSERT INTO o SELECT repeat(md5(i::text), 30) FROM generate_series(1, 200) AS i").await;
    };
    others().await;
    let written = source.heartbeat().await.unwrap();
    assert_eq!(written.is_some(), server.version >= 14, "13 passes messages over");
    if let Some(written) = written {
        assert_eq!(source.heartbeat().await.unwrap(), None, "nobody has written since");
        others().await;
        let idle = async {
            loop {
                match stream.next().await.unwrap() {
                    StreamItem::Idle(position) if position >= written => return,
                    StreamItem::Idle(_) => {}
                    StreamItem::Events(chunk) => assert!(chunk.events.is_empty(), "{:?}", chunk.events),
                }
            }
        };
        within("the heartbeat", Duration::from_secs(60), idle).await;
    }
    let never = async |source: &PgSource, why: &str| {
        others().await;
        assert_eq!(source.heartbeat().await.unwrap(), None, "{why}");
    };
    server
        .execute(&name, &format!("INSERT INTO cutwater.fence VALUES ('{name}', 'n', 1, 'armed', now() + '1 hour')"))
        .await;
    never(&source, "behind the fence").await;
    server.execute(&name, "UPDATE cutwater.fence SET state = 'permanent'").await;
    never(&source, "behind a permanent fence").await;
    server.execute(&name, "UPDATE cutwater.fence SET state = 'lifted'").await;
    let read_only = format!("{}?options=-c%20default_transaction_read_only%3Don", server.url(&name));
    never(&PgSource::new(info(&read_only), &name), "where nothing may be written").await;

    // A role that may not call the function: revoked in this database alone.
    let role = format!("weak_{name}");
    server.execute(&name, &format!("CREATE ROLE {role} LOGIN REPLICATION; GRANT USAGE ON SCHEMA cutwater TO {role}; GRANT SELECT ON cutwater.fence TO {role}")).await;
    let weak = PgSource::new(info(&format!("{}?user={role}", server.url(&name))), &name);
    if server.version >= 14 {
        others().await;
        assert!(weak.heartbeat().await.unwrap().is_some(), "everybody may, unless it is revoked");
    }
    server
        .execute(
            &name,
            "DO $$ DECLARE f regprocedure; BEGIN
                 FOR f IN SELECT oid FROM pg_proc WHERE proname IN ('pg_logical_emit_message', 'pg_control_system', 'pg_control_checkpoint') LOOP
                     EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', f);
                 END LOOP;
             END $$",
        )
        .await;
    never(&weak, "without the right").await;

    // Who the server is, then told by the replication connection, or by the catalogue: in each case another is another.
    let (trusted, untrusted) = (source.identity().await.unwrap(), weak.identity().await.unwrap());
    assert_eq!(trusted, untrusted, "IDENTIFY_SYSTEM says the same as pg_control_system()");
    server.execute(&name, &format!("ALTER ROLE {role} NOREPLICATION")).await;
    let by_catalogue = weak.identity().await.unwrap();
    assert_eq!((by_catalogue.timeline, &by_catalogue.database), (trusted.timeline, &trusted.database));
    assert!(by_catalogue.system_id.starts_with("database "), "{by_catalogue:?}");
    let other = server.database().await;
    server.execute(&other, "REVOKE EXECUTE ON FUNCTION pg_catalog.pg_control_system() FROM PUBLIC").await;
    let elsewhere = PgSource::new(info(&format!("{}?user={role}", server.url(&other))), &name);
    assert_ne!(elsewhere.identity().await.unwrap().system_id, by_catalogue.system_id);

    // A confirmation is still only what was said to be durable.
    let slot = source.slot().await.unwrap().unwrap();
    assert_eq!(slot.confirmed, from);
    stream.close().await.unwrap();
    source.drop_slot().await.unwrap();
    server.execute(&name, &format!("DROP OWNED BY {role}; DROP ROLE {role}")).await;
}
