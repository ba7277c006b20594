//! A TCP proxy on loopback that fails on command.
//!
//! It stands between a client and a server, or between a daemon and its Redis, and forwards bytes
//! as its [`Mode`] says; the mode is switched while connections live. It knows no protocol: what it
//! does to bytes a network can do as well.

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream, UnixStream},
    sync::watch,
    task::JoinSet,
    time::sleep,
};

/// Connections at a time; further ones wait in the listener's queue.
const CONNECTIONS_MAX: usize = 1_024;
/// Bytes held per connection and direction.
const BUFFER_BYTES: usize = 64 * 1024;

/// What the proxy does with the bytes of every connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Forwards both ways.
    Pass,
    /// Forwards both ways, each piece after this long: at most 64 KiB per pause.
    Delay(Duration),
    /// Forwards requests and throws replies away; the connection stays open.
    DropReplies,
    /// Forwards requests; the first reply resets the connection and reaches nobody: the request
    /// was carried out and its fate is unknown to the client.
    CutBeforeReply,
    /// Forwards nothing either way; connections stay open and new ones are taken. What the peers
    /// send waits and flows again after a switch to [`Mode::Pass`].
    HalfOpen,
    /// Resets every connection, those that live and those to come.
    Refuse,
}

/// Where the proxy forwards to.
#[derive(Clone, Debug)]
pub enum Target {
    /// A TCP server.
    Tcp(SocketAddr),
    /// A server on a Unix socket, such as a [`crate::redis::RedisServer`].
    Unix(PathBuf),
}

impl From<SocketAddr> for Target {
    fn from(address: SocketAddr) -> Self {
        Self::Tcp(address)
    }
}

impl From<&Path> for Target {
    fn from(socket: &Path) -> Self {
        Self::Unix(socket.to_owned())
    }
}

/// A running proxy; dropping it closes the listener and every connection.
#[derive(Debug)]
pub struct FaultProxy {
    address: SocketAddr,
    state: watch::Sender<State>,
    // Aborts the accept loop, which aborts its connections.
    _accepting: JoinSet<()>,
}

/// What every connection watches.
#[derive(Clone, Copy, Debug)]
struct State {
    mode: Mode,
    /// Raised by [`FaultProxy::reset`]; a connection older than that ends.
    generation: u64,
}

impl FaultProxy {
    /// Listens on a free loopback port and forwards to `target`, in [`Mode::Pass`]. The target need
    /// not be there yet.
    ///
    /// # Errors
    /// When no port can be bound.
    pub async fn start(target: impl Into<Target>) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let (state, watched) = watch::channel(State {
            mode: Mode::Pass,
            generation: 0,
        });
        let mut accepting = JoinSet::new();
        accepting.spawn(accept(listener, target.into(), watched));
        Ok(Self {
            address,
            state,
            _accepting: accepting,
        })
    }

    /// Address that clients connect to.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// URL of a Redis behind the proxy.
    #[must_use]
    pub fn redis_url(&self) -> String {
        format!("redis://{}", self.address)
    }

    /// URL of a gateway behind the proxy.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Switches all connections, living and to come, to `mode`.
    pub fn set(&self, mode: Mode) {
        self.state.send_modify(|state| state.mode = mode);
    }

    /// Resets every living connection; new ones are served by the mode.
    pub fn reset(&self) {
        self.state.send_modify(|state| state.generation += 1);
    }
}

async fn accept(listener: TcpListener, target: Target, state: watch::Receiver<State>) {
    let target = Arc::new(target);
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        if connections.len() >= CONNECTIONS_MAX {
            connections.join_next().await;
            continue;
        }
        let Ok((client, _)) = listener.accept().await else {
            // Out of descriptors for a moment: an accepted connection must end first.
            connections.join_next().await;
            continue;
        };
        connections.spawn(serve(client, Arc::clone(&target), state.clone()));
    }
}

/// Serves one connection until a peer closes it or the mode ends it.
async fn serve(client: TcpStream, target: Arc<Target>, state: watch::Receiver<State>) {
    let generation = state.borrow().generation;
    // Errors end the connection, as a broken network does; there is nobody to tell.
    drop(client.set_nodelay(true));
    let mut client = client;
    let is_reset = {
        let (client_in, client_out) = client.split();
        let forwarded = async {
            match &*target {
                Target::Tcp(address) => {
                    let server = TcpStream::connect(address).await?;
                    server.set_nodelay(true)?;
                    let (server_in, server_out) = server.into_split();
                    forward(client_in, client_out, server_in, server_out, &state).await
                },
                Target::Unix(path) => {
                    let (server_in, server_out) = UnixStream::connect(path).await?.into_split();
                    forward(client_in, client_out, server_in, server_out, &state).await
                },
            }
        };
        let mut watched = state.clone();
        let ended =
            watched.wait_for(|state| state.generation > generation || state.mode == Mode::Refuse);
        tokio::select! {
            result = forwarded => result.is_err(),
            _ = ended => true,
        }
    };
    if is_reset {
        drop(client.set_zero_linger());
    }
}

/// Forwards both ways until both directions have ended.
async fn forward(
    client_in: impl AsyncRead + Unpin,
    client_out: impl AsyncWrite + Unpin,
    server_in: impl AsyncRead + Unpin,
    server_out: impl AsyncWrite + Unpin,
    state: &watch::Receiver<State>,
) -> io::Result<()> {
    tokio::try_join!(
        pump(client_in, server_out, state.clone(), Direction::Request),
        pump(server_in, client_out, state.clone(), Direction::Reply),
    )
    .map(drop)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    Request,
    Reply,
}

