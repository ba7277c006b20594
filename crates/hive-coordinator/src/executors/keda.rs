//! Answers KEDA: how many consumers a group is to have.
//!
//! The other executors call; this one is called. KEDA makes a HorizontalPodAutoscaler of the one
//! metric `desired_consumers`, whose target of 1 for each replica makes the wish the number of
//! replicas. From 0 to 1 is KEDA's own doing, as soon as the group is active: with the trigger
//! `external-push` the stream of [`Scaler`] says so at once.
//!
//! Every replica of the coordinator answers from what is stored, so KEDA may ask any. What is not
//! known is an error and never "not active" or 0: KEDA would stop what works.
//!
//! `StreamMetricSpec` answers UNIMPLEMENTED, by which KEDA learns that the target never changes.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{Stream, stream};
use hive_domain::name;
use hive_domain::scaling::Executor;
use hive_protocol::externalscaler::external_scaler_server::{ExternalScaler, ExternalScalerServer};
use hive_protocol::externalscaler::{
    GetMetricSpecResponse, GetMetricsRequest, GetMetricsResponse, IsActiveResponse, MetricSpec,
    MetricValue, ScaledObjectRef,
};
use hive_protocol::fault::{Fault, FaultKind, Reason};
use hive_protocol::limits::NAMESPACE_DEFAULT;
use hive_runtime::gate::{Gate, Pass};
use hive_runtime::shutdown::Shutdown;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tonic::{Request, Response, Status};

/// Full name of the service, for whoever asks for its health.
pub const SERVICE: &str = "externalscaler.ExternalScaler";
/// The one metric.
pub const METRIC: &str = "desired_consumers";
/// What one replica is good for.
const TARGET: i64 = 1;
/// Streams of one coordinator at a time: one for each ScaledObject.
const STREAMS_MAX: usize = 4_096;
/// Largest request: a reference with its metadata.
const REQUEST_BYTES_MAX: usize = 64 << 10;
/// Longest look at what is stored.
const LOOK_WITHIN: Duration = Duration::from_secs(3);
/// A stream looks again after so long, also where it heard of no change.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// A stream looks at most once in so long, however often it hears of changes. KEDA is to hear of
/// work within 200 ms.
const LOOK_PAUSE: Duration = Duration::from_millis(50);
/// How long KEDA is to wait with another stream.
const FULL_WAIT: Duration = Duration::from_secs(5);

/// What is stored of a group's scaling.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wish {
    /// Whether the group is scaled at all.
    pub is_scaled: bool,
    /// By which executor.
    pub executor: Executor,
    /// How many consumers it is to have, those that still drain among them; `None` until the first
    /// decision.
    pub applied: Option<u32>,
}

/// Where wishes are read.
pub trait Wishes: Send + Sync + 'static {
    /// What is stored of the scaling of `group` in `namespace`.
    ///
    /// # Errors
    /// `GROUP_NOT_FOUND` without such a group; why it cannot be read otherwise.
    fn wish(
        &self,
        namespace: &str,
        group: &str,
    ) -> impl Future<Output = Result<Wish, Fault>> + Send;

    /// Changes whenever the wish of `group` may have changed; what the number is does not matter.
    /// One channel may stand for many groups.
    fn changes(&self, namespace: &str, group: &str) -> watch::Receiver<u64>;
}

/// The service, to be put among the routes of the daemon.
pub fn service<W: Wishes>(
    wishes: Arc<W>,
    gate: Gate,
    shutdown: Shutdown,
) -> ExternalScalerServer<Scaler<W>> {
    let scaler = Scaler {
        wishes,
        gate,
        shutdown,
        streams: Arc::new(Semaphore::new(STREAMS_MAX)),
    };
    ExternalScalerServer::new(scaler).max_decoding_message_size(REQUEST_BYTES_MAX)
}

/// The executor `keda`.
#[derive(Debug)]
pub struct Scaler<W> {
    wishes: Arc<W>,
    gate: Gate,
    shutdown: Shutdown,
    streams: Arc<Semaphore>,
}

/// The group that a ScaledObject names.
#[derive(Debug, Clone)]
struct Named {
    namespace: String,
    group: String,
}

