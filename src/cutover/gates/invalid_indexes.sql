-- Indexes of the tables and partitions ($1 schemas, $2 names) that the planner may not use.
SELECT i.indexrelid::regclass::text FROM tree JOIN pg_index i ON i.indrelid = tree.oid
 WHERE NOT i.indisvalid OR NOT i.indisready
 ORDER BY 1
