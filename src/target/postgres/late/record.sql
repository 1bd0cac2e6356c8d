-- The place is that of the first time it was recorded: what an object needs was recorded before it.
INSERT INTO cutwater.late
       (migration, place, kind, tbl_schema, tbl, refers_schema, refers, name, statement, validated)
SELECT $1::text, coalesce(max(place), 0) + 1, $2::text, $3::text, $4::text, $5::text, $6::text, $7::text, $8::text, $9::boolean
  FROM cutwater.late WHERE migration = $1
    ON CONFLICT (migration, kind, tbl_schema, tbl, name, md5(statement)) DO NOTHING
