SET TIME ZONE 'UTC';
SET DateStyle = 'ISO, YMD';
SET IntervalStyle = 'postgres';
SET extra_float_digits = 3;
SET bytea_output = 'hex';
SET lc_monetary = 'C';
SET array_nulls = on;
SET xmloption = content;
SET quote_all_identifiers = off;
SET statement_timeout = 0;
SET lock_timeout = 0;
SET idle_in_transaction_session_timeout = 0;
SET row_security = off;
SET standard_conforming_strings = on;
SET client_encoding = 'UTF8';
SET search_path = pg_catalog;
-- Settings that older servers do not have; and a role that is read-only by default, for its own statements. A server or a
-- database that is (a managed service's full disk) is left so.
SELECT set_config(name, '0', false) FROM pg_settings WHERE name IN ('idle_session_timeout', 'transaction_timeout');
SELECT set_config(name, 'off', false) FROM pg_settings
 WHERE name = 'default_transaction_read_only' AND source IN ('user', 'database user');
