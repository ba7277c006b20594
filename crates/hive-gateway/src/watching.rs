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
use tokio::sync::{Semaphore, SemaphorePermit, mpsc};

use crate::core::{Gateway, reading};

/// Watches of one gateway at a time: each reads Redis once a second.
const WATCHES_MAX: usize = 256;
static WATCHES: Semaphore = Semaphore::const_new(WATCHES_MAX);
/// How often a watch looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Longest silence of a watch.
const SEND_EVERY: Duration = Duration::from_secs(5);

/// A watch that was let in.
#[derive(Debug)]
pub struct Watch {
    namespace: String,
    group: String,
    _place: SemaphorePermit<'static>,
}

impl Gateway {
    /// Shows the figures of one group, and what it did minute by minute.
    ///
    /// # Errors
    /// `GROUP_NOT_FOUND`, `GROUP_GONE`, or what Redis says.
    pub async fn stats(
        &self,
        namespace: &str,
        request: wire::StatsRequest,
    ) -> Result<wire::StatsResponse, Fault> {
        reading(async move {
            name::check("group", &request.group)?;
            let view = self.catalog.group(namespace, &request.group).await?;
            let minutes = self.group_figures(&view).await?.minutes;
            let figures = Box::pin(self.shown_figures(namespace, &request.group)).await?;
            let minutes = minutes.into_iter().map(|minute| wire::MinuteFigures {
                started_at: Some(time::to_timestamp(minute.started_ms.into())),
                acked: minute.acked,
                failed: minute.failed,
                work: Some(time::to_duration(minute.work_ms)),
            });
            Ok(wire::StatsResponse {
                figures: Some(figures),
                minutes: minutes.collect(),
            })
        })
        .await
    }

    async fn shown_figures(
        &self,
        namespace: &str,
        group: &str,
    ) -> Result<wire::GroupFigures, Fault> {
        let request = wire::GetGroupRequest {
            name: group.to_owned(),
        };
        let group = self.get_group(namespace, request).await?.group;
        let figures = group.and_then(|group| group.figures);
        figures.ok_or_else(|| Fault::bug("a group comes with figures"))
    }

    /// Lets a watch of one group in.
    ///
    /// # Errors
    /// A violation, `GROUP_NOT_FOUND`, `TOO_MANY_CONNECTIONS`, or what Redis says.
    pub async fn open_watch(
        &self,
        namespace: &str,
        request: wire::WatchRequest,
    ) -> Result<Watch, Fault> {
        name::check("group", &request.group)?;
        drop(self.enter("watch")?);
        let place = WATCHES.try_acquire().map_err(|_error| {
            Fault::new(
                Reason::TooManyConnections,
                format!("this gateway has its limit of {WATCHES_MAX} watches"),
            )
            .with_retry_after(SEND_EVERY)
        })?;
        reading(async { self.catalog.group(namespace, &request.group).await }).await?;
        Ok(Watch {
            namespace: namespace.to_owned(),
            group: request.group,
            _place: place,
        })
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
        let frame = match gateway.shown_figures(&watch.namespace, &watch.group).await {
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
