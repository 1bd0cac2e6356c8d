-- {accounts}, {orders} and {events} are numbers of rows.
INSERT INTO accounts (id, owner, balance)
WITH RECURSIVE series AS (SELECT 1 AS g UNION ALL SELECT g + 1 FROM series WHERE g < {accounts})
SELECT g, CONCAT('owner ', g), 1000 FROM series;

INSERT INTO orders (id, account_id, status, total, tags, attributes)
WITH RECURSIVE series AS (SELECT 1 AS g UNION ALL SELECT g + 1 FROM series WHERE g < {orders})
SELECT g, 1 + g % {accounts}, ELT(1 + g % 4, 'new', 'paid', 'shipped', 'returned'), (g % 100000) / 100.0,
       JSON_ARRAY(CONCAT('tag ', g % 7), NULL, 'ü"\\{}'), JSON_OBJECT('n', g, 'gift', g % 5)
  FROM series;

INSERT INTO order_items (order_id, line, sku, quantity, price)
SELECT id, line, CONCAT('SKU-', (id * 7 + line) % 10000), 1 + id % 9, (id % 5000) / 100.0
  FROM orders JOIN (SELECT 1 AS line UNION ALL SELECT 2) AS line ON line = 1 OR id % 3 = 0;

INSERT INTO events (happened_on, kind, payload, weight)
WITH RECURSIVE series AS (SELECT 1 AS g UNION ALL SELECT g + 1 FROM series WHERE g < {events})
SELECT DATE_ADD('2025-01-01', INTERVAL g % 800 DAY), CONCAT('kind ', g % 11),
       CASE WHEN g % 3 > 0 THEN JSON_OBJECT('g', g) END, g / 7.0E0
  FROM series;
