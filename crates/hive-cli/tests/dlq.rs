//! `hive dlq` as a person or a script runs it, against a gateway that the test plays.

use std::{
    process::{Output, Stdio},
    sync::Arc,
    time::Duration,
};

use hive_client::wire::{
    self, DeadLetter, ReplayJob, ReplayJobState,
    dead_letter_service_server::{DeadLetterService, DeadLetterServiceServer},
};
use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader},
    net::TcpListener,
    process::Command,
    task::JoinSet,
    time::timeout,
};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, transport::Server};

/// Longest time that anything here may take.
const DEADLINE: Duration = Duration::from_secs(30);

/// What the gateway holds and was asked.
struct Script {
    letters: Vec<DeadLetter>,
    /// Looks at a job before it is done; none for never.
    looks: Option<u32>,
    replays: Vec<wire::ReplayDeadLettersRequest>,
    named: Vec<wire::ReplayDeadLetterRequest>,
    purges: Vec<wire::PurgeDeadLettersRequest>,
}

struct Door(Arc<Mutex<Script>>);

macro_rules! answers {
    ($($call:ident $request:ident $response:ident |$script:ident, $asked:ident| $ans:expr;)*) => {
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
                    let $asked = request.into_inner();
                    let mut script = self.0.lock();
                    let $script = &mut *script;
                    Ok(Response::new($ans))
                })
            }
        )*
    };
}

fn job(job_id: String, state: ReplayJobState, script: &Script) -> Option<ReplayJob> {
    let total = script.letters.len() as u64;
    let is_done = state == ReplayJobState::Done;
    Some(ReplayJob {
        job_id,
        state: state.into(),
        total,
        attempted: if is_done { total } else { 0 },
        replayed: if is_done { total } else { 0 },
        ..ReplayJob::default()
    })
}

#[tonic::async_trait]
impl DeadLetterService for Door {
    answers! {
        list_dead_letters ListDeadLettersRequest ListDeadLettersResponse |script, _asked| {
            wire::ListDeadLettersResponse {
                messages: script.letters.iter().rev().cloned().collect(),
                next_cursor: String::new(),
            }
        };
        get_dead_letter GetDeadLetterRequest GetDeadLetterResponse |script, asked| {
            let found = script.letters.iter().find(|one| one.dlq_id == asked.dlq_id);
            wire::GetDeadLetterResponse { message: found.cloned() }
        };
        replay_dead_letter ReplayDeadLetterRequest ReplayDeadLetterResponse |script, asked| {
            script.named.push(asked);
            wire::ReplayDeadLetterResponse {
                replayed: true,
                message_id: "m-2".to_owned(),
                replay_number: 1,
            }
        };
        replay_dead_letters ReplayDeadLettersRequest ReplayDeadLettersResponse |script, asked| {
            script.replays.push(asked.clone());
            let job = job(asked.job_id, ReplayJobState::Running, script);
            wire::ReplayDeadLettersResponse {
                job: (!asked.dry_run).then_some(job).flatten(),
                would_replay: script.letters.len() as u64,
                sample: script.letters.clone(),
            }
        };
        get_replay_job GetReplayJobRequest GetReplayJobResponse |script, asked| {
            let state = match &mut script.looks {
                Some(0) => ReplayJobState::Done,
                Some(left) => {
                    *left -= 1;
                    ReplayJobState::Canary
                },
                None => ReplayJobState::Running,
            };
            wire::GetReplayJobResponse { job: job(asked.job_id, state, script) }
        };
        list_replay_jobs ListReplayJobsRequest ListReplayJobsResponse |script, _asked| {
            let job = job("j-1".to_owned(), ReplayJobState::Done, script);
            wire::ListReplayJobsResponse { jobs: job.into_iter().collect() }
        };
        cancel_replay_job CancelReplayJobRequest CancelReplayJobResponse |script, asked| {
            let job = job(asked.job_id, ReplayJobState::Cancelled, script);
            wire::CancelReplayJobResponse { job }
        };
        get_dead_letter_statistics
            GetDeadLetterStatisticsRequest GetDeadLetterStatisticsResponse |script, _asked| {
            wire::GetDeadLetterStatisticsResponse {
                total: script.letters.len() as u64,
                ..wire::GetDeadLetterStatisticsResponse::default()
            }
        };
        analyze_dead_letters AnalyzeDeadLettersRequest AnalyzeDeadLettersResponse
            |_script, _asked| wire::AnalyzeDeadLettersResponse::default();
        set_dead_letter_status SetDeadLetterStatusRequest SetDeadLetterStatusResponse
            |_script, asked| {
            let mut changed = letter(&asked.dlq_id);
            changed.status = asked.status;
            wire::SetDeadLetterStatusResponse { message: Some(changed) }
        };
        purge_dead_letters PurgeDeadLettersRequest PurgeDeadLettersResponse |script, asked| {
            script.purges.push(asked.clone());
            // The second call of two finishes.
            let more = !asked.dry_run && script.purges.len() == 2;
            wire::PurgeDeadLettersResponse {
                purged: 2,
                confirm: if asked.dry_run { "token" } else { "" }.to_owned(),
                more,
            }
        };
    }
}

