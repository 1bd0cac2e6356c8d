-- $2, $3: pause (true) or resume (false) the copy and the applying; NULL leaves it as it is. A pause that lasts keeps its
-- beginning. $4: who. $5: settings to change; null takes one back.
UPDATE cutwater.control
   SET version = version + 1,
       snapshot_paused_at = CASE $2::boolean WHEN true THEN coalesce(snapshot_paused_at, clock_timestamp())
                                             WHEN false THEN NULL ELSE snapshot_paused_at END,
       apply_paused_at = CASE $3::boolean WHEN true THEN coalesce(apply_paused_at, clock_timestamp())
                                          WHEN false THEN NULL ELSE apply_paused_at END,
       paused_by = CASE WHEN $2::boolean OR $3::boolean THEN $4::text ELSE paused_by END,
       settings = jsonb_strip_nulls(settings || $5::jsonb)
 WHERE migration = $1
RETURNING version
