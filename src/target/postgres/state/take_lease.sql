-- Takes the lease unless it is validly held by somebody else ($4: a holder known to be dead), and raises the epoch in every row that a target
-- transaction begins with: the late COMMIT of a predecessor then finds no row to move on (TRAPS 1).
WITH taken AS (
    UPDATE cutwater.migration
       SET epoch = epoch + 1, lease_holder = $2, lease_until = clock_timestamp() + make_interval(secs => $3)
     WHERE name = $1 AND (lease_until IS NULL OR lease_until < clock_timestamp() OR lease_holder IN ($2, $4))
    RETURNING name, epoch
), first AS (
    UPDATE cutwater.checkpoint c SET epoch = taken.epoch FROM taken WHERE c.migration = taken.name AND c.worker = 0
    RETURNING 1
), others AS (
    -- Worker 0's transaction ends last: whoever holds another's row and waits for its would wait for somebody who waits.
    UPDATE cutwater.checkpoint c SET epoch = taken.epoch FROM taken
     WHERE c.migration = taken.name AND c.worker <> 0 AND (SELECT count(*) FROM first) >= 0
), tables AS (
    UPDATE cutwater.table_state t SET epoch = taken.epoch FROM taken WHERE t.migration = taken.name
)
SELECT epoch FROM taken
