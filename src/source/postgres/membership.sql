-- By which rows of the catalogue publication $1 publishes the tables $2 (oids): none of them is ever written in place
-- without a new xmin, and one that is made again has a new oid. (xmin survives VACUUM FREEZE.)
SELECT t.id,
       pg_catalog.format('%s.%s', p.oid, p.xmin) AS publication,
       CASE WHEN p.puballtables THEN 'all'
            ELSE (SELECT pg_catalog.format('%s.%s', r.oid, r.xmin) FROM pg_catalog.pg_publication_rel r
                   WHERE r.prpubid = p.oid AND r.prrelid = t.id) END AS listed
  FROM pg_catalog.pg_publication p, pg_catalog.unnest($2::oid[]) AS t(id)
 WHERE p.pubname = $1
