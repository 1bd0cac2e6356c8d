-- A table that is to be copied, as the rules and the source make it now.
INSERT INTO cutwater.table_state (migration, source_schema, source_table, target_schema, target_table, epoch, rows_estimate,
                                  bytes_estimate, rule)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
ON CONFLICT (migration, source_schema, source_table)
DO UPDATE SET target_schema = excluded.target_schema, target_table = excluded.target_table,
              rows_estimate = excluded.rows_estimate, bytes_estimate = excluded.bytes_estimate, rule = excluded.rule
