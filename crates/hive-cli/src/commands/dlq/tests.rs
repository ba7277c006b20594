//! The command line of dead letters, and what it prints.

use clap::Parser;
use hive_client::wire::{DeadLetterStatus, ReplayOutcome};
use prost_types::Timestamp;

use super::*;
use crate::output::Show as _;

#[derive(Parser, Debug)]
struct Line {
    #[command(subcommand)]
    command: DlqCommand,
}

fn parsed(line: &str) -> Result<DlqCommand, clap::Error> {
    let words = std::iter::once("dlq").chain(line.split(' '));
    Line::try_parse_from(words).map(|line| line.command)
}

#[test]
fn every_command_is_read() {
    for line in [
        "ls",
        "ls --group g --category timeout --status quarantined --status replayed --limit 5",
        "ls --fingerprint ff --stream s --type t --workflow w --error-type E --cursor c --payload",
        "ls --from 2026-01-01T00:00:00Z --to 2026-01-02T00:00:00Z",
        "get d",
        "stats",
        "analyze --window 1h --group g",
        "replay d e",
        "replay d --payload - --force",
        "replay --group g --rate 5 --canary 2 --yes --wait",
        "purge --status archived --dry-run",
        "purge --all --yes",
        "set-status archived d e --by me --why done",
        "set-status permanent_failure d",
        "jobs ls --limit 3",
        "jobs get j",
        "jobs cancel j",
        "watch --group g --last 0",
    ] {
        assert!(parsed(line).is_ok(), "{line}: {:?}", parsed(line));
    }
}

#[test]
fn what_makes_no_sense_is_refused() {
    for line in [
        "get",
        "ls --status lost",
        "ls --from yesterday",
        "analyze --window soon",
        "set-status archived",
        "set-status",
        "jobs",
        "jobs get",
        "replay x --limit many",
        "replay x --priority-boost 10",
        "replay x --priority-boost",
    ] {
        assert!(parsed(line).is_err(), "{line}");
    }
}

const NOW: Timestamp = Timestamp {
    seconds: 10_000,
    nanos: 0,
};

fn at(seconds: i64) -> Option<Timestamp> {
    Some(Timestamp { seconds, nanos: 0 })
}

fn letter(status: DeadLetterStatus) -> wire::DeadLetter {
    wire::DeadLetter {
        dlq_id: "d-1".to_owned(),
        message_id: "m-1".to_owned(),
        group: "reviewers".to_owned(),
        category: "timeout".to_owned(),
        rule: "given".to_owned(),
        status: status.into(),
        deliveries: 4,
        failures: 3,
        attempts: vec![wire::FailedAttempt {
            consumer: "agent-1".to_owned(),
            ended_at: at(6_400),
            error_type: "TimeoutError".to_owned(),
            reason: "no answer\n  within 30 s".to_owned(),
            stack: "at call\nat main".to_owned(),
            ..wire::FailedAttempt::default()
        }],
        dead_lettered_at: at(6_400),
        strategy: "delayed_retry".to_owned(),
        payload_bytes: 7,
        ..wire::DeadLetter::default()
    }
}

#[test]
fn a_row_says_what_died_why_and_what_to_do() {
    let view = LetterView::at(letter(DeadLetterStatus::Analyzed), &NOW);
    let expected = [
        "d-1",
        "1h",
        "reviewers",
        "timeout",
        "3",
        "analyzed",
        "replay",
        "TimeoutError: no answer within 30 s",
    ];
    assert_eq!(view.cells(), expected);
    assert_eq!(LetterView::COLUMNS.len(), expected.len());
}

#[test]
fn the_next_step_follows_from_where_a_dead_letter_stands() {
    let next = |change: &dyn Fn(&mut wire::DeadLetter), status| {
        let mut letter = letter(status);
        change(&mut letter);
        LetterView::at(letter, &NOW).cells()[6].clone()
    };
    let strategy = |word: &'static str| {
        move |letter: &mut wire::DeadLetter| word.clone_into(&mut letter.strategy)
    };
    let analyzed = DeadLetterStatus::Analyzed;
    assert!(next(&strategy("manual_intervention"), analyzed).contains("mend"));
    assert!(next(&strategy("permanent_discard"), analyzed).contains("permanent_failure"));
    assert!(next(&strategy("workflow_restart"), analyzed).contains("rerun"));
    assert!(next(&|_| (), DeadLetterStatus::Quarantined).contains("find out why"));
    let due = |letter: &mut wire::DeadLetter| letter.recovery_at = at(10_300);
    let replayable = DeadLetterStatus::Replayable;
    assert_eq!(next(&due, replayable), "none: recovers in 5m");
    assert_eq!(next(&|_| (), replayable), "replay");
    let failed = |letter: &mut wire::DeadLetter| {
        letter.replay_outcome = ReplayOutcome::Failed.into();
    };
    assert!(next(&failed, DeadLetterStatus::Replayed).contains("new dead letter"));
    assert_eq!(next(&|_| (), DeadLetterStatus::Archived), "none");
}

