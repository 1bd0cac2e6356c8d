CREATE DATABASE IF NOT EXISTS cutwater CHARACTER SET utf8mb4;
CREATE TABLE IF NOT EXISTS cutwater.fence (
    migration varchar(64) CHARACTER SET ascii NOT NULL PRIMARY KEY,
    nonce     varchar(64) CHARACTER SET ascii NOT NULL,
    epoch     bigint NOT NULL,
    state     varchar(16) CHARACTER SET ascii NOT NULL,
    way       varchar(16) CHARACTER SET ascii NOT NULL,
    deadline  bigint NOT NULL,
    accounts  longtext NOT NULL
) ENGINE = InnoDB;
