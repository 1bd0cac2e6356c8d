-- What Cutwater remembers, in the target. Layout version 2, see crate::target::state::FORMAT. Run on every start of a run,
-- also over the layout of the last format: additions are new tables, and new columns, which are listed at the end once more.
-- What status reads must be readable without them.
CREATE SCHEMA IF NOT EXISTS cutwater;

CREATE TABLE IF NOT EXISTS cutwater.migration (
    name          text PRIMARY KEY,
    format        int NOT NULL,
    fingerprint   text NOT NULL,
    source        jsonb NOT NULL,
    source_label  text NOT NULL,
    target_label  text NOT NULL,
    phase         text NOT NULL DEFAULT 'new',
    phase_since   timestamptz NOT NULL DEFAULT clock_timestamp(),
    slot_position text,
    -- The source's head when the last copy ended: until the stream has passed it, a change may name a row that a
    -- TRUNCATE hid from the copy in mid-copy.
    copied_until  text,
    epoch         bigint NOT NULL DEFAULT 0,
    lease_holder  text,
    lease_until   timestamptz,
    created_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    verify        jsonb
);

-- The row every batch moves on first. One row a worker: 0 is the stream's, which commits last, so what its row says holds for
-- all; with [apply] workers 1, 2 and so on have the tables that table_state gives them, see crate::target::parallel; -1 is that of
-- tables which are copied beside the stream.
CREATE TABLE IF NOT EXISTS cutwater.checkpoint (
    migration    text NOT NULL REFERENCES cutwater.migration ON DELETE CASCADE,
    worker       int NOT NULL DEFAULT 0,
    epoch        bigint NOT NULL,
    position     text NOT NULL,
    commit_time  timestamptz,
    updated_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    changes      bigint NOT NULL DEFAULT 0,
    transactions bigint NOT NULL DEFAULT 0,
    divergences  bigint NOT NULL DEFAULT 0,
    -- The generation under which the keys of changed rows are kept, see cutwater.tracking; NULL: they are not. It stands
    -- in this row because every batch locks this row first: who sets it waits for the batch under way, and the next sees it.
    tracking     bigint,
    -- The newest generation there ever was.
    generations  bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (migration, worker)
) WITH (fillfactor = 50);

-- One row a verify. What changed since generation g is what stands under g and every later generation: as long as the
-- row of g is here, is not overflown, and the checkpoint says that tracking is on, nothing is missing from that.
CREATE TABLE IF NOT EXISTS cutwater.tracking (
    migration  text NOT NULL REFERENCES cutwater.migration ON DELETE CASCADE,
    generation bigint NOT NULL,
    begun_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- More keys than this are not kept.
    key_limit  bigint NOT NULL DEFAULT 1000000,
    overflow   boolean NOT NULL DEFAULT false,
    PRIMARY KEY (migration, generation)
);

-- Keys of rows that changed, in text, columns in the table's order; tbl is the target's table, quoted. The hash stands in
-- for the key, which may be too long for an index. Written without foreign key checks.
CREATE TABLE IF NOT EXISTS cutwater.changed_key (
    migration  text NOT NULL REFERENCES cutwater.migration ON DELETE CASCADE,
    generation bigint NOT NULL,
    tbl        text COLLATE "C" NOT NULL,
    hash       bigint NOT NULL,
    key        text[] NOT NULL,
    PRIMARY KEY (migration, generation, tbl, hash)
);

-- Tables of which any row may have changed.
CREATE TABLE IF NOT EXISTS cutwater.changed_table (
    migration  text NOT NULL REFERENCES cutwater.migration ON DELETE CASCADE,
    generation bigint NOT NULL,
    tbl        text COLLATE "C" NOT NULL,
    why        text NOT NULL,
    PRIMARY KEY (migration, generation, tbl)
);

