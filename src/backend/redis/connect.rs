//! Connecting: credentials, names, TLS, and the greeting, which sets the user and the database and finds out what the server is.
//!
//! A name is resolved here and nowhere else. Its addresses are raced (after RFC 8305, "Happy Eyeballs"), and the first one
//! whose server has answered the greeting wins. So an address that accepts connections and then stays silent loses too.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use redis::io::tcp::socket2::{SockRef, TcpKeepalive};
use redis::{ErrorKind, RedisResult};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout_at};

use super::address::Address;
use super::errors::{
    authentication_failed, is_dropped, is_login_refused, is_not_ready, is_replica, not_answered, unexpected_reply,
};
use super::resp::{Received, Reply, command};
use super::sentinel::Sentinels;
use crate::backend::credentials::Granted;
use crate::backoff::Backoff;

const KEEPALIVE: Duration = Duration::from_secs(10);
/// Size of the buffer to receive into. Connections of updates and trackers seldom get more than a record at once.
const RECEIVED_AT_ONCE: usize = 4 * 1024;

/// A stream of bytes in both directions.
pub(super) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin + 'static> Duplex for S {}

/// Where a connection leads: an address whose name is resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Endpoint {
    Tcp(SocketAddr),
    #[cfg(unix)]
    Unix(std::path::PathBuf),
}

/// The destination of a shared connection.
pub(in crate::backend) enum Target {
    Server(Arc<Address>),
    /// The master that sentinels name.
    Master(Arc<Sentinels>),
}

impl Target {
    pub(super) async fn connect(&self, limit: Duration) -> RedisResult<Link> {
        let deadline = Instant::now() + limit;
        match self {
            Self::Server(address) => connect(address, None, deadline, limit).await,
            Self::Master(sentinels) => {
                let connected = timeout_at(deadline, sentinels.connect(deadline, limit)).await;
                connected.unwrap_or_else(|_elapsed| Err(not_answered()))
            }
        }
    }
}

/// The user and the password to log in with.
#[derive(Clone, Copy)]
pub(super) struct Login<'a> {
    /// `None` if the password is sent alone.
    user: Option<&'a str>,
    password: &'a str,
}

impl<'a> Login<'a> {
    fn of_url(address: &'a Address) -> Option<Self> {
        let settings = &address.settings;
        Some(Self { user: settings.username(), password: settings.password()? })
    }

    /// The command's words.
    pub(super) fn words(self) -> Vec<&'a [u8]> {
        [Some("AUTH"), self.user, Some(self.password)].into_iter().flatten().map(str::as_bytes).collect()
    }
}

impl<'a> From<&'a Granted> for Login<'a> {
    fn from(granted: &'a Granted) -> Self {
        Self { user: granted.user(), password: granted.password() }
    }
}

/// A connection after its greeting. It belongs to one caller, and sends nothing by itself.
pub(super) struct Link {
    pub(super) stream: Box<dyn Duplex>,
    pub(super) address: Arc<Address>,
    pub(super) endpoint: Endpoint,
    /// The server's `run_id`, if it may be known. Another `run_id` at the same address is another server.
    pub(super) run_id: Option<String>,
    /// How long the server has been running, if it may be known.
    pub(super) uptime: Option<Duration>,
    /// Whether `ROLE` was answered as a server itself does it. A proxy that divides connections among its clients may answer
    /// `WATCH` and not mean it.
    pub(super) knows_role: bool,
    pub(super) is_replica: bool,
    /// Whether this is a proxy that hangs up on each command that it doesn't know. Only commands on keys may be sent to it.
    pub(super) hangs_up: bool,
    /// Whether the URL has a password, and the server needs none.
    pub(super) needless_password: bool,
    /// When to authenticate anew, if the credentials have an end.
    pub(super) renew_at: Option<Instant>,
    /// The time that the greeting took.
    pub(super) round_trip: Duration,
    received: Received,
}

