-- Increment and bounds of the sequences $1 (quoted names), in the order asked.
SELECT s.seqincrement, s.seqmin, s.seqmax
  FROM unnest($1::text[]) WITH ORDINALITY AS w(name, n) JOIN pg_sequence s ON s.seqrelid = w.name::regclass
 ORDER BY w.n
