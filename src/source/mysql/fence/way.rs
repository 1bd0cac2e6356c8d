//! The ways to fence a server, and which of them our rights allow.

use crate::config::FenceWay;
use crate::error::Result;
use crate::mysql::{Session, TextRow};

/// How writes are stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// The whole server: `read_only`, in MySQL `super_read_only`.
    ReadOnly,
    /// The migrated tables, then the accounts that may write to them.
    Accounts,
    /// A command of the user's.
    Command,
}

impl Way {
    pub(super) fn word(self) -> &'static str {
        match self {
            Way::ReadOnly => "read-only",
            Way::Accounts => "accounts",
            Way::Command => "command",
        }
    }

    pub(super) fn parse(text: &str) -> Option<Way> {
        [Way::ReadOnly, Way::Accounts, Way::Command].into_iter().find(|way| way.word() == text)
    }
}

/// What our account may do at the server as a whole.
#[derive(Debug, Clone, Default)]
pub(super) struct Rights {
    mariadb: bool,
    /// MariaDB before 10.11, which took that out of SUPER.
    super_sets_read_only: bool,
    names: Vec<String>,
    /// The procedure by which managed services let sessions be ended.
    pub rds_kill: bool,
}

impl Rights {
    /// Asks the server.
    pub(super) async fn of(session: &mut Session) -> Result<Rights> {
        let mariadb = session.server().is_mariadb();
        let grants = session.rows("SHOW GRANTS").await?;
        let sql =
            "SELECT 1 FROM information_schema.routines WHERE routine_schema = 'mysql' AND routine_name = 'rds_kill'";
        let rds_kill = session.value(sql).await?.is_some();
        let super_sets_read_only = !mariadb || session.server().version < (10, 11, 0);
        Ok(Rights { mariadb, super_sets_read_only, names: global(&grants), rds_kill })
    }

    fn has(&self, any: &[&str]) -> bool {
        self.names.iter().any(|name| any.contains(&name.as_str()) || name == "ALL PRIVILEGES")
    }

    /// What is missing for a way, each as it is granted.
    pub(super) fn missing(&self, way: Way) -> Vec<&'static str> {
        let wanted: &[(&'static str, &[&str])] = match (way, self.mariadb) {
            (Way::ReadOnly, false) => &[
                ("SYSTEM_VARIABLES_ADMIN", &["SYSTEM_VARIABLES_ADMIN", "SUPER"]),
                ("RELOAD", &["RELOAD", "FLUSH_TABLES"]),
                ("PROCESS", &["PROCESS"]),
                ("CONNECTION_ADMIN", &["CONNECTION_ADMIN", "SUPER"]),
            ],
            (Way::ReadOnly, true) => &[
                ("READ_ONLY ADMIN", &["READ_ONLY ADMIN", "READ ONLY ADMIN"]),
                ("RELOAD", &["RELOAD"]),
                ("PROCESS", &["PROCESS"]),
                ("CONNECTION ADMIN", &["CONNECTION ADMIN", "SUPER"]),
                ("EVENT", &["EVENT"]),
            ],
            (Way::Accounts, false) => &[
                ("CREATE USER", &["CREATE USER"]),
                ("PROCESS", &["PROCESS"]),
                ("CONNECTION_ADMIN", &["CONNECTION_ADMIN", "SUPER"]),
                // Without it there is no seeing whose events go on.
                ("EVENT", &["EVENT"]),
            ],
            (Way::Accounts, true) => &[
                ("CREATE USER", &["CREATE USER"]),
                ("PROCESS", &["PROCESS"]),
                ("CONNECTION ADMIN", &["CONNECTION ADMIN", "SUPER"]),
                ("EVENT", &["EVENT"]),
            ],
            (Way::Command, _) => &[("PROCESS", &["PROCESS"])],
        };
        let otherwise = |name: &str| match name {
            "CONNECTION_ADMIN" | "CONNECTION ADMIN" => self.rds_kill,
            "READ_ONLY ADMIN" => self.super_sets_read_only && self.has(&["SUPER"]),
            _ => false,
        };
        wanted.iter().filter(|(name, any)| !self.has(any) && !otherwise(name)).map(|(name, _)| *name).collect()
    }

