//! The calls of `DeadLetterService`: what each reads, decides and answers.

use std::{sync::Arc, time::Duration};

use hive_domain::{
    dead_letter::{
        plan::{Filter, Options},
        status::Status,
    },
    name,
    violation::{Violations, quoted},
};
use hive_protocol::{
    fault::{Fault, Reason},
    limits::{
        DEAD_LETTERS_COUNT_MAX, DEAD_LETTERS_LIST_DEFAULT, DEAD_LETTERS_LIST_MAX,
        DEAD_LETTERS_PAGE_BYTES, PAYLOAD_BYTES_MAX, REASON_BYTES_MAX, WAIT_MS_MAX,
    },
    message::at_most,
    time, wire,
};
use hive_store::{
    StoreError,
    control::Put,
    letters::{Changed, Found, Letter, Letters, LettersKey, Order, Place, Row, State, Step},
};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use uuid::Uuid;

use crate::{
    desk::Desk,
    filter, insight,
    jobs::{self, Job, JobState},
    metrics::Removed,
    replay::{self, Ask, Begun, Sent},
    trim, view,
};

/// How often a record is read again that changes meanwhile.
const TRIES: usize = 20;
/// How long a purge goes on in one call.
const PURGE_WITHIN: Duration = Duration::from_secs(5);
/// How long the token of a dry run is good.
const TOKEN_MS: u64 = 600_000;
/// Records that a dry run shows.
const SAMPLE: usize = 20;
/// Pause between two looks at a job that is waited for.
const WAIT_PAUSE: Duration = Duration::from_millis(100);

/// Rows of a list that asks for so many; 0 where it names no number.
fn page_of(limit: u32) -> usize {
    let limit = if limit == 0 {
        DEAD_LETTERS_LIST_DEFAULT
    } else {
        limit
    };
    usize::try_from(limit).unwrap_or(usize::MAX)
}

/// The service over one desk.
#[derive(Debug, Clone)]
pub(crate) struct Calls {
    pub(crate) desk: Arc<Desk>,
}

type Answer<T> = Result<T, Fault>;

/// A purge that a dry run has counted.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Purge {
    token: String,
    filter: Filter,
    /// What died after it stays.
    asked_ms: u64,
}

impl Calls {
    fn letters(&self, namespace: &str) -> Letters {
        self.desk.letters(namespace)
    }

    async fn find(&self, letters: &Letters, id: &str) -> Answer<Letter> {
        match self.desk.store.read_letter(letters, id).await? {
            Found::There(letter) => Ok(letter),
            Found::Absent => Err(Fault::no_dead_letter(id)),
            Found::Unreadable => Err(StoreError::Corrupt {
                what: format!("dead letter `{id}`"),
            }
            .into()),
        }
    }

    pub(crate) async fn list_dead_letters(
        &self,
        namespace: &str,
        request: wire::ListDeadLettersRequest,
    ) -> Answer<wire::ListDeadLettersResponse> {
        let letters = self.letters(namespace);
        let mut meant = filter::read(request.filter)?;
        // A list that names no state is of all.
        if meant.status.is_empty() {
            meant.status = Status::ALL.to_vec();
        }
        let (mut faults, limit) = (Violations::new(), request.limit);
        if limit > DEAD_LETTERS_LIST_MAX {
            let rule = format!("`{limit}` must be at most {DEAD_LETTERS_LIST_MAX}");
            faults.push("limit", rule);
        }
        let after = match place(&request.cursor) {
            Ok(after) => after,
            Err(rule) => {
                faults.push("cursor", rule);
                None
            },
        };
        faults.into_result()?;
        let limit = page_of(limit);
        let desk = &self.desk;
        let from = (Order::Newest, after);
        let page = filter::page(desk, &letters, &meant, from, limit).await?;
        let (mut messages, mut bytes, mut next) = (Vec::new(), 0_usize, page.next);
        for letter in &page.found {
            let mut shown = view::row(letter);
            if request.include_payload {
                let content = desk.store.letter_content(&letters, &letter.id).await?;
                let content = content.unwrap_or_default();
                bytes = bytes.saturating_add(content.body.len());
                shown = view::with_payload(shown, &content);
            }
            messages.push(shown);
            if bytes >= DEAD_LETTERS_PAGE_BYTES {
                next = Some(Place {
                    dead_ms: letter.facts.dead_ms,
                    id: letter.id.clone(),
                });
                break;
            }
        }
        Ok(wire::ListDeadLettersResponse {
            messages,
            next_cursor: next.map_or(String::new(), |next| {
                format!("{}_{}", next.dead_ms, next.id)
            }),
        })
    }

