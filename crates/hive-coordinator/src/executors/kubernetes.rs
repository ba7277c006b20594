//! Scales a Deployment by its `scale` subresource, and marks pods that are to go first.
//!
//! The requests are written by hand over kube's client rather than by its typed interface, because
//! that hides the header `Retry-After`. What is read is checked as the types of `k8s-openapi`.
//!
//! A Deployment that a HorizontalPodAutoscaler scales is left alone: two writers of one number
//! would undo each other for ever. KEDA makes such an autoscaler of each ScaledObject.
//!
//! The cluster is looked for at the first use and not at the start: most coordinators run where
//! there is none.

use std::time::{Duration, SystemTime};

use http::header::{ACCEPT, CONTENT_TYPE};
use http::{Method, Request, StatusCode};
use k8s_openapi::List;
use k8s_openapi::api::autoscaling::v1::Scale;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use kube::Client;
use kube::client::Body;
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::sync::Mutex;
use tokio::time::{sleep, timeout};

use super::answer::{Answer, excerpt};
use super::{ExecutorError, chain};

/// Who the fields that are written belong to.
const FIELD_MANAGER: &str = "hive-coordinator";
/// The annotation by which a ReplicaSet chooses the pod to remove: the lowest goes first.
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";
/// How often a number is read again because somebody else wrote the Deployment meanwhile. A rollout
/// writes its status a few times a second, which five pauses of 50 ms and more get around.
const CONFLICTS_MAX: u32 = 5;
/// The pause before the first of them; it doubles.
const CONFLICT_PAUSE: Duration = Duration::from_millis(50);
/// Largest answer: a page of autoscalers, each a few KiB.
const ANSWER_BYTES_MAX: usize = 4 << 20;
/// Autoscalers of a page.
const PAGE: u32 = 200;
/// Most pages of autoscalers of one namespace.
const PAGES_MAX: u32 = 25;
/// How long everything that belongs to one call may take, by default.
const DEADLINE: Duration = Duration::from_secs(10);
/// Who answers.
const WHO: &str = "the API server of Kubernetes";

/// Which cluster, and how patiently.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Which cluster.
    pub cluster: Cluster,
    /// Longest call, with everything that belongs to it.
    pub deadline: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            cluster: Cluster::Inferred,
            deadline: DEADLINE,
        }
    }
}

/// Where the cluster is.
#[derive(Debug, Clone)]
pub enum Cluster {
    /// As `KUBECONFIG` or `~/.kube/config` says, else the cluster that this process runs in.
    Inferred,
    /// There.
    At(Box<kube::Config>),
}

/// What a Deployment was scaled to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scaled {
    /// Replicas before.
    pub from: u32,
    /// Replicas wanted now. Equal to `from` where nothing had to be written.
    pub to: u32,
}

/// The executor `kubernetes`.
#[derive(Debug)]
pub struct Kubernetes {
    settings: Settings,
    client: Mutex<Option<Connection>>,
}

/// A client, without the noise of its `Debug`.
#[derive(Clone)]
struct Connection(Client);

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Connection")
    }
}

/// An object by its namespace and name, both known to be plain.
#[derive(Debug, Clone, Copy)]
struct Object<'a> {
    namespace: &'a str,
    name: &'a str,
}

/// A request with the right that it needs.
struct Step<'a> {
    method: Method,
    path: String,
    body: Option<serde_json::Value>,
    /// The verb and the resource.
    need: &'a str,
    /// What is missing when the answer is 404.
    what: String,
}

impl Kubernetes {
    /// An executor for the cluster of `settings`, which is not looked for yet.
    #[must_use]
    pub fn connect(settings: Settings) -> Self {
        Self {
            settings,
            client: Mutex::new(None),
        }
    }

    /// Makes the Deployment `target`, which is `namespace/deployment`, have `replicas`; writes only
    /// where it has another number.
    ///
    /// # Errors
    /// `Missing`, `Forbidden` with the right that lacks, `Owned` by an autoscaler, `Busy`, `Away`,
    /// `Refused` for a target or a number that cannot be, `Failed` otherwise.
    pub async fn scale(&self, target: &str, replicas: u32) -> Result<Scaled, ExecutorError> {
        let target = Object::parse(target, "namespace/deployment")?;
        self.within(self.scaled(target, replicas)).await
    }

