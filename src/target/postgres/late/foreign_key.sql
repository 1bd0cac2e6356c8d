-- Where the foreign key $3 of table $1.$2 has to be made: [quoted name, whether it is there, whether it is validated].
-- A partitioned table takes one NOT VALID only from 18 on ($4): before, each of its leaves gets its own, and the table's,
-- made when they are validated, takes them for its own.
SELECT format('%I.%I', n.nspname, c.relname), f.oid IS NOT NULL, coalesce(f.convalidated, false), place.part
  FROM (SELECT r.oid, false AS part
          FROM pg_class r JOIN pg_namespace rn ON rn.oid = r.relnamespace
         WHERE rn.nspname = $1 AND r.relname = $2
        UNION ALL
        SELECT leaf.relid, true
          FROM pg_class r JOIN pg_namespace rn ON rn.oid = r.relnamespace
         CROSS JOIN LATERAL pg_partition_tree(r.oid) leaf
          JOIN pg_class lc ON lc.oid = leaf.relid AND lc.relkind = 'r'
         WHERE rn.nspname = $1 AND r.relname = $2 AND r.relkind = 'p' AND leaf.isleaf AND NOT $4::boolean) AS place
  JOIN pg_class c ON c.oid = place.oid
  JOIN pg_namespace n ON n.oid = c.relnamespace
  LEFT JOIN pg_constraint f ON f.conrelid = c.oid AND f.contype = 'f' AND f.conname = $3
 ORDER BY place.part, 1
