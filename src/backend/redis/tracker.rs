//! The trackers: connections over which the servers tell near caches of changes, one to each server that keys may be at.
//!
//! None connects again by itself: it would go on without being told. Each belongs to an epoch of its server's shared connection,
//! and ends with it. A tracker's server is asked again and again whether it is there and still a primary: a link that is cut
//! without a trace tells nothing, and a server that has lost its place may not learn of changes itself. It sends messages and
//! answers in one order, so what it has told is noted before it is known to have answered.
//!
//! All of them make up one session, which ends with the first that is lost, and with each change of the servers.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::future::try_join_all;
use redis::{ErrorKind, ProtocolVersion, RedisError, RedisResult};
use tokio::io::AsyncWriteExt;
use tokio::sync::Barrier;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::Redis;
use super::connect::{Link, check_role};
use super::errors::{is_not_ready, is_of_replica, not_answered, unexpected_reply, without_arguments};
use super::resp::{Reply, encode};
use super::server::Server;
use super::shared::Epoch;
use crate::backend::Settings;
use crate::backend::deadline::within;
use crate::near::{Moment, Tracking, Wanted};
use crate::pause::jittered;
use crate::proof::Guard;

/// Between one attempt to connect and the next; from half of it on, at random.
const SHORTEST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// Until a server is asked again that has refused to tell of changes; from half of it on, too.
const PAUSE_OF_REFUSED: Duration = Duration::from_secs(30);

/// Has the servers tell of changes until the backend is gone, or the last near cache over it.
pub(in crate::backend) async fn track(redis: Weak<Redis>, tracking: Arc<Tracking>, settings: Settings) {
    let mut pause = SHORTEST_PAUSE;
    while let Some(present) = redis.upgrade() {
        let wanted = tracking.wanted();
        if wanted.prefixes.is_empty() {
            return;
        }
        let connected = connect(&present, &wanted, &tracking).await;
        drop(present);
        pause = match connected {
            Ok(trackers) => {
                let began = Instant::now();
                keep(trackers, &redis, &tracking, &wanted, settings).await;
                // One that ends at once may do so again and again.
                if began.elapsed() >= LONGEST_PAUSE { SHORTEST_PAUSE } else { LONGEST_PAUSE.min(pause * 2) }
            }
            Err(error) if error.kind() == REFUSED => {
                if tracking.set_unsupported() {
                    let cause = without_arguments(&error);
                    tracing::warn!(cause, "the server does not tell near caches of changes");
                }
                PAUSE_OF_REFUSED
            }
            Err(error) => {
                let error = without_arguments(&error);
                tracing::debug!(error, "a server can't be asked to tell near caches of changes");
                LONGEST_PAUSE.min(pause * 2)
            }
        };
        tokio::select! {
            () = sleep(jittered(pause)) => {}
            () = more_is_wanted(&tracking, &wanted) => {}
        }
    }
}

/// Waits for one more prefix: not for those who just find that nothing is kept.
async fn more_is_wanted(tracking: &Tracking, than: &Wanted) {
    while !tracking.wants_more(than) {
        tracking.attention().await;
    }
}

/// Marks the error of a server that doesn't support tracking.
const REFUSED: ErrorKind = ErrorKind::RESP3NotSupported;

struct Tracker<'a> {
    link: Link,
    server: Arc<Server>,
    epoch: Epoch,
    tracking: &'a Tracking,
    /// The key that each heartbeat reads. No entry has it: an entry's key is a prefix and an id.
    prefix: &'a str,
    /// Commands, or the rest of them, that have not been sent yet.
    unsent: VecDeque<u8>,
    /// Replies that have not come yet.
    owed: usize,
}

async fn connect<'a>(redis: &Redis, wanted: &'a Wanted, tracking: &'a Tracking) -> RedisResult<Vec<Tracker<'a>>> {
    let servers = redis.topology.with_keys().await?;
    let trackers = servers.into_iter().map(|server| Tracker::connect(server, wanted, tracking));
    try_join_all(trackers).await.inspect_err(|_| redis.topology.refresh())
}

