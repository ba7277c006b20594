//! The frames of one membership: joins, grants, runs, settles, and joins again.
//!
//! One task owns everything; handlers run beside it and hand back their outcome. Frames leave over
//! a queue of one, so whatever gathers while a frame is on its way rides in the next: batches
//! without timers. What this never does: start an unbegun delivery while the connection is down,
//! for nobody knows whose it is then.

mod help;
mod link;

use std::{any::Any, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures_util::FutureExt as _;
use hive_protocol::{
    fault::{Fault, FaultKind, Reason},
    wire::{
        ConsumeRequest, Credit, Delivery, DrainReason, Join, Leave, Message, Progress,
        SettleResult, consume_request, consume_response, outcome::Action,
    },
};
use prost::Message as _;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use self::{help::Help, link::Link};
use super::{
    Ended, Event, Failure, Settings, WorkError,
    job::{Job, Outcome, Work, nack},
    table::Table,
};
use crate::{backoff::Backoff, client::Client};

/// Category of a failure by a panic.
const HANDLER_EXCEPTION: &str = "handler_exception";
/// Type of the error of a failure by a panic.
const PANIC: &str = "panic";
/// Category of a message that does not decode.
const UNDECODABLE: &str = "undecodable";
/// How long a connection must have held for the next failure to be a first one.
const STEADY: Duration = Duration::from_secs(2);
/// How long to wait for the last answers after the grace.
const FAREWELL: Duration = Duration::from_secs(3);
/// Progress reports that wait for the line; more are dropped.
const REPORTS_MAX: usize = 64;

/// An outcome of a handler: the entry, the message's id, and what it said or how it panicked.
type Done = (String, String, Result<Outcome, String>);

/// One agent in a group.
pub(super) struct Membership<W> {
    client: Client,
    settings: Settings,
    work: Arc<W>,
    table: Table,
    handlers: JoinSet<Done>,
    // Told to stop when their delivery is, or when the membership ends.
    stop_handlers: CancellationToken,
    reports: (mpsc::Sender<String>, mpsc::Receiver<String>),
    session: String,
    handled: u64,
    // It takes nothing more, and leaves once nothing is held.
    is_leaving: bool,
    // The server asked it to go for good.
    is_drained: bool,
    // When the grace ends, once the shutdown began, or nothing but handlers is left whose work was
    // taken away.
    grace_ends: Option<Instant>,
    unfinished: usize,
    // One permit per handler that may run, here and in a group that is helped out.
    slots: Arc<Semaphore>,
    // One that was waited for, until the next handler starts.
    slot: Option<OwnedSemaphorePermit>,
    // The other group that this agent helps out.
    help: Help,
    // Set where this membership is such a help.
    errand: Option<Errand>,
}

/// What a membership needs to know that only helps out.
struct Errand {
    /// Fires when the agent's own group has work again.
    ends: CancellationToken,
    /// When the group gave something last.
    given: Instant,
}

/// Why a connection is over.
pub(super) enum End {
    /// All is settled and left.
    Left,
    /// Join again, first elsewhere.
    Lost(Fault),
    /// The gateway asked to go elsewhere.
    Drained,
    /// The group is not there.
    NoGroup(Fault),
    /// It can never be.
    Refused(Fault),
}

impl<W: Work> Membership<W> {
    pub(super) fn new(client: Client, settings: Settings, work: Arc<W>) -> Self {
        let slots = Arc::new(Semaphore::new(settings.concurrency as usize));
        Self::sharing(client, settings, work, slots)
    }

    /// A membership whose handlers run only with one of these permits.
    fn sharing(client: Client, settings: Settings, work: Arc<W>, slots: Arc<Semaphore>) -> Self {
        Self {
            client,
            settings,
            work,
            table: Table::default(),
            handlers: JoinSet::new(),
            stop_handlers: CancellationToken::new(),
            reports: mpsc::channel(REPORTS_MAX),
            session: String::new(),
            handled: 0,
            is_leaving: false,
            is_drained: false,
            grace_ends: None,
            unfinished: 0,
            slots,
            slot: None,
            help: Help::default(),
            errand: None,
        }
    }

    /// Works until the shutdown or the server's word, over as many connections as it takes.
    pub(super) async fn run(mut self) -> Result<Ended, WorkError> {
        let end = self.work_on().await;
        self.end_helping(end.is_err()).await;
        end.map(|()| self.ended())
    }

    async fn work_on(&mut self) -> Result<(), WorkError> {
        let mut backoff = Backoff::new();
        // A place among the gateways: below their number.
        let mut gateway = self.client.current();
        let mut failures = 0;
        loop {
            if self.settings.shutdown.is_cancelled() && self.may_end_unconnected().await {
                return Ok(());
            }
            // The other ways to be asked to go know no grace: what runs is settled over another
            // connection, and nothing is owed without any.
            self.look_at_errand();
            if self.is_leaving && self.table.is_empty() {
                return Ok(());
            }
            let started = Instant::now();
            let end = self.connection(gateway).await;
            if started.elapsed() >= STEADY {
                backoff.reset();
                failures = 0;
            }
            match end {
                End::Left => return Ok(()),
                End::Drained => {
                    self.abandon_errand();
                    gateway = self.client.leave(gateway);
                    // Gateways that all go away must not be run around in circles.
                    if started.elapsed() < STEADY {
                        self.pause(backoff.next_wait()).await;
                    }
                },
                End::Lost(fault) => {
                    let url = self.client.gateway_at(gateway).url().to_owned();
                    tracing::debug!(gateway = %url, %fault, "membership_connection_lost");
                    let retry_after = fault.retry_after.unwrap_or_default();
                    self.tell(Event::LostConnection {
                        gateway: url,
                        fault,
                    });
                    gateway = self.client.leave(gateway);
                    self.abandon_errand();
                    failures += 1;
                    // The first failure goes to another gateway at once; a full round waits.
                    if failures % self.client.gateways().len() == 0 {
                        self.pause(backoff.next_wait().max(retry_after)).await;
                    }
                },
                End::NoGroup(fault) if self.settings.must_exist => {
                    let group = self.settings.group.clone();
                    return Err(WorkError::NoGroup { group, fault });
                },
                End::NoGroup(_) => {
                    self.table.forget();
                    self.session.clear();
                    self.tell(Event::WaitingForGroup);
                    self.pause(backoff.next_wait()).await;
                },
                End::Refused(fault) => return Err(self.refused(fault)),
            }
        }
    }

    fn ended(&self) -> Ended {
        Ended {
            handled: self.handled,
            unfinished: self.unfinished,
            drained: self.is_drained,
        }
    }

    fn refused(&self, fault: Fault) -> WorkError {
        if fault.kind == FaultKind::Fenced {
            let consumer_id = self.settings.consumer_id.clone();
            return WorkError::Fenced { consumer_id, fault };
        }
        let group = self.settings.group.clone();
        WorkError::Refused { group, fault }
    }

    /// Waits before the next attempt; outcomes are taken meanwhile, and a shutdown ends it.
    async fn pause(&mut self, wait: Duration) {
        let over = sleep(wait);
        tokio::pin!(over);
        let shutdown = self.settings.shutdown.clone();
        let is_shutting = shutdown.is_cancelled();
        loop {
            tokio::select! {
                () = &mut over => return,
                Some(done) = self.handlers.join_next(), if !self.handlers.is_empty() => {
                    if let Ok(done) = done {
                        self.take(done);
                    }
                },
                () = shutdown.cancelled(), if !is_shutting => return,
            }
        }
    }

    /// With the shutdown begun and no connection: whether there is nothing left to connect for.
    async fn may_end_unconnected(&mut self) -> bool {
        self.begin_shutdown();
        let grace_ends = self.grace_ends.unwrap_or_else(Instant::now);
        // Nothing is owed: the server has given the membership up with the connection.
        if self.table.is_empty() {
            return true;
        }
        if Instant::now() < grace_ends {
            return false;
        }
        self.abandon().await;
        // What is unanswered the server gives up by itself when the session stays away.
        Instant::now() >= grace_ends + FAREWELL
    }

    /// One connection, from the join to its end.
    async fn connection(&mut self, gateway: usize) -> End {
        let join = Join {
            group: self.settings.group.clone(),
            consumer_id: self.settings.consumer_id.clone(),
            session: self.session.clone(),
            capabilities: self.settings.capabilities.clone(),
            max_in_flight: (self.settings.max_in_flight).unwrap_or(self.settings.concurrency),
            concurrency: self.settings.concurrency,
            held_leases: self.table.leases(),
            accepts_offers: self.settings.accept_offers,
            pod: self.settings.pod.clone(),
        };
        let gateway = self.client.gateway_at(gateway).clone();
        let (mut link, joined) = match Link::join(&gateway, join).await {
            Ok(joined) => joined,
            Err(end) => return end,
        };
        self.session = joined.session;
        let lost = joined.lost_leases.len();
        let leases = self.table.rejoin(joined.max_in_flight, joined.lost_leases);
        self.take_nothing_more();
        self.tell(Event::Joined {
            gateway: gateway.url().to_owned(),
            attach: joined.attach,
            lost,
        });
        self.tell_cancelled(leases, "lost while the connection was down");
        self.exchange(&mut link, gateway.url()).await
    }

    /// Frames in both directions until the connection is over.
    async fn exchange(&mut self, link: &mut Link, url: &str) -> End {
        let shutdown = self.settings.shutdown.clone();
        let frames = link.frames.clone();
        let slots = Arc::clone(&self.slots);
        let errand_ends = self.errand.as_ref().map(|errand| errand.ends.clone());
        let errand_ends = errand_ends.unwrap_or_default();
        loop {
            self.start_handlers();
            if self.is_leaving && self.table.is_empty() {
                return link.leave(leave()).await;
            }
            self.begin_grace();
            let grace_ends = self.grace_ends;
            let (needs_slot, quiet_ends) = (self.needs_slot(), self.quiet_ends());
            let has_frame =
                link.is_beat_due || self.table.has_outcomes() || self.table.credit.is_pending();
            tokio::select! {
                biased;
                frame = link.next() => match frame {
                    Ok(frame) => if let Some(end) = self.receive(frame, url) { return end },
                    Err(end) => return end,
                },
                permit = frames.reserve(), if has_frame => match permit {
                    Ok(permit) => if let Some(frame) = self.next_frame(link) { permit.send(frame) },
                    Err(_closed) => return link.why().await,
                },
                Some(done) = self.handlers.join_next(), if !self.handlers.is_empty() => {
                    self.take_all(done);
                },
                Ok(slot) = Arc::clone(&slots).acquire_owned(), if needs_slot => {
                    self.slot = Some(slot);
                },
                Some(helped) = self.help.ended(), if self.help.is_under_way() => {
                    self.returned(helped);
                },
                () = errand_ends.cancelled(), if !self.is_leaving => self.begin_leave(),
                () = until(quiet_ends), if quiet_ends.is_some() => self.begin_leave(),
                Some(entry) = self.reports.1.recv() => self.report(&entry, &frames),
                () = shutdown.cancelled(), if grace_ends.is_none() => self.begin_shutdown(),
                () = until(grace_ends), if grace_ends.is_some() => {
                    self.abandon().await;
                    return self.farewell(link).await;
                },
            }
        }
    }

    /// Starts handlers for what is queued, up to the concurrency.
    fn start_handlers(&mut self) {
        while self.may_start() {
            let slot = self.slot.take();
            let slot = slot.or_else(|| Arc::clone(&self.slots).try_acquire_owned().ok());
            let Some(slot) = slot else {
                return;
            };
            let Some((entry, delivery)) = self.table.start(&self.stop_handlers) else {
                return;
            };
            self.start_handler(entry, delivery, slot);
        }
        // Nothing waits for it any more.
        self.slot = None;
    }

    fn may_start(&self) -> bool {
        let has_room = self.table.running() < self.settings.concurrency as usize;
        !self.is_leaving && has_room && self.table.has_queued()
    }

    /// Whether a delivery waits for a handler of the other group to end.
    fn needs_slot(&self) -> bool {
        self.may_start() && self.slot.is_none()
    }

    fn start_handler(&mut self, entry: String, delivery: Delivery, slot: OwnedSemaphorePermit) {
        let message = match Message::decode(delivery.message) {
            Ok(message) => message,
            Err(error) => {
                let reason = format!("message does not decode: {error}");
                let outcome = Outcome::reject(reason).category(UNDECODABLE);
                self.table.finish(entry, outcome.into_action());
                return;
            },
        };
        let message_id = message.message_id.clone();
        let job = Job {
            message,
            attempt: delivery.attempt,
            lease: delivery.lease,
            lease_expires_at: delivery.lease_expires_at.and_then(|at| at.try_into().ok()),
            consumer_id: self.settings.consumer_id.clone(),
            group: self.settings.group.clone(),
            cancelled: self.table.cancellation(&entry).unwrap_or_default(),
            entry: entry.clone(),
            progress: self.reports.0.clone(),
        };
        let work = Arc::clone(&self.work);
        self.handlers.spawn(async move {
            let handled = AssertUnwindSafe(async { work.work(job).await }).catch_unwind();
            let outcome = handled.await.map_err(|panic| words_of(&*panic));
            drop(slot);
            (entry, message_id, outcome)
        });
    }

    /// Takes this outcome and all that are ready.
    fn take_all(&mut self, first: Result<Done, tokio::task::JoinError>) {
        let mut next = Some(first);
        while let Some(done) = next {
            // Panics are caught inside; what remains is a handler that was aborted at the end.
            if let Ok(done) = done {
                self.take(done);
            }
            next = self.handlers.try_join_next();
        }
    }

    fn take(&mut self, (entry, message_id, outcome): Done) {
        let action: Action = match outcome {
            Ok(outcome) => outcome.into_action(),
            Err(reason) => {
                let failure = Failure::new(reason.clone())
                    .category(HANDLER_EXCEPTION)
                    .error_type(PANIC);
                let action = nack(failure, None);
                self.tell(Event::HandlerPanicked { message_id, reason });
                action
            },
        };
        if self.table.finish(entry, action) {
            self.handled += 1;
        }
        self.take_nothing_more();
    }

    /// Takes one frame of the server; an end when it asks for one.
    fn receive(&mut self, frame: consume_response::Frame, url: &str) -> Option<End> {
        match frame {
            consume_response::Frame::Deliveries(deliveries) => {
                for delivery in deliveries.deliveries {
                    self.table.deliver(delivery);
                }
                self.note_given();
                self.help.end();
            },
            consume_response::Frame::Settled(settled) => {
                self.settled(&settled.results);
                self.note_given();
            },
            consume_response::Frame::Revoke(revoke) => {
                let asked = revoke.messages;
                let released = self.table.revoke(asked);
                self.tell(Event::Revoked { asked, released });
            },
            consume_response::Frame::Cancel(cancel) => {
                let cancelled = self.table.cancel(cancel.leases);
                self.tell_cancelled(cancelled, &cancel.reason);
            },
            consume_response::Frame::Drain(drain) if drain.reason() == DrainReason::ScaleDown => {
                self.begin_drain();
            },
            consume_response::Frame::Drain(_) => {
                let gateway = url.to_owned();
                self.tell(Event::Draining { gateway });
                if self.client.gateways().len() > 1 {
                    return Some(End::Drained);
                }
            },
            consume_response::Frame::Offer(offer) => self.take_offer(offer),
            // A second `joined` says nothing new, and a keep-alive has been heard already.
            consume_response::Frame::Joined(_) | consume_response::Frame::KeepAlive(_) => {},
        }
        self.take_nothing_more();
        None
    }

    fn settled(&mut self, results: &[SettleResult]) {
        for result in results {
            if let Some(error) = self.table.answer(result) {
                let lease = result.lease.clone();
                self.tell(Event::SettleRefused { lease, error });
            }
        }
    }

    /// The most urgent frame: a heartbeat that is due, outcomes, then credit for more.
    fn next_frame(&mut self, link: &mut Link) -> Option<ConsumeRequest> {
        let frame = if std::mem::take(&mut link.is_beat_due) {
            consume_request::Frame::Heartbeat(self.table.heartbeat())
        } else if self.table.has_outcomes() {
            let settles = self.table.settles();
            if settles.outcomes.is_empty() {
                return None;
            }
            consume_request::Frame::Settle(settles)
        } else if self.table.credit.is_pending() {
            let messages = self.table.credit.grant();
            consume_request::Frame::Credit(Credit { messages })
        } else {
            return None;
        };
        Some(ConsumeRequest { frame: Some(frame) })
    }

    /// Sends a progress report if the line is free; heartbeats keep the lease without it.
    fn report(&self, entry: &str, frames: &mpsc::Sender<ConsumeRequest>) {
        if let Some(lease) = self.table.lease_of(entry) {
            let frame = Some(consume_request::Frame::Progress(Progress { lease }));
            drop(frames.try_send(ConsumeRequest { frame }));
        }
    }

    /// Stops taking: what is unstarted goes back, what runs has the grace to end.
    fn begin_shutdown(&mut self) {
        if self.grace_ends.is_none() {
            self.grace_ends = Some(Instant::now() + self.settings.grace);
            self.begin_leave();
            let running = self.table.running();
            self.tell(Event::ShuttingDown { running });
        }
    }

    /// Fewer agents are wanted: as a shutdown, but what runs has all the time it takes, and the
    /// worker is not to be started again.
    fn begin_drain(&mut self) {
        if !self.is_drained {
            self.is_drained = true;
            self.help.end();
            self.begin_leave();
            let running = self.table.running();
            self.tell(Event::ScaledDown { running });
        }
    }

    /// To leave, with handlers alone whose work was taken away: they have the grace of a shutdown.
    /// One that hangs would keep the worker for ever, and settles nothing.
    fn begin_grace(&mut self) {
        if self.is_leaving && self.grace_ends.is_none() && self.table.is_left_to_end() {
            self.grace_ends = Some(Instant::now() + self.settings.grace);
        }
    }

    /// Stops taking, to leave once nothing is held.
    fn begin_leave(&mut self) {
        self.is_leaving = true;
        self.take_nothing_more();
    }

    /// Once it is to leave: grants no credit, and gives back what came all the same.
    fn take_nothing_more(&mut self) {
        if self.is_leaving {
            self.table.credit.stop();
            self.table.release_unstarted(usize::MAX);
        }
    }

    /// The grace is over: stops the handlers that still run. Their leases go back with the leave.
    async fn abandon(&mut self) {
        self.unfinished += self.table.running();
        self.stop_handlers.cancel();
        self.handlers.shutdown().await;
        self.table.abandon_running();
    }

    /// Sends the last outcomes and leaves, with or without their answers.
    async fn farewell(&mut self, link: &mut Link) -> End {
        let exchange = async {
            while !self.table.is_settled() {
                let has_frame = self.table.has_outcomes();
                let frames = link.frames.clone();
                tokio::select! {
                    frame = link.next() => match frame {
                        Ok(frame) => drop(self.receive(frame, "")),
                        Err(_end) => return,
                    },
                    permit = frames.reserve(), if has_frame => match permit {
                        Ok(permit) => if let Some(frame) = self.next_frame(link) {
                            permit.send(frame);
                        },
                        Err(_closed) => return,
                    },
                }
            }
        };
        // Unanswered or not, the leave gives back what is still held.
        drop(timeout(FAREWELL, exchange).await);
        link.leave(leave()).await
    }

    fn tell_cancelled(&self, leases: Vec<String>, reason: &str) {
        if !leases.is_empty() {
            let reason = reason.to_owned();
            self.tell(Event::Cancelled { leases, reason });
        }
    }

    fn tell(&self, event: Event) {
        if let Some(watch) = &self.settings.watch {
            watch(event);
        }
    }
}

/// What the end of a stream means for the membership.
pub(super) fn end_of(fault: Fault) -> End {
    match fault.kind {
        FaultKind::Unavailable
        | FaultKind::Timeout
        | FaultKind::Saturated
        | FaultKind::Corrupt
        | FaultKind::Bug => End::Lost(fault),
        FaultKind::NotFound => End::NoGroup(fault),
        FaultKind::WrongState if fault.reason == Reason::GroupGone => End::NoGroup(fault),
        FaultKind::Invalid
        | FaultKind::Unauthenticated
        | FaultKind::Forbidden
        | FaultKind::Exists
        | FaultKind::WrongState
        | FaultKind::Fenced
        | FaultKind::Unsupported => End::Refused(fault),
    }
}

const fn leave() -> ConsumeRequest {
    ConsumeRequest {
        frame: Some(consume_request::Frame::Leave(Leave {})),
    }
}

/// Until this moment; for ever without one.
async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

/// What a panic said.
fn words_of(panic: &(dyn Any + Send)) -> String {
    let words = panic
        .downcast_ref::<&str>()
        .map(|words| (*words).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned());
    words.map_or_else(
        || "the handler panicked".to_owned(),
        |words| format!("the handler panicked: {words}"),
    )
}
