SELECT t.table_schema, t.table_name, t.table_type, t.engine, t.table_rows, t.data_length, t.auto_increment,
       t.create_options, t.table_comment, e.transactions = 'YES'
  FROM information_schema.tables t
  LEFT JOIN information_schema.engines e ON e.engine = t.engine
 WHERE t.table_schema /*databases*/
 ORDER BY t.table_schema, t.table_name
