//! The admin port: probes, metrics, configuration, tasks, and the log filter.
//!
//! It is a port of its own so that it can stay closed to the world and answers while the main port
//! is busy or drains. It changes nothing but the log filter, and that only on a loopback address.

use axum::Json;
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::{get, put};
use serde_json::json;
use tokio::net::TcpListener;

use crate::health::Health;
use crate::metrics::Scrape;
use crate::tasks::{Listed, Tasks};
use crate::telemetry::LogFilter;

/// What the admin port shows.
#[derive(Debug, Clone)]
pub(crate) struct Admin {
    pub(crate) health: Health,
    pub(crate) tasks: Tasks,
    pub(crate) scrape: Scrape,
    pub(crate) log: LogFilter,
    /// The configuration as `--print-config` shows it.
    pub(crate) config: String,
}

impl Admin {
    /// Answers on `listener` until aborted.
    pub(crate) async fn serve(self, listener: TcpListener) -> std::io::Result<()> {
        let is_private = listener.local_addr()?.ip().to_canonical().is_loopback();
        axum::serve(listener, self.routes(is_private)).await
    }

    fn routes(self, is_private: bool) -> Router {
        let mut routes = Router::new()
            .route("/livez", get(async || "live\n"))
            .route("/readyz", get(readyz))
            .route("/metrics", get(metrics))
            .route("/config", get(config))
            .route("/tasks", get(tasks));
        if is_private {
            routes = routes.route("/log", put(set_log));
        }
        routes.with_state(self)
    }
}

async fn readyz(State(admin): State<Admin>) -> impl IntoResponse {
    let report = admin.health.report();
    let is_ready = report.is_ready();
    let status = if is_ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (
        status,
        Json(json!({ "ready": is_ready, "components": report.components })),
    )
}

async fn metrics(State(admin): State<Admin>) -> impl IntoResponse {
    (
        [(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")],
        admin.scrape.render(),
    )
}

async fn config(State(admin): State<Admin>) -> impl IntoResponse {
    (
        [(CONTENT_TYPE, "application/toml; charset=utf-8")],
        admin.config,
    )
}

async fn tasks(State(admin): State<Admin>) -> Json<Vec<Listed>> {
    Json(admin.tasks.list())
}

async fn set_log(State(admin): State<Admin>, filter: String) -> impl IntoResponse {
    let filter = filter.trim();
    match admin.log.set(filter) {
        Ok(()) => {
            tracing::info!(filter, "log_filter_set");
            (StatusCode::OK, format!("{filter}\n"))
        },
        Err(error) => (StatusCode::BAD_REQUEST, format!("{error}\n")),
    }
}