    /// Whether accounts of the system may be locked, and their sessions ended.
    pub(super) fn is_of_the_system(&self) -> bool {
        self.mariadb || self.has(&["SYSTEM_USER"])
    }

    /// Whether accounts may be locked.
    pub(super) fn may_lock_accounts(&self) -> bool {
        self.has(&["CREATE USER"])
    }
}

/// The way to take: the one that was asked for, or the best that is allowed. `Err`: what is missing for either.
pub(super) fn choose(asked: FenceWay, rights: &Rights, writes_through: bool) -> Result<Way, Vec<&'static str>> {
    let allowed = |way: Way| {
        let missing = rights.missing(way);
        if missing.is_empty() { Ok(way) } else { Err(missing) }
    };
    match asked {
        FenceWay::ReadOnly => allowed(Way::ReadOnly),
        FenceWay::Accounts => allowed(Way::Accounts),
        FenceWay::Command => Ok(Way::Command),
        // What passes `read_only` (MariaDB has no `super_read_only`) has to be locked out by its account.
        FenceWay::Auto if writes_through => allowed(Way::Accounts).or_else(|_| allowed(Way::ReadOnly)),
        FenceWay::Auto => allowed(Way::ReadOnly).or_else(|missing| allowed(Way::Accounts).map_err(|_| missing)),
    }
}

/// The privileges that these grants give on everything.
fn global(grants: &[TextRow]) -> Vec<String> {
    let texts = grants.iter().filter_map(|row| row.first().and_then(Option::as_deref));
    let global = texts.filter_map(|text| {
        let (list, rest) = text.strip_prefix("GRANT ")?.split_once(" ON ")?;
        rest.starts_with("*.* ").then_some(list)
    });
    global.flat_map(|list| list.split(',')).map(|name| name.trim().to_uppercase()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rights(mariadb: bool, grants: &[&str]) -> Rights {
        let rows: Vec<TextRow> = grants.iter().map(|grant| vec![Some((*grant).to_owned())]).collect();
        Rights { mariadb, super_sets_read_only: !mariadb, names: global(&rows), rds_kill: false }
    }

    #[test]
    fn the_best_way_is_taken_that_is_allowed() {
        let all =
            rights(true, &["GRANT ALL PRIVILEGES ON *.* TO `a`@`%` IDENTIFIED BY PASSWORD '*1' WITH GRANT OPTION"]);
        assert_eq!(choose(FenceWay::Auto, &all, false), Ok(Way::ReadOnly));
        assert_eq!(choose(FenceWay::Auto, &all, true), Ok(Way::Accounts));
        let master = rights(
            false,
            &[
                "GRANT SELECT, INSERT, RELOAD, PROCESS, CREATE USER, EVENT ON *.* TO `a`@`%`",
                "GRANT CONNECTION_ADMIN,XA_RECOVER_ADMIN ON *.* TO `a`@`%`",
                "GRANT SUPER ON `shop`.* TO `a`@`%`",
            ],
        );
        assert_eq!(choose(FenceWay::Auto, &master, false), Ok(Way::Accounts));
        assert_eq!(choose(FenceWay::ReadOnly, &master, false), Err(vec!["SYSTEM_VARIABLES_ADMIN"]));
        let little = rights(false, &["GRANT PROCESS, SUPER ON *.* TO `a`@`%`"]);
        assert_eq!(choose(FenceWay::Auto, &little, false), Err(vec!["RELOAD"]));
        assert_eq!(choose(FenceWay::Command, &little, false), Ok(Way::Command));
    }

    #[test]
    fn super_does_not_set_read_only_in_a_mariadb_that_took_it_out() {
        let old = rights(true, &["GRANT RELOAD, PROCESS, SUPER, EVENT ON *.* TO `a`@`%`"]);
        assert_eq!(old.missing(Way::ReadOnly), ["READ_ONLY ADMIN"]);
        assert!(Rights { super_sets_read_only: true, ..old }.missing(Way::ReadOnly).is_empty());
    }
}
