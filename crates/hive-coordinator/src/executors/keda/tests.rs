//! The service as KEDA calls it: a client generated from KEDA's interface, over a real port.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hive_domain::scaling::Executor;
use hive_protocol::externalscaler::external_scaler_client::ExternalScalerClient;
use hive_protocol::externalscaler::{GetMetricsRequest, IsActiveResponse, ScaledObjectRef};
use hive_protocol::fault::{Fault, FaultKind, Reason};
use hive_protocol::status;
use hive_runtime::gate::Gate;
use hive_runtime::shutdown::Shutdown;
use hive_testkit::wait::until;
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Channel, Server};
use tonic::{Status, Streaming};

use super::{METRIC, Wish, Wishes, service};

/// Wishes of groups of the namespaces `default` and `other`.
struct Table {
    rows: Mutex<BTreeMap<String, Result<Wish, Fault>>>,
    /// What was answered instead of a wish.
    faults: Mutex<Vec<Reason>>,
    changes: watch::Sender<u64>,
}

impl Wishes for Table {
    async fn wish(&self, namespace: &str, group: &str) -> Result<Wish, Fault> {
        let row = self
            .rows
            .lock()
            .get(&format!("{namespace}/{group}"))
            .cloned();
        let row = row.unwrap_or_else(|| Err(Fault::no_group(group)));
        if let Err(fault) = &row {
            self.faults.lock().push(fault.reason);
        }
        row
    }

    fn changes(&self, _namespace: &str, _group: &str) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}

impl Table {
    fn set(&self, row: &str, wish: Result<Wish, Fault>) {
        self.rows.lock().insert(row.to_owned(), wish);
        self.changes.send_modify(|count| *count += 1);
    }

    fn want(&self, row: &str, applied: u32) {
        self.set(row, Ok(wish(Some(applied))));
    }
}

const fn wish(applied: Option<u32>) -> Wish {
    Wish {
        is_scaled: true,
        executor: Executor::Keda,
        applied,
    }
}

struct Served {
    table: Arc<Table>,
    shutdown: Shutdown,
    client: ExternalScalerClient<Channel>,
    task: JoinHandle<()>,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Served {
    async fn start() -> Self {
        let table = Arc::new(Table {
            rows: Mutex::default(),
            faults: Mutex::default(),
            changes: watch::Sender::new(0),
        });
        let shutdown = Shutdown::new();
        let service = service(Arc::clone(&table), Gate::new(), shutdown.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let serving = Server::builder()
            .add_service(service)
            .serve_with_incoming(TcpListenerStream::new(listener));
        #[expect(
            clippy::disallowed_methods,
            reason = "a server of a test has no chassis"
        )]
        let task = tokio::spawn(async move { serving.await.unwrap() });
        let client = ExternalScalerClient::connect(url).await.unwrap();
        Self {
            table,
            shutdown,
            client,
            task,
        }
    }

    async fn is_active(&self, group: &str) -> Result<bool, Status> {
        let answer = self.client.clone().is_active(object(group)).await;
        answer.map(|answer| answer.into_inner().result)
    }

    async fn stream(&self, group: &str) -> Result<Streaming<IsActiveResponse>, Status> {
        let answer = self.client.clone().stream_is_active(object(group)).await;
        answer.map(tonic::Response::into_inner)
    }

    async fn metric(&self, group: &str, name: &str) -> Result<(i64, f64), Status> {
        let request = GetMetricsRequest {
            scaled_object_ref: Some(object(group)),
            metric_name: name.to_owned(),
        };
        let answer = self.client.clone().get_metrics(request).await?.into_inner();
        let [value] = &answer.metric_values[..] else {
            panic!("{answer:?}");
        };
        assert_eq!(value.metric_name, METRIC);
        Ok((value.metric_value, value.metric_value_float))
    }
}

/// As KEDA sends it: with all of the trigger's metadata.
fn object(group: &str) -> ScaledObjectRef {
    let metadata = [("scalerAddress", "hive-coordinator:8001"), ("group", group)];
    let metadata = metadata.map(|(key, value)| (key.to_owned(), value.to_owned()));
    ScaledObjectRef {
        name: "workers".to_owned(),
        namespace: "agents".to_owned(),
        scaler_metadata: metadata.into(),
    }
}

