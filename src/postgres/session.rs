//! SQL sessions.

use std::convert::Infallible;
use std::future::{Ready, ready};

use secrecy::ExposeSecret;
use tokio_postgres::config::{SslMode as Negotiate, SslNegotiation};
use tokio_postgres::tls::{ChannelBinding, TlsConnect, TlsStream};

use super::ConnInfo;
use super::dial::{Socket, Start, dial};
use super::error::no_password;
use crate::error::{Context, Error, Result};

/// A SQL session. The connection is driven by a task of its own and ends when the client is dropped.
pub type Client = tokio_postgres::Client;

/// Connects and pins the session: `application_name`, time zone, output settings, no time-outs, `row_security = off`.
pub async fn connect(info: &ConnInfo, application_name: &str) -> Result<Client> {
    let session = SqlSession { info, application_name };
    dial(info, &session).await.with_context(|| format!("connecting to {} as {:?}", info.label(), info.user))
}

struct SqlSession<'a> {
    info: &'a ConnInfo,
    application_name: &'a str,
}

impl Start for SqlSession<'_> {
    type Session = Client;

    async fn start(&self, socket: Socket) -> Result<Client> {
        let info = self.info;
        let mut config = tokio_postgres::Config::new();
        config.user(&info.user).dbname(&info.database).application_name(info.session_name(self.application_name));
        if let Some(password) = &info.password {
            config.password(password.expose_secret());
        }
        if let Some(options) = &info.options {
            config.options(options);
        }
        // The dialer has already agreed on TLS; this only tells the driver which channel binding it has.
        config.ssl_mode(Negotiate::Require).ssl_negotiation(SslNegotiation::Direct);
        let (client, connection) = config.connect_raw(socket, AlreadySecured).await.map_err(|error| {
            if info.password.is_none() && error.to_string().contains("password missing") {
                no_password(&info.user)
            } else {
                Error::from(error)
            }
        })?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection ended");
            }
        });
        client.batch_execute(include_str!("session.sql")).await?;
        Ok(client)
    }
}

struct AlreadySecured;

impl TlsConnect<Socket> for AlreadySecured {
    type Stream = Socket;
    type Error = Infallible;
    type Future = Ready<Result<Socket, Infallible>>;

    fn connect(self, stream: Socket) -> Self::Future {
        ready(Ok(stream))
    }
}

impl TlsStream for Socket {
    fn channel_binding(&self) -> ChannelBinding {
        self.server_end_point().map_or_else(ChannelBinding::none, ChannelBinding::tls_server_end_point)
    }
}
