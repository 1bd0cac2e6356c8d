-- Bytes of all indexes of these tables and of their partitions, and of the largest.
SELECT coalesce(sum(size), 0)::bigint, coalesce(max(size), 0)::bigint
  FROM (SELECT pg_catalog.pg_relation_size(i.indexrelid) AS size
          FROM pg_catalog.pg_index i
         WHERE i.indrelid = ANY($1)
            OR i.indrelid IN (SELECT p.relid FROM unnest($1::oid[]) AS t(id), LATERAL pg_catalog.pg_partition_tree(t.id) p)
       ) AS indexes
