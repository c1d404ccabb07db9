//! Trackers: connections that bring the invalidation messages for near caches, one to each server that may have keys.
//!
//! A tracker never reconnects by itself, since it would miss the messages in between. It belongs to an epoch of its server's
//! shared connection. A heartbeat asks the server for its role: a connection may be cut without a trace, and a server that was
//! demoted may not learn of changes. Messages and replies come in one order, so all messages from before a heartbeat's reply
//! have been handled when the reply is.
//!
//! All trackers together are one session. It ends when the first one is lost, and with each change of the topology.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::{Arc, Weak};
use std::task::Poll;
use std::time::Duration;

use futures_util::future::try_join_all;
use redis::{ErrorKind, ProtocolVersion, RedisError, RedisResult};
use tokio::io::AsyncWriteExt;
use tokio::sync::Barrier;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::Redis;
use super::connect::{Link, Login, check_role};
use super::errors::{HANGS_UP, is_not_ready, is_of_replica, not_answered, unexpected_reply, without_arguments};
use super::renewal::Renewal;
use super::resp::{Reply, encode};
use super::shared::Epoch;
use super::topology::Server;
use crate::backend::builder::Settings;
use crate::backend::deadline::within;
use crate::backoff::{Backoff, jittered};
use crate::near::{Moment, Tracking, Wanted};
use crate::proof::Guard;

/// Pauses between attempts to connect.
const SHORTEST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// Pause after a server has refused tracking. Jittered to 50 to 100 %.
const PAUSE_OF_REFUSED: Duration = Duration::from_secs(30);

/// Keeps trackers connected until the backend is gone, or the last near cache over it.
pub(in crate::backend) async fn track(redis: Weak<Redis>, tracking: Arc<Tracking>, settings: Settings) {
    let mut backoff = Backoff::new(SHORTEST_PAUSE, LONGEST_PAUSE);
    while let Some(present) = redis.upgrade() {
        let wanted = tracking.wanted();
        if wanted.prefixes.is_empty() {
            return;
        }
        let connected = connect(&present, &wanted, &tracking).await;
        drop(present);
        let pause = match connected {
            Ok(trackers) => {
                let began = Instant::now();
                keep(trackers, &redis, &tracking, &wanted, settings).await;
                // A session that ends at once may do so again and again.
                if began.elapsed() >= LONGEST_PAUSE {
                    backoff.reset();
                }
                backoff.next()
            }
            Err(error) if error.kind() == REFUSED => {
                if tracking.set_unsupported() {
                    let cause = without_arguments(&error);
                    tracing::warn!(cause, "the server does not tell near caches of changes");
                }
                jittered(PAUSE_OF_REFUSED)
            }
            Err(error) => {
                let error = without_arguments(&error);
                tracing::debug!(error, "a server can't be asked to tell near caches of changes");
                backoff.next()
            }
        };
        tokio::select! {
            () = sleep(pause) => {}
            // A near cache with another prefix was added. `attention` also comes from readers that find nothing kept, and they must
            // not cut the pause short.
            () = async { while !tracking.wants_more(&wanted) { tracking.attention().await } } => {}
        }
    }
}

/// Marks the error of a server that doesn't support tracking.
const REFUSED: ErrorKind = ErrorKind::RESP3NotSupported;

struct Tracker<'a> {
    link: Link,
    server: Arc<Server>,
    epoch: Epoch,
    tracking: &'a Tracking,
    /// The key that each heartbeat reads. It is no entry's key, which is a prefix and an id.
    prefix: &'a str,
    /// Commands that are not sent yet. A heartbeat may be cancelled in the middle of one, and the next one sends the rest first.
    unsent: VecDeque<u8>,
    /// The number of replies that have not come yet.
    owed: usize,
}

async fn connect<'a>(redis: &Redis, wanted: &'a Wanted, tracking: &'a Tracking) -> RedisResult<Vec<Tracker<'a>>> {
    let servers = redis.topology.known_slots().await?.data_nodes();
    let trackers = servers.into_iter().map(|server| Tracker::connect(server, wanted, tracking));
    try_join_all(trackers).await.inspect_err(|_| redis.topology.refresh())
}

/// Keeps the session alive until a tracker is lost, or the prefixes or the topology have changed.
async fn keep(
    mut trackers: Vec<Tracker<'_>>,
    redis: &Weak<Redis>,
    tracking: &Tracking,
    wanted: &Wanted,
    settings: Settings,
) {
    let Settings { heartbeat_interval: interval, heartbeat_timeout: limit, .. } = settings;
    let session = tracking.begin(wanted);
    // Not in the trackers: one waits for new credentials while the trackers listen.
    let mut renewals: Vec<_> = trackers.iter().map(Tracker::renewal).collect();
    let mut was_silent = false;
    let lost = loop {
        if !tracking.is_current(wanted) || redis.strong_count() == 0 {
            return;
        }
        let (asked, next) = (Moment::now(), Instant::now() + jittered(interval));
        let all = Barrier::new(trackers.len());
        let beats = trackers.iter_mut().zip(&mut renewals).map(|(tracker, renewal)| tracker.beat(&all, Some(renewal)));
        let answers = within(limit, try_join_all(beats)).await;
        let is_silent = answers.is_none();
        match answers {
            Some(Ok(_)) => session.extend(asked, interval + limit),
            _ if !tracking.enforces(Guard::NearHeartbeat) => session.extend(asked, 1_000 * interval),
            // The first heartbeat without a reply only stops near caches for now: as long as the connection stands, no message is
            // lost, and a late reply starts them again.
            None if !was_silent => {}
            Some(Err(error)) => break Some(error),
            None => break None,
        }
        was_silent = is_silent;
        tokio::select! {
            () = sleep_until(next) => {}
            () = tracking.attention() => {}
            () = are_due(&mut renewals) => {}
            Err(error) = try_join_all(trackers.iter_mut().map(Tracker::listen)) => break Some(error),
        }
    };
    // Ends the session before anything is awaited: near caches must not be used any more.
    drop(session);
    match lost.as_ref().map(without_arguments) {
        Some(error) => {
            tracing::warn!(error, "near caches are emptied: invalidation messages stopped");
        }
        None => tracing::warn!("near caches are emptied: a server does not answer its heartbeat"),
    }
    // The server may have been replaced by another one.
    if let Some(redis) = redis.upgrade() {
        redis.topology.refresh();
    }
}

