-- What the role has to be given at the source for the tables $1 (schemas), $2 (names) and their partitions.
, relation AS (
    SELECT c.oid, c.relkind, c.relowner, c.relrowsecurity, c.relnamespace, format('%I.%I', n.nspname, c.relname) AS name,
           c.oid IN (SELECT oid FROM tree) AS ours
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'cutwater')
)
SELECT 'schema' AS kind, format('%I', n.nspname) AS what, 1 AS place
  FROM pg_namespace n
 WHERE n.oid IN (SELECT relnamespace FROM relation WHERE relkind IN ('r', 'p', 'S'))
UNION ALL
SELECT 'table', name, 2 FROM relation WHERE ours
UNION ALL
SELECT 'sequence', name, 3 FROM relation
 WHERE relkind = 'S' AND relnamespace IN (SELECT relnamespace FROM relation WHERE ours)
UNION ALL
SELECT DISTINCT CASE WHEN r.rolsuper THEN 'super' ELSE 'owner' END, format('%I', r.rolname), 4
  FROM relation JOIN pg_roles r ON r.oid = relation.relowner
 WHERE relation.ours AND r.rolname <> current_user
UNION ALL
SELECT 'other', name, 5 FROM relation WHERE relkind IN ('r', 'p') AND NOT ours
UNION ALL
SELECT DISTINCT 'rls', '', 6 FROM relation WHERE ours AND relrowsecurity
 ORDER BY 3, 2
