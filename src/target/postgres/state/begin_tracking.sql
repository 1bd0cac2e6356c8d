-- Turns a new generation on, unless a table is still being copied: copies write rows whose keys nobody keeps. Waits for
-- the batch under way, which holds the checkpoint's row; every later one sees the new value in that row.
WITH switched AS (
    UPDATE cutwater.checkpoint c
       SET generations = generations + 1, tracking = generations + 1
     WHERE migration = $1 AND worker = 0
       AND NOT EXISTS (SELECT FROM cutwater.table_state t WHERE t.migration = $1 AND t.stage IN ('waiting', 'copying', 'catching-up'))
    RETURNING migration, tracking
)
INSERT INTO cutwater.tracking (migration, generation)
SELECT migration, tracking FROM switched
RETURNING generation
