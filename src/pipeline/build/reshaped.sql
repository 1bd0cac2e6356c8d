-- What table $1 (oid) has beside its columns' types: 'd' default expressions (name: the sequence it takes values of, if it
-- owns it), 'g' generated columns and 'v' virtual ones (name: its type), 'i' identity columns and 's' sequences that columns
-- own, both with their options, 'c' check constraints, 'o' collations, 'f' row-level security that binds the owner too.
SELECT CASE a.attgenerated WHEN '' THEN 'd' WHEN 'v' THEN 'v' ELSE 'g' END AS kind, a.attname::text AS column,
       pg_get_expr(d.adbin, d.adrelid) AS what,
       CASE WHEN a.attgenerated <> '' THEN format_type(a.atttypid, a.atttypmod) || coalesce((
           SELECT format(' COLLATE %I.%I', cn.nspname, co.collname) FROM pg_collation co JOIN pg_namespace cn ON cn.oid = co.collnamespace
             JOIN pg_type t ON t.oid = a.atttypid WHERE co.oid = a.attcollation AND co.oid <> t.typcollation), '')
           || CASE WHEN a.attnotnull THEN ' NOT NULL' ELSE '' END
       ELSE (SELECT s.relname::text FROM pg_depend dep JOIN pg_class s ON s.oid = dep.refobjid AND s.relkind = 'S'
          JOIN pg_depend own ON own.classid = 'pg_class'::regclass AND own.objid = s.oid AND own.deptype = 'a'
                            AND own.refobjid = a.attrelid AND own.refobjsubid = a.attnum
         WHERE dep.classid = 'pg_attrdef'::regclass AND dep.objid = d.oid AND dep.refclassid = 'pg_class'::regclass LIMIT 1) END AS name,
       -- A sequence that belongs to another table may not be at the target.
       EXISTS (SELECT FROM pg_depend dep JOIN pg_class s ON s.oid = dep.refobjid AND s.relkind = 'S'
                 JOIN pg_depend own ON own.classid = 'pg_class'::regclass AND own.objid = s.oid AND own.deptype IN ('a', 'i')
                                   AND NOT (own.refobjid = a.attrelid AND own.refobjsubid = a.attnum)
                WHERE dep.classid = 'pg_attrdef'::regclass AND dep.objid = d.oid AND dep.refclassid = 'pg_class'::regclass) AS foreign_sequence
  FROM pg_attrdef d JOIN pg_attribute a ON a.attrelid = d.adrelid AND a.attnum = d.adnum
 WHERE d.adrelid = $1::oid AND NOT a.attisdropped
 UNION ALL
SELECT CASE dep.deptype WHEN 'i' THEN 'i' ELSE 's' END, a.attname::text,
       CASE dep.deptype WHEN 'i' THEN '' ELSE format('AS %s ', format_type(s.seqtypid, NULL)) END
       || format('START WITH %s INCREMENT BY %s MINVALUE %s MAXVALUE %s CACHE %s%s', s.seqstart, s.seqincrement, s.seqmin,
                 s.seqmax, s.seqcache, CASE WHEN s.seqcycle THEN ' CYCLE' ELSE '' END),
       c.relname::text, false
  FROM pg_sequence s JOIN pg_class c ON c.oid = s.seqrelid
  JOIN pg_depend dep ON dep.classid = 'pg_class'::regclass AND dep.objid = c.oid AND dep.deptype IN ('a', 'i')
                    AND dep.refclassid = 'pg_class'::regclass AND dep.refobjid = $1::oid AND dep.refobjsubid > 0
  JOIN pg_attribute a ON a.attrelid = dep.refobjid AND a.attnum = dep.refobjsubid
 UNION ALL
SELECT 'c', '', pg_get_constraintdef(oid), conname::text, false
  FROM pg_constraint WHERE conrelid = $1::oid AND contype = 'c'
 UNION ALL
SELECT 'o', a.attname::text, format(' COLLATE %I.%I', cn.nspname, co.collname), NULL, false
  FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
  JOIN pg_collation co ON co.oid = a.attcollation AND co.oid <> t.typcollation
  JOIN pg_namespace cn ON cn.oid = co.collnamespace
 WHERE a.attrelid = $1::oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
 UNION ALL
SELECT 'f', '', '', NULL, false FROM pg_class WHERE oid = $1::oid AND relforcerowsecurity
 ORDER BY 1, 2, 4