#[test]
fn one_is_shown_with_its_attempts_its_stack_its_payload_and_its_history() {
    let mut whole = letter(DeadLetterStatus::Replayed);
    whole.message = Some(wire::Message {
        payload: "{\"n\":1}".into(),
        ..wire::Message::default()
    });
    whole.edited_payload = Some("{\"n\":2}".into());
    whole.replays = 1;
    whole.replay_message_id = "m-2".to_owned();
    whole.replay_outcome = ReplayOutcome::Pending.into();
    whole.history = vec![wire::DeadLetterChange {
        at: at(6_400),
        status: DeadLetterStatus::Quarantined.into(),
        by: "intake".to_owned(),
        why: "new".to_owned(),
    }];
    let text = LetterView::at(whole, &NOW).text();
    for part in [
        "next step    none: waits for its outcome",
        "category     timeout (rule given)",
        "replays      1 (0 by recovery), the last as m-2: pending",
        "attempts: 3 failed of 4 deliveries, 1 shown",
        "agent-1: TimeoutError: no answer within 30 s",
        "      at main",
        "{\"n\":1}",
        "sent in its place\n  {\"n\":2}",
        "quarantined by intake: new",
    ] {
        assert!(text.contains(part), "`{part}` in\n{text}");
    }
}

#[test]
fn a_job_is_told_in_a_sentence_and_as_a_row() {
    let job = wire::ReplayJob {
        job_id: "j".to_owned(),
        state: wire::ReplayJobState::Failed.into(),
        filter: Some(wire::DeadLetterFilter {
            group: "g".to_owned(),
            status: vec![DeadLetterStatus::Analyzed.into()],
            ..wire::DeadLetterFilter::default()
        }),
        total: 9,
        replayed: 2,
        failed: 1,
        errors: vec!["d-3: taken".to_owned()],
        error: "the canary failed".to_owned(),
        ..wire::ReplayJob::default()
    };
    let view = JobView::from(job);
    assert_eq!(
        view.text(),
        "job `j` is failed: 2 of 9 sent back, 1 not\n  the canary failed\n  d-3: taken"
    );
    assert_eq!(view.cells()[7], "group=g status=analyzed");
}

#[test]
fn figures_are_told_with_what_to_do() {
    let count = |name: &str, count| wire::NamedCount {
        name: name.to_owned(),
        count,
    };
    let figures = wire::GetDeadLetterStatisticsResponse {
        total: 3,
        by_group: vec![count("a", 1), count("b", 2)],
        mean_age: Some(prost_types::Duration {
            seconds: 7_200,
            nanos: 0,
        }),
        recovery_success_rate: 0.5,
        recommendations: vec!["look at b".to_owned()],
        is_full: true,
        ..wire::GetDeadLetterStatisticsResponse::default()
    };
    let text = StatisticsView::from(figures).text();
    for part in [
        "3 dead letters",
        "mean age 2h",
        "50 %",
        "FULL",
        "- look at b",
    ] {
        assert!(text.contains(part), "`{part}` in\n{text}");
    }
    assert!(
        text.find(" b ").unwrap() < text.find(" a ").unwrap(),
        "{text}"
    );
}

#[test]
fn patterns_are_told_with_evidence_and_advice() {
    let found = wire::AnalyzeDeadLettersResponse {
        patterns: vec![wire::DeadLetterPattern {
            kind: "one_consumer".to_owned(),
            group: "g".to_owned(),
            subject: "agent-1".to_owned(),
            evidence: "8 of 10 died with it".to_owned(),
            recommendation: "restart it".to_owned(),
            share: 0.8,
            count: 8,
            dlq_ids: vec!["d-1".to_owned()],
            ..wire::DeadLetterPattern::default()
        }],
        looked_at: 10,
        recommendations: Vec::new(),
    };
    let text = AnalysisView::from(found).text();
    assert_eq!(
        text,
        "1 pattern in 10 dead letters\n\
         \n\
         one consumer in `g`: agent-1 (8 dead letters, 80 %)\n  8 of 10 died with it\n  -> restart \
         it\n  for one: hive dlq get d-1"
    );
}
