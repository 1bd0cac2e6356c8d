-- What waits for the cutover of migration $1: on relations that exist here; foreign keys only on tables that are (or are
-- partitions of) tables of the migration, because what is in others may have stood still.
WITH relation AS (
    SELECT n.nspname, c.relname, coalesce(pg_partition_root(c.oid), c.oid::regclass) AS root
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
), ours AS (
    SELECT c.oid FROM cutwater.table_state s
      JOIN pg_namespace n ON n.nspname = s.target_schema
      JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = s.target_table
     WHERE s.migration = $1
)
SELECT l.kind, l.tbl_schema, l.tbl, l.refers_schema, l.refers, l.name, l.statement, l.validated
  FROM cutwater.late l
  JOIN relation t ON t.nspname = l.tbl_schema AND t.relname = l.tbl
  LEFT JOIN relation r ON r.nspname = l.refers_schema AND r.relname = l.refers
 WHERE l.migration = $1
   AND (l.kind <> 'foreign-key' OR t.root IN (SELECT oid FROM ours) AND r.root IN (SELECT oid FROM ours))
 ORDER BY l.place
