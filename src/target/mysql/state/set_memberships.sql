-- $2, $3, $4: one value a table. $5: the epoch, if it is to be ours.
UPDATE cutwater.table_state SET membership = $4
 WHERE migration = $1 AND source_schema = $2 AND source_table = $3 AND ($5 IS NULL OR epoch = $5)
