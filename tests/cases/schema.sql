-- A little of everything that stands around rows.
CREATE SCHEMA a;
CREATE SCHEMA "B b";
COMMENT ON SCHEMA a IS 'it''s "a"';
CREATE EXTENSION btree_gist WITH SCHEMA a;
CREATE EXTENSION pg_trgm;

CREATE TYPE a.mood AS ENUM ('sad', 'ok');
CREATE TYPE a.pair AS (x int, y text COLLATE "C");
CREATE TYPE a.span AS RANGE (subtype = float8, subtype_diff = float8mi, multirange_type_name = a.spans);
CREATE DOMAIN a.email AS text DEFAULT 'none@x' CONSTRAINT has_at CHECK (VALUE ~ '@') NOT NULL;
COMMENT ON TYPE a.mood IS 'of people';
COMMENT ON CONSTRAINT has_at ON DOMAIN a.email IS 'at least';
CREATE COLLATION a.deutsch (provider = icu, locale = 'de-u-co-phonebk');
CREATE COLLATION "B b".nocase (provider = icu, locale = 'und-u-ks-level2', deterministic = false);

CREATE FUNCTION a.add(a.pair, int DEFAULT 1, VARIADIC rest int[] DEFAULT '{}') RETURNS int
    LANGUAGE sql IMMUTABLE PARALLEL SAFE COST 7 AS $f$ SELECT ($1).x + $2; -- ' " $ ; $f$;
CREATE FUNCTION a.body() RETURNS int BEGIN ATOMIC SELECT 1; SELECT 2; END;
CREATE FUNCTION a.many() RETURNS TABLE (n int, t text) LANGUAGE plpgsql SECURITY DEFINER SET search_path = a, pg_temp
    AS $$ BEGIN RETURN QUERY SELECT 1, 'x'; END $$;
CREATE PROCEDURE a.work(INOUT n int) LANGUAGE plpgsql AS $$ BEGIN n := n + 1; END $$;
CREATE FUNCTION a.step(numeric, numeric) RETURNS numeric LANGUAGE sql IMMUTABLE AS 'SELECT greatest($1, $2)';
CREATE AGGREGATE a.largest(numeric) (SFUNC = a.step, STYPE = numeric, INITCOND = '0');
CREATE FUNCTION a.same(a.pair, a.pair) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT ($1).x = ($2).x';
CREATE OPERATOR a.=== (LEFTARG = a.pair, RIGHTARG = a.pair, FUNCTION = a.same, COMMUTATOR = OPERATOR(a.===));
CREATE FUNCTION a.to_mood(int) RETURNS a.mood LANGUAGE sql IMMUTABLE AS $$ SELECT CASE WHEN $1 > 0 THEN 'ok' ELSE 'sad' END::a.mood $$;
CREATE CAST (int AS a.mood) WITH FUNCTION a.to_mood(int);
CREATE TEXT SEARCH CONFIGURATION a.plain (COPY = simple);
CREATE TEXT SEARCH DICTIONARY a.dict (TEMPLATE = pg_catalog.simple, STOPWORDS = english);
ALTER TEXT SEARCH CONFIGURATION a.plain ALTER MAPPING FOR word WITH a.dict;
COMMENT ON FUNCTION a.body() IS 'two';

CREATE SEQUENCE a.alone AS smallint INCREMENT -2 MINVALUE -100 MAXVALUE 100 START 50 CACHE 5 CYCLE;
CREATE SEQUENCE a.owned;
CREATE UNLOGGED TABLE a.unlogged (id int PRIMARY KEY);
CREATE TABLE a.people (
    id bigint GENERATED ALWAYS AS IDENTITY (SEQUENCE NAME a.people_numbers START 10 INCREMENT 3) PRIMARY KEY,
    email a.email UNIQUE,
    name text COLLATE a.deutsch NOT NULL DEFAULT 'x; -- y',
    feeling a.mood DEFAULT 'ok',
    p a.pair DEFAULT ROW(1, 'a'),
    up text GENERATED ALWAYS AS (upper(name)) STORED,
    n int DEFAULT nextval('a.owned') CHECK (n > 0),
    big text,
    CONSTRAINT "odd ""name""" CHECK (length(name) < 100) NO INHERIT
) WITH (fillfactor = 70, autovacuum_enabled = on);
ALTER SEQUENCE a.owned OWNED BY a.people.n;
ALTER TABLE a.people ALTER big SET STORAGE EXTERNAL, ALTER big SET STATISTICS 500, ALTER name SET (n_distinct = -0.5), ALTER big SET COMPRESSION pglz;
ALTER TABLE a.people ADD CONSTRAINT later CHECK (n < 1000000) NOT VALID;
COMMENT ON TABLE a.people IS E'line 1\n--\n-- Name: no header; Type: TABLE; Schema: -; Owner: -\n--\n';
COMMENT ON COLUMN a.people.email IS 'their''s';
COMMENT ON CONSTRAINT later ON a.people IS 'not yet';
CREATE INDEX people_expr ON a.people (lower(name), (n + 1) DESC NULLS LAST) WHERE feeling = 'ok';
CREATE INDEX people_incl ON a.people USING btree (n) INCLUDE (email) WITH (fillfactor = 60);
CREATE INDEX people_trgm ON a.people USING gin (name public.gin_trgm_ops);
CREATE UNIQUE INDEX people_nulls ON a.people (n, feeling) NULLS NOT DISTINCT;
CREATE INDEX people_n ON a.people (n);
ALTER TABLE a.people CLUSTER ON people_n;
ALTER INDEX a.people_expr ALTER COLUMN 2 SET STATISTICS 300;
COMMENT ON INDEX a.people_n IS 'by n';
CREATE STATISTICS a.both (dependencies, ndistinct) ON n, feeling FROM a.people;
ALTER STATISTICS a.both SET STATISTICS 200;

