-- Where everything is durable up to is what worker 0's row says, which commits last; what was done is the sum of all.
SELECT c.position, c.epoch, (extract(epoch FROM c.commit_time) * 1000000)::bigint,
       (extract(epoch FROM c.updated_at) * 1000000)::bigint, done.changes, c.transactions, done.divergences
  FROM cutwater.checkpoint c
 CROSS JOIN LATERAL (SELECT sum(w.changes)::bigint AS changes, sum(w.divergences)::bigint AS divergences
                       FROM cutwater.checkpoint w WHERE w.migration = c.migration AND w.worker >= 0) AS done
 WHERE c.migration = $1 AND c.worker = 0
