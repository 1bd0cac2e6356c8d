-- The schemas that are neither the server's nor ours.
SELECT nspname::text FROM pg_namespace WHERE nspname !~ '^pg_' AND nspname NOT IN ('information_schema', 'cutwater')
