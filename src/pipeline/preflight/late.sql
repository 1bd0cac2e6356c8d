-- Foreign keys between, triggers on and rules of the tables ($1 schemas, $2 names) and their partitions.
WITH RECURSIVE tree AS (
    SELECT c.oid FROM unnest($1::text[], $2::text[]) AS wanted(nsp, rel)
      JOIN pg_namespace n ON n.nspname = wanted.nsp
      JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = wanted.rel
    UNION
    SELECT i.inhrelid FROM tree
      JOIN pg_inherits i ON i.inhparent = tree.oid
      JOIN pg_class c ON c.oid = i.inhrelid AND c.relispartition
)
SELECT (SELECT count(*) FROM pg_constraint f
         WHERE f.contype = 'f' AND f.conparentid = 0
           AND f.conrelid IN (SELECT oid FROM tree) AND f.confrelid IN (SELECT oid FROM tree)),
       (SELECT count(*) FROM pg_trigger t
         WHERE NOT t.tgisinternal AND t.tgparentid = 0 AND t.tgrelid IN (SELECT oid FROM tree) AND t.tgname !~ '^cutwater_'),
       (SELECT count(*) FROM pg_rewrite r WHERE r.ev_type <> '1' AND r.ev_class IN (SELECT oid FROM tree))
