//! SQL sessions.

use std::convert::Infallible;
use std::future::{Ready, ready};

use secrecy::ExposeSecret;
use tokio_postgres::config::{ChannelBinding as Binding, SslMode as Negotiate, SslNegotiation};
use tokio_postgres::tls::{ChannelBinding, TlsConnect, TlsStream};

use super::ConnInfo;
use super::dial::{STANDING, Socket, Standing, Start, SwitchOff, dial};
use super::error::{no_password, unbound};
use super::watch::Watched;
use crate::error::{Context, Error, Result};

/// A SQL session. The connection is driven by a task of its own and ends when the client is dropped.
pub type Client = tokio_postgres::Client;

/// Connects and pins the session: `application_name`, time zone, output settings, no time-outs, `row_security = off`.
pub async fn connect(info: &ConnInfo, application_name: &str) -> Result<Client> {
    let session = SqlSession { info, application_name, watched: true };
    dial(info, &session).await.with_context(|| format!("connecting to {} as {:?}", info.label(), info.user))
}

struct SqlSession<'a> {
    info: &'a ConnInfo,
    application_name: &'a str,
    watched: bool,
}

/// Whether the session of process `pid` is at work, or waits for us; `None` if the server cannot be asked.
pub(super) async fn is_working(info: &ConnInfo, pid: i32) -> Option<bool> {
    let asking = SqlSession { info, application_name: "cutwater_watch", watched: false };
    let ask = async {
        // Boxed: a session's beginning begins its watch, which asks.
        let client = Box::pin(dial(info, &asking)).await.ok()?;
        let sql = "SELECT state = 'active' AND wait_event_type IS DISTINCT FROM 'Client'
                     FROM pg_catalog.pg_stat_activity WHERE pid = $1";
        let row = client.query_opt(sql, &[&pid]).await.ok()?;
        // Without the right to see the state, a session that is there counts as at work.
        Some(row.is_some_and(|row| row.get::<_, Option<bool>>(0).unwrap_or(true)))
    };
    tokio::time::timeout(info.connect_timeout, ask).await.ok()?
}

impl Start for SqlSession<'_> {
    type Session = Client;

    async fn start(&self, socket: Socket, off: SwitchOff) -> Result<Client> {
        let info = self.info;
        let mut config = tokio_postgres::Config::new();
        config.user(&info.user).dbname(&info.database).application_name(info.session_name(self.application_name));
        if let Some(password) = &info.password {
            config.password(password.expose_secret());
        }
        let off = off.settings().iter().map(|name| format!("-c {name}=0"));
        // The last one counts.
        let options: Vec<String> = info.options.iter().cloned().chain(off).collect();
        if !options.is_empty() {
            config.options(options.join(" "));
        }
        config.channel_binding(match info.channel_binding {
            super::ChannelBinding::Disable => Binding::Disable,
            super::ChannelBinding::Prefer => Binding::Prefer,
            super::ChannelBinding::Require => Binding::Require,
        });
        // The dialer has already agreed on TLS; this only tells the driver which channel binding it has.
        config.ssl_mode(Negotiate::Require).ssl_negotiation(SslNegotiation::Direct);
        let socket = Watched::new(socket);
        let guard = socket.guard();
        let (client, connection) = config.connect_raw(socket, AlreadySecured).await.map_err(|error| {
            let no_password_here = info.password.is_none();
            let error = Error::from(error);
            match error.why() {
                why if why.contains("channel binding") => unbound(),
                why if no_password_here && why.contains("password missing") => no_password(&info.user),
                _ => error,
            }
        })?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection ended");
            }
        });
        client.batch_execute(include_str!("session.sql")).await?;
        if self.watched {
            let pid = client.query_one("SELECT pg_catalog.pg_backend_pid()", &[]).await?.get(0);
            guard.watch(info, pid);
        }
        Ok(client)
    }

    async fn standing(&self, session: &mut Client) -> Result<Standing> {
        let row = session.query_one(STANDING, &[]).await?;
        Ok(Standing::from_text(row.get(0), row.get(1)))
    }
}

struct AlreadySecured;

impl TlsConnect<Watched> for AlreadySecured {
    type Stream = Watched;
    type Error = Infallible;
    type Future = Ready<Result<Watched, Infallible>>;

    fn connect(self, stream: Watched) -> Self::Future {
        ready(Ok(stream))
    }
}

impl TlsStream for Watched {
    fn channel_binding(&self) -> ChannelBinding {
        self.socket().server_end_point().map_or_else(ChannelBinding::none, ChannelBinding::tls_server_end_point)
    }
}
