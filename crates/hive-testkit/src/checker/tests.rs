//! Each rule finds a history that breaks it and passes one that nearly does.

use super::*;
use crate::history::{
    Action, AtRest, Damage, DeadCause, DeadLetter, Delivery, Entry, Event, Failure, Figures, Loss,
    Name, Publish, PublishAnswer, SettleAnswer, Target,
};

/// A history written by hand: group `g`, one event per 10 ms unless told otherwise.
#[derive(Default)]
struct Log {
    history: History,
    now: Duration,
    calls: u64,
}

impl Log {
    fn event(&mut self, event: Event) -> &mut Self {
        self.now += Duration::from_millis(10);
        self.history.entries.push(Entry {
            at: self.now,
            event,
        });
        self
    }

    fn after(&mut self, millis: u64) -> &mut Self {
        self.now += Duration::from_millis(millis);
        self
    }

    fn call(&mut self) -> u64 {
        self.calls += 1;
        self.calls
    }

    fn publish_called(&mut self, publish: Publish) -> u64 {
        let call = self.call();
        self.event(Event::PublishCalled {
            call,
            publish: Box::new(publish),
        });
        call
    }

    fn publish_answered(&mut self, call: u64, answer: PublishAnswer) -> &mut Self {
        self.event(Event::PublishAnswered { call, answer })
    }

    fn publish(&mut self, publish: Publish, answer: PublishAnswer) -> &mut Self {
        let call = self.publish_called(publish);
        self.publish_answered(call, answer)
    }

    fn stored(&mut self, id: &str) -> &mut Self {
        self.publish(message(id), PublishAnswer::Stored(id.into()))
    }

    /// Lease `<consumer><attempt>` of message `id`, unless named.
    fn delivered(&mut self, lease: &str, id: &str, consumer: &str, attempt: u32) -> &mut Self {
        self.event(Event::Delivered(Box::new(Delivery {
            group: "g".into(),
            message: id.into(),
            consumer: consumer.into(),
            attempt,
            lease: lease.into(),
            count: None,
            payload: 7,
        })))
    }

    fn counted(&mut self, lease: &str, id: &str, consumer: &str, count: u64) -> &mut Self {
        self.event(Event::Delivered(Box::new(Delivery {
            group: "g".into(),
            message: id.into(),
            consumer: consumer.into(),
            attempt: 1,
            lease: lease.into(),
            count: Some(count),
            payload: 7,
        })))
    }

    fn settle_called(&mut self, lease: &str, action: Action) -> u64 {
        let call = self.call();
        self.event(Event::SettleCalled {
            call,
            lease: lease.into(),
            action,
        });
        call
    }

    fn settle(&mut self, lease: &str, action: Action, answer: SettleAnswer) -> &mut Self {
        let call = self.settle_called(lease, action);
        self.event(Event::SettleAnswered { call, answer })
    }

    fn acked(&mut self, lease: &str) -> &mut Self {
        self.settle(lease, Action::Ack, SettleAnswer::Ok)
    }

    fn beat(&mut self, lease: &str) -> &mut Self {
        self.event(Event::Heartbeat {
            leases: vec![lease.into()],
        })
    }

    fn begun(&mut self, lease: &str) -> &mut Self {
        self.event(Event::Begun {
            lease: lease.into(),
        })
    }

    fn lost(&mut self, consumer: &str, loss: Loss) -> &mut Self {
        self.event(Event::ConsumerLost {
            group: "g".into(),
            consumer: consumer.into(),
            loss,
        })
    }

    fn fault(&mut self, target: Target, damage: Damage) -> &mut Self {
        self.event(Event::FaultBegan {
            name: "f".into(),
            target,
            damage,
        })
    }

    fn healed(&mut self) -> &mut Self {
        self.event(Event::FaultEnded { name: "f".into() })
    }

    fn dead(&mut self, id: &str, cause: DeadCause, failures: &[(&str, bool)]) -> &mut Self {
        let failures = failures
            .iter()
            .map(|&(consumer, is_loss)| Failure {
                consumer: consumer.into(),
                is_loss,
            })
            .collect();
        let letter = DeadLetter {
            group: "g".into(),
            message: id.into(),
            cause,
            failures,
        };
        self.event(Event::DeadLetter(Box::new(letter)))
    }

    fn rest(&mut self, unsettled: &[&str], figures: Option<Figures>) -> &mut Self {
        let unsettled = unsettled.iter().map(|id| Name::from(*id)).collect();
        let rest = AtRest {
            group: "g".into(),
            unsettled,
            figures,
        };
        self.event(Event::AtRest(Box::new(rest)))
    }

