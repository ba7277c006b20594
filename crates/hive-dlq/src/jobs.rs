//! Replays of many, as jobs: whoever looks after the namespace carries them on, a slice at a time.
//!
//! The row of a job says where it is; what it has done is counted in the step that does it. Who
//! carries it on after a crash begins at the place that was stored, finds what was replayed behind
//! it, and passes it by: each record is taken once.

use std::{collections::BTreeMap, time::Duration};

use hive_domain::{
    dead_letter::{
        plan::{Budget, Canary, Filter, Next, Options},
        status::Status,
    },
    time::Timestamp,
};
use hive_protocol::{
    fault::{Fault, Reason},
    time, wire,
};
use hive_store::{
    StoreError,
    control::Put,
    letters::{Letters, LettersKey, Order, Outcome, Place, Row},
};
use serde::{Deserialize, Serialize};

use crate::{
    desk::Desk,
    filter,
    replay::{self, Ask, Begun, Sent},
};

/// Records of one slice.
const SLICE: usize = 50;
/// How long a canary is waited for.
const CANARY_MS: u64 = 600_000;
/// How long a job is kept after its end.
const KEPT_MS: u64 = 7 * 86_400_000;
/// Errors that a job names.
const ERRORS_MAX: usize = 20;
/// Jobs of a namespace that are kept.
pub(crate) const JOBS_MAX: usize = 1_000;

/// Whether a job goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum JobState {
    #[default]
    Running,
    Canary,
    Done,
    Cancelled,
    Failed,
}

impl JobState {
    pub(crate) const fn is_over(self) -> bool {
        matches!(self, Self::Done | Self::Cancelled | Self::Failed)
    }
}

/// A job, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Job {
    pub(crate) id: String,
    pub(crate) state: JobState,
    pub(crate) filter: Filter,
    pub(crate) options: Options,
    pub(crate) by: String,
    pub(crate) total: u64,
    /// Behind which it goes on.
    pub(crate) place: Option<Place>,
    /// Nothing more fits.
    pub(crate) is_exhausted: bool,
    /// Those that go ahead.
    pub(crate) ahead: Vec<String>,
    /// Those that went ahead succeeded.
    pub(crate) is_proved: bool,
    pub(crate) errors: Vec<String>,
    pub(crate) error: String,
    pub(crate) created_ms: u64,
    pub(crate) ended_ms: u64,
}

impl Job {
    /// Whether another call asks for the same job.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        let filter = |job: &Self| Filter {
            to_ms: 0,
            ..job.filter.clone()
        };
        filter(self) == filter(other) && self.options == other.options
    }

    fn note_error(&mut self, id: &str, error: impl std::fmt::Display) {
        if self.errors.len() < ERRORS_MAX {
            self.errors.push(format!("{id}: {error}"));
        }
    }

    fn end(&mut self, state: JobState, error: impl Into<String>, now: Timestamp) {
        self.state = state;
        self.error = error.into();
        self.ended_ms = now.as_millis();
    }
}

/// Budgets of jobs with a rate.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    budgets: BTreeMap<String, Budget>,
}

