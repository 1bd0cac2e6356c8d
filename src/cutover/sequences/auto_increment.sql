-- Every column that counts by itself, and the number its table hands out next.
SELECT c.table_schema, c.table_name, c.column_name, t.auto_increment
  FROM information_schema.columns c
  JOIN information_schema.tables t ON t.table_schema = c.table_schema AND t.table_name = c.table_name
 WHERE c.extra LIKE '%auto_increment%' AND t.table_type = 'BASE TABLE'
   AND c.table_schema NOT IN ('mysql', 'sys', 'information_schema', 'performance_schema', 'cutwater')
 ORDER BY 1, 2
