//! A daemon that answers from a script: it notes what it was asked, and refuses on demand.

use std::{collections::VecDeque, net::SocketAddr, time::Duration};

use hive_protocol::fault::Fault;
use hive_store::{Store, StoreConfig, registry::Registration};
use parking_lot::Mutex;
use tokio::{net::TcpListener, task::JoinSet};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Status, metadata::MetadataMap, service::Routes, transport::Server};

/// What a call brought.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) call: &'static str,
    pub(crate) namespace: String,
    pub(crate) trace: String,
    pub(crate) has_deadline: bool,
    pub(crate) request: String,
}

/// What it was asked, and what it refuses.
#[derive(Default)]
pub(crate) struct Script {
    seen: Mutex<Vec<Seen>>,
    refusals: Mutex<VecDeque<Fault>>,
}

impl Script {
    /// Refuses the next call.
    pub(crate) fn refuse(&self, fault: Fault) {
        self.refusals.lock().push_back(fault);
    }

    /// Everything that it was asked.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().clone()
    }

    /// Notes a call, which may be the one to refuse.
    pub(crate) fn note<T: std::fmt::Debug>(
        &self,
        call: &'static str,
        request: &Request<T>,
    ) -> Result<(), Status> {
        let metadata: &MetadataMap = request.metadata();
        let text = |header: &str| {
            let value = metadata.get(header).and_then(|value| value.to_str().ok());
            value.unwrap_or_default().to_owned()
        };
        self.seen.lock().push(Seen {
            call,
            namespace: text("hive-namespace"),
            trace: text("traceparent"),
            has_deadline: metadata.contains_key("grpc-timeout"),
            request: format!("{:?}", request.get_ref()),
        });
        match self.refusals.lock().pop_front() {
            Some(fault) => Err(fault.into()),
            None => Ok(()),
        }
    }
}

/// A daemon that says at this Redis that it lives; dropping it ends it as a crash does.
pub(crate) async fn live(daemon: &'static str, redis_url: &str, routes: Routes) -> JoinSet<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address: SocketAddr = listener.local_addr().unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let incoming = TcpListenerStream::new(listener);
        let served = Server::builder().add_routes(routes);
        served.serve_with_incoming(incoming).await.unwrap();
    });
    let store = Store::open(StoreConfig {
        url: redis_url.to_owned(),
        ..StoreConfig::default()
    })
    .unwrap();
    let me = Registration::new(daemon, "0", &address.to_string());
    store.beat(&me).await.unwrap();
    tasks.spawn(async move {
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            store.beat(&me).await.unwrap();
        }
    });
    tasks
}

/// Unary calls that note what they were asked, and answer. `Service` has its `Script` in the field
/// `calls` of what its first field points to.
macro_rules! answers {
    ($($call:ident $request:ident $response:ident |$self:ident, $asked:ident| $answer:expr;)*) => {
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
                    self.0.calls.note(stringify!($call), &request)?;
                    let ($self, $asked) = (self, request.into_inner());
                    let _script = &$self.0;
                    Ok(Response::new($answer))
                })
            }
        )*
    };
}

pub(crate) use answers;
