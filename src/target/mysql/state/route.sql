-- $2, $3, $4: one value a table.
UPDATE cutwater.table_state SET worker = $4
 WHERE migration = $1 AND source_schema = $2 AND source_table = $3 AND worker <> $4
