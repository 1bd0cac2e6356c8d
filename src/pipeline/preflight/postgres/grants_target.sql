-- What the role has to be given at the target: of the schemas $3 those that exist and are not its own, and the owners of
-- those of the tables $1 (schemas), $2 (names) that exist.
SELECT 'schema', format('%I', n.nspname), 1 FROM pg_namespace n
 WHERE n.nspname = ANY($3::text[]) AND pg_get_userbyid(n.nspowner) <> current_user
UNION ALL
SELECT DISTINCT 'owner', format('%I', pg_get_userbyid(c.relowner)), 2
  FROM unnest($1::text[], $2::text[]) AS wanted(nsp, rel)
  JOIN pg_namespace n ON n.nspname = wanted.nsp
  JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = wanted.rel
 WHERE pg_get_userbyid(c.relowner) <> current_user
 ORDER BY 3, 2
