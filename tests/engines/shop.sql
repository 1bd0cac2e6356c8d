CREATE TABLE `Customers` (
    `Id` int NOT NULL AUTO_INCREMENT PRIMARY KEY,
    `Email` varchar(80) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL COMMENT 'it''s where "mail" goes',
    `balance` bigint NOT NULL DEFAULT 0,
    `since` datetime(3) NULL,
    UNIQUE KEY `email` (`Email`)
) COMMENT = 'who buys';
CREATE TABLE orders (
    id bigint unsigned NOT NULL AUTO_INCREMENT PRIMARY KEY,
    customer int NOT NULL,
    total decimal(12,2) NOT NULL DEFAULT 0.00,
    state enum('new', 'paid', 'it''s lost') CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL DEFAULT 'new',
    amount bigint NOT NULL,
    note text,
    blobs varbinary(40),
    placed timestamp(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6),
    document json,
    KEY by_customer (customer, placed),
    KEY by_note (note(10)),
    CONSTRAINT positive CHECK (amount > -1000000),
    CONSTRAINT of_customer FOREIGN KEY (customer) REFERENCES `Customers` (`Id`)
);
CREATE TABLE visits (page varchar(40) NOT NULL, seen int NOT NULL DEFAULT 1, ip varchar(40));
CREATE VIEW rich AS SELECT * FROM `Customers` WHERE balance > 100;