async fn word(stream: &mut Streaming<IsActiveResponse>) -> Option<bool> {
    let word = timeout(Duration::from_secs(5), stream.message()).await;
    let word = word.expect("the stream says something").unwrap();
    word.map(|word| word.result)
}

#[tokio::test]
async fn the_metric_is_the_wish_with_one_for_each_replica() {
    let served = Served::start().await;
    let mut client = served.client.clone();
    served.table.want("default/reviewers", 7);
    let spec = client.get_metric_spec(object("reviewers")).await.unwrap();
    let [spec] = &spec.into_inner().metric_specs[..] else {
        panic!("one metric");
    };
    assert_eq!((spec.metric_name.as_str(), spec.target_size), (METRIC, 1));
    assert!((spec.target_size_float - 1.0).abs() < f64::EPSILON);
    assert_eq!(served.metric("reviewers", METRIC).await.unwrap(), (7, 7.0));
    served.table.want("default/reviewers", 0);
    assert_eq!(served.metric("reviewers", METRIC).await.unwrap(), (0, 0.0));
}

#[tokio::test]
async fn a_group_is_active_when_anything_is_wanted() {
    let served = Served::start().await;
    served.table.want("default/reviewers", 0);
    assert!(!served.is_active("reviewers").await.unwrap());
    served.table.want("default/reviewers", 1);
    assert!(served.is_active("reviewers").await.unwrap());
}

#[tokio::test]
async fn a_namespace_is_the_one_of_the_metadata() {
    let served = Served::start().await;
    served.table.want("other/reviewers", 2);
    let mut object = object("reviewers");
    let namespace = ("namespace".to_owned(), "other".to_owned());
    object.scaler_metadata.extend([namespace]);
    let answer = served.client.clone().is_active(object).await.unwrap();
    assert!(answer.into_inner().result);
    assert!(served.is_active("reviewers").await.is_err());
}

#[tokio::test]
async fn what_cannot_be_answered_is_an_error_with_what_to_do() {
    let served = Served::start().await;
    let rows = [
        (
            "unscaled",
            Ok(Wish {
                is_scaled: false,
                ..wish(Some(1))
            }),
        ),
        (
            "webhooked",
            Ok(Wish {
                executor: Executor::Webhook,
                ..wish(Some(1))
            }),
        ),
        ("undecided", Ok(wish(None))),
        (
            "unread",
            Err(Fault::new(Reason::RedisUnavailable, "redis is away")),
        ),
    ];
    for (group, row) in rows {
        served.table.set(&format!("default/{group}"), row);
    }
    for (group, kind, words) in [
        ("nobody", FaultKind::NotFound, "there is no group `nobody`"),
        (
            "unscaled",
            FaultKind::WrongState,
            "set its `auto_scale_enabled` to true",
        ),
        (
            "webhooked",
            FaultKind::WrongState,
            "set its `scaling.executor` to keda",
        ),
        (
            "undecided",
            FaultKind::Unavailable,
            "nothing is decided yet",
        ),
        ("unread", FaultKind::Unavailable, "redis is away"),
        ("", FaultKind::Invalid, "scalerMetadata.group"),
        ("a b", FaultKind::Invalid, "scalerMetadata.group"),
    ] {
        let metric = served.metric(group, METRIC).await.map(|_| ());
        let active = served.is_active(group).await.map(|_| ());
        let mut errors = vec![metric.unwrap_err(), active.unwrap_err()];
        // A stream waits for what passes.
        if kind != FaultKind::Unavailable {
            errors.push(served.stream(group).await.map(|_| ()).unwrap_err());
        }
        for error in errors {
            assert_eq!(error.code(), status::code(kind), "{error}");
            assert!(error.message().contains(words), "{error}");
        }
    }
    served.table.want("default/reviewers", 1);
    let error = served
        .metric("reviewers", "s0-desired_consumers")
        .await
        .unwrap_err();
    assert!(
        error.message().contains("must be `desired_consumers`"),
        "{error}"
    );
    let request = GetMetricsRequest::default();
    let error = served
        .client
        .clone()
        .get_metrics(request)
        .await
        .unwrap_err();
    assert_eq!(error.code(), status::code(FaultKind::Invalid));
}

