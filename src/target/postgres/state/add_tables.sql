-- $2 to $5, $7 to $9: one value a table.
INSERT INTO cutwater.table_state (migration, source_schema, source_table, target_schema, target_table, epoch,
                                  rows_estimate, bytes_estimate, rule)
SELECT $1, w.from_schema, w.from_table, w.to_schema, w.to_table, $6, w.estimate, w.size, w.rule
  FROM unnest($2::text[], $3::text[], $4::text[], $5::text[], $7::bigint[], $8::bigint[], $9::text[])
       AS w (from_schema, from_table, to_schema, to_table, estimate, size, rule)
    ON CONFLICT DO NOTHING
