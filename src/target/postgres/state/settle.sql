WITH ours AS (
    UPDATE cutwater.checkpoint SET divergences = divergences - least($3::bigint, divergences)
     WHERE migration = $1 AND worker = 0
    RETURNING migration
)
DELETE FROM cutwater.dead_letter d USING ours WHERE d.migration = ours.migration AND d.id <= $2::bigint
