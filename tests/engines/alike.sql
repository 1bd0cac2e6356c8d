CREATE TABLE parents (`Id` int NOT NULL AUTO_INCREMENT, code varchar(20) NOT NULL, PRIMARY KEY (`Id`), UNIQUE KEY code (code));
CREATE TABLE children (
    id bigint NOT NULL,
    counted int NOT NULL AUTO_INCREMENT,
    parent int,
    `we``ird` varchar(40) DEFAULT 'KEY `id` (x), it''s \\' COMMENT 'CONSTRAINT `x` FOREIGN KEY (`id`), ),(',
    twice bigint GENERATED ALWAYS AS (id * 2) STORED,
    words text,
    price decimal(10,2) NOT NULL DEFAULT 1.50,
    secret int,
    PRIMARY KEY (id),
    KEY counting (counted, price),
    KEY by_parent (parent),
    KEY by_price (price, `we``ird`(5)),
    KEY by_twice (twice),
    FULLTEXT KEY by_words (words),
    CONSTRAINT positive CHECK (price > 0 AND `we``ird` <> '`id`'),
    CONSTRAINT of_parent FOREIGN KEY (parent) REFERENCES parents (`Id`) ON DELETE CASCADE
) COMMENT = 'COLLATE x, `id`';
CREATE TABLE parts (id int NOT NULL, day date NOT NULL, PRIMARY KEY (id, day)) PARTITION BY RANGE COLUMNS (day) (PARTITION id VALUES LESS THAN ('2026-01-01'), PARTITION later VALUES LESS THAN (MAXVALUE));
CREATE TRIGGER fires BEFORE INSERT ON parents FOR EACH ROW SET NEW.code = upper(NEW.code);
CREATE VIEW seen AS SELECT * FROM parents;