    pub(crate) async fn get_dead_letter(
        &self,
        namespace: &str,
        request: wire::GetDeadLetterRequest,
    ) -> Answer<wire::GetDeadLetterResponse> {
        let letters = self.letters(namespace);
        let letter = self.find(&letters, &request.dlq_id).await?;
        let content = self.desk.store.letter_content(&letters, &letter.id).await?;
        let message = view::full(&letter, &content.unwrap_or_default());
        Ok(wire::GetDeadLetterResponse {
            message: Some(message),
        })
    }

    pub(crate) async fn replay_dead_letter(
        &self,
        namespace: &str,
        request: wire::ReplayDeadLetterRequest,
    ) -> Answer<wire::ReplayDeadLetterResponse> {
        let letters = self.letters(namespace);
        let options = Options {
            target_group: request.target_group.clone(),
            target_stream: request.target_stream.clone(),
            priority_boost: u8::try_from(request.priority_boost).unwrap_or(u8::MAX),
            force: request.force,
            ..Options::default()
        };
        let mut faults = check(&options, &request.by, &request.why);
        if let Some(payload) = &request.payload {
            faults.take(at_most("payload", payload.len(), PAYLOAD_BYTES_MAX));
        }
        faults.into_result()?;
        let ask = Ask {
            target_group: options.target_group,
            target_stream: options.target_stream,
            priority_boost: options.priority_boost,
            payload: request.payload,
            force: request.force,
            by: if request.by.is_empty() {
                "person".to_owned()
            } else {
                request.by
            },
            why: request.why,
            ..Ask::default()
        };
        let mut is_mine = false;
        for _ in 0..TRIES {
            let letter = self.find(&letters, &request.dlq_id).await?;
            // What this call began, or another one, is what is answered.
            if letter.status == Status::Replayed && (is_mine || !ask.force) {
                return Ok(replay::answer(&letter, is_mine));
            }
            let letter = match replay::begin(&self.desk, &letters, &letter, &ask).await? {
                Begun::Mine(letter) => {
                    is_mine = true;
                    letter
                },
                // Whoever began it may have died, or be at it: both carry out the same plan.
                Begun::UnderWay(letter) => letter,
                Begun::Before | Begun::Stale | Begun::Limit => continue,
            };
            match replay::carry_on(&self.desk, &letters, *letter).await? {
                Sent::Done(letter) => {
                    return Ok(replay::answer(&letter, is_mine));
                },
                Sent::Refused(fault) | Sent::Later(fault) => return Err(fault),
                Sent::Elsewhere => {},
            }
        }
        Err(changing(&request.dlq_id))
    }

    pub(crate) async fn replay_dead_letters(
        &self,
        namespace: &str,
        request: wire::ReplayDeadLettersRequest,
    ) -> Answer<wire::ReplayDeadLettersResponse> {
        let letters = self.letters(namespace);
        let now = self.desk.now();
        let options = Options {
            limit: request.limit,
            rate: request.rate,
            canary: request.canary,
            target_group: request.target_group,
            target_stream: request.target_stream,
            priority_boost: u8::try_from(request.priority_boost).unwrap_or(u8::MAX),
            force: request.force,
        };
        let mut faults = check(&options, &request.by, "");
        faults.take(name::check_optional("job_id", &request.job_id));
        let wait = request.wait.as_ref();
        let wait = faults.take(time::optional_duration_ms("wait", wait, WAIT_MS_MAX));
        let mut meant = match filter::read(request.filter) {
            Ok(meant) => meant,
            Err(violations) => {
                for one in violations {
                    faults.push(one.field, one.description);
                }
                Filter::default()
            },
        };
        if !options.force && meant.status.contains(&Status::Replayed) {
            let rule = "names `replayed`: what was replayed is taken again by force alone";
            faults.push("filter.status", rule);
        }
        faults.into_result()?;
        // What dies after the call is not meant.
        let (until, to_ms) = (now.as_millis().saturating_add(1), meant.to_ms);
        if meant.to_ms == 0 || meant.to_ms > until {
            meant.to_ms = until;
        }
        let desk = &self.desk;
        let most = if options.limit == 0 {
            DEAD_LETTERS_COUNT_MAX
        } else {
            u64::from(options.limit)
        };
        let total = filter::count(desk, &letters, &meant, most).await?;
        if request.dry_run {
            let from = (Order::Oldest, None);
            let page = filter::page(desk, &letters, &meant, from, SAMPLE).await?;
            return Ok(wire::ReplayDeadLettersResponse {
                job: None,
                would_replay: total,
                sample: page.found.iter().map(view::row).collect(),
            });
        }
        let job = Job {
            id: if request.job_id.is_empty() {
                Uuid::now_v7().to_string()
            } else {
                request.job_id
            },
            state: if options.canary > 0 {
                JobState::Canary
            } else {
                JobState::Running
            },
            filter: meant,
            to_ms,
            options,
            by: request.by,
            total,
            created_ms: now.as_millis(),
            ..Job::default()
        };
        let row = jobs::create(desk, &letters, job).await?;
        let total = row.value.total;
        let wait = Duration::from_millis(wait.flatten().unwrap_or(0));
        let job = self.wait_for(&letters, row.value, wait).await?;
        Ok(wire::ReplayDeadLettersResponse {
            job: Some(job),
            would_replay: total,
            sample: Vec::new(),
        })
    }