/// Stores a new job; answers the one of its id that is there.
///
/// # Errors
/// `REPLAY_JOB_EXISTS`, `TOO_MANY_REPLAY_JOBS`, or what Redis says.
pub(crate) async fn create(desk: &Desk, letters: &Letters, job: Job) -> Result<Row<Job>, Fault> {
    let id = job.id.clone();
    let find = async || {
        let found: Option<Row<Job>> = desk
            .store
            .letter_row(letters, LettersKey::Jobs, &id)
            .await?;
        Ok::<_, Fault>(found)
    };
    let same = |found: Row<Job>| {
        if found.value.is_same(&job) {
            return Ok(found);
        }
        let message = format!("job `{id}` exists with another filter or other settings");
        Err(Fault::new(Reason::ReplayJobExists, message))
    };
    if let Some(found) = find().await? {
        return same(found);
    }
    let rows: Vec<Row<Job>> = desk.store.letter_rows(letters, LettersKey::Jobs).await?;
    if rows.len() >= JOBS_MAX {
        let message = format!("the namespace keeps {JOBS_MAX} replay jobs, which is its limit");
        let fault = Fault::new(Reason::TooManyReplayJobs, message);
        return Err(fault.with_retry_after(Duration::from_secs(60)));
    }
    let put = desk
        .store
        .put_letter_row(letters, LettersKey::Jobs, &id, (0, Some(&job)))
        .await?;
    match (put, find().await?) {
        (Put::Stored(_) | Put::Conflict, Some(found)) => same(found),
        (Put::Full | Put::Stored(_) | Put::Conflict, _) => Err(Fault::no_replay_job(&id)),
    }
}

/// One round over the jobs of a namespace; answers whether one is under way.
pub(crate) async fn round(
    desk: &Desk,
    letters: &Letters,
    memory: &mut Memory,
) -> Result<bool, StoreError> {
    let rows: Vec<Row<Job>> = desk.store.letter_rows(letters, LettersKey::Jobs).await?;
    memory
        .budgets
        .retain(|id, _| rows.iter().any(|row| row.value.id == *id));
    let now_ms = desk.now().as_millis();
    let mut is_busy = false;
    for row in rows {
        if row.value.state.is_over() {
            if now_ms > row.value.ended_ms.saturating_add(KEPT_MS) {
                forget(desk, letters, &row).await?;
            }
            continue;
        }
        is_busy = true;
        advance(desk, letters, memory, row).await?;
    }
    Ok(is_busy)
}

async fn forget(desk: &Desk, letters: &Letters, row: &Row<Job>) -> Result<(), StoreError> {
    let id = &row.value.id;
    desk.store
        .put_letter_row::<Job>(letters, LettersKey::Jobs, id, (row.version, None))
        .await?;
    desk.store.forget_job_counts(letters, id).await
}

/// Carries a job on by one slice.
async fn advance(
    desk: &Desk,
    letters: &Letters,
    memory: &mut Memory,
    row: Row<Job>,
) -> Result<(), StoreError> {
    let version = row.version;
    let mut job = row.value;
    let before = job.clone();
    let now = desk.now();
    let counts = desk.store.job_counts(letters, &job.id).await?;
    let [attempted, replayed, failed] = counts;
    let mut room = SLICE;
    if job.options.canary > 0 && !job.is_proved {
        match canary(desk, letters, &job, counts).await? {
            Next::Send(more) => {
                job.state = JobState::Canary;
                room = room.min(usize::try_from(more).unwrap_or(usize::MAX));
            },
            Next::Wait => {
                if now.as_millis() > job.created_ms.saturating_add(CANARY_MS) {
                    let why = "what became of the messages that went ahead is not known in time";
                    job.end(JobState::Failed, why, now);
                }
                room = 0;
            },
            Next::GoOn => {
                job.is_proved = true;
                job.state = JobState::Running;
            },
            Next::Stop { why } => {
                job.end(JobState::Failed, why, now);
                room = 0;
            },
        }
    }
    let rate = job.options.rate;
    let budget = memory
        .budgets
        .entry(job.id.clone())
        .or_insert_with(|| Budget::new(now));
    budget.fill(rate, now);
    room = room.min(usize::try_from(budget.messages(rate)).unwrap_or(usize::MAX));
    let limit = u64::from(job.options.limit);
    if limit > 0 && attempted >= limit {
        job.is_exhausted = true;
    }
    if !job.state.is_over() && !job.is_exhausted && room > 0 {
        let sent = slice(desk, letters, &mut job, room).await?;
        if let Some(budget) = memory.budgets.get_mut(&job.id) {
            budget.take(sent);
        }
    } else if !job.state.is_over() && job.is_exhausted && attempted <= replayed + failed {
        let proved = job.options.canary == 0 || job.is_proved;
        if proved {
            job.end(JobState::Done, "", now);
            let job = &job.id;
            tracing::info!(job, attempted, replayed, failed, "replay_job_done");
        }
    }
    if job == before {
        return Ok(());
    }
    // Where somebody cancelled it meanwhile, that stands.
    let put = (version, Some(&job));
    desk.store
        .put_letter_row(letters, LettersKey::Jobs, &job.id, put)
        .await
        .map(drop)
}

