-- More keys than are kept: from here on what changed since any earlier verify is not known.
WITH off AS (
    UPDATE cutwater.checkpoint SET tracking = NULL WHERE migration = $1 AND worker = 0 RETURNING migration
)
UPDATE cutwater.tracking t SET overflow = true FROM off WHERE t.migration = off.migration
