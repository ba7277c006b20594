//! The executor against an API server in this process: real HTTP, made-up cluster.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, Method, StatusCode, Uri};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::{Cluster, Kubernetes, Scaled, Settings};
use crate::executors::{ExecutorError, retry_after};

/// What one request finds instead of the cluster.
enum Trouble {
    /// Somebody writes the Deployment before the request is looked at.
    Write,
    /// Such an answer.
    Answer(u16, &'static [(&'static str, &'static str)], String),
    /// None, for as long as anybody waits.
    Silence,
}

/// The cluster: one Deployment `agents/worker`, one pod `agents/worker-1`.
#[derive(Default)]
struct World {
    replicas: Option<i32>,
    version: u64,
    autoscalers: Vec<Value>,
    annotations: Option<Value>,
    /// For the next requests of a method and a part of a path, in order.
    troubles: VecDeque<(Method, &'static str, Trouble)>,
    /// Each request: method, path with query.
    seen: Vec<String>,
}

struct Server {
    world: Arc<Mutex<World>>,
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    async fn start(replicas: Option<i32>) -> Self {
        let world = Arc::new(Mutex::new(World {
            replicas,
            version: 1,
            annotations: Some(json!({})),
            ..World::default()
        }));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new()
            .fallback(answer)
            .with_state(Arc::clone(&world));
        #[expect(
            clippy::disallowed_methods,
            reason = "a server of a test has no chassis"
        )]
        let task = tokio::spawn(async move {
            axum::serve(listener, router).await.unwrap();
        });
        Self {
            world,
            address,
            task,
        }
    }

    fn trouble(&self, method: Method, part: &'static str, trouble: Trouble) -> &Self {
        let mut world = self.world.lock();
        world.troubles.push_back((method, part, trouble));
        self
    }

    fn kubernetes(&self) -> Kubernetes {
        connect(self.address, Duration::from_secs(10))
    }

    fn count(&self, method: &str) -> usize {
        let world = self.world.lock();
        let seen = world.seen.iter();
        seen.filter(|line| line.starts_with(method)).count()
    }
}

fn connect(address: SocketAddr, deadline: Duration) -> Kubernetes {
    let url = format!("http://{address}").parse().unwrap();
    Kubernetes::connect(Settings {
        cluster: Cluster::At(Box::new(kube::Config::new(url))),
        deadline,
    })
}

async fn answer(
    State(world): State<Arc<Mutex<World>>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let trouble = {
        let mut world = world.lock();
        world.seen.push(format!("{method} {uri}"));
        let is_meant = world
            .troubles
            .front()
            .is_some_and(|(verb, part, _)| *verb == method && uri.path().contains(part));
        if is_meant {
            world.troubles.pop_front().map(|(_, _, trouble)| trouble)
        } else {
            None
        }
    };
    match trouble {
        Some(Trouble::Answer(status, fields, text)) => {
            let mut response = text.into_response();
            *response.status_mut() = StatusCode::from_u16(status).unwrap();
            for (name, value) in fields {
                response.headers_mut().insert(*name, value.parse().unwrap());
            }
            return response;
        },
        Some(Trouble::Silence) => std::future::pending().await,
        Some(Trouble::Write) => world.lock().version += 1,
        None => {},
    }
    if method == Method::PATCH {
        assert_eq!(headers["content-type"], "application/merge-patch+json");
        assert_eq!(uri.query(), Some("fieldManager=hive-coordinator"));
    }
    let patch: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
    world.lock().answer(&method, &uri, &patch)
}

