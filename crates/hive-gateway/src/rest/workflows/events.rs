//! The events of a run as server-sent events.
//!
//! Each has its place in the history as its id, so that a browser that comes back says by itself
//! where it was. A caller without a place first gets the run as it is.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    extract::State,
    http::HeaderMap,
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use futures_util::StreamExt as _;
use hive_domain::violation::quoted;
use hive_protocol::{
    fault::Fault,
    http::ProblemJson,
    limits::EVENT_ID_BYTES_MAX,
    wire::{self, watch_workflow_response::Frame},
};
use tokio_stream::wrappers::ReceiverStream;

use super::{
    super::{
        asked::Asked,
        problem::{Problem, in_our_words},
    },
    shown::{EventOut, WorkflowOut},
};
use crate::{core::Gateway, routers::WatchFrame};

/// How often a silent stream says that it lives.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// What browsers are told to wait before they come back.
const COME_BACK: Duration = Duration::from_secs(1);

pub(super) async fn listen(
    State(gateway): State<Arc<Gateway>>,
    headers: HeaderMap,
    mut asked: Asked,
) -> Result<Response, Problem> {
    let onward = asked.onward();
    let run_id = asked.query.take_text("run_id");
    let mut after_event_id = asked.query.take_text("after_event_id");
    let workflow_id = asked.name("workflow_id");
    asked.query.finish()?;
    if let Some(last) = headers.get("last-event-id") {
        let text = last.to_str().ok();
        let text = text.filter(|text| text.len() <= EVENT_ID_BYTES_MAX);
        let place = text.ok_or_else(|| {
            let shown = quoted(&String::from_utf8_lossy(last.as_bytes()));
            Fault::invalid_field(
                "last-event-id",
                format!("{shown} must be the id of an event"),
            )
        })?;
        after_event_id = place.to_owned();
    }
    let request = wire::WatchWorkflowRequest {
        workflow_id,
        run_id,
        after_event_id,
    };
    let watch = gateway.watch_workflow(&onward, request).await;
    let watch = watch.map_err(|status| in_our_words(Fault::from(status), ""))?;
    let frames =
        ReceiverStream::new(watch.follow(&gateway, "workflow_watch")).filter_map(async |frame| {
            let event = event(frame)?;
            Some(Ok::<Event, Infallible>(event.retry(COME_BACK)))
        });
    let alive = KeepAlive::new().interval(KEEP_ALIVE);
    Ok(Sse::new(frames).keep_alive(alive).into_response())
}

/// A frame as an event; none of a frame that this build does not know.
fn event(frame: WatchFrame) -> Option<Event> {
    match frame.map(|frame| frame.frame) {
        Ok(Some(Frame::Snapshot(run))) => {
            let id = run.event_id.clone();
            let snapshot = WorkflowOut::whole(run);
            Some(named("snapshot", &id, serde_json::to_string(&snapshot)))
        },
        Ok(Some(Frame::Event(event))) => {
            let id = event.event_id.clone();
            let event = EventOut::from(event);
            Some(named("event", &id, serde_json::to_string(&event)))
        },
        Ok(None) => None,
        Err(status) => {
            let problem = ProblemJson::from(&Fault::from(status));
            Some(named("problem", "", serde_json::to_string(&problem)))
        },
    }
}

/// An event of one line of JSON; one without an id leaves the place of its reader as it was.
fn named(name: &str, id: &str, data: serde_json::Result<String>) -> Event {
    let event = Event::default().event(name);
    // An id with a line end would be two lines; ours have none.
    let event = if id.is_empty() || id.contains(['\n', '\r', '\0']) {
        event
    } else {
        event.id(id)
    };
    event.data(data.unwrap_or_default())
}
