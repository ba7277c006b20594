//! What KEDA is told: the stored wish, as any replica reads it.

use std::sync::Arc;

use hive_protocol::fault::Fault;
use tokio::sync::watch;

use super::{state, step};
use crate::desk::Desk;
use crate::executors::keda::{Wish, Wishes};

/// The stored wishes.
#[derive(Debug)]
pub(crate) struct Stored {
    pub(crate) desk: Arc<Desk>,
}

impl Wishes for Stored {
    async fn wish(&self, namespace: &str, group: &str) -> Result<Wish, Fault> {
        let store = &self.desk.store;
        let definition = store.group(namespace, group).await?;
        let definition = definition.ok_or_else(|| Fault::no_group(group))?;
        let row = store.scaling_row(namespace, group).await?;
        let settings = &definition.settings;
        let applied = row.and_then(|row| {
            let state = state::of_row(&row);
            let desired = row.desired?;
            Some(step::applied(desired, &state, settings.max_consumers))
        });
        Ok(Wish {
            is_scaled: settings.auto_scale_enabled,
            executor: settings.scaling.executor,
            applied,
        })
    }

    fn changes(&self, namespace: &str, _group: &str) -> watch::Receiver<u64> {
        self.desk.follow(namespace)
    }
}