    /// Looks at a job until it is over, or the time is.
    async fn wait_for(
        &self,
        letters: &Letters,
        job: Job,
        wait: Duration,
    ) -> Answer<wire::ReplayJob> {
        let (end, mut job) = (Instant::now() + wait, job);
        while !job.state.is_over() && Instant::now() < end {
            tokio::time::sleep(WAIT_PAUSE).await;
            job = self.job(letters, &job.id).await?;
        }
        let counts = self.desk.store.job_counts(letters, &job.id).await?;
        Ok(jobs::shown(&job, counts))
    }

    async fn job(&self, letters: &Letters, id: &str) -> Answer<Job> {
        let found: Option<Row<Job>> = self
            .desk
            .store
            .letter_row(letters, LettersKey::Jobs, id)
            .await?;
        Ok(found.ok_or_else(|| Fault::no_replay_job(id))?.value)
    }

    pub(crate) async fn get_replay_job(
        &self,
        namespace: &str,
        request: wire::GetReplayJobRequest,
    ) -> Answer<wire::GetReplayJobResponse> {
        let letters = self.letters(namespace);
        let job = self.job(&letters, &request.job_id).await?;
        let counts = self.desk.store.job_counts(&letters, &job.id).await?;
        Ok(wire::GetReplayJobResponse {
            job: Some(jobs::shown(&job, counts)),
        })
    }

    pub(crate) async fn list_replay_jobs(
        &self,
        namespace: &str,
        request: wire::ListReplayJobsRequest,
    ) -> Answer<wire::ListReplayJobsResponse> {
        let letters = self.letters(namespace);
        let limit = request.limit;
        if limit > DEAD_LETTERS_LIST_MAX {
            let rule = format!("`{limit}` must be at most {DEAD_LETTERS_LIST_MAX}");
            return Err(Violations::one("limit", rule).into());
        }
        let limit = page_of(limit);
        let rows: Vec<Row<Job>> = self
            .desk
            .store
            .letter_rows(&letters, LettersKey::Jobs)
            .await?;
        let mut all: Vec<Job> = rows.into_iter().map(|row| row.value).collect();
        all.sort_by(|a, b| (b.created_ms, &b.id).cmp(&(a.created_ms, &a.id)));
        let mut jobs = Vec::new();
        for job in all.into_iter().take(limit) {
            let counts = self.desk.store.job_counts(&letters, &job.id).await?;
            jobs.push(jobs::shown(&job, counts));
        }
        Ok(wire::ListReplayJobsResponse { jobs })
    }

    pub(crate) async fn cancel_replay_job(
        &self,
        namespace: &str,
        request: wire::CancelReplayJobRequest,
    ) -> Answer<wire::CancelReplayJobResponse> {
        let letters = self.letters(namespace);
        let job = jobs::cancel(&self.desk, &letters, &request.job_id).await?;
        let counts = self.desk.store.job_counts(&letters, &job.id).await?;
        Ok(wire::CancelReplayJobResponse {
            job: Some(jobs::shown(&job, counts)),
        })
    }

    pub(crate) async fn get_dead_letter_statistics(
        &self,
        namespace: &str,
        _request: wire::GetDeadLetterStatisticsRequest,
    ) -> Answer<wire::GetDeadLetterStatisticsResponse> {
        insight::statistics(&self.desk, &self.letters(namespace)).await
    }

