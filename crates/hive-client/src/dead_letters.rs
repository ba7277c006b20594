//! Dead letters: what failed for good, why, and how it is sent back.
//!
//! ```no_run
//! use hive_client::{Client, wire::DeadLetterFilter};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::new("http://127.0.0.1:8000")?;
//! let filter = DeadLetterFilter { group: "reviewers".into(), ..Default::default() };
//! let mut letters = client.dead_letters(filter);
//! while let Some(letter) = letters.next().await? {
//!     println!("{}: {}", letter.dlq_id, letter.category);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Each call has its own answer to the question whether it may be repeated. A replay job gets its
//! name here, so that the job that a lost answer was about is not begun twice.

use std::{collections::VecDeque, time::Duration};

use hive_protocol::wire::{
    AnalyzeDeadLettersRequest, AnalyzeDeadLettersResponse, CancelReplayJobRequest, DeadLetter,
    DeadLetterFilter, GetDeadLetterRequest, GetDeadLetterStatisticsRequest,
    GetDeadLetterStatisticsResponse, GetReplayJobRequest, ListDeadLettersRequest,
    ListDeadLettersResponse, ListReplayJobsRequest, ListReplayJobsResponse,
    PurgeDeadLettersRequest, PurgeDeadLettersResponse, ReplayDeadLetterRequest,
    ReplayDeadLetterResponse, ReplayDeadLettersRequest, ReplayDeadLettersResponse, ReplayJob,
    SetDeadLetterStatusRequest,
};
use uuid::Uuid;

use crate::client::{CallError, Client, Repeat, calls};

impl Client {
    calls! {
        /// A page of dead letters, the newest first; [`Client::dead_letters`] goes on by itself.
        list_dead_letters(ListDeadLettersRequest) -> ListDeadLettersResponse, Safe, dead_letters;
        /// Replay jobs, the newest first.
        list_replay_jobs(ListReplayJobsRequest) -> ListReplayJobsResponse, Safe, dead_letters;
        /// Patterns in what failed lately, with evidence and advice.
        analyze_dead_letters(AnalyzeDeadLettersRequest) -> AnalyzeDeadLettersResponse,
            Safe, dead_letters;
        /// Deletes dead letters for good. Needs a dry run before, and the token that it answered;
        /// repeated it goes on with what is left.
        purge_dead_letters(PurgeDeadLettersRequest) -> PurgeDeadLettersResponse, Safe, dead_letters;
    }

    /// Every dead letter that fits the filter, the newest first, page by page. Nothing is asked
    /// before [`DeadLetters::next`].
    #[must_use]
    pub fn dead_letters(&self, filter: DeadLetterFilter) -> DeadLetters {
        DeadLetters {
            client: self.clone(),
            ask: ListDeadLettersRequest {
                filter: Some(filter),
                ..ListDeadLettersRequest::default()
            },
            page: VecDeque::new(),
            is_last: false,
        }
    }

    /// One dead letter with all of its attempts and its payload.
    ///
    /// # Errors
    /// When it is refused, or nobody answers in time.
    pub async fn get_dead_letter(
        &self,
        dlq_id: impl Into<String>,
    ) -> Result<DeadLetter, CallError> {
        let dlq_id = dlq_id.into();
        let request = GetDeadLetterRequest { dlq_id };
        let call = self.call(request, Repeat::Safe, |gateway, request| async move {
            gateway.dead_letters().get_dead_letter(request).await
        });
        Ok(call.await?.message.unwrap_or_default())
    }

    /// Sends one dead letter back. Repeated unless it is forced: a second one then answers what the
    /// first one did.
    ///
    /// # Errors
    /// When it is refused, or nobody answers in time.
    pub async fn replay_dead_letter(
        &self,
        request: ReplayDeadLetterRequest,
    ) -> Result<ReplayDeadLetterResponse, CallError> {
        let repeat = if request.force {
            Repeat::Never
        } else {
            Repeat::Safe
        };
        self.call(request, repeat, |gateway, request| async move {
            gateway.dead_letters().replay_dead_letter(request).await
        })
        .await
    }