/// Tries the next records of a job; answers how many.
async fn slice(
    desk: &Desk,
    letters: &Letters,
    job: &mut Job,
    room: usize,
) -> Result<u64, StoreError> {
    let from = (Order::Oldest, job.place.clone());
    let page = filter::page(desk, letters, &job.filter, from, room).await?;
    let mut tried = 0;
    for letter in page.found {
        let place = Place {
            dead_ms: letter.facts.dead_ms,
            id: letter.id.clone(),
        };
        let needs_outcome = job.options.canary > 0 && !job.is_proved;
        // What became of a message with an ordering key, or of one for all groups, is not told.
        let is_told = !letter.facts.is_ordered && job.options.target_stream.is_empty();
        if needs_outcome && !is_told {
            let now = desk.now();
            let why = "a canary needs messages without an ordering key, for one group: what \
                       becomes of others is not told";
            job.end(JobState::Failed, why, now);
            return Ok(tried);
        }
        let ask = Ask {
            target_group: job.options.target_group.clone(),
            target_stream: job.options.target_stream.clone(),
            priority_boost: job.options.priority_boost,
            force: job.options.force,
            by: format!("job {}", job.id),
            why: job.by.clone(),
            job: Some((job.id.clone(), u64::from(job.options.limit))),
            ..Ask::default()
        };
        let id = letter.id.clone();
        match replay::begin(desk, letters, &letter, &ask).await {
            Ok(Begun::Mine(letter)) => {
                tried += 1;
                if needs_outcome {
                    job.ahead.push(id.clone());
                }
                match replay::carry_on(desk, letters, letter).await {
                    Ok(Sent::Done(_) | Sent::Elsewhere) => {},
                    Ok(Sent::Refused(fault)) => job.note_error(&id, fault),
                    Ok(Sent::Later(fault)) => {
                        // It is sent as soon as it can be; the job waits with it.
                        job.error = format!("waits: {fault}");
                        job.place = Some(place);
                        return Ok(tried);
                    },
                    Err(fault) => {
                        job.error = format!("waits: {fault}");
                        job.place = Some(place);
                        return Ok(tried);
                    },
                }
                job.error.clear();
            },
            Ok(Begun::Before | Begun::UnderWay(_)) => {},
            // Somebody changed it since it was read: it is read again.
            Ok(Begun::Stale) => return Ok(tried),
            Ok(Begun::Limit) => {
                job.is_exhausted = true;
                return Ok(tried);
            },
            // A lost answer as well: whether it began is seen when it is read again.
            Err(fault) if !replay::is_for_good(&fault) => {
                job.error = format!("waits: {fault}");
                return Ok(tried);
            },
            Err(fault) => {
                if !refused(desk, letters, job, &letter, &fault).await? {
                    job.is_exhausted = true;
                    return Ok(tried);
                }
                job.note_error(&id, &fault);
            },
        }
        job.place = Some(place);
    }
    if page.next.is_none() {
        job.is_exhausted = true;
    } else {
        job.place = page.next;
    }
    Ok(tried)
}

