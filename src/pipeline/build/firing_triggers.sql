-- Triggers on these tables, or on partitions of them, that fire even for an applier (TRAPS 15). $1: schemas, $2: names.
WITH RECURSIVE ours AS (
    SELECT c.oid
      FROM unnest($1::text[], $2::text[]) AS w (schema, name)
      JOIN pg_namespace n ON n.nspname = w.schema
      JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = w.name
    UNION
    SELECT i.inhrelid FROM ours JOIN pg_inherits i ON i.inhparent = ours.oid
)
SELECT t.tgrelid::regclass::text, t.tgname::text
  FROM ours JOIN pg_trigger t ON t.tgrelid = ours.oid
 WHERE NOT t.tgisinternal AND t.tgenabled IN ('A', 'R') AND t.tgname NOT LIKE 'cutwater%'
 ORDER BY 1, 2
