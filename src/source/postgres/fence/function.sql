-- {name}: function of this migration's fence. {condition}: when it refuses. {message}, {hint}: what the application reads.
--
-- The deadline is a literal in the body and no row of a table: a REPEATABLE READ transaction that began before the
-- fence would not see the row, but catalogues are always read as they are now, so it does see the trigger and this body.
-- Everything is schema-qualified instead of SET search_path, which would cost every row of a writer that is let pass.
CREATE OR REPLACE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $cutwater$
BEGIN
    IF {condition} THEN
        RAISE EXCEPTION USING ERRCODE = '25006', MESSAGE = {message}, HINT = {hint};
    END IF;
    IF TG_LEVEL OPERATOR(pg_catalog.=) 'STATEMENT' THEN
        RETURN NULL;
    ELSIF TG_OP OPERATOR(pg_catalog.=) 'DELETE' THEN
        RETURN OLD;
    END IF;
    RETURN NEW;
END
$cutwater$
