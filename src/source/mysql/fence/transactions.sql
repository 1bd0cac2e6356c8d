-- Transactions that have written or locked rows, other than our own: session, user, host, age in seconds, rows changed, statement.
SELECT t.trx_mysql_thread_id, p.user, p.host, greatest(0, timestampdiff(MICROSECOND, t.trx_started, now(6)) / 1000000),
       t.trx_rows_modified, left(coalesce(t.trx_query, ''), 120)
  FROM information_schema.innodb_trx t
  LEFT JOIN information_schema.processlist p ON p.id = t.trx_mysql_thread_id
 WHERE (t.trx_rows_modified > 0 OR t.trx_rows_locked > 0)
   AND t.trx_mysql_thread_id NOT IN (0, connection_id())
 ORDER BY t.trx_started
