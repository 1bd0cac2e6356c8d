-- The name is unique in its table only.
SELECT constraint_schema, table_name, constraint_name, check_clause
  FROM information_schema.check_constraints
 WHERE constraint_schema /*databases*/
 ORDER BY constraint_schema, table_name, constraint_name
