//! Every MySQL and MariaDB server that there is.

use cutwater::config::Url;
use cutwater::mysql::{MyConnInfo, Session, connect};

/// A session in an empty database of this name on each.
pub async fn sites(database: &str) -> Vec<Session> {
    let mut sessions = Vec::new();
    for url in std::env::var("CUTWATER_TEST_MYSQL_URLS").unwrap_or_default().split_whitespace() {
        let info = MyConnInfo::parse(&Url::new(format!("{url}/mysql"))).unwrap();
        let mut session = connect(&info, "cutwater_test").await.unwrap_or_else(|error| panic!("{error}"));
        session.execute(format!("DROP DATABASE IF EXISTS {database}")).await.unwrap();
        session.execute(format!("CREATE DATABASE {database} CHARACTER SET utf8mb4")).await.unwrap();
        session.execute(format!("USE {database}")).await.unwrap();
        sessions.push(session);
    }
    sessions
}