impl World {
    fn answer(&mut self, method: &Method, uri: &Uri, patch: &Value) -> Response {
        const DEPLOYMENT: &str = "/apis/apps/v1/namespaces/agents/deployments/worker/scale";
        const AUTOSCALERS: &str = "/apis/autoscaling/v2/namespaces/agents/horizontalpodautoscalers";
        const POD: &str = "/api/v1/namespaces/agents/pods/worker-1";

        match (method, uri.path()) {
            (&Method::GET, DEPLOYMENT) if self.replicas.is_some() => self.scale(),
            (&Method::PATCH, DEPLOYMENT) if self.replicas.is_some() => {
                let version = self.version.to_string();
                if patch["metadata"]["resourceVersion"] != version.as_str() {
                    return refusal(409, "the object has been modified");
                }
                let replicas = patch["spec"]["replicas"].as_i64().unwrap();
                self.replicas = Some(i32::try_from(replicas).unwrap());
                self.version += 1;
                self.scale()
            },
            (&Method::GET, AUTOSCALERS) => self.autoscalers(uri.query().unwrap()),
            (&Method::PATCH, POD) if self.annotations.is_some() => {
                self.annotations = Some(patch["metadata"]["annotations"].clone());
                json!({ "kind": "Pod", "apiVersion": "v1" })
                    .to_string()
                    .into_response()
            },
            _ => refusal(404, "not found"),
        }
    }

    fn scale(&self) -> Response {
        // As Kubernetes does, a 0 is left out.
        let spec = match self.replicas {
            Some(0) | None => json!({}),
            Some(replicas) => json!({ "replicas": replicas }),
        };
        let scale = json!({
            "kind": "Scale",
            "apiVersion": "autoscaling/v1",
            "metadata": {
                "name": "worker",
                "namespace": "agents",
                "resourceVersion": self.version.to_string(),
            },
            "spec": spec,
            "status": { "replicas": self.replicas },
        });
        scale.to_string().into_response()
    }

    /// One autoscaler a page.
    fn autoscalers(&self, query: &str) -> Response {
        assert!(query.starts_with("limit=200"), "{query}");
        let at = query.split_once("continue=a%2F").map_or("0", |(_, at)| at);
        let at: usize = at.parse().unwrap();
        let token = format!("a/{}", at + 1);
        let is_last = at + 1 >= self.autoscalers.len();
        let list = json!({
            "kind": "HorizontalPodAutoscalerList",
            "apiVersion": "autoscaling/v2",
            "metadata": { "continue": if is_last { "" } else { &token } },
            "items": self.autoscalers.get(at).into_iter().collect::<Vec<_>>(),
        });
        list.to_string().into_response()
    }
}

fn refusal(code: u16, message: &str) -> Response {
    let status = json!({
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "message": message,
        "code": code,
    });
    (StatusCode::from_u16(code).unwrap(), status.to_string()).into_response()
}

fn autoscaler(name: &str, kind: &str, target: &str) -> Value {
    json!({
        "metadata": {
            "name": name,
            "ownerReferences": [{
                "apiVersion": "keda.sh/v1alpha1",
                "kind": "ScaledObject",
                "name": "agents",
                "uid": "1",
            }],
        },
        "spec": {
            "maxReplicas": 9,
            "scaleTargetRef": { "apiVersion": "apps/v1", "kind": kind, "name": target },
        },
    })
}

#[tokio::test]
async fn a_deployment_gets_the_replicas_that_are_wanted() {
    let server = Server::start(Some(0)).await;
    let kubernetes = server.kubernetes();
    let scaled = kubernetes.scale("agents/worker", 7).await;
    assert_eq!(scaled, Ok(Scaled { from: 0, to: 7 }));
    let scaled = kubernetes.scale("agents/worker", 0).await;
    assert_eq!(scaled, Ok(Scaled { from: 7, to: 0 }));
    assert_eq!(server.world.lock().replicas, Some(0));
}

#[tokio::test]
async fn a_deployment_that_has_them_is_not_written() {
    let server = Server::start(Some(3)).await;
    let scaled = server.kubernetes().scale("agents/worker", 3).await;
    assert_eq!(scaled, Ok(Scaled { from: 3, to: 3 }));
    assert_eq!(server.count("PATCH"), 0);
}

#[tokio::test]
async fn a_conflict_is_read_again_and_written_again() {
    let server = Server::start(Some(1)).await;
    server.trouble(Method::PATCH, "scale", Trouble::Write);
    server.trouble(Method::PATCH, "scale", Trouble::Write);
    let scaled = server.kubernetes().scale("agents/worker", 2).await;
    assert_eq!(scaled, Ok(Scaled { from: 1, to: 2 }));
    assert_eq!(
        (server.count("PATCH"), server.world.lock().replicas),
        (3, Some(2))
    );
}

