-- Accounts that may change something in {databases}: user, host, whether they pass read_only, and a no. Rights of whole servers,
-- databases, tables, routines; and whoever has a role, because what it grants is not looked through.
SELECT u.user, u.host,
       EXISTS (SELECT 1 FROM information_schema.user_privileges p
                WHERE p.grantee = concat('''', u.user, '''@''', u.host, '''')
                  AND p.privilege_type IN ('READ_ONLY ADMIN', 'READ ONLY ADMIN', 'SUPER')),
       0
  FROM mysql.user u JOIN mysql.global_priv g ON g.user = u.user AND g.host = u.host
 WHERE u.is_role <> 'Y' AND NOT coalesce(json_value(g.priv, '$.account_locked'), 0)
   AND ('Y' IN (u.insert_priv, u.update_priv, u.delete_priv, u.create_priv, u.drop_priv, u.alter_priv, u.execute_priv,
                u.trigger_priv, u.event_priv, u.super_priv)
        OR EXISTS (SELECT 1 FROM mysql.db d
                    WHERE d.user = u.user AND d.host = u.host
                      AND EXISTS (SELECT 1 FROM information_schema.schemata s
                                   WHERE s.schema_name IN ({databases}) AND s.schema_name LIKE d.db)
                      AND 'Y' IN (d.insert_priv, d.update_priv, d.delete_priv, d.create_priv, d.drop_priv, d.alter_priv,
                                  d.execute_priv, d.trigger_priv, d.event_priv))
        OR EXISTS (SELECT 1 FROM mysql.tables_priv t
                    WHERE t.user = u.user AND t.host = u.host AND t.db IN ({databases})
                      AND (concat(t.table_priv, ',', t.column_priv) REGEXP 'Insert|Update|Delete|Create|Drop|Alter|Trigger'))
        OR EXISTS (SELECT 1 FROM mysql.procs_priv p WHERE p.user = u.user AND p.host = u.host)
        OR EXISTS (SELECT 1 FROM mysql.roles_mapping r WHERE r.user = u.user AND r.host = u.host))
 ORDER BY 1, 2
