INSERT INTO cutwater.changed_table (migration, generation, tbl, why)
VALUES ($1::text, $2::bigint, $3::text, $4::text)
ON CONFLICT DO NOTHING