/// Keeps near caches going for as long as all trackers are there, and everything is as it was wanted.
async fn keep(
    mut trackers: Vec<Tracker<'_>>,
    redis: &Weak<Redis>,
    tracking: &Tracking,
    wanted: &Wanted,
    settings: Settings,
) {
    let Settings { heartbeat_interval: interval, heartbeat_timeout: limit, .. } = settings;
    let session = tracking.begin(wanted);
    let mut was_silent = false;
    let lost = loop {
        if !tracking.is_current(wanted) || redis.strong_count() == 0 {
            return;
        }
        let (asked, next) = (Moment::now(), Instant::now() + jittered(interval));
        let all = Barrier::new(trackers.len());
        let answers = within(limit, try_join_all(trackers.iter_mut().map(|tracker| tracker.beat(&all)))).await;
        let is_silent = answers.is_none();
        match answers {
            Some(Ok(_)) => session.is_alive_for(asked, interval + limit),
            _ if tracking.lacks(Guard::NearHeartbeat) => session.is_alive_for(asked, 1_000 * interval),
            // Near caches are not used for now. No message is lost while the connection stands, so they may be again.
            None if !was_silent => {}
            Some(Err(error)) => break Some(error),
            None => break None,
        }
        was_silent = is_silent;
        tokio::select! {
            () = sleep_until(next) => {}
            () = tracking.attention() => {}
            Err(error) = try_join_all(trackers.iter_mut().map(Tracker::listen)) => break Some(error),
        }
    };
    // Near caches are not used from here on.
    drop(session);
    match lost.as_ref().map(without_arguments) {
        Some(error) => {
            tracing::warn!(error, "near caches are emptied: invalidation messages stopped");
        }
        None => tracing::warn!("near caches are emptied: a server does not answer its heartbeat"),
    }
    // Another server may have taken over.
    if let Some(redis) = redis.upgrade() {
        redis.topology.refresh();
    }
}

impl<'a> Tracker<'a> {
    async fn connect(server: Arc<Server>, wanted: &'a Wanted, tracking: &'a Tracking) -> RedisResult<Self> {
        let (link, epoch) = server.shared.connect_beside().await?;
        if epoch.address.settings.protocol() != ProtocolVersion::RESP3 {
            return Err((REFUSED, "the URL asks for another protocol than RESP3").into());
        }
        let (limit, prefix) = (server.shared.connect_timeout(), &wanted.prefixes[0]);
        let mut tracker = Self { link, server, epoch, tracking, prefix, unsent: VecDeque::new(), owed: 0 };
        let prefixes = wanted.prefixes.iter().flat_map(|prefix| [&b"PREFIX"[..], prefix.as_bytes()]);
        let ask: Vec<_> = [&b"CLIENT"[..], b"TRACKING", b"ON", b"BCAST"].into_iter().chain(prefixes).collect();
        let begin = async {
            for command in [&[&b"HELLO"[..], b"3"][..], &ask] {
                tracker.send(&[command]).await?;
                tracker.reply().await?.map_err(refusal)?;
            }
            tracker.beat(&Barrier::new(1)).await
        };
        timeout(limit, begin).await.unwrap_or_else(|_elapsed| Err(not_answered()))?;
        Ok(tracker)
    }

    /// Fails unless the server answers as a primary. Its messages don't wait until `all` have answered.
    async fn beat(&mut self, all: &Barrier) -> RedisResult<()> {
        // ROLE says whether the server is a primary; the read, whether its cluster lets it answer.
        self.send(&[&[b"ROLE"], &[b"PTTL", self.prefix.as_bytes()]]).await?;
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

    /// Sends commands. Replies that are still owed to earlier ones are read and dropped.
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

    /// Takes the next reply, and notes the messages that come before it.
    async fn reply(&mut self) -> RedisResult<RedisResult<Reply>> {
        let tracking = self.tracking;
        let changed = |key: Option<&[u8]>| key.map_or_else(|| tracking.flush(), |key| tracking.told(key));
        let reply = self.link.receive(|received| received.next_in_resp3(changed)).await?;
        self.owed = self.owed.checked_sub(1).ok_or_else(unexpected_reply)?;
        Ok(reply)
    }

    /// Notes messages until the connection ends.
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