#[tokio::test]
async fn conflicts_without_end_are_given_up() {
    let server = Server::start(Some(1)).await;
    for _ in 0..9 {
        server.trouble(Method::PATCH, "scale", Trouble::Write);
    }
    let error = server
        .kubernetes()
        .scale("agents/worker", 2)
        .await
        .unwrap_err();
    assert!(error.to_string().contains("6 times in a row"), "{error}");
    assert_eq!((server.count("PATCH"), error.word()), (6, "failed"));
}

#[tokio::test]
async fn a_throttled_call_says_for_how_long() {
    for (status, fields, hint) in [
        (429, &[("retry-after", "7")][..], Some(7)),
        (503, &[("retry-after", "90")][..], Some(90)),
        (503, &[][..], None),
    ] {
        let server = Server::start(Some(1)).await;
        server.trouble(
            Method::PATCH,
            "scale",
            Trouble::Answer(status, fields, "slow down".to_owned()),
        );
        let error = server
            .kubernetes()
            .scale("agents/worker", 2)
            .await
            .unwrap_err();
        let ExecutorError::Busy {
            retry_after: given, ..
        } = &error
        else {
            panic!("{error}");
        };
        assert_eq!(*given, hint.map(Duration::from_secs));
        assert_eq!(retry_after(1, &error).as_secs(), hint.unwrap_or(1));
        assert_eq!(server.count("PATCH"), 1, "kube must not retry by itself");
    }
}

#[tokio::test]
async fn a_deployment_that_is_not_there_is_named() {
    let server = Server::start(None).await;
    let error = server
        .kubernetes()
        .scale("agents/worker", 2)
        .await
        .unwrap_err();
    let what = "deployment `agents/worker`".to_owned();
    assert_eq!(error, ExecutorError::Missing { what });
}

#[tokio::test]
async fn a_right_that_lacks_is_named() {
    for (method, part, need) in [
        (Method::GET, "scale", "get deployments/scale"),
        (Method::GET, "horizontal", "list horizontalpodautoscalers"),
        (Method::PATCH, "scale", "patch deployments/scale"),
    ] {
        let server = Server::start(Some(1)).await;
        let words = json!({ "message": "the service account may not" }).to_string();
        server.trouble(method, part, Trouble::Answer(403, &[], words));
        let error = server
            .kubernetes()
            .scale("agents/worker", 2)
            .await
            .unwrap_err();
        let words = "the service account may not".to_owned();
        let need = need.to_owned();
        assert_eq!(error, ExecutorError::Forbidden { need, words });
    }
}

#[tokio::test]
async fn a_deployment_that_an_autoscaler_scales_is_left_alone() {
    let server = Server::start(Some(1)).await;
    server.world.lock().autoscalers = vec![
        autoscaler("other", "Deployment", "other"),
        autoscaler("set", "StatefulSet", "worker"),
        autoscaler("keda-hpa-agents", "Deployment", "worker"),
    ];
    let kubernetes = server.kubernetes();
    for replicas in [1, 2] {
        let error = kubernetes
            .scale("agents/worker", replicas)
            .await
            .unwrap_err();
        let target = "deployment `agents/worker`".to_owned();
        let owner = "the HorizontalPodAutoscaler `keda-hpa-agents` of the ScaledObject `agents`";
        let owner = owner.to_owned();
        assert_eq!(error, ExecutorError::Owned { target, owner });
    }
    assert_eq!(server.count("PATCH"), 0);
    server.world.lock().autoscalers.truncate(2);
    let scaled = kubernetes.scale("agents/worker", 2).await;
    assert_eq!(scaled, Ok(Scaled { from: 1, to: 2 }));
}

#[tokio::test]
async fn a_server_that_is_away_is_away() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let kubernetes = connect(address, Duration::from_secs(10));
    let error = kubernetes.scale("agents/worker", 2).await.unwrap_err();
    assert_eq!(
        (error.word(), error.needs_a_hand()),
        ("away", false),
        "{error}"
    );
}

