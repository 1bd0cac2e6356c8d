-- What stands on the tables and partitions ($1 schemas, $2 names), and the labels of their enums: its kind, its table (or
-- type), its name, and what it is but for its name, in words that every version of the server and every hand that made it would use.
SELECT 'index', n.nspname::text, c.relname::text, x.relname::text,
       concat_ws(' ', CASE WHEN i.indisunique THEN 'unique' END, am.amname,
                 (SELECT string_agg(coalesce(a.attname, '(expression)'), ', ' ORDER BY key.at)
                    FROM unnest(i.indkey::int2[]) WITH ORDINALITY AS key(attnum, at)
                    LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = key.attnum AND key.attnum > 0),
                 CASE WHEN i.indpred IS NOT NULL THEN 'partial' END)
  FROM tree JOIN pg_class c USING (oid) JOIN pg_namespace n ON n.oid = c.relnamespace
  JOIN pg_index i ON i.indrelid = c.oid
  JOIN pg_class x ON x.oid = i.indexrelid
  JOIN pg_am am ON am.oid = x.relam
UNION ALL
SELECT 'foreign key', n.nspname::text, c.relname::text, f.conname::text,
       format('(%s) to %I.%I',
              (SELECT string_agg(a.attname, ', ' ORDER BY key.at) FROM unnest(f.conkey) WITH ORDINALITY AS key(attnum, at)
                 JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = key.attnum), rn.nspname, r.relname)
  FROM tree JOIN pg_class c USING (oid) JOIN pg_namespace n ON n.oid = c.relnamespace
  JOIN pg_constraint f ON f.conrelid = c.oid AND f.contype = 'f' AND f.conparentid = 0
  JOIN pg_class r ON r.oid = f.confrelid JOIN pg_namespace rn ON rn.oid = r.relnamespace
 WHERE f.confrelid IN (SELECT oid FROM tree)
UNION ALL
SELECT 'check', n.nspname::text, c.relname::text, k.conname::text,
       format('(%s)', (SELECT string_agg(a.attname, ', ' ORDER BY a.attname) FROM pg_attribute a
                        WHERE a.attrelid = c.oid AND a.attnum = ANY (k.conkey)))
  FROM tree JOIN pg_class c USING (oid) JOIN pg_namespace n ON n.oid = c.relnamespace
  JOIN pg_constraint k ON k.conrelid = c.oid AND k.contype = 'c'
UNION ALL
SELECT DISTINCT 'label', n.nspname::text, t.typname::text, quote_literal(l.enumlabel), quote_literal(l.enumlabel)
  FROM tree JOIN pg_attribute a ON a.attrelid = tree.oid AND a.attnum > 0 AND NOT a.attisdropped
  JOIN pg_type t ON a.atttypid IN (t.oid, t.typarray) AND t.typtype = 'e'
  JOIN pg_namespace n ON n.oid = t.typnamespace
  JOIN pg_enum l ON l.enumtypid = t.oid
UNION ALL
SELECT 'trigger', n.nspname::text, c.relname::text, t.tgname::text, t.tgname::text
  FROM tree JOIN pg_class c USING (oid) JOIN pg_namespace n ON n.oid = c.relnamespace
  JOIN pg_trigger t ON t.tgrelid = c.oid
 WHERE NOT t.tgisinternal AND t.tgparentid = 0 AND t.tgname !~ '^cutwater_'
 ORDER BY 1, 2, 3, 4
