//! The other daemons of a kind that live, and the connections to them.
//!
//! Which of them live is what the last beat said; a connection is made at its first call, tried
//! while it is idle, and given up when its daemon is gone.

use std::{collections::BTreeMap, time::Duration};

use hive_protocol::{
    fault::{Fault, Reason},
    limits::NAMESPACE_HEADER,
};
use parking_lot::Mutex;
use tokio::time::timeout;
use tonic::{
    Request, Response, Status,
    metadata::AsciiMetadataValue,
    transport::{Channel, Endpoint},
};

/// How long a daemon may take to accept a connection before the next is asked.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// How often an idle connection is tried, so that one that is dead is not found out by a call.
const PROBE_EVERY: Duration = Duration::from_secs(5);
/// How long a probe may take.
const PROBE_WITHIN: Duration = Duration::from_secs(3);
/// What callers are told to wait where none lives: one is known a second after its start.
pub const RETRY: Duration = Duration::from_secs(1);

/// Which daemons, and what is said where none of them lives.
#[derive(Debug)]
pub struct Kind {
    /// Their name in the registry.
    pub daemon: &'static str,
    /// What their calls are about, for the list of calls under way.
    pub about: &'static str,
    /// Why there is no answer where none lives.
    pub missing: (Reason, &'static str),
}

/// The daemons of a kind that live, and the connections to them.
#[derive(Debug)]
pub struct Peers {
    kind: &'static Kind,
    live: Mutex<BTreeMap<String, Option<Channel>>>,
}

impl Peers {
    /// None of that kind lives yet, as far as is known.
    #[must_use]
    pub fn new(kind: &'static Kind) -> Self {
        Self {
            kind,
            live: Mutex::default(),
        }
    }

    /// Which daemons these are.
    #[must_use]
    pub const fn kind(&self) -> &'static Kind {
        self.kind
    }

    /// Notes which daemons live, each by its name and its address for callers; those of other
    /// kinds are left out. Connections to those that are gone are given up.
    pub fn note<'a>(&self, live: impl IntoIterator<Item = (&'a str, &'a str)>) {
        let mut known = self.live.lock();
        let mut before = std::mem::take(&mut *known);
        for (daemon, address) in live {
            if daemon == self.kind.daemon {
                let channel = before.remove(address).flatten();
                known.insert(address.to_owned(), channel);
            }
        }
    }

    /// Addresses of those that live, in order.
    #[must_use]
    pub fn addresses(&self) -> Vec<String> {
        self.live.lock().keys().cloned().collect()
    }

    /// The connection to the one at `address`, made at its first call. Kept while that one lives.
    ///
    /// # Errors
    /// `UNREACHABLE` where the address is none.
    pub fn channel(&self, address: &str) -> Result<Channel, Fault> {
        let mut live = self.live.lock();
        if let Some(channel) = live.get(address).cloned().flatten() {
            return Ok(channel);
        }
        let channel = connect(address, self.kind.daemon)?;
        if let Some(place) = live.get_mut(address) {
            *place = Some(channel.clone());
        }
        Ok(channel)
    }

    /// Asks those that live, one after the other until one answers or refuses what another would
    /// refuse, too; each has `limit`.
    ///
    /// # Errors
    /// What it refuses; else why the last one did not answer.
    pub async fn first<M, T, F>(
        &self,
        (namespace, limit): (&str, Duration),
        message: M,
        call: impl Fn(Channel, Request<M>) -> F,
    ) -> Result<T, Fault>
    where
        M: Clone,
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let mut refusal = self.none_lives();
        for address in self.addresses() {
            let asked = asking(namespace, message.clone(), limit)?;
            match within(limit, call(self.channel(&address)?, asked)).await {
                Ok(answer) => return Ok(answer.into_inner()),
                Err(status) => {
                    let fault = Fault::from(&status);
                    if !fault.kind.is_retryable() {
                        return Err(fault);
                    }
                    refusal = fault;
                },
            }
        }
        Err(refusal)
    }

    /// What is answered where none lives.
    #[must_use]
    pub fn none_lives(&self) -> Fault {
        let (reason, message) = self.kind.missing;
        Fault::new(reason, message).with_retry_after(RETRY)
    }
}

/// A call in a namespace that is over after `limit`.
///
/// # Errors
/// `INTERNAL` where the namespace is no name.
pub fn asking<M>(namespace: &str, message: M, limit: Duration) -> Result<Request<M>, Fault> {
    let mut request = Request::new(message);
    let name = AsciiMetadataValue::try_from(namespace)
        .map_err(|_no_header| Fault::bug("a namespace that is no name"))?;
    request.metadata_mut().insert(NAMESPACE_HEADER, name);
    request.set_timeout(limit);
    Ok(request)
}

/// An answer in time: a daemon that is stopped does not mind the deadline that it was told.
///
/// # Errors
/// What the daemon says, or that it did not answer.
pub async fn within<T>(
    limit: Duration,
    answer: impl Future<Output = Result<T, Status>>,
) -> Result<T, Status> {
    let in_time = timeout(limit, answer).await;
    in_time.unwrap_or_else(|_elapsed| Err(Status::unavailable("no answer in time")))
}

fn connect(address: &str, daemon: &str) -> Result<Channel, Fault> {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(|error| {
        let message = format!("the address `{address}` of a `hive-{daemon}` is none");
        Fault::new(Reason::Unreachable, message).with_detail(error.to_string())
    })?;
    Ok(endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(PROBE_EVERY)
        .keep_alive_timeout(PROBE_WITHIN)
        .keep_alive_while_idle(true)
        .connect_lazy())
}

#[cfg(test)]
mod tests {
    use hive_protocol::fault::Reason;

    use super::{Kind, Peers};

    static ROUTERS: Kind = Kind {
        daemon: "router",
        about: "workflow",
        missing: (Reason::NoRouter, "none"),
    };

    #[tokio::test]
    async fn connections_live_as_long_as_their_daemons() {
        let routers = Peers::new(&ROUTERS);
        routers.note([("router", "a:1"), ("router", "b:1"), ("gateway", "c:1")]);
        assert_eq!(routers.addresses(), ["a:1", "b:1"]);
        routers.channel("a:1").unwrap();
        assert!(routers.live.lock()["a:1"].is_some());
        routers.note([("router", "a:1"), ("router", "d:1")]);
        assert_eq!(routers.addresses(), ["a:1", "d:1"]);
        assert!(routers.live.lock()["a:1"].is_some());
        routers.channel("gone:1").unwrap();
        assert_eq!(routers.addresses().len(), 2);
    }

    #[test]
    fn an_address_that_is_none_is_said() {
        let routers = Peers::new(&ROUTERS);
        let fault = routers.channel("not an address").unwrap_err();
        assert_eq!(fault.reason, Reason::Unreachable);
        assert!(fault.message.contains("`not an address`"), "{fault}");
    }
}
