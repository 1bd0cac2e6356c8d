-- {accounts}, {orders} and {events} are numbers of rows.
INSERT INTO public.accounts (id, owner, balance)
SELECT g, 'owner ' || g, 1000 FROM generate_series(1, {accounts}) g;

INSERT INTO public.orders (id, account_id, status, total, tags, attributes)
SELECT g, 1 + g % {accounts}, (enum_range(NULL::public.order_status))[1 + g % 4], (g % 100000) / 100.0,
       ARRAY['tag ' || g % 7, NULL, 'ü"\{}'], jsonb_build_object('n', g, 'gift', g % 5 = 0)
  FROM generate_series(1, {orders}) g;
SELECT setval(pg_get_serial_sequence('public.orders', 'id'), {orders});

INSERT INTO public.order_items (order_id, line, sku, quantity, price)
SELECT g, line, 'SKU-' || (g * 7 + line) % 10000, 1 + g % 9, (g % 5000) / 100.0
  FROM generate_series(1, {orders}) g, generate_series(1, 1 + (g % 3 = 0)::int) line;

INSERT INTO public.events (happened_on, kind, payload, weight)
SELECT date '2025-01-01' + (g % 800)::int, 'kind ' || g % 11, CASE WHEN g % 3 > 0 THEN jsonb_build_object('g', g) END,
       CASE WHEN g % 1000 = 0 THEN 'NaN' ELSE g / 7.0 END
  FROM generate_series(1, {events}) g;