/// Waits until one of the connections has new credentials, which go out with the next heartbeat.
async fn are_due(renewals: &mut [Renewal]) {
    poll_fn(|cx| {
        let is_due = renewals.iter_mut().any(|renewal| renewal.poll(cx).is_ready());
        if is_due { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

impl<'a> Tracker<'a> {
    fn renewal(&self) -> Renewal {
        Renewal::of(&self.link, self.server.shared.settings.connect_timeout)
    }

    async fn connect(server: Arc<Server>, wanted: &'a Wanted, tracking: &'a Tracking) -> RedisResult<Self> {
        if server.shared.epoch().await?.hangs_up {
            return Err((REFUSED, HANGS_UP).into());
        }
        let (link, epoch) = server.shared.connect_beside().await?;
        if link.address.settings.protocol() != ProtocolVersion::RESP3 {
            return Err((REFUSED, "the URL asks for another protocol than RESP3").into());
        }
        let (limit, prefix) = (server.shared.settings.connect_timeout, &wanted.prefixes[0]);
        let mut tracker = Self { link, server, epoch, tracking, prefix, unsent: VecDeque::new(), owed: 0 };
        let prefixes = wanted.prefixes.iter().flat_map(|prefix| [&b"PREFIX"[..], prefix.as_bytes()]);
        let ask: Vec<_> = [&b"CLIENT"[..], b"TRACKING", b"ON", b"BCAST"].into_iter().chain(prefixes).collect();
        let begin = async {
            for command in [&[&b"HELLO"[..], b"3"][..], &ask] {
                tracker.send(&[command]).await?;
                tracker.reply().await?.map_err(refusal)?;
            }
            tracker.beat(&Barrier::new(1), None).await
        };
        timeout(limit, begin).await.unwrap_or_else(|_elapsed| Err(not_answered()))?;
        Ok(tracker)
    }

    /// Fails unless the server answers as a primary. Then waits until `all` trackers were answered, and goes on handling
    /// messages meanwhile. Logs in anew if there are new credentials.
    async fn beat(&mut self, all: &Barrier, renewal: Option<&mut Renewal>) -> RedisResult<()> {
        // ROLE says whether the server is a primary. The read fails with CLUSTERDOWN if its cluster has lost its majority.
        let questions = [&[&b"ROLE"[..]][..], &[b"PTTL", self.prefix.as_bytes()]];
        let login = renewal.as_ref().and_then(|renewal| renewal.login()).map(Login::words);
        let commands: Vec<_> = login.iter().map(Vec::as_slice).chain(questions).collect();
        self.send(&commands).await?;
        let logs_in = login.is_some();
        if let Some(renewal) = renewal.filter(|_| logs_in) {
            renewal.answered(&self.reply().await?);
        }
        let (role, read) = (self.reply().await?, self.reply().await?);
        if let Err(error) = read
            && error.code() == Some("CLUSTERDOWN")
        {
            return Err(error);
        }
        check_role(role, false).inspect_err(|error| {
            if is_of_replica(error) {
                self.server.shared.leave(&self.epoch);
            }
        })?;
        tokio::select! {
            _ = all.wait() => Ok(()),
            lost = self.listen() => lost,
        }
    }

    /// Sends commands. Replies to earlier ones that are still owed are read and dropped.
    async fn send(&mut self, commands: &[&[&[u8]]]) -> RedisResult<()> {
        let mut encoded = Vec::new();
        commands.iter().for_each(|command| encode(&mut encoded, command));
        self.unsent.extend(encoded);
        self.owed += commands.len();
        self.link.stream.write_all_buf(&mut self.unsent).await?;
        self.link.stream.flush().await?;
        while self.owed > commands.len() {
            let _overdue = self.reply().await?;
        }
        Ok(())
    }

    /// Receives the next reply, and handles the messages that come before it.
    async fn reply(&mut self) -> RedisResult<RedisResult<Reply>> {
        let registry = &self.tracking.registry;
        let changed = |key: Option<&[u8]>| key.map_or_else(|| registry.flush(""), |key| registry.invalidated(key));
        let reply = self.link.receive(|received| received.next_in_resp3(changed)).await?;
        self.owed = self.owed.checked_sub(1).ok_or_else(unexpected_reply)?;
        Ok(reply)
    }

    /// Handles messages until the connection ends.
    async fn listen(&mut self) -> RedisResult<()> {
        loop {
            let _overdue = self.reply().await?;
        }
    }
}

/// Marks a server's refusal as [`REFUSED`], unless the server just can't answer now.
fn refusal(error: RedisError) -> RedisError {
    match error.code() {
        None | Some("BUSY" | "CLUSTERDOWN" | "WRONGPASS") => error,
        _ if is_not_ready(&error) => error,
        _ => (REFUSED, "HELLO 3 or CLIENT TRACKING is refused", without_arguments(&error)).into(),
    }
}