    pub(crate) async fn analyze_dead_letters(
        &self,
        namespace: &str,
        request: wire::AnalyzeDeadLettersRequest,
    ) -> Answer<wire::AnalyzeDeadLettersResponse> {
        insight::analyze(&self.desk, &self.letters(namespace), request).await
    }

    pub(crate) async fn set_dead_letter_status(
        &self,
        namespace: &str,
        request: wire::SetDeadLetterStatusRequest,
    ) -> Answer<wire::SetDeadLetterStatusResponse> {
        let letters = self.letters(namespace);
        let mut faults = check(&Options::default(), &request.by, &request.why);
        let wanted = match filter::of_wire(request.status()) {
            Some(
                status @ (Status::Analyzed
                | Status::Replayable
                | Status::PermanentFailure
                | Status::Archived),
            ) => status,
            Some(_) | None => {
                let rule = "must be analyzed, replayable, permanent_failure or archived";
                faults.push("status", rule);
                Status::Analyzed
            },
        };
        faults.into_result()?;
        let by = if request.by.is_empty() {
            "person"
        } else {
            &request.by
        };
        for _ in 0..TRIES {
            let letter = self.find(&letters, &request.dlq_id).await?;
            if letter.status == wanted {
                return Ok(shown(&letter));
            }
            if !letter.status.may_become(wanted) {
                let message = format!(
                    "dead letter `{}` is `{}` and cannot become `{wanted}`",
                    letter.id, letter.status
                );
                return Err(Fault::new(Reason::DeadLetterState, message));
            }
            let now_ms = self.desk.now().as_millis();
            let step = Step {
                state: State {
                    due_ms: if wanted == Status::Replayable {
                        now_ms
                    } else {
                        0
                    },
                    ..letter.state.clone()
                },
                change: Some(self.desk.change(wanted, by, request.why.clone())),
                ..Step::of(&letter)
            };
            let changed = self
                .desk
                .store
                .change_letter(&letters, &letter, wanted, &step)
                .await?;
            if let Changed::Done(version) = changed {
                return Ok(shown(&Letter {
                    version,
                    status: wanted,
                    state: step.state,
                    ..letter
                }));
            }
        }
        Err(changing(&request.dlq_id))
    }

    pub(crate) async fn purge_dead_letters(
        &self,
        namespace: &str,
        request: wire::PurgeDeadLettersRequest,
    ) -> Answer<wire::PurgeDeadLettersResponse> {
        let letters = self.letters(namespace);
        let mut meant = filter::read(request.filter)?;
        if meant.status.contains(&Status::Replaying) {
            let rule = "names `replaying`: a replay under way ends first";
            return Err(Violations::one("filter.status", rule).into());
        }
        if meant.status.is_empty() {
            let free = |status: &&Status| **status != Status::Replaying;
            meant.status = Status::ALL.iter().filter(free).copied().collect();
        }
        let now_ms = self.desk.now().as_millis();
        if request.dry_run {
            return self.count_purge(&letters, meant, now_ms).await;
        }
        let found: Option<Row<Purge>> = self
            .desk
            .store
            .letter_row(&letters, LettersKey::Purges, &request.confirm)
            .await?;
        let token = found.filter(|row| {
            row.value.filter == meant && now_ms < row.value.asked_ms.saturating_add(TOKEN_MS)
        });
        let Some(token) = token else {
            let message = format!(
                "confirm {} is not what a dry run with this filter answered within the last 10 \
                 minutes: nothing is purged",
                quoted(&request.confirm)
            );
            return Err(Fault::new(Reason::ConfirmationNeeded, message));
        };
        let asked = token.value.asked_ms;
        if meant.to_ms == 0 || meant.to_ms > asked {
            meant.to_ms = asked;
        }
        let end = Instant::now() + PURGE_WITHIN;
        let (mut purged, mut after) = (0, None);
        loop {
            let from = (Order::Oldest, after);
            let page = filter::page(&self.desk, &letters, &meant, from, filter::PAGE).await?;
            let is_some = !page.found.is_empty();
            let gone = trim::remove(&self.desk, &letters, page.found, Removed::Purged).await?;
            if is_some && gone == 0 && self.desk.settings.archive_dir.is_some() {
                let message = "the archive cannot be written, and nothing goes that is not in it; \
                               the log of the worker names why";
                return Err(Fault::new(Reason::Unreachable, message));
            }
            purged += gone;
            after = page.next;
            let more = after.is_some();
            if !more || Instant::now() >= end {
                tracing::info!(namespace, purged, more, "dead_letters_purged");
                return Ok(wire::PurgeDeadLettersResponse {
                    purged,
                    confirm: String::new(),
                    more,
                });
            }
        }
    }

