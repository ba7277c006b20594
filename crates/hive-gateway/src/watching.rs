//! The figures of one group, looked at once or for as long as somebody listens.
//!
//! A watch reads Redis once a second and sends when its caller has taken what was sent before: a
//! slow caller costs a channel of one message. It holds no place that a drain waits for.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use hive_domain::name;
use hive_protocol::{
    fault::{Fault, Reason},
    time, wire,
};
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use crate::core::{Gateway, reading};

/// Watches of one gateway at a time: each reads Redis once a second.
pub(crate) const WATCHES_MAX: usize = 256;
/// How often a watch looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Longest silence of a watch.
const SEND_EVERY: Duration = Duration::from_secs(5);

/// A watch that was let in.
#[derive(Debug)]
pub struct Watch {
    namespace: String,
    group: String,
    _place: OwnedSemaphorePermit,
}

impl Gateway {
    /// Shows the figures of one group, and what it did minute by minute.
    ///
    /// # Errors
    /// A violation, `GROUP_NOT_FOUND`, `GROUP_GONE`, or what Redis says.
    pub async fn stats(
        &self,
        namespace: &str,
        request: wire::StatsRequest,
    ) -> Result<wire::StatsResponse, Fault> {
        reading(async move {
            name::check("group", &request.group)?;
            let view = self.catalog.group(namespace, &request.group).await?;
            let (shown, figures) = self.shown_figures(&view).await?;
            let minutes = figures.minutes.iter().map(|minute| wire::MinuteFigures {
                started_at: Some(time::to_timestamp(minute.started_ms.into())),
                acked: minute.acked,
                failed: minute.failed,
                work: Some(time::to_duration(minute.work_ms)),
            });
            Ok(wire::StatsResponse {
                minutes: minutes.collect(),
                figures: Some(shown),
            })
        })
        .await
    }

    /// Lets a watch of one group in.
    ///
    /// # Errors
    /// A violation, `GROUP_NOT_FOUND`, `GROUP_GONE`, `TOO_MANY_CONNECTIONS`, or what Redis says.
    pub async fn open_watch(
        &self,
        namespace: &str,
        request: wire::WatchRequest,
    ) -> Result<Watch, Fault> {
        name::check("group", &request.group)?;
        drop(self.enter("watch")?);
        let place = self.watches.clone().try_acquire_owned();
        let place = place.map_err(|_none_left| {
            Fault::new(
                Reason::TooManyConnections,
                format!("this gateway has its limit of {WATCHES_MAX} watches"),
            )
            .with_retry_after(SEND_EVERY)
        })?;
        reading(self.catalog.group(namespace, &request.group)).await?;
        Ok(Watch {
            namespace: namespace.to_owned(),
            group: request.group,
            _place: place,
        })
    }

    async fn watched(&self, watch: &Watch) -> Result<wire::GroupFigures, Fault> {
        reading(async {
            let view = self.catalog.group(&watch.namespace, &watch.group).await?;
            Ok(self.shown_figures(&view).await?.0)
        })
        .await
    }
}

/// Sends figures until the caller hangs up, the group is gone or the gateway drains.
pub async fn watch(
    gateway: Arc<Gateway>,
    watch: Watch,
    frames: mpsc::Sender<Result<wire::WatchResponse, Fault>>,
) {
    let mut sent: Option<(Instant, wire::GroupFigures)> = None;
    let mut pace = tokio::time::interval(LOOK_EVERY);
    pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = pace.tick() => {},
            () = frames.closed() => return,
            () = gateway.shutdown.draining() => {
                let away = Fault::new(Reason::Draining, "this gateway is going away");
                // A caller that takes nothing learns of it by the connection.
                drop(frames.try_send(Err(away)));
                return;
            },
        }
        let frame = match gateway.watched(&watch).await {
            Ok(figures) => {
                let is_known = sent
                    .as_ref()
                    .is_some_and(|(at, last)| *last == figures && at.elapsed() < SEND_EVERY);
                if is_known {
                    continue;
                }
                sent = Some((Instant::now(), figures.clone()));
                Ok(wire::WatchResponse {
                    figures: Some(figures),
                })
            },
            Err(fault) => Err(fault),
        };
        let is_end = frame.is_err();
        tokio::select! {
            end = frames.send(frame) => {
                if end.is_err() || is_end {
                    return;
                }
            },
            () = gateway.shutdown.draining() => return,
        }
    }
}
