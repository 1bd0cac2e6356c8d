-- For the foreign key $3 of table $1.$2, as it is made in this transaction: the query that finds a row without a parent.
-- Compared by the operators the key itself compares by; they need not be in the search path.
WITH RECURSIVE tree AS (
    SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $1 AND c.relname = $2
    UNION
    SELECT i.inhrelid FROM tree JOIN pg_inherits i ON i.inhparent = tree.oid
      JOIN pg_class c ON c.oid = i.inhrelid AND c.relispartition
)
SELECT format('SELECT (%s)::text FROM %s AS child WHERE %s AND NOT EXISTS (SELECT FROM %s AS parent WHERE %s) LIMIT 1',
              string_agg(format('child.%I', ca.attname), ', ' ORDER BY place.at),
              CASE cc.relkind WHEN 'p' THEN '' ELSE 'ONLY ' END || f.conrelid::regclass,
              string_agg(format('child.%I IS NOT NULL', ca.attname), ' AND ' ORDER BY place.at),
              CASE pc.relkind WHEN 'p' THEN '' ELSE 'ONLY ' END || f.confrelid::regclass,
              string_agg(format('parent.%I OPERATOR(%I.%s) child.%I', pa.attname, opn.nspname, op.oprname, ca.attname),
                         ' AND ' ORDER BY place.at))
  FROM tree
  JOIN pg_constraint f ON f.conrelid = tree.oid AND f.contype = 'f' AND f.conname = $3 AND f.conparentid = 0
  JOIN pg_class cc ON cc.oid = f.conrelid
  JOIN pg_class pc ON pc.oid = f.confrelid
 CROSS JOIN LATERAL generate_subscripts(f.conkey, 1) AS place(at)
  JOIN pg_attribute ca ON ca.attrelid = f.conrelid AND ca.attnum = f.conkey[place.at]
  JOIN pg_attribute pa ON pa.attrelid = f.confrelid AND pa.attnum = f.confkey[place.at]
  JOIN pg_operator op ON op.oid = f.conpfeqop[place.at]
  JOIN pg_namespace opn ON opn.oid = op.oprnamespace
 GROUP BY f.oid, f.conrelid, f.confrelid, cc.relkind, pc.relkind
