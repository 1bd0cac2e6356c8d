//! What a database engine has to offer to be put under test, and nothing that only one of them has.

use std::pin::Pin;

use bytes::Bytes;
use futures::Stream;

use super::random::Dialect;

/// A table's rows as text, one a line, in an order that depends on the rows alone. Equal tables of two engines give
/// equal bytes.
pub type Dump = Pin<Box<dyn Stream<Item = Bytes> + Send>>;

/// A server of the test's own.
///
/// To put another engine under all scenarios: implement this, and add one line a scenario to `tests/chaos.rs`.
pub trait Engine: Sized + Send + Sync + 'static {
    /// `postgres`.
    const NAME: &'static str;
    /// What a client sends to commit; a proxy finds it in the bytes.
    const COMMIT: &'static [u8];
    /// What an applier's transaction begins with on the wire.
    const BEGIN: &'static [u8];

    /// A session of the administrator, over the network.
    type Session: Session;

    /// A server with one empty database.
    fn start() -> impl Future<Output = Self> + Send;
    /// Whether such a server is to be had; says that `test` does not run if there is none.
    fn is_here(test: &str) -> impl Future<Output = bool> + Send {
        let _ = test;
        async { true }
    }
    /// Its port on 127.0.0.1; it stays the same over restarts.
    fn port(&self) -> u16;
    /// The administrator's URL of the database through this port: the server's own, or a proxy's.
    fn url_at(port: u16) -> String;
    /// Crashes it as far as the clients can see: no session is ended with a word, the next start recovers.
    fn crash(&mut self);
    /// Starts it again after [`Engine::crash`].
    fn start_again(&mut self);
    /// From now on new transactions may only read, or not.
    fn read_only(&self, on: bool) -> impl Future<Output = ()> + Send;

    /// Opens a session.
    fn connect(url: &str) -> impl Future<Output = Result<Self::Session, String>> + Send;
    /// The rows of a table.
    fn dump(url: &str, table: &str) -> impl Future<Output = Dump> + Send;

    /// The expression as a whole number of 64 bits.
    fn whole_number(expression: &str) -> String;
    /// What follows FROM to give the whole numbers `from` to `to` as column `n`.
    fn series(from: i64, to: i64) -> String;

    /// Ids of the sessions that the engine under test has at this server.
    fn sessions_of_cutwater(url: &str) -> impl Future<Output = Vec<i64>> + Send;
    /// Ends one of them from the server's side.
    fn end_session(url: &str, id: i64) -> impl Future<Output = ()> + Send;

    /// How far the engine has told this source that it may forget, as a number that grows.
    fn confirmed(url: &str) -> impl Future<Output = i64> + Send;
    /// Copies everything the server has, while it is down.
    fn keep_a_copy(&self) -> tempfile::TempDir;
    /// Puts a copy in the place of everything the server has, while it is down.
    fn restore(&self, copy: tempfile::TempDir);
    /// Makes an empty database beside the first one; its URL.
    fn create_database(&self, name: &str) -> impl Future<Output = String> + Send;
    /// Removes it.
    fn drop_database(&self, name: &str) -> impl Future<Output = ()> + Send;
    /// What random tables may be made of.
    fn dialect() -> &'static Dialect;

    /// As an application connects, which may write rows and nothing else, where that makes a difference.
    fn application_url(&self) -> String {
        self.url()
    }

    /// The server's own URL.
    fn url(&self) -> String {
        Self::url_at(self.port())
    }
}

/// A session of the administrator. SQL that scenarios send is what all engines understand.
pub trait Session: Send + 'static {
    /// Runs statements.
    fn execute(&mut self, sql: &str) -> impl Future<Output = Result<(), String>> + Send;
    /// The first row of an answer, all of whose columns are whole numbers.
    fn numbers(&mut self, sql: &str) -> impl Future<Output = Result<Vec<i64>, String>> + Send;
}
