//! REST.

use std::sync::Arc;

use crate::core::Gateway;

/// Routes.
pub fn routes(_gateway: Arc<Gateway>) -> axum::Router {
    axum::Router::new()
}
