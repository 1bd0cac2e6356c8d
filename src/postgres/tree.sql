-- The tables ($1 schemas, $2 names) and every partition below them. What is asked of them follows.
WITH RECURSIVE tree AS (
    SELECT c.oid FROM unnest($1::text[], $2::text[]) AS wanted(nsp, rel)
      JOIN pg_namespace n ON n.nspname = wanted.nsp
      JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = wanted.rel
    UNION
    SELECT i.inhrelid FROM tree
      JOIN pg_inherits i ON i.inhparent = tree.oid
      JOIN pg_class c ON c.oid = i.inhrelid AND c.relispartition
)