    /// The rules that the history breaks, each once.
    fn broken_by(&mut self, terms: &Terms) -> Vec<Rule> {
        let mut rules: Vec<Rule> = check(&self.history, terms)
            .violations
            .iter()
            .map(|found| found.rule)
            .collect();
        rules.sort_unstable();
        rules.dedup();
        rules
    }

    /// Ends the run with nothing left and judges it by the default terms.
    fn broken(&mut self) -> Vec<Rule> {
        self.rest(&[], None).broken_by(&Terms::default())
    }
}

fn log() -> Log {
    Log::default()
}

fn message(id: &str) -> Publish {
    Publish {
        message: id.into(),
        groups: vec!["g".into()],
        payload: 7,
        is_sequenced: true,
        ..Publish::default()
    }
}

fn keyed(id: &str, key: &str) -> Publish {
    Publish {
        idempotency_key: Some(key.into()),
        ..message(id)
    }
}

fn ordered(id: &str) -> Publish {
    Publish {
        ordering_key: Some("k".into()),
        ..message(id)
    }
}

fn stored(id: &str) -> PublishAnswer {
    PublishAnswer::Stored(id.into())
}

#[test]
fn a_message_that_was_acked_is_fine() {
    assert_eq!(
        log()
            .stored("m")
            .delivered("a1", "m", "a", 1)
            .acked("a1")
            .broken(),
        []
    );
}

#[test]
fn an_acked_publish_that_vanished_is_lost() {
    assert_eq!(log().stored("m").broken(), [Rule::Lost]);
    assert_eq!(
        log().publish(message("m"), PublishAnswer::Unknown).broken(),
        []
    );
    assert_eq!(
        log().publish(message("m"), PublishAnswer::Refused).broken(),
        []
    );
}

#[test]
fn a_message_that_only_somebody_unknown_settled_is_lost() {
    let mut log = log();
    log.stored("m").delivered("a1", "m", "a", 1);
    log.settle("a1", Action::Ack, SettleAnswer::Gone);
    assert!(log.broken().contains(&Rule::Lost));
}

#[test]
fn an_ack_without_an_answer_may_have_been_taken() {
    let mut log = log();
    log.stored("m")
        .delivered("a1", "m", "a", 1)
        .settle_called("a1", Action::Ack);
    assert_eq!(log.broken(), []);
}

#[test]
fn what_a_redis_without_sync_forgot_within_its_window_is_not_lost() {
    let terms = Terms {
        loss_window: Some(Duration::from_secs(1)),
        is_drained: false,
        ..Terms::default()
    };
    let killed_after = |millis| {
        let mut log = log();
        log.stored("m")
            .after(millis)
            .fault(Target::Redis, Damage::Killed)
            .healed();
        log.rest(&[], None).broken_by(&terms)
    };
    assert_eq!(killed_after(500), []);
    assert_eq!(killed_after(1_500), [Rule::Lost]);
}

#[test]
fn a_group_without_a_record_at_rest_proves_nothing() {
    assert_eq!(
        log().stored("m").broken_by(&Terms::default()),
        [Rule::LogBroken]
    );
}

#[test]
fn an_answer_without_a_call_breaks_the_log() {
    assert_eq!(
        log().publish_answered(9, PublishAnswer::Unknown).broken(),
        [Rule::LogBroken]
    );
    let answer = SettleAnswer::Ok;
    assert_eq!(
        log()
            .event(Event::SettleAnswered { call: 9, answer })
            .broken(),
        [Rule::LogBroken]
    );
}

#[test]
fn a_log_that_dropped_events_is_broken() {
    let mut log = log();
    log.history.dropped = 1;
    assert_eq!(log.broken(), [Rule::LogBroken]);
}

#[test]
fn a_delivery_that_nobody_published_is_a_phantom() {
    assert_eq!(log().delivered("a1", "m", "a", 1).broken(), [Rule::Phantom]);
    let mut refused = log();
    refused
        .publish(message("m"), PublishAnswer::Refused)
        .delivered("a1", "m", "a", 1);
    assert_eq!(refused.broken(), [Rule::Phantom]);
}

#[test]
fn a_delivery_to_another_group_is_a_phantom() {
    let elsewhere = Publish {
        groups: vec!["h".into()],
        ..message("m")
    };
    let mut log = log();
    log.publish(elsewhere, PublishAnswer::Unknown)
        .delivered("a1", "m", "a", 1);
    assert_eq!(log.broken(), [Rule::Phantom]);
}

