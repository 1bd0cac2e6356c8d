-- Leaves that log less about an old row than their root promises.
SELECT l.oid::pg_catalog.regclass::text AS leaf,
       CASE c.relreplident WHEN 'f' THEN 'FULL' ELSE 'DEFAULT' END AS identity
FROM unnest($1::oid[]) AS root(oid)
JOIN pg_catalog.pg_class c ON c.oid = root.oid
CROSS JOIN LATERAL pg_catalog.pg_partition_tree(root.oid) p
JOIN pg_catalog.pg_class l ON l.oid = p.relid
WHERE p.isleaf AND l.relkind = 'r' AND l.oid <> root.oid
  AND CASE c.relreplident
          WHEN 'f' THEN l.relreplident <> 'f'
          ELSE l.relreplident = 'n'
      END
ORDER BY 1
