WITH ours AS (
    UPDATE cutwater.migration SET slot_position = $3 WHERE name = $1 AND epoch = $2 RETURNING name, epoch
)
INSERT INTO cutwater.checkpoint (migration, epoch, position)
SELECT name, epoch, $3 FROM ours
ON CONFLICT (migration, worker) DO UPDATE SET position = excluded.position, epoch = excluded.epoch
RETURNING 1
