//! Calls about dead letters against a gateway with a script: what may be repeated, and paging.

use std::sync::Arc;

use hive_client::{
    Client, Fault, Reason,
    wire::{
        self, DeadLetter, DeadLetterFilter,
        dead_letter_service_server::{DeadLetterService, DeadLetterServiceServer},
    },
};
use parking_lot::Mutex;
use tokio::{net::TcpListener, task::JoinSet};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, transport::Server};

use crate::peer::within;

/// What the gateway does: refuses the next calls with these, and notes what it was asked.
#[derive(Default)]
struct Script {
    refusals: Vec<Fault>,
    asked: Vec<String>,
}

struct Door(Arc<Mutex<Script>>);

impl Door {
    fn note<T: std::fmt::Debug>(&self, request: &Request<T>) -> Result<(), Status> {
        let mut script = self.0.lock();
        script.asked.push(format!("{:?}", request.get_ref()));
        match script.refusals.pop() {
            Some(fault) => Err(fault.into()),
            None => Ok(()),
        }
    }
}

macro_rules! answers {
    ($($call:ident $request:ident $response:ident |$asked:ident| $answer:expr;)*) => {
        $(
            fn $call<'life0, 'async_trait>(
                &'life0 self,
                request: Request<wire::$request>,
            ) -> std::pin::Pin<Box<
                dyn Future<Output = Result<Response<wire::$response>, Status>>
                    + Send + 'async_trait,
            >>
            where
                'life0: 'async_trait,
                Self: 'async_trait,
            {
                Box::pin(async move {
                    self.note(&request)?;
                    let $asked = request.into_inner();
                    Ok(Response::new($answer))
                })
            }
        )*
    };
}

fn letter(dlq_id: &str) -> DeadLetter {
    DeadLetter {
        dlq_id: dlq_id.to_owned(),
        ..DeadLetter::default()
    }
}

fn job(job_id: String) -> Option<wire::ReplayJob> {
    Some(wire::ReplayJob {
        job_id,
        ..wire::ReplayJob::default()
    })
}

#[tonic::async_trait]
impl DeadLetterService for Door {
    answers! {
        list_dead_letters ListDeadLettersRequest ListDeadLettersResponse |asked| {
            // The page in the middle is empty and not the last.
            let (ids, next): (&[&str], &str) = match &*asked.cursor {
                "" => (&["e", "d"], "2"),
                "2" => (&[], "3"),
                _ => (&["c"], ""),
            };
            wire::ListDeadLettersResponse {
                messages: ids.iter().map(|id| letter(id)).collect(),
                next_cursor: next.to_owned(),
            }
        };
        get_dead_letter GetDeadLetterRequest GetDeadLetterResponse |asked| {
            wire::GetDeadLetterResponse { message: Some(letter(&asked.dlq_id)) }
        };
        replay_dead_letter ReplayDeadLetterRequest ReplayDeadLetterResponse |_asked| {
            wire::ReplayDeadLetterResponse::default()
        };
        replay_dead_letters ReplayDeadLettersRequest ReplayDeadLettersResponse |asked| {
            wire::ReplayDeadLettersResponse {
                job: job(asked.job_id),
                ..wire::ReplayDeadLettersResponse::default()
            }
        };
        get_replay_job GetReplayJobRequest GetReplayJobResponse |asked| {
            wire::GetReplayJobResponse { job: job(asked.job_id) }
        };
        list_replay_jobs ListReplayJobsRequest ListReplayJobsResponse |_asked| {
            wire::ListReplayJobsResponse::default()
        };
        cancel_replay_job CancelReplayJobRequest CancelReplayJobResponse |asked| {
            wire::CancelReplayJobResponse { job: job(asked.job_id) }
        };
        get_dead_letter_statistics
            GetDeadLetterStatisticsRequest GetDeadLetterStatisticsResponse |_asked| {
            wire::GetDeadLetterStatisticsResponse { total: 7, ..Default::default() }
        };
        analyze_dead_letters AnalyzeDeadLettersRequest AnalyzeDeadLettersResponse |_asked| {
            wire::AnalyzeDeadLettersResponse::default()
        };
        set_dead_letter_status
            SetDeadLetterStatusRequest SetDeadLetterStatusResponse |asked| {
            wire::SetDeadLetterStatusResponse { message: Some(letter(&asked.dlq_id)) }
        };
        purge_dead_letters PurgeDeadLettersRequest PurgeDeadLettersResponse |_asked| {
            wire::PurgeDeadLettersResponse::default()
        };
    }
}

/// A gateway with a script; it ends with the value.
struct Peer {
    client: Client,
    script: Arc<Mutex<Script>>,
    _server: JoinSet<()>,
}

