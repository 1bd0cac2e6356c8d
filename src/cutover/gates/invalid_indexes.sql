-- Indexes of the tables and partitions ($1 schemas, $2 names) that the planner may not use.
WITH RECURSIVE tree AS (
    SELECT c.oid FROM unnest($1::text[], $2::text[]) AS wanted(nsp, rel)
      JOIN pg_namespace n ON n.nspname = wanted.nsp
      JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = wanted.rel
    UNION
    SELECT i.inhrelid FROM tree
      JOIN pg_inherits i ON i.inhparent = tree.oid
      JOIN pg_class c ON c.oid = i.inhrelid AND c.relispartition
)
SELECT i.indexrelid::regclass::text FROM tree JOIN pg_index i ON i.indrelid = tree.oid
 WHERE NOT i.indisvalid OR NOT i.indisready
 ORDER BY 1
