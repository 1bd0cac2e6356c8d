SET session_replication_role = replica;
INSERT INTO app.customers (mail, m, ms, home, note, last_order)
SELECT 'c' || i || '@example.org', CASE WHEN i % 3 = 0 THEN 'sad' END::app.mood, ARRAY['ok', NULL, 'happy']::app.mood[],
       ROW('Ünï "street"', i)::app.addr, CASE i % 4 WHEN 0 THEN E'tab\tnl\nbackslash\\' WHEN 1 THEN '' WHEN 2 THEN '\N' END, i
  FROM generate_series(1, 3000) i;
INSERT INTO app.orders (customer, at, total, doc)
SELECT i, timestamptz '2024-01-01' + i * interval '1 hour', (i % 1000) / 7.0, jsonb_build_object('x', repeat(md5(i::text), i % 90))
  FROM generate_series(1, 3000) i;
SELECT setval('app.orders_id_seq', 10000);
INSERT INTO app.events SELECT i, date '2020-01-01' + i, 'what ' || i FROM generate_series(1, 2000) i;
INSERT INTO "Odd Schema"."we""ird Table; Type: X" VALUES (1, 'x'), (2, NULL);
INSERT INTO app.nokey VALUES (1, 'twice'), (1, 'twice'), (NULL, NULL);
INSERT INTO app.uniq VALUES (1, 'one'), (2, NULL);
INSERT INTO app.excl VALUES ('[1,3)'), ('empty'), ('[5,)');
SET session_replication_role = origin;
