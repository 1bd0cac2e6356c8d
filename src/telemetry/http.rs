//! `/metrics`, `/status` and `/healthz` on `[telemetry] listen`.
//!
//! In: an address and a function that gathers the facts of `status`. Out: nothing but answers; the server reads and
//! never steers. What can go wrong: the address is taken.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use tokio_util::sync::CancellationToken;

use super::metric;
use crate::error::{Error, Kind, Result};

/// Gathers the report that `/status` answers with.
pub type Report = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = serde_json::Value> + Send>> + Send + Sync>;

/// Begins to collect and to serve until `shutdown`. Returns the address it listens on.
pub async fn serve(listen: SocketAddr, report: Report, shutdown: CancellationToken) -> Result<SocketAddr> {
    metric::install()?;
    let taken = |error: std::io::Error| {
        Error::new(Kind::Io, format!("[telemetry] listen = {listen}: {error}"))
            .fix("choose another port in [telemetry] listen, or leave it out")
    };
    let listener = tokio::net::TcpListener::bind(listen).await.map_err(taken)?;
    let address = listener.local_addr().map_err(taken)?;
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route("/status", get(move || status(Arc::clone(&report))))
        .route("/healthz", get(|| async { "ok\n" }));
    tokio::spawn(async move {
        let server = axum::serve(listener, router).with_graceful_shutdown(shutdown.cancelled_owned());
        if let Err(error) = server.await {
            tracing::warn!(%error, "the telemetry server ended");
        }
    });
    tracing::info!(%address, "serving /metrics, /status and /healthz");
    Ok(address)
}

async fn metrics() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], metric::render())
}

async fn status(report: Report) -> impl IntoResponse {
    let facts = report().await;
    (StatusCode::OK, axum::Json(facts))
}
