-- The files that hold the rows of the tables $1 (oids): one a table, or one a leaf partition.
SELECT r.root, c.oid AS relation, coalesce(pg_catalog.pg_relation_filenode(c.oid), 0::oid) AS file
  FROM pg_catalog.unnest($1::oid[]) AS r(root)
  LEFT JOIN LATERAL (
      SELECT relid FROM pg_catalog.pg_partition_tree(r.root::pg_catalog.regclass) WHERE isleaf
  ) p ON true
  JOIN pg_catalog.pg_class c ON c.oid = coalesce(p.relid::oid, r.root) AND c.relkind = 'r'