fn letter(dlq_id: &str) -> DeadLetter {
    DeadLetter {
        dlq_id: dlq_id.to_owned(),
        group: "reviewers".to_owned(),
        category: "timeout".to_owned(),
        status: wire::DeadLetterStatus::Analyzed.into(),
        failures: 3,
        strategy: "delayed_retry".to_owned(),
        attempts: vec![wire::FailedAttempt {
            error_type: "TimeoutError".to_owned(),
            reason: "no answer".to_owned(),
            ..wire::FailedAttempt::default()
        }],
        dead_lettered_at: Some(std::time::SystemTime::now().into()),
        ..DeadLetter::default()
    }
}

/// A gateway that the test plays; it ends with the value.
struct Peer {
    url: String,
    script: Arc<Mutex<Script>>,
    _server: JoinSet<()>,
}

impl Peer {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let script = Arc::new(Mutex::new(Script {
            letters: vec![letter("d-1"), letter("d-2"), letter("d-3")],
            looks: Some(1),
            replays: Vec::new(),
            named: Vec::new(),
            purges: Vec::new(),
        }));
        let service = DeadLetterServiceServer::new(Door(script.clone()));
        let mut server = JoinSet::new();
        server.spawn(async move {
            let incoming = TcpListenerStream::new(listener);
            let served = Server::builder().add_service(service);
            served.serve_with_incoming(incoming).await.unwrap();
        });
        Self {
            url,
            script,
            _server: server,
        }
    }

    fn command(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hive"));
        command
            .args(["--url", &self.url, "dlq"])
            .args(line.split_whitespace())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    /// Runs a command to its end: its exit code, stdout and stderr.
    async fn hive(&self, line: &str) -> (i32, String, String) {
        let run = timeout(DEADLINE, self.command(line).output()).await;
        let Output {
            status,
            stdout,
            stderr,
        } = run.unwrap().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (status.code().unwrap(), text(&stdout), text(&stderr))
    }
}

#[tokio::test]
async fn a_list_says_what_to_do_about_each() {
    let peer = Peer::start().await;
    let (code, out, _) = peer.hive("ls").await;
    assert_eq!(code, 0);
    let row = out.lines().find(|line| line.contains("d-3")).unwrap();
    for part in [
        "reviewers",
        "timeout",
        "analyzed",
        "replay",
        "TimeoutError: no answer",
    ] {
        assert!(row.contains(part), "`{part}` in `{row}`");
    }
    assert!(
        !out.contains('\u{1b}'),
        "colours where no person looks: {out}"
    );
    let (_, out, _) = peer.hive("ls -o json").await;
    let rows: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(rows[0]["dlq_id"], "d-3");
    assert_eq!(rows[0]["attempts"][0]["error_type"], "TimeoutError");
}

#[tokio::test]
async fn a_replay_of_many_is_refused_where_nobody_can_be_asked() {
    let peer = Peer::start().await;
    let (code, _, err) = peer.hive("replay --group reviewers").await;
    assert_eq!(code, 64, "{err}");
    assert!(err.contains("--yes"), "{err}");
    let asked = std::mem::take(&mut peer.script.lock().replays);
    assert!(asked.iter().all(|one| one.dry_run), "{asked:?}");
    let (code, out, _) = peer.hive("replay --group reviewers --dry-run").await;
    assert_eq!(code, 0);
    assert!(out.contains("3 dead letters would be replayed"), "{out}");
    let (code, _, err) = peer.hive("replay").await;
    assert_eq!((code, err.contains("--all")), (64, true), "{err}");
}

#[tokio::test]
async fn a_job_is_followed_to_its_end() {
    let peer = Peer::start().await;
    let (code, out, err) = peer.hive("replay --group g --canary 2 --yes -o json").await;
    assert_eq!(code, 0, "{err}");
    let job: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        (&job["state"], &job["replayed"]),
        (&"done".into(), &3.into())
    );
    let asked = peer.script.lock().replays.clone();
    let [dry, begun] = asked.as_slice() else {
        panic!("{asked:?}")
    };
    assert!(dry.dry_run && dry.job_id.is_empty());
    assert_eq!((begun.canary, begun.job_id.len()), (2, 36));
    let (_, out, _) = peer.hive("replay --all --yes --no-wait").await;
    assert!(out.contains("hive dlq jobs get"), "{out}");
}

