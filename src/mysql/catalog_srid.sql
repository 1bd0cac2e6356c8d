SELECT table_schema, table_name, column_name, srs_id
  FROM information_schema.st_geometry_columns
 WHERE srs_id IS NOT NULL AND table_schema /*databases*/
