-- The shop of MySQL and MariaDB: foreign keys with a cascade, auto_increment, an enum, json, decimals, texts of some kB, a
-- partitioned table, and a table without a key.

-- The bank: money only moves between accounts, so the sum never changes.
CREATE TABLE accounts (
    id         bigint PRIMARY KEY,
    owner      varchar(100) NOT NULL,
    balance    bigint NOT NULL,
    version    bigint NOT NULL DEFAULT 0,
    updated_at timestamp(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6)
) DEFAULT CHARSET = utf8mb4;

CREATE TABLE orders (
    id         bigint NOT NULL AUTO_INCREMENT PRIMARY KEY,
    account_id bigint NOT NULL,
    status     enum('new', 'paid', 'shipped', 'returned') NOT NULL DEFAULT 'new',
    total      decimal(12, 2) NOT NULL,
    tags       json NOT NULL,
    attributes json NOT NULL,
    version    bigint NOT NULL DEFAULT 0,
    placed_at  timestamp(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6),
    KEY orders_account_id (account_id),
    CONSTRAINT orders_account_id_fkey FOREIGN KEY (account_id) REFERENCES accounts (id)
) DEFAULT CHARSET = utf8mb4;

CREATE TABLE order_items (
    order_id bigint NOT NULL,
    line     int NOT NULL,
    sku      varchar(40) NOT NULL,
    quantity int NOT NULL CHECK (quantity > 0),
    price    decimal(10, 2) NOT NULL,
    PRIMARY KEY (order_id, line),
    CONSTRAINT order_items_order_id_fkey FOREIGN KEY (order_id) REFERENCES orders (id)
) DEFAULT CHARSET = utf8mb4;

CREATE TABLE documents (
    id        bigint PRIMARY KEY,
    reference char(36) NOT NULL DEFAULT (uuid()),
    title     varchar(100) NOT NULL,
    body      longtext NOT NULL,
    version   bigint NOT NULL DEFAULT 0,
    UNIQUE KEY documents_reference (reference)
) DEFAULT CHARSET = utf8mb4;

CREATE TABLE events (
    id          bigint NOT NULL AUTO_INCREMENT,
    happened_on date NOT NULL,
    kind        varchar(40) NOT NULL,
    payload     json,
    weight      double,
    PRIMARY KEY (id, happened_on)
) DEFAULT CHARSET = utf8mb4
PARTITION BY RANGE COLUMNS (happened_on) (
    PARTITION events_2025 VALUES LESS THAN ('2026-01-01'),
    PARTITION events_2026 VALUES LESS THAN ('2027-01-01'),
    PARTITION events_other VALUES LESS THAN (MAXVALUE)
);

-- One row a write. It has no key on purpose: a write that was applied twice is here twice.
CREATE TABLE journal (
    writer   int NOT NULL,
    sequence bigint NOT NULL,
    at       timestamp(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6),
    KEY journal_sequence (writer, sequence)
);
