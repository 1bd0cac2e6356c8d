-- Foreign keys between, triggers on and rules of the tables ($1 schemas, $2 names) and their partitions.
SELECT (SELECT count(*) FROM pg_constraint f
         WHERE f.contype = 'f' AND f.conparentid = 0
           AND f.conrelid IN (SELECT oid FROM tree) AND f.confrelid IN (SELECT oid FROM tree)),
       (SELECT count(*) FROM pg_trigger t
         WHERE NOT t.tgisinternal AND t.tgparentid = 0 AND t.tgrelid IN (SELECT oid FROM tree) AND t.tgname !~ '^cutwater_'),
       (SELECT count(*) FROM pg_rewrite r WHERE r.ev_type <> '1' AND r.ev_class IN (SELECT oid FROM tree))
