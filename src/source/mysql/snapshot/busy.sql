-- Statements that have run for a while: a global read lock waits for each of them, and everybody who writes behind it.
SELECT id, user, time, LEFT(REPLACE(REPLACE(info, '\n', ' '), '\t', ' '), 100)
  FROM information_schema.processlist
 WHERE command NOT IN ('Sleep', 'Daemon', 'Connect', 'Binlog Dump', 'Binlog Dump GTID') AND user <> 'system user'
   AND info IS NOT NULL AND id <> CONNECTION_ID() AND time >= 2
 ORDER BY time DESC, id
