#![allow(clippy::unwrap_used, reason = "a test may panic")]

use super::*;

#[test]
fn a_rule_is_for_a_column_or_a_type() {
    assert!(matches!(Matches::parse("shop.*.flags"), Ok(Matches::Column(..))));
    assert!(matches!(Matches::parse("enum('a.b','c')"), Ok(Matches::Type(_, true))));
    assert!(matches!(Matches::parse("bigint unsigned"), Ok(Matches::Type(_, false))));
    for bad in ["users.flags", "flags", "a.b.c.d", "shop.users."] {
        assert!(Matches::parse(bad).is_err(), "{bad}");
    }
}
