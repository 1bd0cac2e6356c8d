-- $2, $3, $4: one value a table.
UPDATE cutwater.table_state t SET rule = r.rule
  FROM unnest($2::text[], $3::text[], $4::text[]) AS r (source_schema, source_table, rule)
 WHERE t.migration = $1 AND t.source_schema = r.source_schema AND t.source_table = r.source_table