#[test]
fn a_changed_payload_is_found() {
    let other = Publish {
        payload: 8,
        ..message("m")
    };
    let mut log = log();
    log.publish(other, stored("m"))
        .delivered("a1", "m", "a", 1)
        .acked("a1");
    assert_eq!(log.broken(), [Rule::PayloadChanged]);
}

#[test]
fn a_key_that_was_stored_twice_is_found() {
    let twice = |second: &str| {
        let mut log = log();
        log.publish(keyed("m", "k"), stored("m"))
            .publish(keyed("n", "k"), stored(second));
        log.delivered("a1", "m", "a", 1).acked("a1");
        if second == "n" {
            log.delivered("a2", "n", "a", 1).acked("a2");
        }
        log.broken()
    };
    assert_eq!(twice("m"), []);
    assert_eq!(twice("n"), [Rule::DuplicateKey]);
}

#[test]
fn a_second_entry_of_a_key_is_found_by_its_delivery_alone() {
    let mut log = log();
    log.publish(keyed("m", "k"), stored("m"))
        .publish(keyed("n", "k"), PublishAnswer::Unknown);
    log.delivered("a1", "m", "a", 1)
        .acked("a1")
        .delivered("a2", "n", "a", 1)
        .acked("a2");
    assert_eq!(log.broken(), [Rule::DuplicateKey]);
}

#[test]
fn a_plain_message_published_twice_may_be_acked_twice() {
    let plain = || Publish {
        is_sequenced: false,
        ..message("m")
    };
    let mut log = log();
    log.publish(plain(), PublishAnswer::Unknown)
        .publish(plain(), stored("m"));
    log.delivered("a1", "m", "a", 1)
        .acked("a1")
        .delivered("a2", "m", "a", 1)
        .acked("a2");
    assert_eq!(log.broken(), []);
}

#[test]
fn a_second_accepted_ack_is_found() {
    let mut log = log();
    log.stored("m")
        .counted("a1", "m", "a", 1)
        .acked("a1")
        .counted("b1", "m", "b", 2)
        .acked("b1");
    assert_eq!(log.broken(), [Rule::SettledTwice, Rule::StaleAccepted]);
}

#[test]
fn an_ack_and_a_dead_letter_of_one_message_are_found() {
    let mut log = log();
    log.stored("m")
        .delivered("a1", "m", "a", 1)
        .settle("a1", Action::Reject, SettleAnswer::Ok);
    log.delivered("b1", "m", "b", 1)
        .acked("b1")
        .dead("m", DeadCause::Rejected, &[]);
    assert_eq!(log.broken(), [Rule::SettledTwice]);
}

#[test]
fn an_acked_message_that_is_still_pending_is_found() {
    let terms = Terms {
        is_drained: false,
        ..Terms::default()
    };
    let mut log = log();
    log.stored("m")
        .delivered("a1", "m", "a", 1)
        .acked("a1")
        .rest(&["m"], None);
    assert_eq!(log.broken_by(&terms), [Rule::SettleUndone]);
}

#[test]
fn an_ack_beside_a_later_lease_is_stale() {
    let mut log = log();
    log.stored("m")
        .counted("a1", "m", "a", 1)
        .lost("a", Loss::Stopped)
        .counted("b1", "m", "b", 2);
    assert_eq!(log.acked("a1").broken(), [Rule::StaleAccepted]);
}

#[test]
fn a_frame_read_after_its_successor_settled_proves_nothing() {
    let mut log = log();
    log.stored("m")
        .lost("a", Loss::Stopped)
        .counted("b1", "m", "b", 2)
        .acked("b1");
    log.counted("a1", "m", "a", 1)
        .settle("a1", Action::Ack, SettleAnswer::Gone);
    assert_eq!(log.broken(), []);
}

#[test]
fn a_nack_called_before_the_next_lease_is_good_and_one_called_after_it_stale() {
    let nacked = |is_late: bool| {
        let mut log = log();
        log.stored("m").delivered("a1", "m", "a", 1);
        if !is_late {
            log.settle("a1", Action::Nack, SettleAnswer::Ok);
        }
        log.delivered("b2", "m", "b", 2);
        if is_late {
            log.settle("a1", Action::Nack, SettleAnswer::Ok);
        }
        log.acked("b2").broken()
    };
    assert_eq!(nacked(false), []);
    assert_eq!(nacked(true), [Rule::StaleAccepted]);
}

