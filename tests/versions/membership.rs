//! By what a publication publishes a table, on each version and for each kind of publication.

use cutwater::source::postgres::membership::{Membership, read};

use crate::support::{Server, on_every_version};

on_every_version!(whatever_interrupts_a_publication_shows_and_nothing_else_does);
async fn whatever_interrupts_a_publication_shows_and_nothing_else_does(server: Server) {
    let name = server.database().await;
    let run = async |sql: &str| server.execute(&name, sql).await;
    run("CREATE TABLE public.a (id int PRIMARY KEY, v text); CREATE TABLE public.b (id int PRIMARY KEY)").await;
    run("CREATE TABLE public.root (id int PRIMARY KEY) PARTITION BY RANGE (id)").await;
    run("CREATE TABLE public.leaf PARTITION OF public.root FOR VALUES FROM (0) TO (9)").await;
    let client = server.connect(&name).await;
    let sql = "SELECT array_agg(c::regclass::oid ORDER BY n) FROM unnest('{public.a, public.b, public.root}'::text[])
               WITH ORDINALITY AS t(c, n)";
    let ids: Vec<u32> = client.query_one(sql, &[]).await.unwrap().get(0);
    let all = async |publication: &str| -> Vec<Option<Membership>> {
        let found = read(&client, publication, &ids).await.unwrap();
        ids.iter().map(|id| found.get(id).cloned()).collect()
    };
    // Which of the tables have another membership after these statements than before.
    let changed = async |publication: &str, statements: &[&str]| -> Vec<bool> {
        let before = all(publication).await;
        for statement in statements {
            run(statement).await;
        }
        all(publication).await.iter().zip(&before).map(|(now, then)| now != then).collect()
    };
    let none = [false; 3];

    run("CREATE PUBLICATION p FOR TABLE public.a, public.b, public.root WITH (publish_via_partition_root = true)")
        .await;
    assert!(all("p").await.iter().all(Option::is_some));
    assert_eq!(all("no such").await, [None, None, None]);
    assert_eq!(changed("p", &["VACUUM FREEZE pg_publication_rel", "VACUUM FULL pg_publication"]).await, none);
    let adds = ["CREATE TABLE public.c (id int PRIMARY KEY)", "ALTER PUBLICATION p ADD TABLE public.c"];
    assert_eq!(changed("p", &adds).await, none, "another table joins");
    let sets = ["ALTER PUBLICATION p SET TABLE ONLY public.a, ONLY public.b, public.root"];
    assert_eq!(changed("p", &sets).await, none, "another table leaves");
    let again = ["ALTER PUBLICATION p DROP TABLE public.b", "ALTER PUBLICATION p ADD TABLE public.b"];
    assert_eq!(changed("p", &again).await, [false, true, false]);
    let options = [
        "ALTER PUBLICATION p SET (publish = 'insert')",
        "ALTER PUBLICATION p SET (publish = 'insert, update, delete, truncate')",
    ];
    assert_eq!(changed("p", &options).await, [true; 3]);
    if server.version >= 15 {
        let filter = [
            "ALTER PUBLICATION p SET TABLE public.a WHERE (id > 5), public.b, public.root",
            "ALTER PUBLICATION p SET TABLE public.a, public.b, public.root",
        ];
        assert_eq!(changed("p", &filter).await, [true, false, false]);
        let columns = [
            "ALTER PUBLICATION p SET TABLE public.a (id), public.b, public.root",
            "ALTER PUBLICATION p SET TABLE public.a, public.b, public.root",
        ];
        assert_eq!(changed("p", &columns).await, [true, false, false]);
    }

    run("CREATE PUBLICATION everything FOR ALL TABLES").await;
    assert!(all("everything").await.iter().all(Option::is_some));
    let anew = ["DROP PUBLICATION everything", "CREATE PUBLICATION everything FOR ALL TABLES"];
    assert_eq!(changed("everything", &anew).await, [true; 3]);
    if server.version >= 15 {
        run("CREATE PUBLICATION schemas FOR TABLES IN SCHEMA public").await;
        assert!(all("schemas").await.iter().all(Option::is_some));
        let again = [
            "ALTER PUBLICATION schemas DROP TABLES IN SCHEMA public",
            "ALTER PUBLICATION schemas ADD TABLES IN SCHEMA public",
        ];
        assert_eq!(changed("schemas", &again).await, [true; 3]);
    }
}
