SELECT p.puballtables AS all_tables,
       p.pubinsert AND p.pubupdate AND p.pubdelete AND p.pubtruncate AND p.pubviaroot AS as_wanted,
       ARRAY(SELECT r.prrelid FROM pg_catalog.pg_publication_rel r WHERE r.prpubid = p.oid) AS tables
FROM pg_catalog.pg_publication p
WHERE p.pubname = $1
