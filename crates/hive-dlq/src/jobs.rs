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
    letters::{
        Changed, Count, Found, Letter, Letters, LettersKey, Order, Outcome, Place, Row, Step,
    },
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
/// How often a record is read again that changes meanwhile.
const STALE_TRIES: u32 = 5;
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
    /// The end that the caller gave the filter; 0 for none.
    pub(crate) to_ms: u64,
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
        // Without an end of its own a filter ends with the call that made the job.
        let filter = |job: &Self| Filter {
            to_ms: job.to_ms,
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
        let over = rows.iter().filter(|row| row.value.state.is_over());
        let Some(oldest) = over.min_by_key(|row| row.value.ended_ms) else {
            let message = format!("{JOBS_MAX} replay jobs are under way, which is the limit");
            let fault = Fault::new(Reason::TooManyReplayJobs, message);
            return Err(fault.with_retry_after(Duration::from_secs(60)));
        };
        forget(desk, letters, oldest).await?;
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

/// One round over the jobs of a namespace; answers whether one went on.
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
        is_busy |= advance(desk, letters, memory, row).await?;
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

/// Carries a job on by one slice; answers whether it tried anything.
async fn advance(
    desk: &Desk,
    letters: &Letters,
    memory: &mut Memory,
    row: Row<Job>,
) -> Result<bool, StoreError> {
    let mut work = Work {
        desk,
        letters,
        version: row.version,
        stored: row.value.clone(),
        job: row.value,
    };
    let now = desk.now();
    let [attempted, replayed, failed] = desk.store.job_counts(letters, &work.job.id).await?;
    if work.job.options.canary > 0 && !work.job.is_proved {
        return work.go_ahead(now).await;
    }
    let rate = work.job.options.rate;
    let id = work.job.id.clone();
    let budget = memory.budgets.entry(id).or_insert_with(|| Budget::new(now));
    budget.fill(rate, now);
    let may = budget.messages(rate);
    let limit = u64::from(work.job.options.limit);
    let left = if limit == 0 {
        u64::MAX
    } else {
        limit.saturating_sub(attempted)
    };
    if left == 0 {
        work.job.is_exhausted = true;
    }
    let room = SLICE.min(usize::try_from(may.min(left)).unwrap_or(usize::MAX));
    let (mut tried, mut waits) = (0, false);
    if work.job.is_exhausted {
        if attempted <= replayed.saturating_add(failed) {
            work.job.end(JobState::Done, "", now);
            let job = &work.job.id;
            tracing::info!(job, attempted, replayed, failed, "replay_job_done");
        }
    } else if room > 0 {
        (tried, waits) = work.slice(room).await?;
        budget.take(tried);
    }
    work.store().await?;
    Ok(tried > 0 && !waits)
}

/// A job in work.
struct Work<'a> {
    desk: &'a Desk,
    letters: &'a Letters,
    version: u64,
    /// As it is stored.
    stored: Job,
    job: Job,
}

