-- Accounts that may change something in {databases}: user, host, whether they pass read_only, and whether
-- they are of the system (8.0.16: only another such account may change them). Rights of whole servers,
-- databases, tables, routines; and whoever has a role, because what it grants is not looked through.
SELECT u.user, u.host,
       u.super_priv = 'Y' OR EXISTS (SELECT 1 FROM mysql.global_grants g
                                      WHERE g.user = u.user AND g.host = u.host AND g.priv = 'CONNECTION_ADMIN'),
       EXISTS (SELECT 1 FROM mysql.global_grants g WHERE g.user = u.user AND g.host = u.host AND g.priv = 'SYSTEM_USER')
  FROM mysql.user u
 WHERE u.account_locked <> 'Y'
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
        OR EXISTS (SELECT 1 FROM mysql.role_edges r WHERE r.to_user = u.user AND r.to_host = u.host))
 ORDER BY 1, 2
