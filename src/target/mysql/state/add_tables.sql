-- $2 to $5, $7 to $9: one value a table.
INSERT INTO cutwater.table_state (migration, source_schema, source_table, target_schema, target_table, epoch,
                                  rows_estimate, bytes_estimate, rule)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT DO NOTHING
