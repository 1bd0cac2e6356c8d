-- The point of no return, if this fence is still ours, armed, and has not expired.
UPDATE cutwater.fence SET state = 'permanent'
 WHERE migration = $1 AND nonce = $2 AND epoch = $3 AND state = 'armed' AND clock_timestamp() < deadline - interval '10 ms'
