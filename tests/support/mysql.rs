//! Throw-away MySQL and MariaDB servers, as tests want them: what goes wrong is a panic.

use std::ops::{Deref, DerefMut};

use cutwater::cli::demo::my_server;
pub use cutwater::cli::demo::my_server::{ADMIN, APPLICATION, DATABASE, MyOptions};
use cutwater::config::Url;
use cutwater::error::Result;
use cutwater::mysql::{MyConnInfo, Session};

use super::mysql_programs::Programs;

/// A server of the test's own.
pub struct LocalMySql(my_server::LocalMySql);

impl Deref for LocalMySql {
    type Target = my_server::LocalMySql;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl DerefMut for LocalMySql {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.0
    }
}

impl LocalMySql {
    /// Makes a data directory and starts a server over it. Takes a few seconds.
    pub async fn start(programs: Programs, options: MyOptions) -> LocalMySql {
        LocalMySql(my_server::LocalMySql::start(programs, options).await.unwrap_or_else(|error| panic!("{error}")))
    }

    /// A session of the administrator.
    pub async fn connect(&self, database: &str) -> Session {
        self.0.connect(database).await.unwrap_or_else(|error| panic!("{error}\n{}", self.log()))
    }

    /// Runs statements as administrator.
    pub async fn execute(&self, database: &str, sql: &str) {
        self.connect(database).await.execute(sql).await.unwrap_or_else(|error| panic!("{error}\nin: {sql}"));
    }

    /// Stops the server as an administrator would, and waits for its end.
    pub fn stop(&mut self) {
        self.0.stop().unwrap();
    }

    /// Ends the server as the kernel's out-of-memory killer would.
    pub fn crash(&mut self) {
        self.0.crash().unwrap();
    }

    /// Starts the server again, on its old port and data.
    pub fn start_again(&mut self) {
        self.0.start_again().unwrap_or_else(|error| panic!("{error}"));
    }

    /// Copies everything the server has, while it is down.
    pub fn keep_a_copy(&self) -> tempfile::TempDir {
        self.process().keep_a_copy().unwrap()
    }

    /// Puts a copy in the place of everything the server has, while it is down.
    pub fn restore(&self, copy: &tempfile::TempDir) {
        self.process().restore(copy).unwrap();
    }
}

/// A session by URL.
pub async fn connect(url: &str) -> Result<Session> {
    cutwater::mysql::connect(&MyConnInfo::parse(&Url::new(url))?, "cutwater_test").await
}
