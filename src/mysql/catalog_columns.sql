SELECT table_schema, table_name, column_name, column_type, is_nullable = 'YES', column_default,
       character_set_name, collation_name, extra, generation_expression, column_comment
  FROM information_schema.columns
 WHERE table_schema /*databases*/
 ORDER BY table_schema, table_name, ordinal_position
