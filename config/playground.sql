-- A few thousand rows for the playground of docker-compose.yml; the tables are those of `cutwater demo`.
INSERT INTO public.accounts (id, owner, balance) SELECT g, 'owner ' || g, 1000 FROM generate_series(1, 2000) g;

INSERT INTO public.orders (account_id, status, total, tags, attributes)
SELECT 1 + g % 2000, (enum_range(NULL::public.order_status))[1 + g % 4], (g % 100000) / 100.0, ARRAY['tag ' || g % 7],
       jsonb_build_object('n', g)
  FROM generate_series(1, 20000) g;

INSERT INTO public.order_items (order_id, line, sku, quantity, price)
SELECT id, 1, 'SKU-' || id % 1000, 1 + id % 9, (id % 5000) / 100.0 FROM public.orders;

INSERT INTO public.documents (id, title, body)
SELECT g, 'document ' || g, (SELECT string_agg(md5(g || ':' || part), '' ORDER BY part) FROM generate_series(1, 100) part)
  FROM generate_series(1, 500) g;

INSERT INTO public.events (happened_on, kind, payload)
SELECT date '2025-01-01' + (g % 800), 'kind ' || g % 11, jsonb_build_object('g', g) FROM generate_series(1, 20000) g;

ANALYZE;