-- One row a table. Copies lock their own row instead of the checkpoint, so that they can run side by side.
CREATE TABLE IF NOT EXISTS cutwater.table_state (
    migration      text NOT NULL REFERENCES cutwater.migration ON DELETE CASCADE,
    source_schema  text NOT NULL,
    source_table   text NOT NULL,
    target_schema  text NOT NULL,
    target_table   text NOT NULL,
    epoch          bigint NOT NULL,
    stage          text NOT NULL DEFAULT 'waiting',
    copied_at      text,
    rows_estimate  bigint NOT NULL DEFAULT 0,
    bytes_estimate bigint NOT NULL DEFAULT 0,
    rows_final     bigint,
    started_at     timestamptz,
    finished_at    timestamptz,
    -- What the rules make of it, as JSON; empty: nothing. A config that says something else asks for another copy.
    rule           text,
    -- The shape it was brought to, see crate::schema::Shape: what the stream's description is compared with.
    shape          jsonb,
    -- Why it could not be copied, or not be finished.
    error          text,
    -- It is copied beside the running stream, which does not know it yet.
    side           boolean NOT NULL DEFAULT false,
    -- Its foreign keys and triggers are still to be made.
    unfinished     boolean NOT NULL DEFAULT false,
    -- By what of the publication it was published when its copy began, see crate::pipeline::membership.
    membership     text,
    -- The worker that applies its changes.
    worker         int NOT NULL DEFAULT 0,
    PRIMARY KEY (migration, source_schema, source_table)
);

-- The ranges of tables that are copied in ranges of their key, each with the position it was read at, recorded in the
-- range's own transaction. What changes mean while the positions differ: crate::change::ChunkMap.
CREATE TABLE IF NOT EXISTS cutwater.table_chunk (
    migration     text NOT NULL,
    source_schema text NOT NULL,
    source_table  text NOT NULL,
    number        int NOT NULL,
    key_column    text NOT NULL,
    lower         bigint,
    upper         bigint,
    copied_at     text,
    rows          bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (migration, source_schema, source_table, number),
    FOREIGN KEY (migration, source_schema, source_table) REFERENCES cutwater.table_state ON DELETE CASCADE
);

-- What `cutwater tables` wants of a table, until a run takes note of it. The last word counts.
CREATE TABLE IF NOT EXISTS cutwater.table_request (
    migration     text NOT NULL REFERENCES cutwater.migration ON DELETE CASCADE,
    source_schema text NOT NULL,
    source_table  text NOT NULL,
    action        text NOT NULL,
    at            timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (migration, source_schema, source_table)
);

-- Partitions of the source that were empty when they came, see crate::pipeline::leaves: their rows are in the stream.
CREATE TABLE IF NOT EXISTS cutwater.empty_leaf (
    migration text NOT NULL REFERENCES cutwater.migration ON DELETE CASCADE,
    relation  oid NOT NULL,
    file      oid NOT NULL,
    attached  text NOT NULL,
    PRIMARY KEY (migration, relation, file, attached)
);

-- Progress of the copy, apart from table_state so that reporting it never waits for a copy's row lock.
CREATE TABLE IF NOT EXISTS cutwater.table_progress (
    migration     text NOT NULL REFERENCES cutwater.migration ON DELETE CASCADE,
    source_schema text NOT NULL,
    source_table  text NOT NULL,
    rows_copied   bigint NOT NULL,
    bytes_copied  bigint NOT NULL,
    waits_for     text,
    PRIMARY KEY (migration, source_schema, source_table)
) WITH (fillfactor = 50);

-- What the running process says about itself.
CREATE TABLE IF NOT EXISTS cutwater.run (
    migration    text PRIMARY KEY REFERENCES cutwater.migration ON DELETE CASCADE,
    heartbeat_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    report       jsonb NOT NULL
) WITH (fillfactor = 50);

-- Foreign keys and triggers that wait for the cutover, where the role cannot switch them off for its sessions. Of a
-- foreign key statement is only its ADD CONSTRAINT; validated: the source's is; proved_at: no row without a parent then.
CREATE TABLE IF NOT EXISTS cutwater.late (
    migration     text NOT NULL REFERENCES cutwater.migration ON DELETE CASCADE,
    place         int NOT NULL,
    kind          text NOT NULL,
    tbl_schema    text NOT NULL,
    tbl           text NOT NULL,
    refers_schema text,
    refers        text,
    name          text NOT NULL,
    statement     text NOT NULL,
    validated     boolean NOT NULL,
    proved_at     timestamptz
);
CREATE UNIQUE INDEX IF NOT EXISTS late_once ON cutwater.late (migration, kind, tbl_schema, tbl, name, md5(statement));

