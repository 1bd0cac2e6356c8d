-- The counterparts, in the order asked: by the owning table $1 and column $2 where there is one, else by the name $3.
SELECT coalesce(
           CASE WHEN EXISTS (SELECT FROM pg_attribute a
                              WHERE a.attrelid = to_regclass(nullif(w.tbl, '')) AND a.attname = w.col AND NOT a.attisdropped)
                THEN pg_get_serial_sequence(w.tbl, w.col) END,
           (SELECT c.oid::regclass::text FROM pg_class c WHERE c.oid = to_regclass(w.name) AND c.relkind = 'S'))
  FROM unnest($1::text[], $2::text[], $3::text[]) WITH ORDINALITY AS w(tbl, col, name, n)
 ORDER BY w.n