    /// Sends back what a filter takes, as a job. A job without a name gets one here.
    ///
    /// # Errors
    /// When it is refused, or nobody answers in time.
    pub async fn replay_dead_letters(
        &self,
        mut request: ReplayDeadLettersRequest,
    ) -> Result<ReplayDeadLettersResponse, CallError> {
        if request.job_id.is_empty() && !request.dry_run {
            request.job_id = Uuid::now_v7().to_string();
        }
        let wait = request.wait.and_then(|wait| Duration::try_from(wait).ok());
        let wait = wait.unwrap_or_default();
        self.call_waiting(request, Repeat::Safe, wait, |gateway, request| async move {
            gateway.dead_letters().replay_dead_letters(request).await
        })
        .await
    }

    /// How far a replay job is.
    ///
    /// # Errors
    /// When it is refused, or nobody answers in time.
    pub async fn get_replay_job(&self, job_id: impl Into<String>) -> Result<ReplayJob, CallError> {
        let job_id = job_id.into();
        let request = GetReplayJobRequest { job_id };
        let call = self.call(request, Repeat::Safe, |gateway, request| async move {
            gateway.dead_letters().get_replay_job(request).await
        });
        Ok(call.await?.job.unwrap_or_default())
    }

    /// Ends a replay job; what it sent stays sent. One that has ended answers as it is.
    ///
    /// # Errors
    /// When it is refused, or nobody answers in time.
    pub async fn cancel_replay_job(
        &self,
        job_id: impl Into<String>,
    ) -> Result<ReplayJob, CallError> {
        let job_id = job_id.into();
        let request = CancelReplayJobRequest { job_id };
        let call = self.call(request, Repeat::Safe, |gateway, request| async move {
            gateway.dead_letters().cancel_replay_job(request).await
        });
        Ok(call.await?.job.unwrap_or_default())
    }

    /// Figures of all dead letters of the namespace.
    ///
    /// # Errors
    /// When it is refused, or nobody answers in time.
    pub async fn dead_letter_statistics(
        &self,
    ) -> Result<GetDeadLetterStatisticsResponse, CallError> {
        let request = GetDeadLetterStatisticsRequest {};
        self.call(request, Repeat::Safe, |gateway, request| async move {
            gateway
                .dead_letters()
                .get_dead_letter_statistics(request)
                .await
        })
        .await
    }

    /// Says what is to become of one dead letter; answers it as it is then.
    ///
    /// # Errors
    /// When it is refused, or nobody answers in time.
    pub async fn set_dead_letter_status(
        &self,
        request: SetDeadLetterStatusRequest,
    ) -> Result<DeadLetter, CallError> {
        let call = self.call(request, Repeat::Safe, |gateway, request| async move {
            gateway.dead_letters().set_dead_letter_status(request).await
        });
        Ok(call.await?.message.unwrap_or_default())
    }
}

/// All dead letters that fit a filter; see [`Client::dead_letters`].
#[derive(Debug)]
pub struct DeadLetters {
    client: Client,
    ask: ListDeadLettersRequest,
    page: VecDeque<DeadLetter>,
    is_last: bool,
}

impl DeadLetters {
    /// Asks for this many at once, 1 to 1,000. Default 50.
    #[must_use]
    pub const fn page(mut self, limit: u32) -> Self {
        self.ask.limit = limit;
        self
    }

    /// With their payloads.
    #[must_use]
    pub const fn with_payloads(mut self) -> Self {
        self.ask.include_payload = true;
        self
    }

    /// Goes on where a page of [`Client::list_dead_letters`] ended.
    #[must_use]
    pub fn from(mut self, cursor: impl Into<String>) -> Self {
        self.ask.cursor = cursor.into();
        self
    }

    /// The next one; none at the end. One that dies meanwhile is not among them.
    ///
    /// # Errors
    /// When a page is refused, or nobody answers in time; asked again it goes on there.
    pub async fn next(&mut self) -> Result<Option<DeadLetter>, CallError> {
        // A page may be empty and not the last.
        while self.page.is_empty() && !self.is_last {
            let answer = self.client.list_dead_letters(self.ask.clone()).await?;
            self.is_last = answer.next_cursor.is_empty();
            self.ask.cursor = answer.next_cursor;
            self.page = answer.messages.into();
        }
        Ok(self.page.pop_front())
    }
}