-- Materialized views that hold rows at the source. place: its turn among those that could be filled, which is an order in
-- which each finds what it reads; live: its rows were made anew since the target is; error: its last refresh failed.
CREATE TABLE IF NOT EXISTS cutwater.materialized_view (
    migration text NOT NULL REFERENCES cutwater.migration ON DELETE CASCADE,
    nsp       text NOT NULL,
    name      text NOT NULL,
    place     int,
    live      boolean NOT NULL DEFAULT false,
    error     text,
    PRIMARY KEY (migration, nsp, name)
);

CREATE TABLE IF NOT EXISTS cutwater.cutover (
    migration  text NOT NULL REFERENCES cutwater.migration ON DELETE CASCADE,
    nonce      text NOT NULL,
    step       text NOT NULL,
    started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    step_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    deadline   timestamptz,
    drained_at text,
    broken     text,
    note       text,
    PRIMARY KEY (migration, nonce)
);

CREATE TABLE IF NOT EXISTS cutwater.dead_letter (
    id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    migration text NOT NULL REFERENCES cutwater.migration ON DELETE CASCADE,
    at        timestamptz NOT NULL DEFAULT clock_timestamp(),
    position  text NOT NULL,
    tbl       text NOT NULL,
    op        text NOT NULL,
    key       text,
    old_row   bytea,
    new_row   bytea,
    error     text NOT NULL
);

-- Append-only and not tied to the migration's row: it outlives it until the schema is dropped.
CREATE TABLE IF NOT EXISTS cutwater.event (
    id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    migration text NOT NULL,
    at        timestamptz NOT NULL DEFAULT clock_timestamp(),
    os_user   text NOT NULL,
    host      text NOT NULL,
    version   text NOT NULL,
    command   text NOT NULL,
    outcome   text NOT NULL
);

-- What people ask of the run, alive or next: see crate::pipeline::steering. Whoever changes it raises the version; the run
-- that has taken a version up writes it into acknowledged.
CREATE TABLE IF NOT EXISTS cutwater.control (
    migration          text PRIMARY KEY REFERENCES cutwater.migration ON DELETE CASCADE,
    version            bigint NOT NULL DEFAULT 0,
    snapshot_paused_at timestamptz,
    apply_paused_at    timestamptz,
    paused_by          text,
    -- Key of the config file -> value as it is written there.
    settings           jsonb NOT NULL DEFAULT '{}',
    acknowledged       bigint NOT NULL DEFAULT 0,
    acknowledged_by    text
);

-- Columns that a table of before may not have. Asked first, because even IF NOT EXISTS takes the table's lock.
DO $$
DECLARE
    missing record;
BEGIN
    FOR missing IN
        SELECT * FROM (VALUES
            ('checkpoint', 'tracking', 'bigint'),
            ('checkpoint', 'generations', 'bigint NOT NULL DEFAULT 0'),
            ('table_state', 'rule', 'text'),
            ('table_state', 'shape', 'jsonb'),
            ('table_state', 'error', 'text'),
            ('table_state', 'side', 'boolean NOT NULL DEFAULT false'),
            ('table_state', 'unfinished', 'boolean NOT NULL DEFAULT false'),
            ('table_state', 'membership', 'text'),
            ('table_state', 'worker', 'int NOT NULL DEFAULT 0')
        ) AS wanted (tbl, col, definition)
        WHERE NOT EXISTS (SELECT FROM pg_attribute
                           WHERE attrelid = ('cutwater.' || tbl)::regclass AND attname = col AND NOT attisdropped)
    LOOP
        EXECUTE format('ALTER TABLE cutwater.%I ADD COLUMN %I %s', missing.tbl, missing.col, missing.definition);
    END LOOP;
END $$;
