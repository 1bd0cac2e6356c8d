-- Everything a dump can trip over: texts that look like its own headers, odd names, cycles of foreign keys,
-- partitions, keys that are mere indexes, and tables that stay behind with what hangs on them.
CREATE SCHEMA app; CREATE SCHEMA "Odd Schema";
CREATE TYPE app.mood AS ENUM ('sad','ok','happy');
CREATE DOMAIN app.email AS text CHECK (VALUE LIKE '%@%');
CREATE TYPE app.addr AS (street text, zip int);
CREATE FUNCTION app.touch() RETURNS trigger LANGUAGE plpgsql AS $$
--
-- Name: fake; Type: TABLE; Schema: public; Owner: -
--
BEGIN NEW.note := coalesce(NEW.note,'') ; RETURN NEW; END $$;
CREATE TABLE app.customers (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, mail app.email NOT NULL, m app.mood DEFAULT 'ok', ms app.mood[], home app.addr, note text, up text GENERATED ALWAYS AS (upper(note)) STORED, UNIQUE (mail));
CREATE TABLE app.orders (id serial PRIMARY KEY, customer bigint NOT NULL REFERENCES app.customers ON DELETE CASCADE, at timestamptz NOT NULL DEFAULT now(), total numeric(12,2) CHECK (total >= 0), doc jsonb);
ALTER TABLE app.customers ADD COLUMN last_order int REFERENCES app.orders DEFERRABLE INITIALLY DEFERRED;
CREATE INDEX orders_at ON app.orders (at DESC) WHERE total > 10;
CREATE INDEX orders_lower ON app.orders ((doc->>'x'));
CREATE TABLE app.events (id bigint, day date NOT NULL, what text, PRIMARY KEY (id, day)) PARTITION BY RANGE (day);
CREATE TABLE app.events_1 PARTITION OF app.events FOR VALUES FROM ('2020-01-01') TO ('2021-01-01');
CREATE TABLE app.events_2 PARTITION OF app.events DEFAULT;
CREATE INDEX events_what ON app.events (what);
CREATE TABLE "Odd Schema"."we""ird Table; Type: X" ("Sélect" int PRIMARY KEY, "a.b" text);
COMMENT ON TABLE "Odd Schema"."we""ird Table; Type: X" IS 'it''s
--
-- Name: fake2; Type: TABLE; Schema: public; Owner: -
--
';
COMMENT ON COLUMN app.orders.doc IS 'doc';
CREATE TABLE app.nokey (a int, b text); ALTER TABLE app.nokey REPLICA IDENTITY FULL;
CREATE TABLE app.uniq (a int NOT NULL, b text); CREATE UNIQUE INDEX uniq_a ON app.uniq(a); ALTER TABLE app.uniq REPLICA IDENTITY USING INDEX uniq_a;
CREATE TABLE app.secret (id serial PRIMARY KEY, customer bigint REFERENCES app.customers);
CREATE VIEW app.secret_view AS SELECT * FROM app.secret;
CREATE VIEW app.secret_view2 AS SELECT * FROM app.secret_view;
CREATE VIEW app.big AS SELECT o.*, c.mail FROM app.orders o JOIN app.customers c ON c.id = o.customer;
CREATE MATERIALIZED VIEW app.sums AS SELECT customer, sum(total) FROM app.orders GROUP BY 1;
CREATE INDEX sums_c ON app.sums(customer);
CREATE TRIGGER touch BEFORE INSERT OR UPDATE ON app.customers FOR EACH ROW EXECUTE FUNCTION app.touch();
CREATE STATISTICS app.st ON customer, total FROM app.orders;
CREATE TABLE app.excl (r int4range, EXCLUDE USING gist (r WITH &&));
CREATE RULE nokey_del AS ON DELETE TO app.nokey DO INSTEAD NOTHING;
ALTER TABLE app.uniq ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON app.uniq USING (a > 0);
CREATE SEQUENCE app.free_seq INCREMENT 5;
ALTER TABLE app.excl REPLICA IDENTITY FULL;
