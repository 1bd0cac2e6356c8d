UPDATE cutwater.checkpoint
   SET position = $4::text,
       commit_time = coalesce('epoch'::timestamptz + $5::bigint * interval '1 microsecond', commit_time),
       updated_at = clock_timestamp(),
       changes = changes + $6::bigint,
       transactions = transactions + $7::bigint,
       divergences = divergences + $8::bigint
 WHERE migration = $1::text AND worker = $9::int AND epoch = $2::bigint AND position = $3::text
RETURNING
    -- Worker 0 has its row locked while another one is at work: what it was told holds for all.
    CASE WHEN worker > 0
         THEN (SELECT c.tracking
                 FROM cutwater.checkpoint c
                 JOIN cutwater.tracking t ON t.migration = c.migration AND t.generation = c.tracking
                WHERE c.migration = $1::text AND c.worker = 0 AND NOT t.overflow)
         ELSE tracking
    END
