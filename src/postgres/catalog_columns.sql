-- The columns that travel, of all user tables: without dropped and generated ones.
--
-- portable_binary: the binary form of a value holds no OID of its server and can be sent and received. A domain is as
-- its base type; an array of a built-in type holds a built-in OID, which is the same everywhere; an array of a type of
-- the user, and a composite, hold OIDs of this server. Types whose binary form is an OID (regclass and its like) are left out.
WITH RECURSIVE base(type, kind_of) AS (
    SELECT oid, oid FROM pg_catalog.pg_type WHERE typtype <> 'd'
    UNION ALL
    SELECT d.oid, base.kind_of
    FROM base
    JOIN pg_catalog.pg_type d ON d.typtype = 'd' AND d.typbasetype = base.type
)
SELECT a.attrelid AS relation,
       a.attnum AS number,
       a.attname::text AS name,
       a.attnotnull AS not_null,
       a.attidentity::text AS identity,
       t.oid AS type_oid,
       tn.nspname::text AS type_schema,
       t.typname::text AS type_name,
       a.atttypmod AS modifier,
       pg_catalog.format_type(a.atttypid, a.atttypmod) AS display,
       b.typsend <> 0 AND b.typreceive <> 0
           AND b.typtype <> 'c'
           AND b.typcategory <> 'P'
           -- An empty int2vector, oidvector or tsquery is refused by its own receive function.
           AND (b.oid >= 16384 OR b.typname NOT LIKE 'reg%')
           AND b.typname NOT IN ('int2vector', 'oidvector', 'tsquery', 'aclitem', 'record')
           AND (b.typtype NOT IN ('r', 'm') OR coalesce(rt.oid, 0) < 16384)
           AND (b.typelem = 0 OR b.typlen <> -1
                OR (e.oid < 16384 AND e.typsend <> 0 AND e.typreceive <> 0 AND e.typname NOT LIKE 'reg%'
                    AND e.typname NOT IN ('int2vector', 'oidvector', 'tsquery', 'aclitem', 'record'))
               ) AS portable_binary,
       t.typcategory = 'A' AS is_array,
       -- An array is compared by its elements, a range by its bounds.
       (EXISTS (
            SELECT FROM pg_catalog.pg_opclass o
            JOIN pg_catalog.pg_am am ON am.oid = o.opcmethod AND am.amname IN ('btree', 'hash')
            WHERE o.opcintype = b.oid
        )
        OR b.typtype IN ('e', 'r', 'm')
        OR b.typname = 'varchar'
        OR (b.typcategory = 'A' AND EXISTS (
            SELECT FROM pg_catalog.pg_opclass o
            JOIN pg_catalog.pg_am am ON am.oid = o.opcmethod AND am.amname = 'btree'
            WHERE o.opcintype = e.oid OR e.typname = 'varchar' OR e.typtype IN ('e', 'r')
        ))) AS has_equality
FROM pg_catalog.pg_attribute a
JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
JOIN pg_catalog.pg_namespace tn ON tn.oid = t.typnamespace
JOIN base ON base.type = t.oid
JOIN pg_catalog.pg_type b ON b.oid = base.kind_of
LEFT JOIN pg_catalog.pg_type e ON e.oid = b.typelem
LEFT JOIN pg_catalog.pg_range r ON r.rngtypid = b.oid
LEFT JOIN pg_catalog.pg_type rt ON rt.oid = r.rngsubtype
WHERE a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
  AND c.relkind IN ('r', 'p') AND c.relpersistence = 'p' AND NOT c.relispartition
  AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'cutwater')
ORDER BY a.attrelid, a.attnum
