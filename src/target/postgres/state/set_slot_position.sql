-- A new slot means that the tables are copied anew, by which rows change whose keys nobody keeps.
WITH ours AS (
    UPDATE cutwater.migration SET slot_position = $3 WHERE name = $1 AND epoch = $2 RETURNING name, epoch
), untracked AS (
    DELETE FROM cutwater.tracking USING ours WHERE migration = ours.name
)
INSERT INTO cutwater.checkpoint (migration, epoch, position)
SELECT name, epoch, $3 FROM ours
ON CONFLICT (migration, worker)
DO UPDATE SET position = excluded.position, epoch = excluded.epoch, tracking = NULL
RETURNING 1