#[test]
fn a_lease_that_was_given_back_settles_nothing() {
    let mut log = log();
    log.stored("m")
        .delivered("a1", "m", "a", 1)
        .settle("a1", Action::Release, SettleAnswer::Ok);
    assert_eq!(log.acked("a1").broken(), [Rule::StaleAccepted]);
}

#[test]
fn leases_that_cannot_be_put_in_order_are_counted() {
    let mut log = log();
    log.stored("m")
        .delivered("a1", "m", "a", 1)
        .delivered("b1", "m", "b", 1)
        .acked("b1");
    let report = check(&log.rest(&[], None).history, &Terms::default());
    assert_eq!((report.undecided, report.violations.len()), (1, 0));
}

#[test]
fn a_forged_lease_that_was_taken_is_found() {
    assert_eq!(log().acked("x").broken(), [Rule::ForgedAccepted]);
    assert_eq!(
        log()
            .settle("x", Action::Ack, SettleAnswer::Refused)
            .broken(),
        []
    );
}

/// A consumer works 40 s on one message, is refused, and somebody else acks it.
fn long_work(beats: bool, trouble: impl Fn(&mut Log)) -> Vec<Rule> {
    let mut log = log();
    log.stored("m").counted("a1", "m", "a", 1);
    for _ in 0..4 {
        log.after(10_000);
        if beats {
            log.beat("a1");
        }
    }
    trouble(&mut log);
    log.counted("b2", "m", "b", 2)
        .settle("a1", Action::Ack, SettleAnswer::Stale)
        .acked("b2");
    let terms = Terms {
        drain_within: None,
        ..Terms::default()
    };
    log.rest(&[], None).broken_by(&terms)
}

#[test]
fn a_beating_consumer_that_lost_its_lease_is_found() {
    assert_eq!(long_work(true, |_| ()), [Rule::LiveLeaseLost]);
}

#[test]
fn a_silent_or_cut_off_consumer_may_lose_its_lease() {
    assert_eq!(long_work(false, |_| ()), []);
    for loss in [Loss::Stopped, Loss::Disconnected, Loss::Replaced] {
        assert_eq!(
            long_work(true, |log| {
                log.lost("a", loss);
            }),
            [],
            "{loss:?}"
        );
    }
    let stopped = |log: &mut Log| {
        log.fault(Target::Gateway, Damage::Stopped);
    };
    assert_eq!(long_work(true, stopped), []);
}

#[test]
fn the_death_of_a_daemon_takes_no_lease_away() {
    for target in [Target::Daemon, Target::Redis] {
        let kill = |log: &mut Log| {
            log.fault(target, Damage::Killed).healed();
        };
        assert_eq!(long_work(true, kill), [Rule::LiveLeaseLost], "{target:?}");
    }
}

/// Three attempts by `a`, each told as `failure` tells it; then the message is dead.
fn three_attempts(attempt: impl Fn(&mut Log, &str), failures: &[(&str, bool)]) -> Vec<Rule> {
    let mut log = log();
    log.stored("m");
    for number in 1..=3 {
        let lease = format!("a{number}");
        log.delivered(&lease, "m", "a", number);
        attempt(&mut log, &lease);
    }
    log.dead("m", DeadCause::AttemptsUsedUp, failures).broken()
}

fn nack(log: &mut Log, lease: &str) {
    log.settle(lease, Action::Nack, SettleAnswer::Ok);
}

#[test]
fn a_message_dies_by_its_own_nacks() {
    assert_eq!(three_attempts(nack, &[("a", false); 3]), []);
    assert_eq!(
        three_attempts(|_, _| (), &[("a", false); 3]),
        [Rule::WronglyDead]
    );
}

#[test]
fn a_message_dies_after_exactly_its_attempts() {
    assert_eq!(
        three_attempts(nack, &[("a", false); 2]),
        [Rule::AttemptsWrong]
    );
}

#[test]
fn a_message_dies_with_the_consumers_that_had_begun_it() {
    let killed = |log: &mut Log, lease: &str| {
        log.begun(lease).lost("a", Loss::Killed);
    };
    assert_eq!(three_attempts(killed, &[("a", true); 3]), []);
    let released = |log: &mut Log, lease: &str| {
        log.settle(lease, Action::Release, SettleAnswer::Ok)
            .lost("a", Loss::Left);
    };
    assert_eq!(
        three_attempts(released, &[("a", true); 3]),
        [Rule::WronglyDead]
    );
}