async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut state: watch::Receiver<State>,
    direction: Direction,
) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let length = from.read(&mut buffer).await?;
        // What was read during half-open waits here, in front of what comes later.
        let passing = state.wait_for(|state| state.mode != Mode::HalfOpen).await;
        let Ok(mode) = passing.map(|state| state.mode) else {
            return Ok(());
        };
        if length == 0 {
            return to.shutdown().await;
        }
        match (mode, direction) {
            (Mode::DropReplies, Direction::Reply) => continue,
            (Mode::CutBeforeReply, Direction::Reply) | (Mode::Refuse, _) => {
                return Err(io::ErrorKind::ConnectionReset.into());
            },
            (Mode::Delay(pause), _) => sleep(pause).await,
            (Mode::Pass | Mode::DropReplies | Mode::CutBeforeReply | Mode::HalfOpen, _) => {},
        }
        to.write_all(&buffer[..length]).await?;
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{Instant, timeout};

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(10);
    /// Long enough for loopback to deliver what it would deliver.
    const SILENCE: Duration = Duration::from_millis(100);

    /// A server that sends back what it gets, and tells a channel about it.
    async fn echo() -> (SocketAddr, watch::Receiver<usize>, JoinSet<()>) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (seen, watched) = watch::channel(0);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((mut connection, _)) = listener.accept().await {
                let seen = seen.clone();
                connections.spawn(async move {
                    let mut buffer = [0; 64];
                    while let Ok(length @ 1..) = connection.read(&mut buffer).await {
                        seen.send_modify(|count| *count += length);
                        connection.write_all(&buffer[..length]).await.unwrap();
                    }
                });
            }
        });
        (address, watched, tasks)
    }

    async fn connected() -> (FaultProxy, TcpStream, watch::Receiver<usize>, JoinSet<()>) {
        let (address, seen, tasks) = echo().await;
        let proxy = FaultProxy::start(address).await.unwrap();
        let mut client = TcpStream::connect(proxy.address()).await.unwrap();
        assert_eq!(exchange(&mut client).await.unwrap(), *b"ping");
        (proxy, client, seen, tasks)
    }

    async fn exchange(client: &mut TcpStream) -> io::Result<[u8; 4]> {
        client.write_all(b"ping").await?;
        let mut answer = [0; 4];
        client.read_exact(&mut answer).await?;
        Ok(answer)
    }

    async fn server_saw(seen: &mut watch::Receiver<usize>, count: usize) {
        timeout(DEADLINE, seen.wait_for(|seen| *seen == count))
            .await
            .unwrap()
            .unwrap();
    }

    #[tokio::test]
    async fn a_dropped_reply_leaves_the_request_done_and_the_connection_open() {
        let (proxy, mut client, mut seen, _tasks) = connected().await;
        proxy.set(Mode::DropReplies);
        assert!(timeout(SILENCE, exchange(&mut client)).await.is_err());
        server_saw(&mut seen, 8).await;
        proxy.set(Mode::Pass);
        assert_eq!(exchange(&mut client).await.unwrap(), *b"ping");
    }

    #[tokio::test]
    async fn a_cut_comes_after_the_request_and_before_the_reply() {
        let (proxy, mut client, mut seen, _tasks) = connected().await;
        proxy.set(Mode::CutBeforeReply);
        let error = timeout(DEADLINE, exchange(&mut client))
            .await
            .unwrap()
            .unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        server_saw(&mut seen, 8).await;
    }

    #[tokio::test]
    async fn a_half_open_connection_is_silent_and_goes_on_afterwards() {
        let (proxy, mut client, mut seen, _tasks) = connected().await;
        proxy.set(Mode::HalfOpen);
        client.write_all(b"ping").await.unwrap();
        let mut answer = [0; 4];
        assert!(
            timeout(SILENCE, client.read_exact(&mut answer))
                .await
                .is_err()
        );
        assert_eq!(*seen.borrow_and_update(), 4);
        proxy.set(Mode::Pass);
        timeout(DEADLINE, client.read_exact(&mut answer))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(answer, *b"ping");
    }

    #[tokio::test]
    async fn a_delay_holds_both_ways() {
        let (proxy, mut client, _seen, _tasks) = connected().await;
        proxy.set(Mode::Delay(SILENCE));
        let start = Instant::now();
        exchange(&mut client).await.unwrap();
        assert!(start.elapsed() >= SILENCE * 2);
    }

    #[tokio::test]
    async fn a_reset_ends_living_connections_alone() {
        let (proxy, mut client, _seen, _tasks) = connected().await;
        proxy.reset();
        let error = timeout(DEADLINE, client.read_u8())
            .await
            .unwrap()
            .unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        let mut next = TcpStream::connect(proxy.address()).await.unwrap();
        assert_eq!(exchange(&mut next).await.unwrap(), *b"ping");
    }

    #[tokio::test]
    async fn a_refusing_proxy_ends_every_connection() {
        let (proxy, mut client, _seen, _tasks) = connected().await;
        proxy.set(Mode::Refuse);
        assert!(timeout(DEADLINE, client.read_u8()).await.unwrap().is_err());
        let mut next = TcpStream::connect(proxy.address()).await.unwrap();
        assert!(
            timeout(DEADLINE, exchange(&mut next))
                .await
                .unwrap()
                .is_err()
        );
    }
}