    /// Sets what it costs to remove `pod`, which is `namespace/name`: a ReplicaSet that shrinks
    /// removes the pods of the lowest cost first. A pod without it costs 0. A pod that is gone is
    /// fine.
    ///
    /// # Errors
    /// As [`Kubernetes::scale`], but for `Missing` and `Owned`.
    pub async fn mark(&self, pod: &str, cost: i32) -> Result<(), ExecutorError> {
        let pod = Object::parse(pod, "namespace/pod")?;
        let Object { namespace, name } = pod;
        let step = Step {
            method: Method::PATCH,
            path: format!(
                "/api/v1/namespaces/{namespace}/pods/{name}?fieldManager={FIELD_MANAGER}"
            ),
            body: Some(json!({
                "metadata": { "annotations": { DELETION_COST: cost.to_string() } },
            })),
            need: "patch pods",
            what: format!("pod `{namespace}/{name}`"),
        };
        let marked = self.within(async { step.check(self.send(&step).await?) });
        match marked.await {
            Ok(_) | Err(ExecutorError::Missing { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn scaled(&self, target: Object<'_>, replicas: u32) -> Result<Scaled, ExecutorError> {
        let wanted = i32::try_from(replicas).map_err(|_too_many| ExecutorError::Refused {
            why: format!("`{replicas}` replicas are more than a Deployment can have"),
        })?;
        let mut pause = CONFLICT_PAUSE;
        let mut first = None;
        for _ in 0..=CONFLICTS_MAX {
            let scale = self.read_scale(target).await?;
            let is = replicas_of(&scale);
            let from = *first.get_or_insert(is);
            self.check_unowned(target).await?;
            if is == replicas {
                return Ok(Scaled { from, to: is });
            }
            if let Some(to) = self.write_scale(target, &scale, wanted).await? {
                return Ok(Scaled { from, to });
            }
            sleep(pause).await;
            pause *= 2;
        }
        let Object { namespace, name } = target;
        Err(ExecutorError::Failed {
            why: format!(
                "deployment `{namespace}/{name}` was written by somebody else {} times in a row",
                CONFLICTS_MAX + 1
            ),
        })
    }

    async fn read_scale(&self, target: Object<'_>) -> Result<Scale, ExecutorError> {
        let step = Step {
            method: Method::GET,
            path: target.scale_path(),
            body: None,
            need: "get deployments/scale",
            what: target.deployment(),
        };
        let answer = self.send(&step).await?;
        decode(&step.check(answer)?, "Scale", &step)
    }

    /// Writes the number into what was read as `scale`; `None` when somebody else wrote meanwhile.
    async fn write_scale(
        &self,
        target: Object<'_>,
        scale: &Scale,
        wanted: i32,
    ) -> Result<Option<u32>, ExecutorError> {
        let step = Step {
            method: Method::PATCH,
            path: format!("{}?fieldManager={FIELD_MANAGER}", target.scale_path()),
            // With the version that was read a write in between is a conflict, not an accident.
            body: Some(json!({
                "metadata": { "resourceVersion": scale.metadata.resource_version },
                "spec": { "replicas": wanted },
            })),
            need: "patch deployments/scale",
            what: target.deployment(),
        };
        let answer = self.send(&step).await?;
        if answer.status == StatusCode::CONFLICT {
            return Ok(None);
        }
        let written: Scale = decode(&step.check(answer)?, "Scale", &step)?;
        Ok(Some(replicas_of(&written)))
    }

    /// Refuses a target that an autoscaler scales.
    async fn check_unowned(&self, target: Object<'_>) -> Result<(), ExecutorError> {
        let Object { namespace, .. } = target;
        let mut next = String::new();
        for _ in 0..PAGES_MAX {
            let step = Step {
                method: Method::GET,
                path: format!(
                    "/apis/autoscaling/v2/namespaces/{namespace}/horizontalpodautoscalers\
                     ?limit={PAGE}{next}"
                ),
                body: None,
                need: "list horizontalpodautoscalers",
                what: "the API `autoscaling/v2`".to_owned(),
            };
            let answer = self.send(&step).await?;
            let page: List<HorizontalPodAutoscaler> =
                decode(&step.check(answer)?, "HorizontalPodAutoscalerList", &step)?;
            if let Some(owner) = page.items.iter().find(|owner| target.is_scaled_by(owner)) {
                return Err(ExecutorError::Owned {
                    target: target.deployment(),
                    owner: described(owner),
                });
            }
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => next = format!("&continue={}", escaped(&token)),
                None => return Ok(()),
            }
        }
        Err(ExecutorError::Failed {
            why: format!(
                "namespace `{namespace}` has over {} autoscalers, more than are looked through",
                PAGE * PAGES_MAX
            ),
        })
    }

    /// Sends `step`; any answer is one.
    async fn send(&self, step: &Step<'_>) -> Result<Answer, ExecutorError> {
        let client = self.client().await?;
        let mut request = Request::builder()
            .method(step.method.clone())
            .uri(&step.path)
            .header(ACCEPT, "application/json");
        let mut body = Vec::new();
        if let Some(patch) = &step.body {
            request = request.header(CONTENT_TYPE, "application/merge-patch+json");
            body = patch.to_string().into_bytes();
        }
        let request = request.body(Body::from(body)).map_err(|error| {
            let why = format!("`{}` cannot be asked for: {error}", step.path);
            ExecutorError::Refused { why }
        })?;
        let away = |error: &dyn std::error::Error| ExecutorError::Away {
            who: WHO.to_owned(),
            why: chain(error),
        };
        let response = client.0.send(request).await.map_err(|error| away(&error))?;
        let answer = Answer::read(response, ANSWER_BYTES_MAX).await;
        let answer = answer.map_err(|error| away(&error))?;
        if answer.status == StatusCode::UNAUTHORIZED {
            // The next call reads the credentials anew.
            *self.client.lock().await = None;
        }
        Ok(answer)
    }

    /// The client, made at the first use, and again when its credentials are past their end.
    async fn client(&self) -> Result<Connection, ExecutorError> {
        let mut held = self.client.lock().await;
        let is_over = |client: &Connection| {
            let end = client.0.valid_until().map(SystemTime::from);
            end.is_some_and(|end| end <= SystemTime::now())
        };
        if let Some(client) = held.as_ref().filter(|client| !is_over(client)) {
            return Ok(client.clone());
        }
        let no_cluster = |error: &dyn std::error::Error| ExecutorError::Refused {
            why: format!(
                "there is no Kubernetes to speak to: {}; run the coordinator in the cluster, or \
                 set `KUBECONFIG`",
                chain(error)
            ),
        };
        let mut config = match &self.settings.cluster {
            Cluster::Inferred => {
                let inferred = kube::Config::infer().await;
                inferred.map_err(|error| no_cluster(&error))?
            },
            Cluster::At(config) => kube::Config::clone(config),
        };
        // Whoever calls this executor retries, and must hear how long it is to wait.
        config.default_retry = false;
        // Credentials may come from a program, which kube waits for in place.
        let made = tokio::task::spawn_blocking(|| Client::try_from(config)).await;
        let made = made.map_err(|error| no_cluster(&error))?;
        let client = Connection(made.map_err(|error| no_cluster(&error))?);
        *held = Some(client.clone());
        Ok(client)
    }

    /// Ends `work` at the deadline.
    async fn within<T>(
        &self,
        work: impl Future<Output = Result<T, ExecutorError>>,
    ) -> Result<T, ExecutorError> {
        let deadline = self.settings.deadline;
        timeout(deadline, work).await.unwrap_or_else(|_late| {
            let why = format!("no answer within {deadline:?}");
            Err(ExecutorError::Away {
                who: WHO.to_owned(),
                why,
            })
        })
    }
}

impl<'a> Object<'a> {
    fn parse(text: &'a str, form: &str) -> Result<Self, ExecutorError> {
        let parts = text.split_once('/');
        let parts = parts.filter(|(space, name)| is_object(space, 63) && is_object(name, 253));
        let (namespace, name) = parts.ok_or_else(|| ExecutorError::Refused {
            why: format!("target `{}` must be `{form}`", text.escape_debug()),
        })?;
        Ok(Self { namespace, name })
    }

    fn scale_path(self) -> String {
        let Self { namespace, name } = self;
        format!("/apis/apps/v1/namespaces/{namespace}/deployments/{name}/scale")
    }

    fn deployment(self) -> String {
        let Self { namespace, name } = self;
        format!("deployment `{namespace}/{name}`")
    }

    fn is_scaled_by(self, autoscaler: &HorizontalPodAutoscaler) -> bool {
        let target = &autoscaler.spec.scale_target_ref;
        let group = target.api_version.as_deref().unwrap_or("apps/v1");
        target.kind == "Deployment" && target.name == self.name && group.starts_with("apps/")
    }
}

impl Step<'_> {
    /// The body of an answer that says yes; else why not.
    fn check(&self, answer: Answer) -> Result<Vec<u8>, ExecutorError> {
        let (status, need) = (answer.status, self.need);
        if status.is_success() && answer.is_whole {
            return Ok(answer.body);
        }
        let words = said(&answer);
        Err(match status {
            _ if status.is_success() => ExecutorError::Failed {
                why: format!("{WHO} answered `{need}` with over {ANSWER_BYTES_MAX} bytes"),
            },
            StatusCode::NOT_FOUND => ExecutorError::Missing {
                what: self.what.clone(),
            },
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => ExecutorError::Forbidden {
                need: need.to_owned(),
                words,
            },
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                ExecutorError::Busy {
                    who: WHO.to_owned(),
                    retry_after: answer.retry_after,
                }
            },
            _ if status.is_client_error() => ExecutorError::Refused {
                why: format!("{WHO} refused `{need}` with {}: {words}", status.as_u16()),
            },
            _ => ExecutorError::Failed {
                why: format!("{WHO} answered `{need}` with {}: {words}", status.as_u16()),
            },
        })
    }
}

/// What a refusal says: `message` of the object `Status`, else the begin of the body.
fn said(answer: &Answer) -> String {
    let status: Option<serde_json::Value> = serde_json::from_slice(&answer.body).ok();
    let message = status
        .as_ref()
        .and_then(|status| status["message"].as_str());
    message.map_or_else(|| answer.words(), |message| excerpt(message.as_bytes()))
}

/// The object of `kind` in `body`. The types of `k8s-openapi` take an object of any kind, and what
/// lacks in it as 0.
fn decode<T: DeserializeOwned>(
    body: &[u8],
    kind: &str,
    step: &Step<'_>,
) -> Result<T, ExecutorError> {
    let wrong = |why: &dyn std::fmt::Display| ExecutorError::Failed {
        why: format!(
            "{WHO} answered `{}` with what is no {kind}: {why}: {}",
            step.need,
            excerpt(body)
        ),
    };
    let value: serde_json::Value = serde_json::from_slice(body).map_err(|error| wrong(&error))?;
    if value["kind"] != kind {
        return Err(wrong(&format_args!("its kind is {}", value["kind"])));
    }
    serde_json::from_value(value).map_err(|error| wrong(&error))
}

/// The number that `scale` asks for; Kubernetes leaves a 0 out.
fn replicas_of(scale: &Scale) -> u32 {
    let replicas = scale.spec.as_ref().and_then(|spec| spec.replicas);
    u32::try_from(replicas.unwrap_or(0)).unwrap_or(0)
}

/// An autoscaler with whoever made it.
fn described(autoscaler: &HorizontalPodAutoscaler) -> String {
    let name = autoscaler.metadata.name.as_deref().unwrap_or_default();
    let owners = autoscaler.metadata.owner_references.iter().flatten();
    let maker: Vec<String> = owners
        .take(1)
        .map(|owner| format!(" of the {} `{}`", owner.kind, owner.name))
        .collect();
    format!("the HorizontalPodAutoscaler `{name}`{}", maker.concat())
}

/// A token as a value in a query.
fn escaped(token: &str) -> String {
    use std::fmt::Write as _;

    let mut text = String::with_capacity(token.len());
    for byte in token.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            text.push(char::from(byte));
        } else {
            write!(text, "%{byte:02X}").expect("writing to a string does not fail");
        }
    }
    text
}

/// Whether Kubernetes takes it as the name of an object; such a name is itself in a path.
fn is_object(name: &str, bytes_max: usize) -> bool {
    let is_edge = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    name.len() <= bytes_max
        && name.starts_with(is_edge)
        && name.ends_with(is_edge)
        && name.chars().all(|c| is_edge(c) || c == '-' || c == '.')
}

#[cfg(test)]
mod tests;
