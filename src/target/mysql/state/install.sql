-- What Cutwater remembers, in a MySQL or MariaDB target: the tables of target/postgres/state/install.sql, where what they are
-- for is said. Run on every start of a run; what is there stays. Each statement commits by itself, so a first run that is
-- killed is finished by the next.
--
-- NAMES is the collation in which every two different texts are different, see crate::target::mysql::state. Texts that are
-- in no key may be of any length: positions are sets of GTIDs. Times are in UTC, as the session's time zone is.
CREATE DATABASE IF NOT EXISTS cutwater CHARACTER SET utf8mb4 COLLATE NAMES;

CREATE TABLE IF NOT EXISTS cutwater.migration (
    name          varchar(64) NOT NULL PRIMARY KEY,
    format        int NOT NULL,
    fingerprint   longtext NOT NULL,
    source        longtext NOT NULL,
    source_label  longtext NOT NULL,
    target_label  longtext NOT NULL,
    phase         varchar(32) NOT NULL DEFAULT 'new',
    phase_since   datetime(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6),
    slot_position longtext,
    copied_until  longtext,
    epoch         bigint NOT NULL DEFAULT 0,
    lease_holder  longtext,
    lease_until   datetime(6),
    created_at    datetime(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6),
    verify        longtext
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE NAMES;

CREATE TABLE IF NOT EXISTS cutwater.checkpoint (
    migration    varchar(64) NOT NULL,
    worker       int NOT NULL DEFAULT 0,
    epoch        bigint NOT NULL,
    position     longtext NOT NULL,
    commit_time  datetime(6),
    updated_at   datetime(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6),
    changes      bigint NOT NULL DEFAULT 0,
    transactions bigint NOT NULL DEFAULT 0,
    divergences  bigint NOT NULL DEFAULT 0,
    tracking     bigint,
    generations  bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (migration, worker),
    FOREIGN KEY (migration) REFERENCES cutwater.migration (name) ON DELETE CASCADE
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE NAMES;

CREATE TABLE IF NOT EXISTS cutwater.tracking (
    migration  varchar(64) NOT NULL,
    generation bigint NOT NULL,
    begun_at   datetime(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6),
    key_limit  bigint NOT NULL DEFAULT 1000000,
    overflow   boolean NOT NULL DEFAULT false,
    PRIMARY KEY (migration, generation),
    FOREIGN KEY (migration) REFERENCES cutwater.migration (name) ON DELETE CASCADE
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE NAMES;

-- `key` is a JSON array of texts. tbl is as it is in Postgres: both names between double quotes.
CREATE TABLE IF NOT EXISTS cutwater.changed_key (
    migration  varchar(64) NOT NULL,
    generation bigint NOT NULL,
    tbl        varchar(300) NOT NULL,
    hash       bigint NOT NULL,
    `key`      longtext NOT NULL,
    PRIMARY KEY (migration, generation, tbl, hash),
    FOREIGN KEY (migration) REFERENCES cutwater.migration (name) ON DELETE CASCADE
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE NAMES;

CREATE TABLE IF NOT EXISTS cutwater.changed_table (
    migration  varchar(64) NOT NULL,
    generation bigint NOT NULL,
    tbl        varchar(300) NOT NULL,
    why        longtext NOT NULL,
    PRIMARY KEY (migration, generation, tbl),
    FOREIGN KEY (migration) REFERENCES cutwater.migration (name) ON DELETE CASCADE
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE NAMES;

CREATE TABLE IF NOT EXISTS cutwater.table_state (
    migration      varchar(64) NOT NULL,
    source_schema  varchar(128) NOT NULL,
    source_table   varchar(128) NOT NULL,
    target_schema  varchar(128) NOT NULL,
    target_table   varchar(128) NOT NULL,
    epoch          bigint NOT NULL,
    stage          varchar(32) NOT NULL DEFAULT 'waiting',
    copied_at      longtext,
    rows_estimate  bigint NOT NULL DEFAULT 0,
    bytes_estimate bigint NOT NULL DEFAULT 0,
    rows_final     bigint,
    started_at     datetime(6),
    finished_at    datetime(6),
    rule           longtext,
    shape          longtext,
    error          longtext,
    side           boolean NOT NULL DEFAULT false,
    unfinished     boolean NOT NULL DEFAULT false,
    membership     longtext,
    worker         int NOT NULL DEFAULT 0,
    PRIMARY KEY (migration, source_schema, source_table),
    FOREIGN KEY (migration) REFERENCES cutwater.migration (name) ON DELETE CASCADE
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE NAMES;

CREATE TABLE IF NOT EXISTS cutwater.table_chunk (
    migration     varchar(64) NOT NULL,
    source_schema varchar(128) NOT NULL,
    source_table  varchar(128) NOT NULL,
    number        int NOT NULL,
    key_column    varchar(128) NOT NULL,
    lower         bigint,
    upper         bigint,
    copied_at     longtext,
    `rows`        bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (migration, source_schema, source_table, number),
    FOREIGN KEY (migration, source_schema, source_table)
        REFERENCES cutwater.table_state (migration, source_schema, source_table) ON DELETE CASCADE
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE NAMES;

CREATE TABLE IF NOT EXISTS cutwater.table_request (
    migration     varchar(64) NOT NULL,
    source_schema varchar(128) NOT NULL,
    source_table  varchar(128) NOT NULL,
    action        varchar(32) NOT NULL,
    at            datetime(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6),
    PRIMARY KEY (migration, source_schema, source_table),
    FOREIGN KEY (migration) REFERENCES cutwater.migration (name) ON DELETE CASCADE
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE NAMES;

CREATE TABLE IF NOT EXISTS cutwater.empty_leaf (
    migration varchar(64) NOT NULL,
    relation  bigint NOT NULL,
    file      bigint NOT NULL,
    attached  varchar(64) NOT NULL,
    PRIMARY KEY (migration, relation, file, attached),
    FOREIGN KEY (migration) REFERENCES cutwater.migration (name) ON DELETE CASCADE
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE NAMES;

CREATE TABLE IF NOT EXISTS cutwater.table_progress (
    migration     varchar(64) NOT NULL,
    source_schema varchar(128) NOT NULL,
    source_table  varchar(128) NOT NULL,
    rows_copied   bigint NOT NULL,
    bytes_copied  bigint NOT NULL,
    waits_for     longtext,
    PRIMARY KEY (migration, source_schema, source_table),
    FOREIGN KEY (migration) REFERENCES cutwater.migration (name) ON DELETE CASCADE
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE NAMES;

CREATE TABLE IF NOT EXISTS cutwater.run (
    migration    varchar(64) NOT NULL PRIMARY KEY,
    heartbeat_at datetime(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6),
    report       longtext NOT NULL,
    FOREIGN KEY (migration) REFERENCES cutwater.migration (name) ON DELETE CASCADE
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE NAMES;

CREATE TABLE IF NOT EXISTS cutwater.cutover (
    migration  varchar(64) NOT NULL,
    nonce      varchar(64) NOT NULL,
    step       varchar(32) NOT NULL,
    started_at datetime(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6),
    step_at    datetime(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6),
    deadline   datetime(6),
    drained_at longtext,
    broken     longtext,
    note       longtext,
    PRIMARY KEY (migration, nonce),
    FOREIGN KEY (migration) REFERENCES cutwater.migration (name) ON DELETE CASCADE
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE NAMES;

CREATE TABLE IF NOT EXISTS cutwater.dead_letter (
    id        bigint NOT NULL AUTO_INCREMENT PRIMARY KEY,
    migration varchar(64) NOT NULL,
    at        datetime(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6),
    position  longtext NOT NULL,
    tbl       longtext NOT NULL,
    op        varchar(32) NOT NULL,
    `key`     longtext,
    old_row   longblob,
    new_row   longblob,
    error     longtext NOT NULL,
    FOREIGN KEY (migration) REFERENCES cutwater.migration (name) ON DELETE CASCADE
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE NAMES;

-- Not tied to the migration's row: it outlives it until the database is dropped.
CREATE TABLE IF NOT EXISTS cutwater.event (
    id        bigint NOT NULL AUTO_INCREMENT PRIMARY KEY,
    migration varchar(64) NOT NULL,
    at        datetime(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6),
    os_user   longtext NOT NULL,
    host      longtext NOT NULL,
    version   longtext NOT NULL,
    command   longtext NOT NULL,
    outcome   longtext NOT NULL
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE NAMES;

CREATE TABLE IF NOT EXISTS cutwater.control (
    migration          varchar(64) NOT NULL PRIMARY KEY,
    version            bigint NOT NULL DEFAULT 0,
    snapshot_paused_at datetime(6),
    apply_paused_at    datetime(6),
    paused_by          longtext,
    settings           longtext NOT NULL,
    acknowledged       bigint NOT NULL DEFAULT 0,
    acknowledged_by    longtext,
    FOREIGN KEY (migration) REFERENCES cutwater.migration (name) ON DELETE CASCADE
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE NAMES;