#[tokio::test]
async fn a_stream_says_the_state_at_once_and_wakes_within_200_ms() {
    let served = Served::start().await;
    served.table.want("default/reviewers", 0);
    let mut stream = served.stream("reviewers").await.unwrap();
    assert_eq!(word(&mut stream).await, Some(false));
    let mut quickest = Duration::MAX;
    for _ in 0..5 {
        // Others change all the time.
        for applied in 0..100 {
            served.table.want("default/busy", applied);
        }
        let begun = Instant::now();
        served.table.want("default/reviewers", 3);
        assert_eq!(word(&mut stream).await, Some(true));
        quickest = quickest.min(begun.elapsed());
        // More of the same is nothing new.
        served.table.want("default/reviewers", 5);
        served.table.want("default/reviewers", 0);
        assert_eq!(word(&mut stream).await, Some(false));
    }
    // The quickest: other tests may have the processor for a while.
    assert!(quickest < Duration::from_millis(200), "{quickest:?}");
}

#[tokio::test]
async fn a_stream_of_an_active_group_says_so_at_once() {
    let served = Served::start().await;
    served.table.want("default/reviewers", 3);
    let mut stream = served.stream("reviewers").await.unwrap();
    assert_eq!(word(&mut stream).await, Some(true));
}

#[tokio::test]
async fn a_stream_outlives_what_passes_and_ends_with_what_does_not() {
    let served = Served::start().await;
    let row = "default/reviewers";
    served.table.set(row, Ok(wish(None)));
    let mut stream = served.stream("reviewers").await.unwrap();
    for reason in [Reason::RedisUnavailable, Reason::DeadlineExceeded] {
        served
            .table
            .set(row, Err(Fault::new(reason, "redis is away")));
        let seen = async || served.table.faults.lock().contains(&reason);
        until(Duration::from_secs(5), "the stream to look", seen).await;
    }
    served.table.want(row, 1);
    assert_eq!(word(&mut stream).await, Some(true));
    served.table.set(row, Err(Fault::no_group("reviewers")));
    let error = stream.message().await.unwrap_err();
    assert_eq!(error.code(), status::code(FaultKind::NotFound), "{error}");
}

#[tokio::test]
async fn a_stream_ends_without_an_error_when_the_coordinator_goes_away() {
    let served = Served::start().await;
    served.table.want("default/reviewers", 1);
    let mut stream = served.stream("reviewers").await.unwrap();
    assert_eq!(word(&mut stream).await, Some(true));
    served.shutdown.drain();
    assert_eq!(word(&mut stream).await, None);
    let error = served.is_active("reviewers").await.unwrap_err();
    assert_eq!(error.code(), status::code(FaultKind::Unavailable));
}

#[tokio::test]
async fn a_stream_whose_bell_is_gone_looks_by_the_clock() {
    let served = Served::start().await;
    served.table.want("default/reviewers", 0);
    let (bell, deaf) = watch::channel(0);
    drop(bell);
    let mut watching = super::Watching {
        wishes: Arc::clone(&served.table),
        named: super::Named {
            namespace: "default".to_owned(),
            group: "reviewers".to_owned(),
        },
        changes: deaf,
        shutdown: Shutdown::new(),
        said: None,
        looked: None,
        _place: Arc::new(tokio::sync::Semaphore::new(1))
            .try_acquire_owned()
            .unwrap(),
    };
    assert_eq!(watching.word().await, Ok(false));
    served.table.want("default/reviewers", 1);
    let begun = Instant::now();
    assert_eq!(watching.word().await, Ok(true));
    assert!(begun.elapsed() >= super::LOOK_EVERY);
}

#[tokio::test]
async fn the_target_never_changes_which_keda_learns_by_unimplemented() {
    let served = Served::start().await;
    let error = served
        .client
        .clone()
        .stream_metric_spec(object("reviewers"))
        .await;
    assert_eq!(
        error.unwrap_err().code(),
        status::code(FaultKind::Unsupported)
    );
}