impl Named {
    fn of(object: Option<ScaledObjectRef>) -> Result<Self, Fault> {
        let mut metadata = object.unwrap_or_default().scaler_metadata;
        let group = metadata.remove("group").unwrap_or_default();
        name::check("scalerMetadata.group", &group)?;
        let namespace = metadata.remove("namespace");
        let namespace = namespace.unwrap_or_else(|| NAMESPACE_DEFAULT.to_owned());
        name::check("scalerMetadata.namespace", &namespace)?;
        Ok(Self { namespace, group })
    }
}

impl<W: Wishes> Scaler<W> {
    /// Lets a call in, unless the daemon goes away.
    fn enter(&self, call: &'static str) -> Result<Pass, Fault> {
        if self.shutdown.is_draining() {
            return Err(Fault::new(
                Reason::Draining,
                "this coordinator is going away",
            ));
        }
        Ok(self.gate.enter(call))
    }
}

/// How many consumers the group is to have.
async fn applied<W: Wishes>(wishes: &W, named: &Named) -> Result<u32, Fault> {
    let Named { namespace, group } = named;
    let read = timeout(LOOK_WITHIN, wishes.wish(namespace, group)).await;
    let wish = read.map_err(|_late| {
        let words = format!("the wish of group `{group}` was not read within {LOOK_WITHIN:?}");
        Fault::new(Reason::DeadlineExceeded, words)
    })??;
    if !wish.is_scaled {
        let words = format!("group `{group}` is not scaled: set its `auto_scale_enabled` to true");
        return Err(Fault::new(Reason::FailedPrecondition, words));
    }
    if wish.executor != Executor::Keda {
        let executor = wish.executor;
        let words = format!(
            "group `{group}` is scaled by executor `{executor}`: set its `scaling.executor` to keda"
        );
        return Err(Fault::new(Reason::FailedPrecondition, words));
    }
    wish.applied.ok_or_else(|| {
        let words = format!("nothing is decided yet for group `{group}`");
        Fault::new(Reason::NotReady, words)
    })
}

#[tonic::async_trait]
impl<W: Wishes> ExternalScaler for Scaler<W> {
    type StreamIsActiveStream =
        Pin<Box<dyn Stream<Item = Result<IsActiveResponse, Status>> + Send + 'static>>;
    type StreamMetricSpecStream =
        Pin<Box<dyn Stream<Item = Result<GetMetricSpecResponse, Status>> + Send + 'static>>;

    async fn is_active(
        &self,
        request: Request<ScaledObjectRef>,
    ) -> Result<Response<IsActiveResponse>, Status> {
        let _inside = self.enter("keda_is_active")?;
        let named = Named::of(Some(request.into_inner()))?;
        let result = applied(&*self.wishes, &named).await? > 0;
        Ok(Response::new(IsActiveResponse { result }))
    }

    async fn stream_is_active(
        &self,
        request: Request<ScaledObjectRef>,
    ) -> Result<Response<Self::StreamIsActiveStream>, Status> {
        drop(self.enter("keda_stream_is_active")?);
        let place = Arc::clone(&self.streams).try_acquire_owned();
        let place = place.map_err(|_none_left| {
            let words = format!("this coordinator has its limit of {STREAMS_MAX} streams");
            Fault::new(Reason::TooManyConnections, words).with_retry_after(FULL_WAIT)
        })?;
        let named = Named::of(Some(request.into_inner()))?;
        let watching = Watching {
            changes: self.wishes.changes(&named.namespace, &named.group),
            wishes: Arc::clone(&self.wishes),
            named,
            shutdown: self.shutdown.clone(),
            said: None,
            looked: None,
            _place: place,
        };
        // What is wrong for good is answered before the stream begins.
        match applied(&*self.wishes, &watching.named).await {
            Err(fault) if !passes(&fault) => return Err(fault.into()),
            Ok(_) | Err(_) => {},
        }
        let stream = stream::unfold(Some(watching), Watching::next);
        Ok(Response::new(Box::pin(stream)))
    }

