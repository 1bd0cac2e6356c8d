-- Every partition below the partitioned tables among $1 (oids), with the file of its rows and the transaction that put it
-- there; a table without partitions is one row of NULLs. No relation is opened: none of this waits for anybody's lock.
WITH RECURSIVE tree(root, relation, attached) AS (
    SELECT i.inhparent, i.inhrelid, i.xmin::text
      FROM pg_catalog.pg_inherits i JOIN pg_catalog.pg_class r ON r.oid = i.inhparent AND r.relkind = 'p'
     WHERE i.inhparent = ANY($1::oid[])
    UNION
    SELECT tree.root, i.inhrelid, i.xmin::text
      FROM tree JOIN pg_catalog.pg_inherits i ON i.inhparent = tree.relation
)
SELECT r.oid AS root, c.oid AS relation, tree.attached,
       pg_catalog.format('%s.%s', n.nspname, c.relname) AS name,
       coalesce(pg_catalog.pg_relation_filenode(c.oid), 0::oid) AS file
  FROM pg_catalog.pg_class r
  LEFT JOIN tree ON tree.root = r.oid
  LEFT JOIN pg_catalog.pg_class c ON c.oid = tree.relation
  LEFT JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE r.oid = ANY($1::oid[]) AND r.relkind = 'p'