#[test]
fn the_neighbour_of_a_poison_message_does_not_die_with_it() {
    let killed_beside_poison = |log: &mut Log, lease: &str| {
        let poison = format!("p{lease}");
        log.delivered(&poison, "p", "a", 1)
            .begun(&poison)
            .lost("a", Loss::Killed);
    };
    let mut rules = three_attempts(killed_beside_poison, &[("a", true); 3]);
    rules.retain(|rule| *rule != Rule::Phantom);
    assert_eq!(rules, [Rule::WronglyDead]);
}

#[test]
fn the_death_of_a_gateway_is_no_failed_attempt() {
    let cut_off = |log: &mut Log, lease: &str| {
        log.begun(lease)
            .fault(Target::Gateway, Damage::Killed)
            .lost("a", Loss::Disconnected);
        log.healed().after(5_000);
    };
    assert_eq!(
        three_attempts(cut_off, &[("a", true); 3]),
        [Rule::WronglyDead]
    );
}

#[test]
fn a_dead_letter_needs_its_cause() {
    let dead = |cause| {
        let mut log = log();
        log.stored("m")
            .delivered("a1", "m", "a", 1)
            .dead("m", cause, &[])
            .broken()
    };
    let causes = [
        DeadCause::Rejected,
        DeadCause::Expired,
        DeadCause::Cancelled,
        DeadCause::Other,
    ];
    for cause in causes {
        assert_eq!(dead(cause), [Rule::WronglyDead], "{cause:?}");
    }
}

#[test]
fn a_dead_letter_with_its_cause_is_fine() {
    let mut rejected = log();
    rejected.stored("m").delivered("a1", "m", "a", 1);
    rejected
        .settle("a1", Action::Reject, SettleAnswer::Ok)
        .dead("m", DeadCause::Rejected, &[]);
    assert_eq!(rejected.broken(), []);
    let mut expired = log();
    expired.publish(
        Publish {
            may_expire: true,
            ..message("m")
        },
        stored("m"),
    );
    assert_eq!(expired.dead("m", DeadCause::Expired, &[]).broken(), []);
    let mut cancelled = log();
    cancelled
        .stored("m")
        .event(Event::GroupDeleted { group: "g".into() });
    assert_eq!(cancelled.dead("m", DeadCause::Cancelled, &[]).broken(), []);
}

/// Two messages of one key, the second delivered before or after the first is acked.
fn two_of_a_key(is_early: bool) -> Vec<Rule> {
    let mut log = log();
    log.publish(ordered("m"), stored("m"))
        .publish(ordered("n"), stored("n"));
    log.delivered("a1", "m", "a", 1);
    if !is_early {
        log.acked("a1");
    }
    log.delivered("b1", "n", "b", 1);
    if is_early {
        log.acked("a1");
    }
    log.acked("b1").broken()
}

#[test]
fn two_messages_of_a_key_in_flight_are_found() {
    assert_eq!(two_of_a_key(false), []);
    assert_eq!(two_of_a_key(true), [Rule::TwoInFlight]);
}

#[test]
fn a_failed_message_keeps_its_key() {
    let mut log = log();
    log.publish(ordered("m"), stored("m"))
        .publish(ordered("n"), stored("n"));
    log.delivered("a1", "m", "a", 1)
        .settle("a1", Action::Nack, SettleAnswer::Ok);
    log.delivered("b1", "n", "b", 1)
        .acked("b1")
        .delivered("a2", "m", "a", 2)
        .acked("a2");
    assert_eq!(log.broken(), [Rule::TwoInFlight]);
}

#[test]
fn messages_of_a_key_out_of_publish_order_are_found() {
    let swapped = |second: Publish| {
        let mut log = log();
        log.publish(ordered("m"), stored("m"))
            .publish(second, stored("n"));
        log.delivered("b1", "n", "b", 1)
            .acked("b1")
            .delivered("a1", "m", "a", 1)
            .acked("a1");
        log.broken()
    };
    assert_eq!(swapped(ordered("n")), [Rule::OrderBroken]);
    assert_eq!(
        swapped(Publish {
            priority: 9,
            ..ordered("n")
        }),
        []
    );
}

#[test]
fn concurrent_publishes_of_a_key_owe_no_order() {
    let mut log = log();
    let (m, n) = (
        log.publish_called(ordered("m")),
        log.publish_called(ordered("n")),
    );
    log.publish_answered(m, stored("m"))
        .publish_answered(n, stored("n"));
    log.delivered("b1", "n", "b", 1)
        .acked("b1")
        .delivered("a1", "m", "a", 1)
        .acked("a1");
    assert_eq!(log.broken(), []);
}

