CREATE SCHEMA v;
CREATE TABLE v.t (id int PRIMARY KEY, n int);
INSERT INTO v.t SELECT i, i FROM generate_series(1, 100) i;
CREATE MATERIALIZED VIEW v.bottom AS SELECT id % 10 AS part, sum(n) AS s FROM v.t GROUP BY 1;
CREATE UNIQUE INDEX bottom_part ON v.bottom (part);
CREATE VIEW v.between AS SELECT part, 2 * s AS s FROM v.bottom;
CREATE MATERIALIZED VIEW v.a_top AS SELECT * FROM v.between;
CREATE FUNCTION v.reads() RETURNS bigint LANGUAGE plpgsql AS $$ BEGIN RETURN (SELECT sum(s) FROM v.a_top) / 2; END $$;
CREATE MATERIALIZED VIEW v.by_function AS SELECT v.reads() AS s;
-- Only filled where the tables' schema is on the search path.
CREATE FUNCTION v.odd() RETURNS bigint LANGUAGE plpgsql AS $$ BEGIN RETURN (SELECT count(*) FROM t); END $$;
SET search_path = v;
CREATE MATERIALIZED VIEW v.odd AS SELECT v.odd() AS s;
CREATE MATERIALIZED VIEW v.nobody AS SELECT n FROM v.t WITH NO DATA;
