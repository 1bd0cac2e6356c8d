-- Whether another migration uses cutwater.fence: it has a row there, or publishes it.
SELECT EXISTS (SELECT FROM cutwater.fence)
    OR EXISTS (
        SELECT FROM pg_catalog.pg_publication_rel
        WHERE prrelid = 'cutwater.fence'::pg_catalog.regclass
    )