/// A record that may not be replayed counts as tried and failed, in one step: whoever dies between
/// two would leave a job that waits for ever. False where the job has tried all that it may.
async fn refused(
    desk: &Desk,
    letters: &Letters,
    job: &Job,
    letter: &hive_store::letters::Letter,
    fault: &Fault,
) -> Result<bool, StoreError> {
    use hive_store::letters::{Changed, Count, Step};
    let by = format!("job {}", job.id);
    let limit = u64::from(job.options.limit);
    let step = Step {
        state: letter.state.clone(),
        change: Some(desk.change(letter.status, &by, fault.to_string())),
        count: Some((job.id.clone(), Count::Refused { limit })),
        ..Step::default()
    };
    let changed = desk
        .store
        .change_letter(letters, letter, letter.status, &step)
        .await?;
    Ok(changed != Changed::Limit)
}

/// What those that went ahead say.
async fn canary(
    desk: &Desk,
    letters: &Letters,
    job: &Job,
    [attempted, _, _]: [u64; 3],
) -> Result<Next, StoreError> {
    let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    let read = desk.store.read_letters(letters, &job.ahead).await?;
    let outcomes: Vec<(Status, Outcome)> = read
        .into_iter()
        .flatten()
        .map(|letter| (letter.status, letter.state.outcome))
        .collect();
    let count = |wanted: Outcome| {
        let such = outcomes.iter().filter(|(_, outcome)| *outcome == wanted);
        number(such.count())
    };
    let refused = outcomes
        .iter()
        .filter(|(status, outcome)| *outcome == Outcome::Unknown && *status != Status::Replaying)
        .count();
    // A crash may have lost who went ahead: those that were tried went.
    let lost = attempted.saturating_sub(u64::try_from(job.ahead.len()).unwrap_or(u64::MAX));
    Ok(Canary {
        wanted: job.options.canary,
        sent: number(job.ahead.len()),
        succeeded: count(Outcome::Succeeded),
        failed: count(Outcome::Failed).saturating_add(number(refused)),
    }
    .next(job.is_exhausted || lost > 0 && job.ahead.len() >= 1))
}

/// A job as callers see it.
pub(crate) fn shown(job: &Job, [attempted, replayed, failed]: [u64; 3]) -> wire::ReplayJob {
    let state = match job.state {
        JobState::Running => wire::ReplayJobState::Running,
        JobState::Canary => wire::ReplayJobState::Canary,
        JobState::Done => wire::ReplayJobState::Done,
        JobState::Cancelled => wire::ReplayJobState::Cancelled,
        JobState::Failed => wire::ReplayJobState::Failed,
    };
    wire::ReplayJob {
        job_id: job.id.clone(),
        state: state.into(),
        filter: Some(filter::shown(&job.filter)),
        limit: job.options.limit,
        rate: job.options.rate,
        canary: job.options.canary,
        total: job.total,
        attempted,
        replayed,
        failed,
        errors: job.errors.clone(),
        error: job.error.clone(),
        created_at: Some(time::to_timestamp(job.created_ms.into())),
        ended_at: (job.ended_ms > 0).then(|| time::to_timestamp(job.ended_ms.into())),
        by: job.by.clone(),
    }
}

/// Cancels a job that is not over; answers it as it is then.
///
/// # Errors
/// `REPLAY_JOB_NOT_FOUND`, or what Redis says.
pub(crate) async fn cancel(desk: &Desk, letters: &Letters, id: &str) -> Result<Job, Fault> {
    for _ in 0..20 {
        let found: Option<Row<Job>> = desk.store.letter_row(letters, LettersKey::Jobs, id).await?;
        let mut row = found.ok_or_else(|| Fault::no_replay_job(id))?;
        if row.value.state.is_over() {
            return Ok(row.value);
        }
        row.value.end(JobState::Cancelled, "", desk.now());
        let put = desk
            .store
            .put_letter_row(
                letters,
                LettersKey::Jobs,
                id,
                (row.version, Some(&row.value)),
            )
            .await?;
        if let Put::Stored(_) = put {
            return Ok(row.value);
        }
    }
    Err(
        Fault::new(Reason::VersionConflict, "the job keeps changing")
            .with_retry_after(Duration::from_secs(1)),
    )
}
