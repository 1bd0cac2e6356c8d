-- How the columns $3 of table $2 in schema $1 compare, in the order of $3: the type in the end of a domain, which may have
-- no "=" of its own, and the schema of the "=" of types that have theirs elsewhere and do not pass for text.
SELECT CASE WHEN t.typtype = 'd' THEN format('%I.%I', bn.nspname, b.typname) END AS base,
       (SELECT opn.nspname::text
          FROM pg_opclass oc
          JOIN pg_am am ON am.oid = oc.opcmethod AND am.amname = 'btree'
          JOIN pg_amop ao ON ao.amopfamily = oc.opcfamily AND ao.amopstrategy = 3
                         AND ao.amoplefttype = oc.opcintype AND ao.amoprighttype = oc.opcintype
          JOIN pg_operator op ON op.oid = ao.amopopr
          JOIN pg_namespace opn ON opn.oid = op.oprnamespace
         WHERE oc.opcdefault AND oc.opcintype = b.oid
           AND NOT EXISTS (SELECT FROM pg_cast k WHERE k.castsource = b.oid AND k.casttarget = 'text'::regtype
                                                   AND k.castcontext = 'i')
         LIMIT 1) AS operator
  FROM unnest($3::text[]) WITH ORDINALITY AS wanted(name, place)
  LEFT JOIN (pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname = $1 AND c.relname = $2
             JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped)
    ON a.attname = wanted.name
  LEFT JOIN pg_type t ON t.oid = a.atttypid
  LEFT JOIN LATERAL (
      WITH RECURSIVE below(oid, typtype, typbasetype) AS (
          SELECT t.oid, t.typtype, t.typbasetype
          UNION ALL
          SELECT d.oid, d.typtype, d.typbasetype FROM below JOIN pg_type d ON d.oid = below.typbasetype
      )
      SELECT oid FROM below WHERE typtype <> 'd'
  ) AS bottom ON true
  LEFT JOIN pg_type b ON b.oid = bottom.oid
  LEFT JOIN pg_namespace bn ON bn.oid = b.typnamespace
 ORDER BY wanted.place
