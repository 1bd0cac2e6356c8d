-- The columns of those of these tables that exist. $1: schemas, $2: names.
SELECT w.schema, w.name, array_agg(a.attname::text)
  FROM unnest($1::text[], $2::text[]) AS w (schema, name)
  JOIN pg_namespace n ON n.nspname = w.schema
  JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = w.name AND c.relkind IN ('r', 'p')
  LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
 GROUP BY 1, 2