impl Work<'_> {
    /// Stores the job if it changed; false where somebody else changed it meanwhile: that stands.
    async fn store(&mut self) -> Result<bool, StoreError> {
        if self.job == self.stored {
            return Ok(true);
        }
        let put = (self.version, Some(&self.job));
        let (letters, id) = (self.letters, &self.job.id);
        let put = self
            .desk
            .store
            .put_letter_row(letters, LettersKey::Jobs, id, put)
            .await?;
        let Put::Stored(version) = put else {
            return Ok(false);
        };
        self.version = version;
        self.stored = self.job.clone();
        Ok(true)
    }

    /// Sends those that go ahead, then waits for what becomes of them. Who they are is stored
    /// before the first of them goes, so that whoever carries the job on sends no others.
    async fn go_ahead(&mut self, now: Timestamp) -> Result<bool, StoreError> {
        self.job.state = JobState::Canary;
        if self.job.ahead.is_empty() {
            let wanted = usize::try_from(self.job.options.canary).unwrap_or(usize::MAX);
            let from = (Order::Oldest, self.job.place.clone());
            let page =
                filter::page(self.desk, self.letters, &self.job.filter, from, wanted).await?;
            let is_told = |letter: &Letter| {
                !letter.facts.is_ordered && self.job.options.target_stream.is_empty()
            };
            // What became of a message with an ordering key, or of one for all groups, is not told.
            if !page.found.iter().all(is_told) {
                let why = "a canary needs messages without an ordering key, for one group: what \
                           becomes of others is not told";
                self.job.end(JobState::Failed, why, now);
                self.store().await?;
                return Ok(false);
            }
            let ids = page.found.into_iter().map(|letter| letter.id);
            self.job.ahead = ids.collect();
            self.job.is_exhausted = page.next.is_none();
            self.job.place = page.next;
            if self.job.ahead.is_empty() {
                self.job.is_proved = self.job.is_exhausted;
            }
            let is_stored = self.store().await?;
            if !is_stored || self.job.ahead.is_empty() {
                return Ok(is_stored);
            }
        }
        let ahead = self.job.ahead.clone();
        let read = self.desk.store.read_letters(self.letters, &ahead).await?;
        let (mut tried, mut last_sent_ms) = (0, 0);
        let mut canary = Canary {
            wanted: u32::try_from(ahead.len()).unwrap_or(u32::MAX),
            ..Canary::default()
        };
        for letter in read {
            canary.sent = canary.sent.saturating_add(1);
            // One that a person removed or refused says that something is wrong.
            let Some(letter) = letter.there() else {
                canary.failed = canary.failed.saturating_add(1);
                continue;
            };
            let plan = letter.state.plan.as_ref();
            let is_ours = plan.is_some_and(|plan| plan.job == self.job.id);
            last_sent_ms = last_sent_ms.max(letter.state.sent_ms);
            match (is_ours, letter.status, letter.state.outcome) {
                (true, Status::Replayed, Outcome::Succeeded) => {
                    canary.succeeded = canary.succeeded.saturating_add(1);
                },
                (true, Status::Replaying, _) | (true, Status::Replayed, Outcome::Pending) => {},
                (false, status, _) if status.is_open_to_replay() || self.job.options.force => {
                    tried += 1;
                    if !self.send(&letter).await? {
                        canary.failed = canary.failed.saturating_add(1);
                    }
                },
                _ => canary.failed = canary.failed.saturating_add(1),
            }
        }
        match canary.next(true) {
            Next::Send(_) => {},
            Next::Wait => {
                let is_late = now.as_millis() > last_sent_ms.saturating_add(CANARY_MS);
                if tried == 0 && last_sent_ms > 0 && is_late {
                    let why = "what became of the messages that went ahead is not known in time";
                    self.job.end(JobState::Failed, why, now);
                }
            },
            Next::GoOn => {
                self.job.is_proved = true;
                self.job.state = JobState::Running;
            },
            Next::Stop { why } => self.job.end(JobState::Failed, why, now),
        }
        self.store().await?;
        Ok(tried > 0 || self.job.is_proved)
    }

    /// Tries the next records; answers how many, and whether the last of them waits.
    async fn slice(&mut self, room: usize) -> Result<(u64, bool), StoreError> {
        let from = (Order::Oldest, self.job.place.clone());
        let page = filter::page(self.desk, self.letters, &self.job.filter, from, room).await?;
        let mut tried = 0;
        for letter in page.found {
            let place = Place {
                dead_ms: letter.facts.dead_ms,
                id: letter.id.clone(),
            };
            tried += 1;
            self.job.error.clear();
            self.send(&letter).await?;
            if self.job.is_exhausted {
                return Ok((tried, false));
            }
            // What waits is tried again from here on; what is under way is carried on.
            if !self.job.error.is_empty() {
                return Ok((tried, true));
            }
            self.job.place = Some(place);
        }
        if page.next.is_none() {
            self.job.is_exhausted = true;
        } else {
            self.job.place = page.next;
        }
        Ok((tried, false))
    }

    /// Sends one; false where it was refused. What passes by itself becomes the job's error.
    async fn send(&mut self, letter: &Letter) -> Result<bool, StoreError> {
        let job = &self.job;
        let limit = u64::from(job.options.limit);
        let ask = Ask {
            target_group: job.options.target_group.clone(),
            target_stream: job.options.target_stream.clone(),
            priority_boost: job.options.priority_boost,
            force: job.options.force,
            by: format!("job {}", job.id),
            why: job.by.clone(),
            job: Some((job.id.clone(), limit)),
            ..Ask::default()
        };
        let letter = match self.begin(letter, &ask).await? {
            Ok(Begun::Mine(letter)) => letter,
            // Somebody else has it.
            Ok(Begun::Before | Begun::UnderWay(_) | Begun::Stale) => return Ok(true),
            Ok(Begun::Limit) => {
                self.job.is_exhausted = true;
                return Ok(true);
            },
            Err(fault) if replay::is_passing(&fault) => {
                self.job.error = format!("waits: {fault}");
                return Ok(true);
            },
            Err(fault) => {
                self.job.note_error(&letter.id, &fault);
                self.refused(letter, &fault).await?;
                return Ok(false);
            },
        };
        let id = letter.id.clone();
        match replay::carry_on(self.desk, self.letters, *letter).await {
            Ok(Sent::Done(_) | Sent::Elsewhere) => Ok(true),
            Ok(Sent::Refused(fault)) => {
                self.job.note_error(&id, fault);
                Ok(false)
            },
            // It is carried on as soon as it can be, and the job waits with it.
            Ok(Sent::Later(fault)) | Err(fault) => {
                self.job.error = format!("waits: {fault}");
                Ok(true)
            },
        }
    }

    /// Begins the replay of a record; of one that changed since it was read, as it is now.
    async fn begin(&self, letter: &Letter, ask: &Ask) -> Result<Result<Begun, Fault>, StoreError> {
        let mut newest = None;
        for _ in 0..STALE_TRIES {
            let now = newest.as_ref().unwrap_or(letter);
            match replay::begin(self.desk, self.letters, now, ask).await {
                Ok(Begun::Stale) => {},
                other => return Ok(other),
            }
            match self
                .desk
                .store
                .read_letter(self.letters, &letter.id)
                .await?
            {
                Found::There(read) if filter::fits(&self.job.filter, &read) => newest = Some(read),
                Found::There(_) | Found::Absent | Found::Unreadable => {
                    return Ok(Ok(Begun::Before));
                },
            }
        }
        let message = format!("dead letter `{}` keeps changing", letter.id);
        let fault = Fault::new(Reason::VersionConflict, message);
        Ok(Err(fault.with_retry_after(Duration::from_secs(1))))
    }

    /// A record that may not be replayed counts as tried and failed.
    async fn refused(&mut self, letter: &Letter, fault: &Fault) -> Result<(), StoreError> {
        let by = format!("job {}", self.job.id);
        let change = self.desk.change(letter.status, &by, fault.to_string());
        let limit = u64::from(self.job.options.limit);
        let step = Step {
            change: Some(change),
            count: Some((self.job.id.clone(), Count::Refused { limit })),
            ..Step::of(letter)
        };
        let changed = self
            .desk
            .store
            .change_letter(self.letters, letter, letter.status, &step)
            .await?;
        if changed == Changed::Limit {
            self.job.is_exhausted = true;
        }
        Ok(())
    }
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