impl Peer {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = Client::new(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
        let script = Arc::new(Mutex::new(Script::default()));
        let service = DeadLetterServiceServer::new(Door(script.clone()));
        let mut server = JoinSet::new();
        server.spawn(async move {
            let incoming = TcpListenerStream::new(listener);
            let served = Server::builder().add_service(service);
            served.serve_with_incoming(incoming).await.unwrap();
        });
        Self {
            client,
            script,
            _server: server,
        }
    }

    /// The answer to the next call is lost.
    fn lose(&self) {
        let lost = Fault::new(Reason::OutcomeUnknown, "the connection broke");
        self.script.lock().refusals.push(lost);
    }

    /// What was asked since the last time.
    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.script.lock().asked)
    }
}

#[tokio::test]
async fn a_list_goes_on_over_short_and_empty_pages() {
    let peer = Peer::start().await;
    let filter = DeadLetterFilter {
        group: "g".to_owned(),
        ..DeadLetterFilter::default()
    };
    let mut letters = peer.client.dead_letters(filter).page(2).with_payloads();
    let mut ids = Vec::new();
    while let Some(letter) = within("a dead letter", letters.next()).await.unwrap() {
        ids.push(letter.dlq_id);
    }
    assert_eq!(ids, ["e", "d", "c"]);
    assert!(letters.next().await.unwrap().is_none());
    let asked = peer.asked();
    assert_eq!(asked.len(), 3);
    let is_whole = |one: &String| {
        one.contains("limit: 2") && one.contains("include_payload: true") && one.contains("\"g\"")
    };
    assert!(asked.iter().all(is_whole), "{asked:?}");
}

#[tokio::test]
async fn a_replay_is_sent_again_unless_it_is_forced() {
    let peer = Peer::start().await;
    for (force, count) in [(false, 2), (true, 1)] {
        peer.lose();
        let request = wire::ReplayDeadLetterRequest {
            dlq_id: "d".to_owned(),
            force,
            ..wire::ReplayDeadLetterRequest::default()
        };
        let answer = within("an answer", peer.client.replay_dead_letter(request)).await;
        assert_eq!(answer.is_err(), force);
        assert_eq!(peer.asked().len(), count, "force: {force}");
    }
}

#[tokio::test]
async fn a_job_has_one_name_however_often_it_is_sent() {
    let peer = Peer::start().await;
    peer.lose();
    let request = wire::ReplayDeadLettersRequest::default();
    let answer = within(
        "an answer",
        peer.client.replay_dead_letters(request.clone()),
    )
    .await;
    let job = answer.unwrap().job.unwrap();
    assert!(!job.job_id.is_empty());
    let asked = peer.asked();
    assert_eq!(asked.len(), 2);
    assert!(
        asked.iter().all(|one| one.contains(&job.job_id)),
        "{asked:?}"
    );

    let named = wire::ReplayDeadLettersRequest {
        job_id: "mine".to_owned(),
        ..request.clone()
    };
    peer.client.replay_dead_letters(named).await.unwrap();
    assert!(peer.asked()[0].contains("\"mine\""));
    let dry = wire::ReplayDeadLettersRequest {
        dry_run: true,
        ..request
    };
    peer.client.replay_dead_letters(dry).await.unwrap();
    assert!(peer.asked()[0].contains("job_id: \"\""));
}

#[tokio::test]
async fn every_other_call_is_sent_again_when_its_answer_is_lost() {
    let peer = Peer::start().await;
    let client = &peer.client;
    peer.lose();
    assert_eq!(client.get_dead_letter("d").await.unwrap().dlq_id, "d");
    peer.lose();
    assert_eq!(client.get_replay_job("j").await.unwrap().job_id, "j");
    peer.lose();
    assert_eq!(client.cancel_replay_job("j").await.unwrap().job_id, "j");
    peer.lose();
    assert_eq!(client.dead_letter_statistics().await.unwrap().total, 7);
    peer.lose();
    let jobs = client.list_replay_jobs(wire::ListReplayJobsRequest::default());
    jobs.await.unwrap();
    peer.lose();
    let window = wire::AnalyzeDeadLettersRequest::default();
    client.analyze_dead_letters(window).await.unwrap();
    peer.lose();
    let status = wire::SetDeadLetterStatusRequest {
        dlq_id: "d".to_owned(),
        ..wire::SetDeadLetterStatusRequest::default()
    };
    let changed = client.set_dead_letter_status(status).await.unwrap();
    assert_eq!(changed.dlq_id, "d");
    peer.lose();
    let purge = wire::PurgeDeadLettersRequest::default();
    client.purge_dead_letters(purge).await.unwrap();
    assert_eq!(peer.asked().len(), 16);
}

#[tokio::test]
async fn a_refusal_is_told_as_it_is() {
    let peer = Peer::start().await;
    let gone = Fault::new(Reason::NotFound, "there is no dead letter `d`");
    peer.script.lock().refusals.push(gone.clone());
    let refused = peer.client.get_dead_letter("d").await.unwrap_err();
    assert_eq!(refused.fault(), &gone);
}
