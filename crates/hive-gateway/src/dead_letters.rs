//! Calls about dead letters: any `hive-dlq` answers any of them.
//!
//! A call that changes something says itself that it may be repeated: a replay of one is the same
//! replay until it is forced, and a job has a name, which it gets here where its caller gave none.

use std::time::Duration;

use hive_protocol::{
    fault::Reason,
    limits::FRAME_BYTES_MAX,
    wire::{self, dead_letter_service_client::DeadLetterServiceClient},
};
use hive_runtime::peers::Kind;
use tonic::{Status, transport::Channel};
use uuid::Uuid;

use crate::{
    core::Gateway,
    peers::{Onward, Repeat, handed_on, safe},
};

/// The daemons that take these calls.
pub(crate) static WORKERS: Kind = Kind {
    daemon: "dlq",
    about: "dead_letter",
    missing: (
        Reason::NoDlq,
        "no dead-letter worker is alive: dead letters need a `hive-dlq`",
    ),
};

fn client(channel: Channel) -> DeadLetterServiceClient<Channel> {
    DeadLetterServiceClient::new(channel)
        .max_decoding_message_size(FRAME_BYTES_MAX)
        .max_encoding_message_size(FRAME_BYTES_MAX)
}

/// A forced replay is another one each time.
const fn unforced(asked: &wire::ReplayDeadLetterRequest) -> Repeat {
    if asked.force {
        Repeat::Never
    } else {
        Repeat::Safe
    }
}

impl Gateway {
    /// Sends back what a filter takes, as a job; one without a name gets its name here.
    ///
    /// # Errors
    /// `NO_DLQ`, or what the worker says.
    pub async fn replay_dead_letters(
        &self,
        onward: &Onward,
        mut request: wire::ReplayDeadLettersRequest,
    ) -> Result<wire::ReplayDeadLettersResponse, Status> {
        if request.job_id.is_empty() && !request.dry_run {
            request.job_id = Uuid::now_v7().to_string();
        }
        let _pass = self.enter(WORKERS.about)?;
        let wait = request.wait.and_then(|wait| Duration::try_from(wait).ok());
        let onward = onward.clone().waiting(wait.unwrap_or_default());
        let id = request.job_id.clone();
        // Under its name a job begins once, and a dry run begins none.
        let ask = |request| {
            let send = |channel, request| async move {
                client(channel).replay_dead_letters(request).await
            };
            self.ask_on(
                &self.dead_letters,
                (&onward, &id),
                request,
                (Repeat::Safe, send),
            )
        };
        let at_once = wire::ReplayDeadLettersRequest {
            wait: None,
            ..request.clone()
        };
        tokio::select! {
            answer = ask(request) => answer,
            // The job goes on without this gateway: its caller is told how it stands.
            () = self.shutdown.draining() => ask(at_once).await,
        }
    }
}

handed_on! {
    client at dead_letters;
    /// Lists dead letters.
    list_dead_letters ListDeadLettersRequest ListDeadLettersResponse safe |_asked| "";
    /// Shows one.
    get_dead_letter GetDeadLetterRequest GetDeadLetterResponse safe |asked| &asked.dlq_id;
    /// Sends one back.
    replay_dead_letter ReplayDeadLetterRequest ReplayDeadLetterResponse unforced
        |asked| &asked.dlq_id;
    /// Shows how far a replay job is.
    get_replay_job GetReplayJobRequest GetReplayJobResponse safe |asked| &asked.job_id;
    /// Lists replay jobs.
    list_replay_jobs ListReplayJobsRequest ListReplayJobsResponse safe |_asked| "";
    /// Ends a replay job.
    cancel_replay_job CancelReplayJobRequest CancelReplayJobResponse safe |asked| &asked.job_id;
    /// Counts dead letters.
    get_dead_letter_statistics GetDeadLetterStatisticsRequest GetDeadLetterStatisticsResponse safe
        |_asked| "";
    /// Looks for patterns.
    analyze_dead_letters AnalyzeDeadLettersRequest AnalyzeDeadLettersResponse safe |_asked| "";
    /// Says what is to become of one.
    set_dead_letter_status SetDeadLetterStatusRequest SetDeadLetterStatusResponse safe
        |asked| &asked.dlq_id;
    /// Deletes for good what a filter takes.
    purge_dead_letters PurgeDeadLettersRequest PurgeDeadLettersResponse safe |_asked| "";
}
