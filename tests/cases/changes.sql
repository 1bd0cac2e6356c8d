UPDATE s.by_default SET v = NULL WHERE id = 1; UPDATE s.by_default SET id = 100 WHERE id = 2; DELETE FROM s.by_default WHERE id = 3;
UPDATE s.by_index SET c = NULL WHERE a = 1; UPDATE s.by_index SET b = 'new' WHERE a = 2; UPDATE s.by_index SET a = 100 WHERE a = 4; DELETE FROM s.by_index WHERE a = 3;
UPDATE s.by_whole_row SET v = NULL WHERE id = 1; UPDATE s.by_whole_row SET id = 100 WHERE id = 2; DELETE FROM s.by_whole_row WHERE id = 3;
DELETE FROM s.without_key WHERE ctid = (SELECT min(ctid) FROM s.without_key WHERE n::text = '1.00');
DELETE FROM s.without_key WHERE ctid = (SELECT min(ctid) FROM s.without_key WHERE octet_length(b) = 2);
UPDATE s.without_key SET n = 2 WHERE ctid = (SELECT min(ctid) FROM s.without_key WHERE j::text = '{ }');
DELETE FROM s.without_key WHERE ctid = (SELECT min(ctid) FROM s.without_key WHERE v IS NULL);
INSERT INTO s.without_key VALUES ('x', 1.0, 'b', '{}');

UPDATE s.toast SET n = -1 WHERE id = 1;
UPDATE s.toast SET n = -1, b = '\x00' WHERE id = 2;
UPDATE s.toast SET id = 102 WHERE id = 3;
UPDATE s.toast SET id = 104, a = 'short' WHERE id = 4;
UPDATE s.toast SET a = repeat('new', 5000) WHERE id = 5; UPDATE s.toast SET id = 105 WHERE id = 5; UPDATE s.toast SET n = 7 WHERE id = 105;
INSERT INTO s.toast VALUES (50, 1, repeat('i', 9000), NULL); UPDATE s.toast SET n = 2 WHERE id = 50;
DELETE FROM s.toast WHERE id = 6; INSERT INTO s.toast VALUES (6, 1, repeat('again', 3000), '\x01'); UPDATE s.toast SET n = 5 WHERE id = 6;
UPDATE s.toast_full SET n = -1 WHERE id = 1; UPDATE s.toast_full SET id = 102 WHERE id = 2; DELETE FROM s.toast_full WHERE id = 3; UPDATE s.toast_full SET a = NULL WHERE id = 4;
UPDATE s.toast_no_key SET n = -n WHERE n < 4; DELETE FROM s.toast_no_key WHERE n = 4; UPDATE s.toast_no_key SET a = repeat('z', 8000) WHERE n = 5;
UPDATE s.toast_key SET n = -1 WHERE n = 1; UPDATE s.toast_key SET k = repeat('changed', 20000) WHERE n = 2; DELETE FROM s.toast_key WHERE n = 3; UPDATE s.toast_key SET k = 'short' WHERE n = 4;

UPDATE s.part SET v = NULL WHERE id % 10 = 0; UPDATE s.part SET kind = 'b' WHERE kind = 'a' AND id % 4 = 0; UPDATE s.part SET day = day + 365 WHERE kind = 'a' AND id % 4 = 1;
DELETE FROM s.part WHERE id % 11 = 0; UPDATE s.part SET kind = 'a', day = '2025-02-02', id = id + 1000 WHERE kind = 'c' AND id % 5 = 0;
INSERT INTO s.part SELECT i, 'a', date '2024-01-01' + i, 'new' FROM generate_series(2001, 2100) i;
INSERT INTO s.part_b VALUES ('direct', 'b', '2025-01-01', 3000); UPDATE s.part_b SET v = 'direct too' WHERE id = 3000;