    async fn get_metric_spec(
        &self,
        request: Request<ScaledObjectRef>,
    ) -> Result<Response<GetMetricSpecResponse>, Status> {
        let _inside = self.enter("keda_get_metric_spec")?;
        Named::of(Some(request.into_inner()))?;
        let spec = MetricSpec {
            metric_name: METRIC.to_owned(),
            target_size: TARGET,
            target_size_float: 1.0,
        };
        Ok(Response::new(GetMetricSpecResponse {
            metric_specs: vec![spec],
        }))
    }

    async fn get_metrics(
        &self,
        request: Request<GetMetricsRequest>,
    ) -> Result<Response<GetMetricsResponse>, Status> {
        let _inside = self.enter("keda_get_metrics")?;
        let GetMetricsRequest {
            scaled_object_ref,
            metric_name,
        } = request.into_inner();
        let named = Named::of(scaled_object_ref)?;
        if metric_name != METRIC {
            let shown = hive_domain::violation::quoted(&metric_name);
            let rule = format!("{shown} must be `{METRIC}`");
            return Err(Fault::invalid_field("metricName", rule).into());
        }
        let applied = applied(&*self.wishes, &named).await?;
        let value = MetricValue {
            metric_name,
            metric_value: applied.into(),
            metric_value_float: applied.into(),
        };
        Ok(Response::new(GetMetricsResponse {
            metric_values: vec![value],
        }))
    }

    async fn stream_metric_spec(
        &self,
        _request: Request<ScaledObjectRef>,
    ) -> Result<Response<Self::StreamMetricSpecStream>, Status> {
        let words = "the target of the metric never changes; ask GetMetricSpec";
        Err(Fault::new(Reason::Unsupported, words).into())
    }
}

/// Whether a stream is kept open over `fault`. KEDA opens one that broke after a pause that doubles
/// to a minute, in which no group would wake.
fn passes(fault: &Fault) -> bool {
    fault.is_retryable() || fault.kind == FaultKind::Timeout
}

/// A stream that tells whether a group is active.
struct Watching<W> {
    wishes: Arc<W>,
    named: Named,
    changes: watch::Receiver<u64>,
    shutdown: Shutdown,
    /// What was sent last.
    said: Option<bool>,
    /// When the wish was read last.
    looked: Option<Instant>,
    _place: OwnedSemaphorePermit,
}

impl<W: Wishes> Watching<W> {
    /// The next word of the stream, and what is left of it. An end without an error lets KEDA come
    /// back soon.
    async fn next(
        watching: Option<Self>,
    ) -> Option<(Result<IsActiveResponse, Status>, Option<Self>)> {
        let mut watching = watching?;
        let shutdown = watching.shutdown.clone();
        let word = tokio::select! {
            word = watching.word() => word,
            () = shutdown.draining() => return None,
        };
        match word {
            Ok(result) => Some((Ok(IsActiveResponse { result }), Some(watching))),
            Err(fault) => Some((Err(fault.into()), None)),
        }
    }

    /// Whether the group is active, as soon as that is something new.
    async fn word(&mut self) -> Result<bool, Fault> {
        loop {
            if let Some(looked) = self.looked {
                self.changed(looked).await;
            }
            // Seen before the look, so that a change during it is one more.
            self.changes.mark_unchanged();
            self.looked = Some(Instant::now());
            match applied(&*self.wishes, &self.named).await {
                Ok(applied) => {
                    let is_active = applied > 0;
                    if self.said.replace(is_active) != Some(is_active) {
                        return Ok(is_active);
                    }
                },
                Err(fault) if passes(&fault) => {
                    tracing::debug!(group = self.named.group, %fault, "keda_stream_waits");
                },
                Err(fault) => return Err(fault),
            }
        }
    }

    /// Ends when it is time to look again.
    async fn changed(&mut self, looked: Instant) {
        tokio::select! {
            changed = self.changes.changed() => match changed {
                Ok(()) => sleep_until(looked + LOOK_PAUSE).await,
                // Nobody tells any more: only the clock is left.
                Err(_closed) => sleep(LOOK_EVERY).await,
            },
            () = sleep(LOOK_EVERY) => {},
        }
    }
}

#[cfg(test)]
mod tests;
