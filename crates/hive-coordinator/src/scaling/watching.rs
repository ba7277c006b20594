//! Hears of changes: bells of shards wake groups at rest, and what is wished wakes those who follow
//! it.
//!
//! One subscription for each replica. A change that is not heard of is seen at the next look.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use hive_protocol::fault::{Fault, Reason};
use hive_protocol::wire;
use hive_runtime::shutdown::Shutdown;
use hive_store::bells::Line;
use tokio::sync::mpsc;
use tonic::Status;

use super::view;
use crate::desk::Desk;

/// Pause before the subscription is made anew.
const RETRY: Duration = Duration::from_millis(200);
/// A watch tells all of its groups at least this often.
const TELL: Duration = Duration::from_secs(5);
/// Least pause between two looks of a watch, however much changes.
const LOOK_PAUSE: Duration = Duration::from_millis(50);
/// Frames that wait for a slow caller.
const FRAMES: usize = 4;

/// Hears the bells until cancelled; survives Redis going away and lines that go silent.
pub(crate) async fn hear(desk: Arc<Desk>) {
    let keys = desk.store.control_keys();
    loop {
        if let Ok(line) = desk.store.lines(&[Line::Work, Line::Scaling]).await {
            // What rang while nobody heard.
            desk.ring_all();
            line.listen(|channel, _said| match keys.namespace_of_scaling(channel) {
                Some(namespace) => desk.note_wish(namespace),
                None => desk.ring(channel),
            })
            .await;
            tracing::debug!("bells_lost");
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// A frame of a watch, or why there is no other.
pub(crate) type WatchFrame = Result<wire::WatchScalingResponse, Status>;

/// Tells a caller what groups want, until it hangs up or the daemon drains.
pub(crate) async fn follow(
    desk: Arc<Desk>,
    (namespace, names): (String, Vec<String>),
    frames: mpsc::Sender<WatchFrame>,
    shutdown: Shutdown,
) {
    let mut wishes = desk.follow(&namespace);
    let mut told: BTreeMap<String, wire::GroupScaling> = BTreeMap::new();
    let mut all_at = tokio::time::Instant::now();
    loop {
        wishes.mark_unchanged();
        let is_all = tokio::time::Instant::now() >= all_at;
        match view::groups(&desk, &namespace, &names).await {
            Ok(groups) => {
                let news: Vec<wire::GroupScaling> = groups
                    .iter()
                    .filter(|group| {
                        is_all || told.get(&group.group).is_none_or(|t| is_news(t, group))
                    })
                    .cloned()
                    .collect();
                told = groups
                    .into_iter()
                    .map(|one| (one.group.clone(), one))
                    .collect();
                if is_all {
                    all_at = tokio::time::Instant::now() + TELL;
                }
                if (is_all || !news.is_empty())
                    && frames
                        .send(Ok(wire::WatchScalingResponse { groups: news }))
                        .await
                        .is_err()
                {
                    return;
                }
            },
            // The next look tells; a caller sees that it hears nothing.
            Err(error) => tracing::debug!(%error, "wishes_not_read"),
        }
        let pause = tokio::time::sleep(LOOK_PAUSE);
        tokio::select! {
            () = async { pause.await; drop(wishes.changed().await) } => {},
            () = tokio::time::sleep_until(all_at.max(tokio::time::Instant::now() + RETRY)) => {},
            () = frames.closed() => return,
            () = shutdown.draining() => {
                let away = Fault::new(Reason::Draining, "this coordinator is going away");
                drop(frames.try_send(Err(away.into())));
                return;
            },
        }
    }
}

/// Whether a caller must hear of it: what is wanted, or how it goes, and not each figure.
fn is_news(before: &wire::GroupScaling, now: &wire::GroupScaling) -> bool {
    let of = |group: &wire::GroupScaling| {
        (
            group.enabled,
            group.policy.clone(),
            (group.min_consumers, group.max_consumers),
            group.desired_consumers,
            group.draining_consumers,
            group.executor_state,
        )
    };
    of(before) != of(now)
}

/// A channel of frames for a watch.
pub(crate) fn channel() -> (mpsc::Sender<WatchFrame>, mpsc::Receiver<WatchFrame>) {
    mpsc::channel(FRAMES)
}
