//! Whether invalidation messages are being received: near caches are used only while they are.
//!
//! A session begins when all servers have been asked for messages, and ends when one of their connections is lost. Messages may
//! be missed then, so all records are dropped. Within a session each answered heartbeat allows near caches to be used for a
//! limited time. Readers compare that limit with the clock themselves, so it also holds while nothing polls the heartbeat's
//! task, or after the whole process stood still. That clock is here too: [`Moment`].

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use coarsetime::Instant;
use tokio::sync::Notify;

use super::Near;
use super::registry::Registry;
use crate::metrics::{self, Series};
use crate::proof::Guard;
use crate::record::Key;
use crate::stats::TrackerState;

/// How late the clock may be: on a Linux kernel with 100 ticks a second, and on Windows.
pub(super) const STEP: Duration = Duration::from_millis(if cfg!(windows) { 16 } else { 10 });

/// A point in time, in ticks of a clock that moves in steps: each hit reads it, so it has to be cheap. When it is taken, it is
/// never later than the true time, nor earlier by more than a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment(u64);

impl Moment {
    /// Earlier than any other.
    const NEVER: Self = Self(0);

    pub(crate) fn now() -> Self {
        Self(Instant::now_without_cache_update().as_ticks())
    }

    /// The latest moment by this clock at which no more than `duration` has passed in true time.
    pub(super) fn within(self, duration: Duration) -> Self {
        Self((Instant::from_ticks(self.0) + duration.saturating_sub(STEP).into()).as_ticks())
    }
}

/// Shared by a backend and the near caches over it.
pub(crate) struct Tracking {
    pub(crate) registry: Registry,
    /// The time until which near caches may be used, in ticks.
    live_until: AtomicU64,
    /// Grows whenever entries may have moved to another server.
    changes: Arc<AtomicU64>,
    /// `changes` before the servers of this session were asked.
    changes_of_session: AtomicU64,
    /// Whether the server has refused to send messages.
    is_unsupported: AtomicBool,
    /// Wakes the tracker's task.
    attention: Notify,
    /// For tests: pretends that no messages are received.
    outage: Arc<AtomicBool>,
    live: Series,
    without: Option<Guard>,
}

/// What the servers are to be asked for.
pub(crate) struct Wanted {
    pub(crate) prefixes: Vec<String>,
    changes: u64,
}

impl Tracking {
    /// `without`: a guard that a proof has taken out.
    pub(crate) fn new(address: &str, changes: Arc<AtomicU64>, outage: Arc<AtomicBool>, without: Option<Guard>) -> Self {
        Self {
            registry: Registry::default(),
            live_until: AtomicU64::new(Moment::NEVER.0),
            changes,
            changes_of_session: AtomicU64::new(0),
            is_unsupported: AtomicBool::new(false),
            attention: Notify::new(),
            outage,
            live: metrics::gauge(metrics::TRACKER_LIVE, address),
            without,
        }
    }

    /// Registers a near cache. If its prefix is new, no near cache is used until the servers send messages for it too.
    pub(super) fn add(&self, prefix: &str, near: Weak<Near>) {
        self.registry.add(prefix, near, || {
            self.stop();
            self.attention.notify_one();
        });
    }

    pub(crate) fn wanted(&self) -> Wanted {
        Wanted { changes: self.changes(), prefixes: self.registry.prefixes() }
    }

    /// Whether servers that were asked for this send all messages.
    pub(crate) fn is_current(&self, wanted: &Wanted) -> bool {
        self.changes() == wanted.changes && !self.wants_more(wanted)
    }

    /// Whether there is a near cache whose prefix isn't among these.
    pub(crate) fn wants_more(&self, than: &Wanted) -> bool {
        !self.registry.is_covered_by(&than.prefixes, || {})
    }

    fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// Whether messages are known to be received.
    pub(super) fn is_live(&self, now: Moment) -> bool {
        !self.is_cut()
            && now.0 < self.live_until.load(Ordering::Acquire)
            && self.changes() == self.changes_of_session.load(Ordering::Acquire)
    }

    pub(super) fn is_unsupported(&self) -> bool {
        !self.is_cut() && self.is_unsupported.load(Ordering::Acquire)
    }

    fn is_cut(&self) -> bool {
        cfg!(feature = "testing") && self.outage.load(Ordering::SeqCst)
    }

    pub(super) fn state(&self, now: Moment) -> TrackerState {
        if self.is_live(now) {
            TrackerState::Live
        } else if self.is_unsupported() {
            TrackerState::Unsupported
        } else {
            TrackerState::Connecting
        }
    }

