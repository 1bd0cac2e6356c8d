-- The same for publications of whole schemas, which came with 15.
SELECT c.oid AS id, pg_catalog.format('%s.%s', n.oid, n.xmin) AS listed
  FROM pg_catalog.pg_publication p
  JOIN pg_catalog.pg_publication_namespace n ON n.pnpubid = p.oid
  JOIN pg_catalog.pg_class c ON c.relnamespace = n.pnnspid
 WHERE p.pubname = $1 AND c.oid = ANY($2::oid[])