#[tokio::test]
async fn a_server_that_is_silent_is_left_at_the_deadline() {
    let server = Server::start(Some(1)).await;
    server.trouble(Method::GET, "scale", Trouble::Silence);
    let kubernetes = connect(server.address, Duration::from_millis(300));
    let begun = Instant::now();
    let error = kubernetes.scale("agents/worker", 2).await.unwrap_err();
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert!(
        error.to_string().contains("no answer within 300ms"),
        "{error}"
    );
    assert_eq!(error.word(), "away");
}

#[tokio::test]
async fn an_answer_that_is_none_is_shown() {
    let list = json!({ "kind": "Pod", "apiVersion": "v1", "metadata": {} }).to_string();
    for text in ["<html>\nlogin</html>".to_owned(), list, "{}".to_owned()] {
        let server = Server::start(Some(1)).await;
        server.trouble(
            Method::GET,
            "scale",
            Trouble::Answer(200, &[], text.clone()),
        );
        let error = server
            .kubernetes()
            .scale("agents/worker", 2)
            .await
            .unwrap_err();
        assert_eq!(error.word(), "failed", "{text}: {error}");
        assert!(
            error.to_string().contains(&text.replace('\n', " ")),
            "{error}"
        );
    }
}

#[tokio::test]
async fn an_answer_without_end_is_cut() {
    let server = Server::start(Some(1)).await;
    let text = " ".repeat(super::ANSWER_BYTES_MAX + 1);
    server.trouble(Method::GET, "horizontal", Trouble::Answer(200, &[], text));
    let error = server
        .kubernetes()
        .scale("agents/worker", 2)
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("with over 4194304 bytes"),
        "{error}"
    );
}

#[tokio::test]
async fn other_refusals_are_told_from_failures() {
    for (status, word) in [
        (422, "refused"),
        (400, "refused"),
        (500, "failed"),
        (302, "failed"),
    ] {
        let server = Server::start(Some(1)).await;
        server.trouble(
            Method::PATCH,
            "scale",
            Trouble::Answer(status, &[], "no".to_owned()),
        );
        let error = server
            .kubernetes()
            .scale("agents/worker", 2)
            .await
            .unwrap_err();
        assert_eq!(error.word(), word, "{error}");
        assert!(
            error.to_string().contains(&format!("{status}: no")),
            "{error}"
        );
    }
}

#[tokio::test]
async fn a_target_that_is_none_is_refused_without_a_call() {
    let server = Server::start(Some(1)).await;
    let kubernetes = server.kubernetes();
    for target in [
        "worker",
        "agents/",
        "agents/worker/scale",
        "../x",
        "a/..",
        "a/b?c",
        "A/b",
    ] {
        let error = kubernetes.scale(target, 2).await.unwrap_err();
        assert!(
            error.to_string().contains("must be `namespace/deployment`"),
            "{error}"
        );
    }
    let error = kubernetes
        .scale("agents/worker", u32::MAX)
        .await
        .unwrap_err();
    assert_eq!(error.word(), "refused");
    assert_eq!(server.count(""), 0);
}

#[tokio::test]
async fn a_pod_is_marked_and_one_that_is_gone_is_fine() {
    let server = Server::start(Some(1)).await;
    let kubernetes = server.kubernetes();
    assert_eq!(kubernetes.mark("agents/worker-1", -100).await, Ok(()));
    let marked = json!({ "controller.kubernetes.io/pod-deletion-cost": "-100" });
    assert_eq!(server.world.lock().annotations, Some(marked));
    assert_eq!(kubernetes.mark("agents/worker-2", -100).await, Ok(()));
    server.trouble(
        Method::PATCH,
        "pods",
        Trouble::Answer(403, &[], String::new()),
    );
    let error = kubernetes.mark("agents/worker-1", 0).await.unwrap_err();
    assert!(
        error.to_string().contains("not allowed to patch pods"),
        "{error}"
    );
}
