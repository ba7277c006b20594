//! `hive scale status --watch` and `hive scale events --follow`: a line for each change.
//!
//! Lines and no screen that is drawn anew, as with groups: what was stays to be read, and a pipe
//! takes it as it is.

use std::{
    collections::{BTreeMap, HashSet, VecDeque},
    time::{Duration, SystemTime},
};

use hive_client::{Client, wire};

use super::{
    EVENTS_PAGE_MAX,
    views::{EventView, ScalingView},
};
use crate::{
    connection::refused,
    exit::Exit,
    output::{Format, Output},
    values::rfc3339,
};

/// Columns of wishes and their widths; a longer cell pushes those behind it.
const WISH_COLUMNS: [(&str, usize); 13] = [
    ("TIME", 24),
    ("GROUP", 20),
    ("CURRENT", 7),
    ("DESIRED", 7),
    ("MIN", 4),
    ("MAX", 5),
    ("LAG", 8),
    ("IN FLIGHT", 9),
    ("ARRIVALS/S", 10),
    ("SERVICE", 7),
    ("EXECUTOR", 10),
    ("STATE", 7),
    ("REASON", 0),
];
/// Columns of events and their widths.
const EVENT_COLUMNS: [(&str, usize); 5] = [
    ("TIME", 24),
    ("GROUP", 20),
    ("KIND", 9),
    ("CHANGE", 12),
    ("REASON", 0),
];
/// How often events are asked for.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Events whose ids are remembered so that none is shown twice.
const REMEMBERED: usize = 10_000;

/// Prints wishes as they change until nobody answers.
///
/// # Errors
/// When it is refused, or nobody answers.
pub(super) async fn status(client: &Client, group: String, out: Output) -> anyhow::Result<Exit> {
    let groups = if group.is_empty() {
        Vec::new()
    } else {
        vec![group]
    };
    let mut watch = client.watch_scaling(groups);
    let mut shown: BTreeMap<String, [String; 12]> = BTreeMap::new();
    if out.format() == Format::Table {
        out.text(&line(
            &WISH_COLUMNS.map(|(title, _)| title.to_owned()),
            &WISH_COLUMNS,
        ))?;
    }
    loop {
        for group in watch.next().await.map_err(refused)? {
            let view = ScalingView::from(group);
            let texts = view.texts();
            if shown.get(&view.group) == Some(&texts) {
                continue;
            }
            if out.format() == Format::Table {
                let now = SystemTime::now().into();
                let mut cells = vec![rfc3339(Some(&now)).unwrap_or_default()];
                cells.extend_from_slice(&texts);
                out.text(&line(&cells, &WISH_COLUMNS))?;
            } else {
                out.item(&view)?;
            }
            shown.insert(view.group, texts);
        }
    }
}

/// Prints the last `last` events, the oldest first, and then each that comes.
///
/// # Errors
/// When it is refused, or nobody answers.
pub(super) async fn events(
    client: &Client,
    group: String,
    last: u32,
    out: Output,
) -> anyhow::Result<Exit> {
    if out.format() == Format::Table {
        out.text(&line(
            &EVENT_COLUMNS.map(|(title, _)| title.to_owned()),
            &EVENT_COLUMNS,
        ))?;
    }
    let (mut seen, mut is_first) = (Seen::default(), true);
    loop {
        let fresh = unseen(client, &group, &mut seen).await?;
        // Of what was there before, only the last ones are asked for.
        let most = if is_first {
            usize::try_from(last).unwrap_or(usize::MAX)
        } else {
            usize::MAX
        };
        for event in fresh.into_iter().take(most).rev() {
            let view = EventView::from(event);
            if out.format() == Format::Table {
                out.text(&line(&view.texts(), &EVENT_COLUMNS))?;
            } else {
                out.item(&view)?;
            }
        }
        is_first = false;
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Events that were not seen yet, the newest first: pages until one holds an event that was.
async fn unseen(
    client: &Client,
    group: &str,
    seen: &mut Seen,
) -> anyhow::Result<Vec<wire::ScalingEvent>> {
    let mut request = wire::ListScalingEventsRequest {
        group: group.to_owned(),
        limit: EVENTS_PAGE_MAX,
        cursor: String::new(),
    };
    let is_first = seen.is_empty();
    let mut fresh = Vec::new();
    loop {
        let answer = client.list_scaling_events(request.clone()).await;
        let answer = answer.map_err(refused)?;
        let count = answer.events.len();
        let new = answer.events.into_iter().filter(|event| !seen.has(event));
        let before = fresh.len();
        fresh.extend(new);
        let is_known = fresh.len() - before < count;
        if is_first || is_known || answer.next_cursor.is_empty() || fresh.len() >= REMEMBERED {
            break;
        }
        request.cursor = answer.next_cursor;
    }
    for event in fresh.iter().rev() {
        seen.note(event);
    }
    Ok(fresh)
}

/// The ids of events that were seen last.
#[derive(Default)]
struct Seen {
    order: VecDeque<String>,
    ids: HashSet<String>,
}

impl Seen {
    fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    fn has(&self, event: &wire::ScalingEvent) -> bool {
        self.ids.contains(&event.event_id)
    }

    fn note(&mut self, event: &wire::ScalingEvent) {
        if self.order.len() >= REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.ids.remove(&oldest);
        }
        self.ids.insert(event.event_id.clone());
        self.order.push_back(event.event_id.clone());
    }
}

/// Cells in columns of fixed width.
fn line(cells: &[String], columns: &[(&str, usize)]) -> String {
    let cells = cells.iter().zip(columns);
    let padded = cells.map(|(cell, (_, width))| format!("{cell:<width$}"));
    padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wishes_stand_below_their_titles() {
        let view = ScalingView::from(wire::GroupScaling {
            group: "g".to_owned(),
            desired_consumers: Some(7),
            ..wire::GroupScaling::default()
        });
        let titles = line(
            &WISH_COLUMNS.map(|(title, _)| title.to_owned()),
            &WISH_COLUMNS,
        );
        let mut cells = vec!["1970-01-01T00:00:00.000Z".to_owned()];
        cells.extend_from_slice(&view.texts());
        let at = titles.find("DESIRED").unwrap();
        assert_eq!(line(&cells, &WISH_COLUMNS).get(at..=at), Some("7"));
    }

    #[test]
    fn an_event_is_new_once() {
        let mut seen = Seen::default();
        let event = wire::ScalingEvent {
            event_id: "1-0".to_owned(),
            ..wire::ScalingEvent::default()
        };
        assert!(!seen.has(&event));
        seen.note(&event);
        assert!(seen.has(&event));
    }
}
