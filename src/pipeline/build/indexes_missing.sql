-- Which of these indexes are not on their tables: their places in the list. $1 schemas, $2 tables, $3 names of indexes.
SELECT w.place
  FROM unnest($1::text[], $2::text[], $3::text[]) WITH ORDINALITY AS w (schema, tbl, name, place)
 WHERE NOT EXISTS (
           SELECT FROM pg_index i
             JOIN pg_class x ON x.oid = i.indexrelid
             JOIN pg_class t ON t.oid = i.indrelid
             JOIN pg_namespace n ON n.oid = t.relnamespace
            WHERE n.nspname = w.schema AND t.relname = w.tbl AND x.relname = w.name AND i.indisvalid)
 ORDER BY w.place
