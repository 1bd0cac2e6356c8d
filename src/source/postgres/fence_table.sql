CREATE SCHEMA IF NOT EXISTS cutwater;
CREATE TABLE IF NOT EXISTS cutwater.fence (
    migration pg_catalog.text PRIMARY KEY,
    nonce     pg_catalog.text NOT NULL,
    epoch     pg_catalog.int8 NOT NULL,
    state     pg_catalog.text NOT NULL,
    deadline  pg_catalog.timestamptz
);