CREATE TABLE "B b".room (
    id int, during tstzrange, person bigint, boss int, v text,
    CONSTRAINT room_pk PRIMARY KEY (id) DEFERRABLE INITIALLY DEFERRED,
    CONSTRAINT no_overlap EXCLUDE USING gist (id WITH =, during WITH &&) WHERE (id > 0) DEFERRABLE
);
ALTER TABLE "B b".room REPLICA IDENTITY FULL;
ALTER TABLE "B b".room ADD CONSTRAINT of_person FOREIGN KEY (person) REFERENCES a.people ON UPDATE CASCADE ON DELETE SET NULL DEFERRABLE;
ALTER TABLE "B b".room ADD CONSTRAINT later_fk FOREIGN KEY (boss) REFERENCES a.people (id) NOT VALID;

CREATE TABLE a.logs (id int, at date, v text, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
CREATE TABLE a.logs_1 PARTITION OF a.logs FOR VALUES FROM ('2025-01-01') TO ('2026-01-01') PARTITION BY LIST (id);
CREATE TABLE a.logs_1_1 PARTITION OF a.logs_1 (CONSTRAINT short CHECK (length(v) < 10)) FOR VALUES IN (1);
CREATE TABLE a.logs_1_d PARTITION OF a.logs_1 DEFAULT;
CREATE TABLE a.logs_d PARTITION OF a.logs DEFAULT;
CREATE INDEX logs_v ON a.logs (v);
CREATE INDEX logs_1_only ON a.logs_1_1 (v, id);
CREATE TABLE a.parent (id int PRIMARY KEY, v text);
CREATE TABLE a.child (w int, PRIMARY KEY (id)) INHERITS (a.parent);
CREATE TABLE a."user" ("order" int PRIMARY KEY);
CREATE TABLE a.typed OF a.pair (PRIMARY KEY (x));

CREATE VIEW a.happy AS SELECT id, name, feeling FROM a.people WHERE feeling = 'ok' WITH LOCAL CHECK OPTION;
ALTER VIEW a.happy SET (security_barrier = true);
ALTER VIEW a.happy ALTER name SET DEFAULT 'v';
CREATE VIEW a.grouped AS SELECT id, email, count(*) OVER () FROM a.people GROUP BY id;
CREATE RECURSIVE VIEW a.counting (n) AS VALUES (1) UNION ALL SELECT n + 1 FROM counting WHERE n < 5;
CREATE MATERIALIZED VIEW a.mat AS SELECT feeling, count(*) AS n FROM a.people GROUP BY 1;
CREATE UNIQUE INDEX mat_feeling ON a.mat (feeling);
CREATE MATERIALIZED VIEW a.mat2 WITH (fillfactor = 50) AS SELECT sum(n) FROM a.mat;
CREATE VIEW a.on_mat AS SELECT * FROM a.mat;
COMMENT ON VIEW a.happy IS 'only those';

CREATE FUNCTION a.touch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;
CREATE TRIGGER touch BEFORE UPDATE OF name ON a.people FOR EACH ROW WHEN (OLD.name IS DISTINCT FROM NEW.name) EXECUTE FUNCTION a.touch('arg''s');
CREATE TRIGGER off AFTER INSERT ON a.people FOR EACH STATEMENT EXECUTE FUNCTION a.touch();
ALTER TABLE a.people DISABLE TRIGGER off;
CREATE CONSTRAINT TRIGGER late AFTER INSERT ON a.people DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION a.touch();
CREATE TRIGGER moved AFTER UPDATE ON a.logs REFERENCING OLD TABLE AS o FOR EACH STATEMENT EXECUTE FUNCTION a.touch();
CREATE TRIGGER rowwise BEFORE INSERT ON a.logs FOR EACH ROW EXECUTE FUNCTION a.touch();
CREATE TRIGGER instead INSTEAD OF INSERT ON a.grouped FOR EACH ROW EXECUTE FUNCTION a.touch();
COMMENT ON TRIGGER touch ON a.people IS 'touches';
CREATE RULE keep AS ON DELETE TO a."user" DO INSTEAD NOTHING;
ALTER TABLE a.people ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY mine ON a.people AS RESTRICTIVE FOR SELECT TO PUBLIC USING (n > 0);
CREATE POLICY writes ON a.people FOR INSERT WITH CHECK (n > 1);
COMMENT ON POLICY mine ON a.people IS 'a policy';

INSERT INTO a.people (email, name, n) SELECT 'p' || i || '@x', 'n' || i, 10 + 3 * i FROM generate_series(1, 50) i;
INSERT INTO "B b".room SELECT i, tstzrange('2025-01-01', '2025-01-02'), 10 + 3 * i, NULL, 'v' FROM generate_series(1, 20) i;
INSERT INTO a.logs SELECT i % 3, date '2025-06-01' + i, 'v' FROM generate_series(1, 300) i;
INSERT INTO a.typed VALUES (1, 'y');
REFRESH MATERIALIZED VIEW a.mat; REFRESH MATERIALIZED VIEW a.mat2;
