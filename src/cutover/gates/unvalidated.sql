-- Constraints of the tables and partitions ($1 schemas, $2 names) that were not checked against the rows there are.
SELECT DISTINCT con.conname::text FROM tree JOIN pg_constraint con ON con.conrelid = tree.oid
 WHERE NOT con.convalidated
 ORDER BY 1
