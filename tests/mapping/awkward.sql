CREATE TABLE `Orders` (
  `Id` bigint unsigned NOT NULL AUTO_INCREMENT COMMENT 'the "id"',
  code varchar(20) CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci NOT NULL,
  flag tinyint(1) NOT NULL DEFAULT 1,
  mask bit(7) DEFAULT b'101',
  price decimal(10,2) DEFAULT 1.50,
  state enum('new','it''s','c\\d') NOT NULL DEFAULT 'it''s',
  tags set('a','b','c d') DEFAULT 'a,b',
  day date DEFAULT '2020-02-29',
  zero date DEFAULT '0000-00-00',
  moment timestamp NULL DEFAULT '2020-01-01 12:00:00',
  made datetime(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
  changed datetime NULL DEFAULT NULL ON UPDATE CURRENT_TIMESTAMP,
  note varchar(100) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin DEFAULT 'x''y\\z',
  raw binary(3) DEFAULT 'ab',
  twice int GENERATED ALWAYS AS (flag * 2) VIRTUAL,
  kept int GENERATED ALWAYS AS (flag + 1) STORED,
  hidden int DEFAULT 3 INVISIBLE,
  nothing int DEFAULT NULL,
  body text,
  PRIMARY KEY (`Id`),
  UNIQUE KEY code (code),
  KEY both_ways (price DESC, state),
  KEY begins (note(5)),
  FULLTEXT KEY words (body),
  CONSTRAINT dear CHECK (price > 0),
  CONSTRAINT strange CHECK (char_length(code) < 20)
) ENGINE=InnoDB AUTO_INCREMENT=1000 COMMENT='Bob''s orders';
CREATE TABLE items (
  order_id bigint unsigned NOT NULL,
  line smallint NOT NULL,
  what varchar(10),
  PRIMARY KEY (order_id, line),
  CONSTRAINT of_order FOREIGN KEY (order_id) REFERENCES `Orders` (`Id`) ON DELETE CASCADE
);
CREATE TABLE parts (id int NOT NULL, PRIMARY KEY (id)) PARTITION BY HASH (id) PARTITIONS 3;
CREATE TABLE by_isam (a int NOT NULL, UNIQUE KEY a (a)) ENGINE=MyISAM;
CREATE TABLE no_key (a int, b varchar(20) NOT NULL, UNIQUE KEY a (a), UNIQUE KEY b (b(5)));
CREATE TABLE by_unique (a int, b int NOT NULL, UNIQUE KEY a (a), UNIQUE KEY b (b));
CREATE VIEW seen AS SELECT 1 AS one;
CREATE TRIGGER fires BEFORE INSERT ON parts FOR EACH ROW SET NEW.id = NEW.id;
CREATE PROCEDURE does() SELECT 1;
CREATE EVENT happens ON SCHEDULE EVERY 1 DAY DO SELECT 1;
