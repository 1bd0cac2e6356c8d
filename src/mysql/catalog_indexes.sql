-- A part without a column is an expression.
SELECT table_schema, table_name, index_name, non_unique, index_type, column_name, sub_part, collation = 'D'
  FROM information_schema.statistics
 WHERE table_schema /*databases*/
 ORDER BY table_schema, table_name, index_name <> 'PRIMARY', index_name, seq_in_index
