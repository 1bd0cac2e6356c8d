-- All or nothing: a state says format 2 only with every table's rule in it.
WITH ours AS (
    UPDATE cutwater.migration SET format = $3, fingerprint = $4
     WHERE name = $1 AND epoch = $2
    RETURNING name
), ruled AS (
    UPDATE cutwater.table_state t SET rule = r.rule
      FROM ours, unnest($5::text[], $6::text[], $7::text[]) AS r(source_schema, source_table, rule)
     WHERE t.migration = ours.name AND t.source_schema = r.source_schema AND t.source_table = r.source_table
)
SELECT count(*) FROM ours