UPDATE s.generated SET a = a + 1 WHERE id < 4; INSERT INTO s.generated (id, a, b) VALUES (99, NULL, 'x'); DELETE FROM s.generated WHERE id = 5;
UPDATE s.swapped SET id = 3 - id WHERE id < 3; UPDATE s.swapped SET id = id + 1 WHERE id > 5; DELETE FROM s.swapped WHERE id = 4;
UPDATE s.always SET v = 'changed' WHERE id = 1; DELETE FROM s.always WHERE id = 2; INSERT INTO s.always (v) VALUES ('next'); INSERT INTO s.always OVERRIDING SYSTEM VALUE VALUES (500, 'own'); UPDATE s.always SET id = DEFAULT WHERE id = 3;
UPDATE s.sometimes SET v = 'changed', id = 1 WHERE id = 100; UPDATE s.sometimes SET w = DEFAULT WHERE id = 107; INSERT INTO s.sometimes (v) SELECT 'n' FROM generate_series(1, 100);
UPDATE s.dropped SET e = 'e', f = 1 WHERE id = 1; INSERT INTO s.dropped VALUES (11, 'b', 1, 'e', 2); DELETE FROM s.dropped WHERE id = 2; UPDATE s.dropped SET id = 12 WHERE id = 3;
INSERT INTO s.no_columns DEFAULT VALUES; INSERT INTO s.no_columns SELECT FROM generate_series(1, 3);
UPDATE s.only_key SET a = 10 WHERE a = 1; DELETE FROM s.only_key WHERE a = 2; UPDATE s.only_key SET a = a WHERE a = 3;
UPDATE s.parent SET v = 'up' WHERE id = 1; DELETE FROM ONLY s.parent WHERE id = 2; UPDATE s.child SET id = 77 WHERE id = 3; DELETE FROM ONLY s.parent WHERE id = 4; INSERT INTO s."grand child" VALUES (9, 'g', 9);
UPDATE "select"."table" SET "where" = 'x', "a""b" = NULL WHERE "from" = 1; DELETE FROM "select"."table" WHERE "from" = 2; UPDATE "select"."table" SET "from" = 33 WHERE "from" = 3;
UPDATE "Ünï côde.dot"."quo""te.'x'" SET "naïve 名前" = '名' WHERE "Größe" = 1; DELETE FROM "Ünï côde.dot"."quo""te.'x'" WHERE "Größe" = 2; UPDATE "Ünï côde.dot"."quo""te.'x'" SET "Größe" = 33 WHERE "Größe" = 3;
UPDATE "select".abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyzabcdefghijk SET xmin_ = 0 WHERE ctid_ = 1;
UPDATE "select"."typed" SET e = 'c"d', es = NULL WHERE id = 1; UPDATE "select"."typed" SET id = 6 WHERE id = 2; DELETE FROM "select"."typed" WHERE id = 3;
UPDATE s.u SET t = 9, c0 = 8, k = 7 WHERE u = 1; UPDATE s.u SET u = 10, t = 1 WHERE u = 2; DELETE FROM s.u WHERE u = 3;
UPDATE s.found SET s = 'x' WHERE found = 1; UPDATE s.found SET found = 10 WHERE found = 2; DELETE FROM s.found WHERE found = 3; UPDATE s.found SET v0 = DEFAULT WHERE found = 4;
UPDATE s.widest SET c800 = 5 WHERE id = 1; UPDATE s.widest SET id = 5 WHERE id = 2; DELETE FROM s.widest WHERE id = 3; INSERT INTO s.widest (id, c1599) VALUES (9, 9);
UPDATE s.widest_array SET a = '{7}' WHERE id = 1; UPDATE s.widest_array SET id = 5 WHERE id = 2; DELETE FROM s.widest_array WHERE id = 3; INSERT INTO s.widest_array (id, a) VALUES (9, '{9}');
-- then
TRUNCATE s.t1, s.t2, s.t3 RESTART IDENTITY; INSERT INTO s.t1 (v) VALUES ('after');
INSERT INTO s.t2 (t1, v) VALUES (1, 'x'); INSERT INTO s.t3 (t2) VALUES (1);
INSERT INTO s.no_columns SELECT FROM generate_series(1, 100);
TRUNCATE s.empty;
INSERT INTO s.empty VALUES (1, 'not any more');
-- then
INSERT INTO s.t1 (v) VALUES ('gone'); TRUNCATE s.t1 CASCADE; INSERT INTO s.t1 VALUES (7, 'stays');
DELETE FROM s.no_columns WHERE ctid IN (SELECT ctid FROM s.no_columns LIMIT 40);
TRUNCATE s.part; INSERT INTO s.part VALUES (1, 'a', '2025-05-05', 'one');
TRUNCATE ONLY s.parent; TRUNCATE s.child;
