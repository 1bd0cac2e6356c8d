-- Which of these objects the target has: their place in the list. $1 kinds, $2 schemas, $3 tables, $4 names.
-- Comments are never counted as there. A foreign key of a partitioned table is there once the table itself has it.
SELECT wanted.place
  FROM unnest($1::text[], $2::text[], $3::text[], $4::text[]) WITH ORDINALITY AS wanted(kind, nsp, rel, name, place)
  JOIN pg_namespace n ON n.nspname = wanted.nsp
  JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = wanted.rel
 WHERE CASE wanted.kind
         WHEN 'foreign-key' THEN
             EXISTS (SELECT FROM pg_constraint f WHERE f.conrelid = c.oid AND f.contype = 'f' AND f.conname = wanted.name)
         WHEN 'trigger' THEN
             EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = c.oid AND t.tgname = wanted.name)
         WHEN 'rule' THEN
             EXISTS (SELECT FROM pg_rewrite r WHERE r.ev_class = c.oid AND r.rulename = wanted.name)
         WHEN 'row-security' THEN c.relrowsecurity
         ELSE false
       END