#[tokio::test]
async fn ctrl_c_leaves_the_job_running_and_says_how_to_end_it() {
    let peer = Peer::start().await;
    peer.script.lock().looks = None;
    let mut child = peer.command("replay --group g --yes").spawn().unwrap();
    let begun = async {
        while peer.script.lock().replays.len() < 2 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        // Until it listens: it looks at the job only then.
        tokio::time::sleep(Duration::from_millis(700)).await;
    };
    timeout(DEADLINE, begun).await.unwrap();
    let pid = Pid::from_raw(i32::try_from(child.id().unwrap()).unwrap()).unwrap();
    kill_process(pid, Signal::INT).unwrap();
    let status = timeout(DEADLINE, child.wait()).await.unwrap().unwrap();
    let mut err = String::new();
    let mut stderr = child.stderr.take().unwrap();
    stderr.read_to_string(&mut err).await.unwrap();
    assert_eq!(status.code(), Some(130), "{err}");
    let id = peer.script.lock().replays[1].job_id.clone();
    assert!(err.contains(&format!("hive dlq jobs cancel {id}")), "{err}");
}

#[tokio::test]
async fn one_is_replayed_with_another_payload() {
    let peer = Peer::start().await;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "{\"n\":2}").unwrap();
    let line = format!(
        "replay d-1 --payload {} --why mended --by me --priority-boost 3",
        file.path().display()
    );
    let (code, out, err) = peer.hive(&line).await;
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("d-1") && out.contains("m-2"), "{out}");
    let asked = peer.script.lock().named.pop().unwrap();
    assert_eq!(asked.payload.unwrap(), "{\"n\":2}");
    assert_eq!((&*asked.by, &*asked.why), ("me", "mended"));
    assert_eq!(asked.priority_boost, 3);
    let (code, out, _) = peer.hive("replay d-1 d-2").await;
    assert_eq!((code, out.lines().count()), (0, 3), "{out}");
}

#[tokio::test]
async fn a_purge_is_confirmed_by_what_its_count_answered() {
    let peer = Peer::start().await;
    let (code, _, err) = peer.hive("purge --status archived").await;
    assert_eq!(code, 64, "{err}");
    assert_eq!(std::mem::take(&mut peer.script.lock().purges).len(), 1);
    let (code, out, err) = peer.hive("purge --status archived --yes").await;
    assert_eq!(code, 0, "{err}");
    // One call had not finished.
    assert!(out.contains("4 dead letters are deleted"), "{out}");
    let asked = peer.script.lock().purges.clone();
    let tokens: Vec<&str> = asked.iter().map(|one| &*one.confirm).collect();
    assert_eq!(tokens, ["", "token", "token"]);
    assert!(asked.iter().all(|one| one.filter == asked[0].filter));
    assert_eq!(peer.hive("purge").await.0, 64);
}

#[tokio::test]
async fn a_watch_shows_what_dies_and_how_many_there_are() {
    let peer = Peer::start().await;
    let mut child = peer.command("watch --last 1").spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next = async || {
        let line = timeout(DEADLINE, lines.next_line()).await;
        line.unwrap().unwrap().unwrap()
    };
    assert!(next().await.starts_with("DIED"));
    assert!(next().await.contains("d-3"));
    assert!(next().await.starts_with("3 in the queue"));
    peer.script.lock().letters.push(letter("d-4"));
    assert!(next().await.contains("d-4"));
    assert!(next().await.starts_with("4 in the queue"));
}

#[tokio::test]
async fn a_status_is_set_and_jobs_are_shown_and_ended() {
    let peer = Peer::start().await;
    let (code, out, _) = peer.hive("set-status archived d-1 d-2 --why old").await;
    assert_eq!(code, 0);
    assert_eq!(out.matches("archived").count(), 2, "{out}");
    assert_eq!(peer.hive("set-status replayed d-1").await.0, 64);
    let (_, out, _) = peer.hive("jobs ls").await;
    assert!(out.contains("j-1") && out.contains("done"), "{out}");
    let (_, out, _) = peer.hive("jobs cancel j-1").await;
    assert!(out.contains("job `j-1` is cancelled"), "{out}");
    let (code, out, _) = peer.hive("stats").await;
    assert_eq!((code, out.contains("3 dead letters")), (0, true), "{out}");
}
