//! Helps another group out: one more membership beside the own, over the same handlers.
//!
//! It is a membership like any other, in a task of its own, with three differences: its handlers
//! share the permits of the own one, it leaves by itself (when its group gave nothing for a while,
//! when the own group has work again, when its connection is lost), and it never keeps the worker
//! from ending. There is one at a time; what is offered meanwhile is passed over.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use hive_protocol::wire::Offer;
use tokio::{
    task::JoinSet,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    super::{Ended, Event, Settings, Watch, WorkError},
    Errand, Membership, Work,
};

/// How long a group gives nothing until it is left.
const QUIET: Duration = Duration::from_secs(10);

/// A helping membership until its end: the group, and how it ended.
type Run = Pin<Box<dyn Future<Output = (String, Result<Ended, WorkError>)> + Send>>;

/// How a help ended: the group, and what was done there.
pub(super) struct Helped {
    group: String,
    ended: Result<Ended, WorkError>,
}

/// The other group that is helped out, if any.
#[derive(Default)]
pub(super) struct Help {
    // At most one; dropped with the worker, it ends with it.
    run: JoinSet<(String, Result<Ended, WorkError>)>,
    ends: CancellationToken,
}

impl Help {
    pub(super) fn is_under_way(&self) -> bool {
        !self.run.is_empty()
    }

    /// Asks it to end; what is begun there is finished first.
    pub(super) fn end(&self) {
        if self.is_under_way() {
            self.ends.cancel();
        }
    }

    /// Waits for its end; none where there is none, or it was torn down. Cancel safe.
    pub(super) async fn ended(&mut self) -> Option<Helped> {
        let (group, ended) = self.run.join_next().await?.ok()?;
        Some(Helped { group, ended })
    }
}

impl<W: Work> Membership<W> {
    /// Takes an offer up, unless there is something better to do.
    pub(super) fn take_offer(&mut self, offer: Offer) {
        let is_free = self.settings.accept_offers
            && !self.is_leaving
            && !self.help.is_under_way()
            && self.table.is_empty();
        if !is_free || offer.group == self.settings.group {
            return;
        }
        let Offer { group, reason } = offer;
        self.tell(Event::Offered {
            group: group.clone(),
            reason,
        });
        self.help.ends = CancellationToken::new();
        let run = self.helping(group);
        self.help.run.spawn(run);
    }

    /// The membership in the offered group. Not asynchronous: the future of a membership cannot
    /// hold its own type.
    fn helping(&self, group: String) -> Run {
        let settings = Settings {
            group: group.clone(),
            // What waits here waits for the own group's handlers too.
            max_in_flight: None,
            must_exist: true,
            accept_offers: false,
            // It is deleted or kept for what it does in the own group.
            pod: String::new(),
            watch: self
                .settings
                .watch
                .clone()
                .map(|watch| told_of(&group, watch)),
            ..self.settings.clone()
        };
        let (client, work) = (self.client.clone(), Arc::clone(&self.work));
        let mut helper = Self::sharing(client, settings, work, Arc::clone(&self.slots));
        helper.errand = Some(Errand {
            ends: self.help.ends.clone(),
            given: Instant::now(),
        });
        Box::pin(async move { (group, helper.run().await) })
    }

    /// Notes what came of a help that ended.
    pub(super) fn returned(&mut self, helped: Helped) {
        let Helped { group, ended } = helped;
        let handled = match ended {
            Ok(ended) => {
                self.unfinished += ended.unfinished;
                ended.handled
            },
            // The own group is what this worker lives for.
            Err(error) => {
                tracing::debug!(group, %error, "help_refused");
                0
            },
        };
        self.handled += handled;
        self.tell(Event::Returned { group, handled });
    }

    /// The worker ends: waits for the help to end too, which the shutdown bounds by the grace. One
    /// that is lost with the own membership is not waited for any longer than that.
    pub(super) async fn end_helping(&mut self, is_failed: bool) {
        self.help.end();
        let grace = self.settings.grace;
        while self.help.is_under_way() {
            let ended = self.help.ended();
            let helped = if is_failed {
                match timeout(grace, ended).await {
                    Ok(helped) => helped,
                    Err(_elapsed) => return,
                }
            } else {
                ended.await
            };
            if let Some(helped) = helped {
                self.returned(helped);
            }
        }
    }

    /// As a help: leaves where the own group has work again.
    pub(super) fn look_at_errand(&mut self) {
        if self
            .errand
            .as_ref()
            .is_some_and(|errand| errand.ends.is_cancelled())
        {
            self.begin_leave();
        }
    }

    /// As a help: the connection is lost. What is begun is settled, and no more is taken.
    pub(super) fn abandon_errand(&mut self) {
        if self.errand.is_some() {
            self.begin_leave();
        }
    }

    /// As a help: the group gave something just now.
    pub(super) fn note_given(&mut self) {
        if let Some(errand) = &mut self.errand {
            errand.given = Instant::now();
        }
    }

    /// As a help: when the group has given nothing for long enough.
    pub(super) fn quiet_ends(&self) -> Option<Instant> {
        let errand = self.errand.as_ref()?;
        (!self.is_leaving && self.table.is_empty()).then(|| errand.given + QUIET)
    }
}

/// What whoever watches the worker is told of a help: that it stands, and what concerns messages.
/// Its connections come and go unseen: they would look like those of the own group.
fn told_of(group: &str, watch: Watch) -> Watch {
    let group = group.to_owned();
    let stands = AtomicBool::new(false);
    Arc::new(move |event| match event {
        Event::Joined { .. } => {
            if !stands.swap(true, Ordering::Relaxed) {
                let group = group.clone();
                watch(Event::Helping { group });
            }
        },
        Event::Cancelled { .. } | Event::SettleRefused { .. } | Event::HandlerPanicked { .. } => {
            watch(event);
        },
        Event::LostConnection { .. }
        | Event::WaitingForGroup
        | Event::Draining { .. }
        | Event::Revoked { .. }
        | Event::ShuttingDown { .. }
        | Event::ScaledDown { .. }
        | Event::Offered { .. }
        | Event::Helping { .. }
        | Event::Returned { .. } => {},
    })
}
