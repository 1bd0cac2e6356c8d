-- The attributes of the tables named by $1 (schemas) and $2 (tables): every one that is not dropped, in attnum order,
-- with the schema of the operator by which its type's default B-tree class compares for equality.
SELECT n.nspname, c.relname, c.relkind::text, a.attname,
       t.oid AS type_oid, tn.nspname AS type_schema, t.typname, a.atttypmod, format_type(t.oid, a.atttypmod),
       a.attnotnull, a.attidentity::text, a.attgenerated::text <> '' AS generated,
       t.typcategory = 'A' AS is_array,
       -- Enums and ranges compare by operators of the system; what a composite compares by depends on its fields.
       CASE WHEN elem.typtype IN ('e', 'r', 'm') THEN 'pg_catalog' ELSE eq.nspname END AS equality,
       c.reltype,
       -- A cast from text by a function (regclass, "char", those of users) need not be the type's input function.
       EXISTS (SELECT FROM pg_cast k WHERE k.castsource = 'text'::regtype AND k.casttarget = last.oid
                                       AND k.castmethod = 'f') AS odd_cast,
       coalesce((SELECT l.collisdeterministic FROM pg_collation l WHERE l.oid = a.attcollation), true) AS deterministic,
       -- A domain over an enum, a range or an array has no "=" of its own.
       CASE WHEN t.typtype = 'd' THEN format('%I.%I', lastn.nspname, last.typname) END AS domain_of
  FROM unnest($1::text[], $2::text[]) AS wanted(schema, name)
  JOIN pg_namespace n ON n.nspname = wanted.schema
  JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = wanted.name AND c.relkind IN ('r', 'p')
  LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
  LEFT JOIN pg_type t ON t.oid = a.atttypid
  LEFT JOIN pg_namespace tn ON tn.oid = t.typnamespace
  -- What a domain, or a domain of a domain, is of in the end.
  LEFT JOIN LATERAL (
      WITH RECURSIVE below(oid, typtype, typbasetype) AS (
          SELECT t.oid, t.typtype, t.typbasetype
          UNION ALL
          SELECT d.oid, d.typtype, d.typbasetype FROM below JOIN pg_type d ON d.oid = below.typbasetype
      )
      SELECT oid FROM below WHERE typtype <> 'd'
  ) AS bottom ON true
  LEFT JOIN pg_type last ON last.oid = bottom.oid
  LEFT JOIN pg_namespace lastn ON lastn.oid = last.typnamespace
  -- A domain of a domain keeps the first base here; it then compares by pg_catalog's operator, which is right as well.
  LEFT JOIN pg_type base ON base.oid = coalesce(nullif(t.typbasetype, 0), t.oid)
  -- Arrays compare by the operator of their elements.
  LEFT JOIN pg_type elem ON elem.oid = CASE WHEN base.typcategory = 'A' AND base.typlen = -1 THEN base.typelem
                                            ELSE base.oid END
  LEFT JOIN LATERAL (
      SELECT opn.nspname
        FROM pg_opclass oc
        JOIN pg_am am ON am.oid = oc.opcmethod AND am.amname = 'btree'
        JOIN pg_amop ao ON ao.amopfamily = oc.opcfamily AND ao.amopstrategy = 3
                       AND ao.amoplefttype = oc.opcintype AND ao.amoprighttype = oc.opcintype
        JOIN pg_operator op ON op.oid = ao.amopopr
        JOIN pg_namespace opn ON opn.oid = op.oprnamespace
       WHERE oc.opcdefault
         AND oc.opcintype = CASE elem.oid WHEN 'varchar'::regtype THEN 'text'::regtype ELSE elem.oid END
       LIMIT 1
  ) eq ON true
 ORDER BY n.nspname, c.relname, a.attnum