/// Connects to this endpoint of an address, or to whichever of them answers first, and greets: until the deadline, of which the
/// server may take `limit`.
pub(super) async fn connect(
    address: &Arc<Address>,
    endpoint: Option<&Endpoint>,
    deadline: Instant,
    limit: Duration,
) -> RedisResult<Link> {
    /// How much of the time new credentials are tried for. The rest is left to the callers: an update whose connection is refused
    /// can do without one.
    const PART: u32 = 4;
    /// The rest of the time after a provider that hangs: callers whose own limit is the same get its error.
    const PART_OF_REST: u32 = 10;
    const FIRST_PAUSE: Duration = Duration::from_millis(20);
    const LONGEST_PAUSE: Duration = Duration::from_millis(500);
    let given_up = Instant::now() + limit / PART;
    let (mut backoff, mut is_first) = (Backoff::new(FIRST_PAUSE, LONGEST_PAUSE), true);
    loop {
        let granted = match &address.options.credentials {
            Some(provider) => Some(provider.ask(deadline - limit / PART_OF_REST).await?),
            None => None,
        };
        let connected = async {
            match endpoint {
                Some(endpoint) => open(address, endpoint.clone(), granted.as_ref()).await,
                None => race(address, granted.as_ref()).await,
            }
        };
        let ends = deadline.min(Instant::now() + limit);
        match timeout_at(ends, connected).await.unwrap_or_else(|_elapsed| Err(not_answered())) {
            // The password may have been changed between the provider's answer and its use.
            Err(refusal) if granted.is_some() && is_login_refused(&refusal) => {
                let pause = backoff.next();
                if Instant::now() + pause > if is_first { deadline } else { given_up } {
                    return Err(refusal);
                }
                is_first = false;
                sleep(pause).await;
            }
            connected => return connected,
        }
    }
}

/// Connects to whichever of the address' endpoints answers first.
async fn race(address: &Arc<Address>, granted: Option<&Granted>) -> RedisResult<Link> {
    /// After so much silence of one endpoint, the next one is tried too.
    const STAGGER: Duration = Duration::from_millis(30);
    let mut endpoints = resolve(address).await?.into_iter();
    let mut attempts = FuturesUnordered::new();
    let mut failure = None;
    loop {
        if let Some(endpoint) = endpoints.next() {
            attempts.push(open(address, endpoint, granted));
        }
        tokio::select! {
            attempt = attempts.next() => match attempt {
                Some(Ok(link)) => return Ok(link),
                Some(Err(error)) => failure = Some(error),
                None => return Err(failure.unwrap_or_else(|| (ErrorKind::Io, "the name has no address").into())),
            },
            () = sleep(STAGGER), if endpoints.len() > 0 => {}
        }
    }
}

async fn resolve(address: &Address) -> RedisResult<Vec<Endpoint>> {
    #[cfg(unix)]
    if let Some(path) = &address.socket {
        return Ok(vec![Endpoint::Unix(path.clone())]);
    }
    let place = address.reached_at();
    let addresses = tokio::net::lookup_host((&*place.host, place.port)).await?;
    Ok(addresses.map(Endpoint::Tcp).collect())
}

/// Enough for a server that hangs up because it is just ending.
const PAUSE_BEFORE_LAST_GREETING: Duration = Duration::from_millis(50);

/// Connects to one endpoint of the address, and greets.
async fn open(address: &Arc<Address>, endpoint: Endpoint, granted: Option<&Granted>) -> RedisResult<Link> {
    let dropped = match greeted(address, &endpoint, granted, false).await {
        Err(error) if is_dropped(&error) => error,
        link => return link,
    };
    // A proxy may hang up on a command that it doesn't know, as twemproxy does, and still answer PING.
    let Ok(link) = greeted(address, &endpoint, granted, true).await else { return Err(dropped) };
    // Or the server was just restarting, and its role must be known. Only what hangs up once more is such a proxy.
    sleep(PAUSE_BEFORE_LAST_GREETING).await;
    match greeted(address, &endpoint, granted, false).await {
        Err(error) if is_dropped(&error) => {
            tracing::warn!(%address, "a proxy in between hangs up on commands that it doesn't know: updates are invalidations");
            Ok(link)
        }
        link => link,
    }
}

async fn greeted(
    address: &Arc<Address>,
    endpoint: &Endpoint,
    granted: Option<&Granted>,
    hangs_up: bool,
) -> RedisResult<Link> {
    let stream: Box<dyn Duplex> = match (endpoint, &address.options.tls) {
        (Endpoint::Tcp(socket), Some(tls)) => {
            Box::new(tls.connect(&address.reached_at().host, connect_tcp(*socket).await?).await?)
        }
        (Endpoint::Tcp(socket), None) => Box::new(connect_tcp(*socket).await?),
        #[cfg(unix)]
        (Endpoint::Unix(path), _) => Box::new(tokio::net::UnixStream::connect(path).await?),
    };
    let mut link = Link {
        stream,
        address: address.clone(),
        endpoint: endpoint.clone(),
        run_id: None,
        uptime: None,
        knows_role: false,
        is_replica: false,
        hangs_up,
        needless_password: false,
        renew_at: granted.and_then(|granted| granted.renew_at),
        round_trip: Duration::ZERO,
        received: Received::new(RECEIVED_AT_ONCE),
    };
    let began = Instant::now();
    link.greet(address, granted.map(Login::from).or_else(|| Login::of_url(address))).await?;
    link.round_trip = began.elapsed();
    Ok(link)
}

