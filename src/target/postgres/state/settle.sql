-- Called with the checkpoints locked. What is taken off is taken from one worker after the other.
WITH ours AS (
    UPDATE cutwater.checkpoint c
       SET divergences = divergences - least(divergences, greatest(0, $3::bigint - (
               SELECT coalesce(sum(before.divergences), 0) FROM cutwater.checkpoint before
                WHERE before.migration = c.migration AND before.worker >= 0 AND before.worker < c.worker)))
     WHERE migration = $1 AND worker >= 0
    RETURNING migration
)
DELETE FROM cutwater.dead_letter d
 WHERE d.migration IN (SELECT migration FROM ours) AND d.id <= $2::bigint
