-- The third column is the seed when the body is the one that the seed makes, and -1 when it is another.
SELECT d.id, d.version,
       CASE WHEN d.body = (SELECT string_agg(md5(w.seed || ':' || part), '' ORDER BY part) FROM generate_series(1, 100) part)
            THEN w.seed ELSE -1 END
  FROM unnest($1::bigint[], $2::bigint[]) AS w(id, seed)
  JOIN public.documents d USING (id)