#[cfg(test)]
mod tests {
    use hive_domain::{
        dead_letter::{
            plan::{Budget, Options},
            status::Status,
        },
        time::Timestamp,
    };
    use hive_store::letters::Step;

    use super::{Job, Memory, create, round};
    use crate::{settings::Policies, world::world};

    #[tokio::test]
    async fn what_went_before_one_that_waits_counts_against_the_rate() {
        let world = world(Policies::default()).await;
        world.make_group().await;
        for id in ["a", "b"] {
            world.take(id, Status::Replayable, &Step::default()).await;
        }
        let job = Job {
            id: "j".to_owned(),
            options: Options {
                rate: 2,
                ..Options::default()
            },
            ..Job::default()
        };
        create(&world.desk, &world.letters, job).await.unwrap();
        let now = world.desk.now();
        let mut memory = Memory::default();
        let budget = Budget::new(Timestamp(now.as_millis() - 1_000));
        memory.budgets.insert("j".to_owned(), budget);
        let is_busy = round(&world.desk, &world.letters, &mut memory)
            .await
            .unwrap();
        // The group takes one; the other waits, and so does the job.
        assert_eq!(world.there("a").await.status, Status::Replayed);
        assert_eq!(world.there("b").await.status, Status::Replaying);
        assert!(!is_busy);
        assert_eq!(memory.budgets["j"].messages(2), 0);
    }
}
