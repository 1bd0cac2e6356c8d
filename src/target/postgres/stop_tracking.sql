-- More keys than are kept: from here on what changed since any earlier verify is not known. Whether keys are kept at all is
-- said by worker 0's row, which none but worker 0 ($2) may touch in mid-batch.
WITH off AS (
    UPDATE cutwater.checkpoint SET tracking = NULL WHERE migration = $1 AND worker = 0 AND $2::int = 0
)
UPDATE cutwater.tracking SET overflow = true WHERE migration = $1