    /// Counts what a purge would take, and stores what confirms it.
    async fn count_purge(
        &self,
        letters: &Letters,
        meant: Filter,
        now_ms: u64,
    ) -> Answer<wire::PurgeDeadLettersResponse> {
        let store = &self.desk.store;
        let rows: Vec<Row<Purge>> = store.letter_rows(letters, LettersKey::Purges).await?;
        let purged = filter::count(&self.desk, letters, &meant, DEAD_LETTERS_COUNT_MAX).await?;
        let confirm = Uuid::new_v4().simple().to_string();
        let purge = Purge {
            token: confirm.clone(),
            filter: meant,
            asked_ms: now_ms.saturating_add(1),
        };
        for old in rows {
            if now_ms > old.value.asked_ms.saturating_add(TOKEN_MS) {
                let none = (old.version, None::<Purge>);
                store
                    .put_letter_row(letters, LettersKey::Purges, &old.value.token, none)
                    .await?;
            }
        }
        let put = (0, Some(&purge));
        match store
            .put_letter_row(letters, LettersKey::Purges, &confirm, put)
            .await?
        {
            Put::Stored(_) => Ok(wire::PurgeDeadLettersResponse {
                purged,
                confirm,
                more: false,
            }),
            Put::Conflict | Put::Full => Err(Fault::new(
                Reason::Saturated,
                "too many purges wait for their confirmation",
            )
            .with_retry_after(Duration::from_secs(60))),
        }
    }
}

fn shown(letter: &Letter) -> wire::SetDeadLetterStatusResponse {
    wire::SetDeadLetterStatusResponse {
        message: Some(view::row(letter)),
    }
}

fn check(options: &Options, by: &str, why: &str) -> Violations {
    let mut faults = Violations::new();
    for one in options.validate().err().into_iter().flatten() {
        faults.push(one.field, one.description);
    }
    if !options.target_group.is_empty() && !options.target_stream.is_empty() {
        let rule = "must not be set together with target_stream";
        faults.push("target_group", rule);
    }
    faults.take(name::check_optional("by", by));
    faults.take(at_most("why", why.len(), REASON_BYTES_MAX));
    faults
}

fn changing(id: &str) -> Fault {
    let message = format!("dead letter `{id}` keeps changing");
    Fault::new(Reason::VersionConflict, message).with_retry_after(Duration::from_secs(1))
}

/// Reads a cursor.
fn place(cursor: &str) -> Result<Option<Place>, String> {
    if cursor.is_empty() {
        return Ok(None);
    }
    let parts = cursor.split_once('_');
    parts
        .and_then(|(dead_ms, id)| {
            Some(Place {
                dead_ms: dead_ms.parse().ok()?,
                id: id.to_owned(),
            })
        })
        .map(Some)
        .ok_or_else(|| format!("{} is none that a list answered", quoted(cursor)))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use hive_domain::dead_letter::status::Status;
    use hive_protocol::wire;
    use hive_store::letters::{LettersKey, Outcome, State, Step};

    use super::Calls;
    use crate::{settings::Policies, world::world};

    #[tokio::test]
    async fn an_outcome_is_awaited_through_a_change_of_status_where_it_will_be_told() {
        let world = world(Policies::default()).await;
        let calls = Calls {
            desk: Arc::clone(&world.desk),
        };
        for (id, track_key) in [("a", ""), ("b", "k")] {
            let step = Step {
                state: State {
                    outcome: Outcome::Pending,
                    track_key: track_key.to_owned(),
                    ..State::default()
                },
                ..Step::default()
            };
            world.take(id, Status::Replayed, &step).await;
            let mut request = wire::SetDeadLetterStatusRequest {
                dlq_id: id.to_owned(),
                ..wire::SetDeadLetterStatusRequest::default()
            };
            request.set_status(wire::DeadLetterStatus::Archived);
            calls.set_dead_letter_status("n", request).await.unwrap();
        }
        let store = &world.desk.store;
        let awaited = store.letters_until(&world.letters, LettersKey::Awaiting, u64::MAX >> 12, 9);
        assert_eq!(awaited.await.unwrap(), ["b"]);
    }
}
