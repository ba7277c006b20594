//! The REST door: JSON over HTTP, for people, scripts and agents without gRPC.
//!
//! Every call is the same call of the gateway that gRPC makes: it is read here, asked there, and
//! shown here. The calls stand in tables (`shape::Call`), one per resource; the router, the
//! readers and the OpenAPI document all go by them.

use std::sync::Arc;

use axum::{
    Extension, Router,
    extract::DefaultBodyLimit,
    http::{HeaderMap, Method, Uri, header},
    response::{IntoResponse, Response},
    routing::any,
};
use hive_domain::violation::quoted;
use hive_protocol::fault::{Fault, Reason};

use self::{problem::Problem, shape::Call};
use crate::core::Gateway;

mod asked;
mod consumers;
mod coordination;
mod dead_letters;
mod deliveries;
mod fields;
mod groups;
mod health;
mod messages;
mod openapi;
mod problem;
mod publish;
mod render;
mod replays;
mod route;
mod scaling;
mod shape;
mod streams;
mod tracked;
mod workflows;

/// What every path begins with.
const BASE: &str = "/api/v1";

/// The REST door of `gateway`. It answers every path that nobody else does; a gRPC call to a
/// method that nobody has gets its gRPC status.
pub fn routes(gateway: Arc<Gateway>) -> Router {
    let limit = DefaultBodyLimit::max(gateway.door_bytes_max());
    router().layer(limit).with_state(gateway)
}

fn router() -> Router<Arc<Gateway>> {
    let mut router = Router::new();
    for call in all_calls() {
        let path = format!("{BASE}{}", call.path);
        for path in [format!("{path}/"), path] {
            router = router.route(&path, (call.route)().route_layer(Extension(call)));
        }
    }
    // Routes and not a fallback: the router of the gRPC services has one already, and of two
    // routers that are merged only one may have it.
    router
        .route("/", any(no_such_path))
        .route("/{*path}", any(no_such_path))
        .method_not_allowed_fallback(no_such_method)
}

/// Every call that is served.
fn all_calls() -> impl Iterator<Item = &'static Call> {
    groups::CALLS
        .iter()
        .chain(&consumers::CALLS)
        .chain(&messages::CALLS)
        .chain(&tracked::CALLS)
        .chain(&publish::CALLS)
        .chain(&deliveries::CALLS)
        .chain(&streams::CALLS)
        .chain(&replays::CALLS)
        .chain(&workflows::CALLS)
        .chain(&workflows::TASK_CALLS)
        .chain(&route::CALLS)
        .chain(&dead_letters::GUIDE_CALLS)
        .chain(&dead_letters::CALLS)
        .chain(&coordination::CALLS)
        .chain(&scaling::CALLS)
        .chain(&health::CALLS)
        .chain(&openapi::CALLS)
}

async fn no_such_path(headers: HeaderMap, uri: Uri) -> Response {
    let path = quoted(uri.path());
    let is_grpc = headers
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
    if is_grpc {
        let fault = Fault::new(Reason::Unsupported, format!("there is no method {path}"));
        return tonic::Status::from(fault).into_http();
    }
    let message = format!("there is nothing at {path}; {BASE}/openapi.json lists all paths");
    Problem::from(Fault::new(Reason::NotFound, message)).into_response()
}

async fn no_such_method(method: Method, uri: Uri) -> Problem {
    let path = quoted(uri.path());
    let message = format!("{path} does not take {method}; the header `allow` lists what it takes");
    Problem::from(Fault::new(Reason::MethodNotAllowed, message))
}

#[cfg(test)]
mod tests;