#[test]
fn figures_must_equal_the_truth() {
    let truth = Figures {
        published_total: 1,
        acked_total: 1,
        ..Figures::default()
    };
    let with = |figures| {
        let mut log = log();
        log.stored("m")
            .delivered("a1", "m", "a", 1)
            .acked("a1")
            .rest(&[], Some(figures));
        log.broken_by(&Terms::default())
    };
    assert_eq!(with(truth), []);
    for wrong in [
        Figures { lag: 1, ..truth },
        Figures {
            published_total: 2,
            ..truth
        },
        Figures {
            published_total: 2,
            acked_total: 2,
            ..truth
        },
        Figures {
            published_total: 2,
            dead_total: 1,
            ..truth
        },
        Figures {
            pending: 1,
            published_total: 2,
            ..truth
        },
    ] {
        assert_eq!(with(wrong), [Rule::CounterWrong], "{wrong:?}");
    }
}

#[test]
fn an_unknown_publish_may_be_counted_or_not() {
    for (published_total, acked_total) in [(1, 1), (2, 2), (2, 1)] {
        let mut log = log();
        log.stored("m").delivered("a1", "m", "a", 1).acked("a1");
        log.publish(message("n"), PublishAnswer::Unknown);
        log.delivered("a2", "n", "a", 1)
            .settle_called("a2", Action::Ack);
        let is_left = published_total > acked_total;
        let lag = u64::from(is_left);
        let figures = Figures {
            lag,
            published_total,
            acked_total,
            ..Figures::default()
        };
        let unsettled: &[&str] = if is_left { &["n"] } else { &[] };
        let terms = Terms {
            is_drained: false,
            ..Terms::default()
        };
        let rules = log.rest(unsettled, Some(figures)).broken_by(&terms);
        assert_eq!(rules, [], "{figures:?}");
    }
}

#[test]
fn what_is_left_after_a_drain_is_found() {
    assert_eq!(
        log()
            .stored("m")
            .rest(&["m"], None)
            .broken_by(&Terms::default()),
        [Rule::NotDrained]
    );
}

#[test]
fn a_drain_that_takes_too_long_is_found() {
    let drained_after = |millis| {
        let mut log = log();
        log.stored("m")
            .fault(Target::Daemon, Damage::Killed)
            .healed();
        log.delivered("a1", "m", "a", 1)
            .after(millis)
            .acked("a1")
            .broken()
    };
    assert_eq!(drained_after(29_000), []);
    assert_eq!(drained_after(31_000), [Rule::DrainedLate]);
}

#[test]
fn a_gap_with_work_waiting_is_found() {
    let terms = Terms {
        gap_max: Some(Duration::from_secs(2)),
        ..Terms::default()
    };
    let gap = |before: u64, after: u64| {
        let mut log = log();
        log.after(before)
            .stored("m")
            .after(after)
            .delivered("a1", "m", "a", 1)
            .acked("a1");
        log.rest(&[], None).broken_by(&terms)
    };
    assert_eq!(gap(5_000, 1_000), []);
    assert_eq!(gap(0, 3_000), [Rule::GapTooLong]);
}

#[test]
fn a_late_redelivery_after_a_loss_is_found() {
    let terms = Terms {
        redelivery_max: Some(Duration::from_secs(5)),
        ..Terms::default()
    };
    let redelivered_after = |millis| {
        let mut log = log();
        log.stored("m")
            .delivered("a1", "m", "a", 1)
            .begun("a1")
            .lost("a", Loss::Killed);
        log.after(millis)
            .delivered("b2", "m", "b", 2)
            .acked("b2")
            .rest(&[], None);
        check(&log.history, &terms)
    };
    let report = redelivered_after(4_000);
    report.assert_clean();
    assert_eq!(report.redeliveries, [Duration::from_millis(4_010)]);
    assert!(redelivered_after(6_000).breaks(Rule::RedeliveredLate));
}

#[test]
fn a_report_shows_a_few_of_many_violations_and_counts_the_rest() {
    let mut log = log();
    for number in 0..9 {
        log.stored(&number.to_string());
    }
    let text = check(&log.rest(&[], None).history, &Terms::default()).to_string();
    assert_eq!(text.matches("Lost: message").count(), SHOWN_MAX);
    assert!(text.contains("Lost: 4 more"), "{text}");
}
