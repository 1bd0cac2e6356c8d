-- The marker: this row change in the stream tells the applier that everything before the fence is in front of it.
INSERT INTO cutwater.fence AS f (migration, nonce, epoch, state, deadline)
VALUES ($1, $2, $3, 'armed', to_timestamp($4::bigint / 1000000.0))
ON CONFLICT (migration) DO UPDATE
   SET nonce = excluded.nonce, epoch = excluded.epoch, state = excluded.state, deadline = excluded.deadline
 WHERE f.state <> 'permanent'