    /// For a reader that can't use its near cache: has the tracker's task check the connections, unless it knows already.
    pub(crate) fn wake(&self) {
        if self.live_until.load(Ordering::Acquire) != Moment::NEVER.0 {
            self.attention.notify_one();
        }
    }

    /// Waits until the tracker's task has something to check.
    pub(crate) async fn attention(&self) {
        self.attention.notified().await;
    }

    /// Notes that the server refuses to send messages; returns whether that is news.
    pub(crate) fn set_unsupported(&self) -> bool {
        !self.is_unsupported.swap(true, Ordering::AcqRel)
    }

    /// After a write of this process, even a failed one: it may have been applied.
    pub(crate) fn written(&self, key: &Key) {
        if self.enforces(Guard::NearOwnWrite) {
            self.registry.invalidate(key.as_str(), false);
        }
    }

    /// Begins a session: the servers were asked for what was wanted.
    pub(crate) fn begin<'a>(&'a self, wanted: &'a Wanted) -> Session<'a> {
        if self.is_unsupported.swap(false, Ordering::AcqRel) {
            // Records that were kept without messages may be old.
            self.registry.flush("");
        }
        self.changes_of_session.store(wanted.changes, Ordering::Release);
        self.live.add(1.0);
        Session { tracking: self, wanted }
    }

    fn stop(&self) {
        self.live_until.store(Moment::NEVER.0, Ordering::Release);
    }

    pub(crate) fn enforces(&self, guard: Guard) -> bool {
        self.without != Some(guard)
    }
}

/// A period in which messages are received. When it ends, all records are dropped.
pub(crate) struct Session<'a> {
    tracking: &'a Tracking,
    wanted: &'a Wanted,
}

impl Session<'_> {
    /// All servers have answered a heartbeat, sent at `asked`: near caches can be used until `duration` after that.
    pub(crate) fn extend(&self, asked: Moment, duration: Duration) {
        let Self { tracking, wanted } = self;
        let until = asked.within(duration).0;
        tracking.registry.is_covered_by(&wanted.prefixes, || tracking.live_until.store(until, Ordering::Release));
    }
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        let Self { tracking, .. } = self;
        tracking.stop();
        if tracking.enforces(Guard::NearFlush) {
            tracking.registry.flush("");
        }
        tracking.live.add(-1.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::NearMetrics;
    use crate::near::NearCache;
    use crate::record::{KeySpace, Schema};

    const LONG: Duration = Duration::from_secs(600);

    fn near(tracking: &Arc<Tracking>, prefix: &str) -> Arc<Near> {
        Near::new(NearCache::entries(1), prefix, 1024, tracking, NearMetrics::new("", ""))
    }

    #[test]
    fn is_live_within_a_session_while_the_servers_answer_and_nothing_changes() {
        let changes = Arc::<AtomicU64>::default();
        let tracking = Arc::new(Tracking::new("redis://127.0.0.1:6379", changes.clone(), Arc::default(), None));
        let products = near(&tracking, "cache:billing:product:");
        let is_live = || tracking.is_live(Moment::now());
        let wanted = tracking.wanted();
        let session = tracking.begin(&wanted);
        assert!(!is_live(), "no heartbeat was answered yet");
        session.extend(Moment::now(), LONG);
        assert!(is_live() && tracking.state(Moment::now()) == TrackerState::Live);
        assert!(!tracking.is_live(Moment::now().within(LONG + LONG)), "the last answer is too old");
        let key = KeySpace::new("", Some("billing"), &Schema::new("product")).key(&7).unwrap();
        let read = products.read_epoch(&key).unwrap();
        products.keep(&key, read, None, 0, None);
        assert!(products.get(key.id()).is_some());
        drop(session);
        assert!(!is_live());

        let wanted = tracking.wanted();
        let session = tracking.begin(&wanted);
        session.extend(Moment::now(), LONG);
        assert!(is_live() && products.get(key.id()).is_none(), "a message may have been missed");
        products.keep(&key, read, None, 0, None);
        assert!(products.get(key.id()).is_none(), "and what was read before may be old");
        changes.fetch_add(1, Ordering::Relaxed);
        assert!(!is_live(), "entries may be at another server");
        drop(session);
        let wanted = tracking.wanted();
        let session = tracking.begin(&wanted);
        session.extend(Moment::now(), LONG);
        let _orders = near(&tracking, "cache:billing:order:");
        assert!(!is_live(), "no messages come for this prefix");
        session.extend(Moment::now(), LONG);
        assert!(!is_live(), "nor after the next heartbeat");
    }
}
