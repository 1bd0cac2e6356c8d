//! SQL sessions.

use secrecy::ExposeSecret;

use super::{ConnInfo, Host};
use crate::error::{Context, Error, Result};

/// A SQL session. The connection is driven by a task of its own and ends when the client is dropped.
pub type Client = tokio_postgres::Client;

/// Connects and pins the session: `application_name`, time zone, output settings, no time-outs, `row_security = off`.
pub async fn connect(info: &ConnInfo, application_name: &str) -> Result<Client> {
    let mut config = tokio_postgres::Config::new();
    config.user(&info.user).dbname(&info.database).application_name(application_name);
    if let Some(password) = &info.password {
        config.password(password.expose_secret());
    }
    for host in &info.hosts {
        match host {
            Host::Tcp(name, port) => config.host(name).port(*port),
            Host::Unix(path, port) => config.host_path(path).port(*port),
        };
    }
    let connect = async {
        let (client, connection) = config.connect(tokio_postgres::NoTls).await?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection ended");
            }
        });
        client.batch_execute(include_str!("session.sql")).await?;
        Ok::<_, Error>(client)
    };
    connect.await.with_context(|| format!("connecting to {} as {:?}", info.label(), info.user))
}
