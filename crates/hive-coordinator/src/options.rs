//! The options that all coordinators share: stored once, read again each second.
//!
//! Until somebody stores some, each replica goes by its own configuration. What is stored is whole:
//! a later change of a file does not mix into it.

use std::sync::Arc;
use std::time::Duration;

use hive_domain::coordination::{self, CoordinatorConfig};
use hive_protocol::convert;
use hive_protocol::fault::{Fault, Reason};
use hive_protocol::wire;
use hive_store::StoreError;
use hive_store::control::Put;

use crate::desk::Desk;
use crate::metrics::{self, Loop};
use crate::roster::is_live;
use crate::shard::every;

/// Pause between two looks at what is stored.
const LOOK: Duration = Duration::from_secs(1);
/// How often a change is tried anew that somebody else's came before.
const TRIES: u32 = 10;

/// Follows what is stored; never ends by itself.
pub(crate) async fn follow(desk: Arc<Desk>) {
    let mut pace = every(LOOK);
    loop {
        pace.tick().await;
        match stored(&desk).await {
            Ok((_, options)) => {
                desk.options.send_if_modified(|known| {
                    let is_change = *known != options;
                    if is_change {
                        tracing::info!(?options, "options_changed");
                        *known = options;
                    }
                    is_change
                });
            },
            Err(error) => {
                metrics::round_failed(Loop::Options);
                tracing::debug!(%error, "options_not_read");
            },
        }
    }
}

/// The sum of `min_consumers` of all groups that are scaled, as they are defined now.
async fn minima(desk: &Desk) -> Result<u64, StoreError> {
    let mut sum = 0_u64;
    for namespace in desk.store.namespaces().await? {
        for group in desk.store.groups(&namespace).await? {
            if is_live(&group) && group.settings.auto_scale_enabled {
                sum = sum.saturating_add(group.settings.min_consumers.into());
            }
        }
    }
    Ok(sum)
}

/// What is stored, with its version; the defaults where nobody stored any.
pub(crate) async fn stored(desk: &Desk) -> Result<(u64, CoordinatorConfig), StoreError> {
    let Some((version, text)) = desk.store.coordinator_config().await? else {
        return Ok((0, desk.defaults.clone()));
    };
    let options = serde_json::from_str(&text).map_err(|error| StoreError::Corrupt {
        what: format!("options of the coordinators: {error}"),
    })?;
    Ok((version, options))
}

/// Changes what is stored.
///
/// # Errors
/// All violations; a ceiling below what the groups want at least; what Redis says.
pub(crate) async fn update(
    desk: &Desk,
    change: Option<&wire::CoordinatorConfig>,
) -> Result<CoordinatorConfig, Fault> {
    for _ in 0..TRIES {
        let (version, current) = stored(desk).await?;
        let next = convert::update_coordinator_config(&current, change)?;
        if next.max_total_consumers != current.max_total_consumers {
            let minima = minima(desk).await?;
            coordination::check_ceiling(next.max_total_consumers, minima).map_err(|violation| {
                Fault::invalid_field(format!("config.{}", violation.field), violation.description)
            })?;
        }
        if next == current && version > 0 {
            return Ok(next);
        }
        let text = serde_json::to_string(&next).map_err(|error| {
            Fault::bug("options that do not encode").with_detail(error.to_string())
        })?;
        if let Put::Stored(_) = desk.store.put_coordinator_config(version, &text).await? {
            tracing::info!(options = ?next, "options_stored");
            desk.options.send_replace(next.clone());
            return Ok(next);
        }
    }
    let message = "the options of the coordinators change too often; try again";
    Err(Fault::new(Reason::VersionConflict, message))
}