async fn connect_tcp(socket: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(socket).await?;
    // Nagle's algorithm would hold back small pipelines; keepalive finds peers that vanished.
    stream.set_nodelay(true)?;
    SockRef::from(&stream).set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE))?;
    Ok(stream)
}

impl Link {
    /// Whether its credentials should have been renewed.
    pub(super) fn has_old_credentials(&self) -> bool {
        self.renew_at.is_some_and(|renew_at| Instant::now() >= renew_at)
    }

    /// Sends commands, and waits for a reply to each. If it is dropped early, the link must not be used again: the next exchange
    /// would take these replies for its own.
    pub(super) async fn exchange(&mut self, commands: &[Vec<u8>]) -> RedisResult<Vec<RedisResult<Reply>>> {
        self.stream.write_all(&commands.concat()).await?;
        self.stream.flush().await?;
        let mut taken = Vec::with_capacity(commands.len());
        while taken.len() < commands.len() {
            match self.receive(Received::next).await {
                // A server that refuses a client sends one error, whatever was asked, and hangs up: that error is the cause.
                Err(end) if end.is_io_error() => return Err(taken.pop().and_then(RedisResult::err).unwrap_or(end)),
                reply => taken.push(reply?),
            }
        }
        Ok(taken)
    }

    /// Receives until `next` finds something in it. Cancel safe: what was received stays in the buffer.
    pub(super) async fn receive<R>(
        &mut self,
        mut next: impl FnMut(&mut Received) -> RedisResult<Option<R>>,
    ) -> RedisResult<R> {
        loop {
            if let Some(received) = next(&mut self.received)? {
                return Ok(received);
            }
            if self.stream.read_buf(self.received.buffer()).await? == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
            self.received.examine();
        }
    }

    /// Sets the user, the database and the client's name, and asks for the server's `run_id` and role: all in one round trip,
    /// and in RESP2, which proxies and look-alikes speak too.
    async fn greet(&mut self, address: &Address, login: Option<Login<'_>>) -> RedisResult<()> {
        let db = address.settings.db();
        let mut commands: Vec<_> = login.iter().map(|login| command(&login.words())).collect();
        if db != 0 {
            commands.push(command(&[b"SELECT", db.to_string().as_bytes()]));
        }
        if self.hangs_up {
            commands.push(command(&[b"PING"]));
        } else {
            commands.extend([
                command(&[b"CLIENT", b"SETNAME", address.options.client_name.as_bytes()]),
                command(&[b"INFO", b"server"]),
                command(&[b"ROLE"]),
            ]);
        }
        let refused = || authentication_failed(address.options.credentials.is_some());
        let replies = self.exchange(&commands).await.map_err(|error| {
            // The last words of a server that hangs up may quote the command, and so the password.
            let may_quote = !error.is_io_error() && !is_not_ready(&error);
            let quotes = |login: Login<'_>| may_quote && error.to_string().contains(login.password);
            if login.is_some_and(quotes) { refused() } else { error }
        });
        let mut replies = replies?.into_iter();
        let mut next = || replies.next().unwrap_or_else(|| Err(unexpected_reply()));
        if login.is_some()
            && let Err(refusal) = next()
        {
            const NEEDS_NONE: [&str; 2] = ["without any password configured", "no password is set"];
            let text = refusal.to_string();
            self.needless_password = NEEDS_NONE.iter().any(|words| text.contains(words));
            if self.needless_password {
                self.renew_at = None;
            } else {
                // "max number of clients", for example, is no error about passwords.
                return Err(if is_not_ready(&refusal) { refusal } else { refused() });
            }
        }
        if db != 0 {
            next()?;
        }
        if self.hangs_up {
            return next().map(|_pong| ());
        }
        // A user may lack the right to set the client's name.
        let _ = next();
        let info = next().and_then(Reply::text).unwrap_or_default();
        let fact = |name| info.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        self.run_id = fact("run_id:").map(str::to_owned);
        self.uptime = fact("uptime_in_seconds:").and_then(|seconds| seconds.parse().ok()).map(Duration::from_secs);
        let role = next();
        self.knows_role = role.as_ref().is_ok_and(Reply::is_role);
        self.is_replica = role.as_ref().is_ok_and(Reply::is_role_of_replica);
        check_role(role, address.may_be_replica)
    }
}

/// Checks a server's reply to ROLE. Fails for a replica, unless the server may be one, and for a server that is not ready. Any
/// other reply, an error included, says nothing about the role: the server is used, and left once it refuses a write.
pub(super) fn check_role(role: RedisResult<Reply>, may_be_replica: bool) -> RedisResult<()> {
    match role {
        Ok(role) if !may_be_replica && role.is_role_of_replica() => Err(is_replica()),
        Err(error) if is_not_ready(&error) => Err(error),
        _ => Ok(()),
    }
}
