-- What would act on rows written to these tables ($1 schemas, $2 names) or to partitions of them, unless it is switched
-- off: foreign keys of them and on them, triggers, rules. Of a partitioned table the parent's, which removes the others.
, found AS (
    SELECT 'foreign key' AS kind, f.conrelid AS relation, f.conname::text AS name
      FROM pg_constraint f
     WHERE f.contype = 'f' AND f.conparentid = 0
       AND (f.conrelid IN (SELECT oid FROM tree) OR f.confrelid IN (SELECT oid FROM tree))
    UNION ALL
    SELECT 'trigger', t.tgrelid, t.tgname::text
      FROM pg_trigger t JOIN tree ON tree.oid = t.tgrelid
     WHERE NOT t.tgisinternal AND t.tgparentid = 0 AND t.tgenabled <> 'D' AND t.tgname !~ '^cutwater_'
    UNION ALL
    SELECT 'rule', r.ev_class, r.rulename::text
      FROM pg_rewrite r JOIN tree ON tree.oid = r.ev_class
     WHERE r.ev_type <> '1' AND r.ev_enabled <> 'D'
)
SELECT found.kind, n.nspname::text, c.relname::text, found.name
  FROM found JOIN pg_class c ON c.oid = found.relation JOIN pg_namespace n ON n.oid = c.relnamespace
 ORDER BY 1, 2, 3, 4
