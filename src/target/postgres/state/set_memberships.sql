-- $2, $3, $4: one value a table. $5: the epoch, if it is to be ours.
UPDATE cutwater.table_state t SET membership = n.membership
  FROM unnest($2::text[], $3::text[], $4::text[]) AS n (nsp, rel, membership)
 WHERE t.migration = $1 AND t.source_schema = n.nsp AND t.source_table = n.rel
   AND ($5::bigint IS NULL OR t.epoch = $5)
