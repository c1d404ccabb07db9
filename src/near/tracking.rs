//! What the server's messages have told the near caches of a backend, and whether they come.
//!
//! Keeps two promises. What a reader has read is kept only if no message about its key, nor a write of this process, was
//! handled since its ticket was taken: both are decided under the lock of the key's stripe. And what is kept is used only
//! while the messages are known to come: a reader looks at the clock itself, so that the promise also holds while nobody
//! drives the task that asks the server for its heartbeat, or the whole process stands still.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::RwLock;
use tokio::sync::Notify;

use super::clock::Moment;
use super::stripes::Stripes;
use crate::meter::{self, Series};
use crate::proof::Guard;
use crate::record::Key;
use crate::stats::TrackerState;

/// One near cache, as it is told of changes.
pub(super) trait Listener: Send + Sync {
    /// Drops what is kept of this id. `by_message`: the server has told, and not this process.
    fn forget(&self, id: &str, by_message: bool);
    /// Drops all.
    fn flush(&self);
}

/// Shared by a backend and the near caches over it.
pub(crate) struct Tracking {
    stripes: Stripes,
    /// By the prefix of their keys.
    listeners: RwLock<HashMap<String, Vec<Weak<dyn Listener>>>>,
    /// Until when the messages are known to come.
    live_until: AtomicU64,
    /// Counts the changes after which entries may be at another server.
    changes: Arc<AtomicU64>,
    /// What that count was when the server was asked to tell of changes.
    live_at: AtomicU64,
    /// Counts the prefixes that were added; changed while `listeners` is locked.
    prefixes_added: AtomicU64,
    /// Whether the server can't tell of changes.
    is_unsupported: AtomicBool,
    /// Tells the tracker's task to look after something.
    attention: Notify,
    #[cfg(feature = "testing")]
    is_cut: AtomicBool,
    live: Series,
    without: Option<Guard>,
}

/// What a tracker asks a server for.
pub(crate) struct Wanted {
    /// The fewest prefixes of which each key of a near cache has one, and none has two.
    pub(crate) prefixes: Vec<String>,
    changes: u64,
    prefixes_added: u64,
}

/// The right to keep what is read from now on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ticket {
    generation: u64,
    pub(super) taken: Moment,
}

impl Tracking {
    /// `without`: a guard that a proof has taken out.
    pub(crate) fn new(address: &str, changes: Arc<AtomicU64>, without: Option<Guard>) -> Self {
        Self {
            stripes: Stripes::new(),
            listeners: RwLock::default(),
            live_until: AtomicU64::new(Moment::NEVER.ticks()),
            changes,
            live_at: AtomicU64::new(0),
            prefixes_added: AtomicU64::new(0),
            is_unsupported: AtomicBool::new(false),
            attention: Notify::new(),
            #[cfg(feature = "testing")]
            is_cut: AtomicBool::new(false),
            live: meter::gauge(meter::TRACKER_LIVE, address),
            without,
        }
    }

    /// Begins to tell a near cache of changes. Where the tracker does not know of its keys yet, it starts anew.
    pub(super) fn add(&self, prefix: &str, listener: Weak<dyn Listener>) {
        let mut listeners = self.listeners.write();
        let of_prefix = listeners.entry(prefix.to_owned()).or_default();
        of_prefix.retain(|listener| listener.strong_count() > 0);
        of_prefix.push(listener);
        if of_prefix.len() == 1 {
            self.prefixes_added.fetch_add(1, Ordering::AcqRel);
            self.lost();
            self.attention.notify_one();
        }
    }

    /// What the server is to be asked to tell of, as things are now.
    pub(crate) fn wanted(&self) -> Wanted {
        let mut listeners = self.listeners.write();
        listeners.retain(|_, of_prefix| of_prefix.iter().any(|listener| listener.strong_count() > 0));
        let mut prefixes: Vec<_> = listeners.keys().cloned().collect();
        prefixes.sort_unstable();
        // What begins with another comes right after it.
        prefixes.dedup_by(|longer, shorter| longer.starts_with(&**shorter));
        Wanted { prefixes, changes: self.changes(), prefixes_added: self.prefixes_added.load(Ordering::Acquire) }
    }

    /// Whether things are still as they were then.
    pub(crate) fn is_current(&self, wanted: &Wanted) -> bool {
        self.changes() == wanted.changes && !self.wants_more(wanted)
    }

    /// Whether a prefix was added since then.
    pub(crate) fn wants_more(&self, than: &Wanted) -> bool {
        self.prefixes_added.load(Ordering::Acquire) != than.prefixes_added
    }

    fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// Whether the messages are known to come.
    pub(super) fn is_live(&self, now: Moment) -> bool {
        !self.is_cut()
            && now < Moment::from_ticks(self.live_until.load(Ordering::Acquire))
            && self.changes() == self.live_at.load(Ordering::Acquire)
    }

    pub(super) fn is_unsupported(&self) -> bool {
        !self.is_cut() && self.is_unsupported.load(Ordering::Acquire)
    }

    #[cfg(feature = "testing")]
    fn is_cut(&self) -> bool {
        self.is_cut.load(Ordering::SeqCst)
    }

    #[cfg(not(feature = "testing"))]
    #[expect(clippy::unused_self, reason = "tests can cut it")]
    fn is_cut(&self) -> bool {
        false
    }

    /// Pretends that no messages come, until it is called again.
    #[cfg(feature = "testing")]
    pub(crate) fn cut(&self, cut: bool) {
        self.is_cut.store(cut, Ordering::SeqCst);
        self.flush();
    }

    pub(super) fn state(&self, now: Moment) -> TrackerState {
        match () {
            () if self.is_live(now) => TrackerState::Live,
            () if self.is_unsupported() => TrackerState::Unsupported,
            () => TrackerState::Connecting,
        }
    }

    /// A reader has found that nothing is kept: if the tracker's task takes things to be well, it has something to look after.
    pub(crate) fn wake(&self) {
        if self.live_until.load(Ordering::Acquire) != Moment::NEVER.ticks() {
            self.attention.notify_one();
        }
    }

    /// Waits until there is something to look after.
    pub(crate) async fn attention(&self) {
        self.attention.notified().await;
    }

    /// Says that the server refuses to tell of changes; returns whether that is news.
    pub(crate) fn set_unsupported(&self) -> bool {
        !self.is_unsupported.swap(true, Ordering::AcqRel)
    }

    /// How often something was told about this key, or one of its stripe.
    pub(crate) fn generation(&self, key: &Key) -> u64 {
        *self.stripes.of(key.as_str()).generation()
    }

    /// Waits until more was told than at this generation.
    pub(crate) async fn told_since(&self, key: &Key, generation: u64) {
        self.stripes.of(key.as_str()).told_since(generation).await;
    }

    pub(super) fn ticket(&self, key: &Key, taken: Moment) -> Ticket {
        Ticket { generation: self.generation(key), taken }
    }

    /// Keeps something, unless its ticket is void; returns whether it did.
    pub(super) fn keep(&self, key: &Key, ticket: Ticket, keep: impl FnOnce()) -> bool {
        let generation = self.stripes.of(key.as_str()).generation();
        let is_valid = *generation == ticket.generation || self.lacks(Guard::NearTicket);
        if is_valid {
            keep();
        }
        is_valid
    }

    /// A connection that messages came over is lost.
    pub(crate) fn lost(&self) {
        self.live_until.store(Moment::NEVER.ticks(), Ordering::Release);
    }

    /// Takes a message of the server about a key.
    pub(crate) fn told(&self, key: &[u8]) {
        if let Ok(key) = std::str::from_utf8(key) {
            self.forget(key, true);
        }
    }

    /// After a write of this process: whatever came of it.
    pub(crate) fn written(&self, key: &Key) {
        if !self.lacks(Guard::NearOwnWrite) {
            self.forget(key.as_str(), false);
        }
    }

    fn forget(&self, key: &str, by_message: bool) {
        self.stripes.of(key).advance();
        let (prefix, id) = key.split_at(key.rfind(':').map_or(0, |end| end + 1));
        let listeners = self.listeners.read();
        for listener in listeners.get(prefix).into_iter().flatten().filter_map(Weak::upgrade) {
            listener.forget(id, by_message);
        }
    }

    /// After anything may have been written that nobody told of.
    pub(crate) fn flush(&self) {
        self.flush_those(|_| true);
    }

    /// The same after any entry with this prefix may have been written.
    pub(crate) fn flush_prefix(&self, prefix: &str) {
        self.flush_those(|other| other == prefix);
    }

    fn flush_those(&self, are_meant: impl Fn(&str) -> bool) {
        self.stripes.advance_all();
        let listeners = self.listeners.read();
        let meant = listeners.iter().filter(|(prefix, _)| are_meant(prefix)).flat_map(|(_, of_prefix)| of_prefix);
        for listener in meant.filter_map(Weak::upgrade) {
            listener.flush();
        }
    }

    /// Begins a time in which the messages come: the server has been asked for what was wanted.
    pub(crate) fn begin<'a>(&'a self, wanted: &'a Wanted) -> Session<'a> {
        if self.is_unsupported.swap(false, Ordering::AcqRel) {
            self.flush();
        }
        self.live_at.store(wanted.changes, Ordering::Release);
        self.live.add(1.0);
        Session { tracking: self, wanted }
    }

    pub(crate) fn lacks(&self, guard: Guard) -> bool {
        self.without == Some(guard)
    }
}

/// A time in which the messages come. When it ends, whatever was told since is lost: all that is kept is dropped.
pub(crate) struct Session<'a> {
    tracking: &'a Tracking,
    wanted: &'a Wanted,
}

impl Session<'_> {
    /// The server has answered after all messages until `asked`.
    pub(crate) fn is_alive_for(&self, asked: Moment, duration: Duration) {
        let Self { tracking, wanted } = self;
        let _no_prefix_is_added = tracking.listeners.read();
        if tracking.is_current(wanted) {
            tracking.live_until.store(asked.within(duration).ticks(), Ordering::Release);
        }
    }
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        let Self { tracking, .. } = self;
        tracking.lost();
        if !tracking.lacks(Guard::NearFlush) {
            tracking.flush();
        }
        tracking.live.add(-1.0);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::AtomicUsize;

    use super::*;
    use crate::record::{KeySpace, Schema};

    const LONG: Duration = Duration::from_secs(600);

    #[derive(Default)]
    struct Told {
        forgotten: Mutex<Vec<String>>,
        flushes: AtomicUsize,
    }

    impl Listener for Told {
        fn forget(&self, id: &str, _by_message: bool) {
            self.forgotten.lock().unwrap().push(id.to_owned());
        }

        fn flush(&self) {
            self.flushes.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn tracking() -> Tracking {
        Tracking::new("redis://127.0.0.1:6379", Arc::default(), None)
    }

    fn listen(tracking: &Tracking, prefix: &str) -> Arc<Told> {
        let told = Arc::<Told>::default();
        let listener: Weak<dyn Listener> = Arc::<Told>::downgrade(&told);
        tracking.add(prefix, listener);
        told
    }

    fn key(id: u64) -> Key {
        KeySpace::new(Some("billing"), &Schema::new("product")).key(&id).unwrap()
    }

    #[test]
    fn wants_no_prefix_that_another_begins_with() {
        let tracking = tracking();
        let prefixes =
            ["cache:billing:product:", "cache:billing:", "cache:billing@2:", "cache:orders:a:", "cache:orders:b:"];
        let mut told: Vec<_> = prefixes.iter().map(|prefix| listen(&tracking, prefix)).collect();
        let wanted = tracking.wanted();
        assert_eq!(wanted.prefixes, ["cache:billing:", "cache:billing@2:", "cache:orders:a:", "cache:orders:b:"]);
        told.remove(1);
        assert_eq!(tracking.wanted().prefixes[0], "cache:billing:product:");
        assert!(tracking.is_current(&wanted), "less is wanted, and what there is tells of it");
        told.push(listen(&tracking, "cache:more:"));
        assert!(!tracking.is_current(&wanted));
    }

    #[test]
    fn tells_those_whose_key_it_is() {
        let tracking = tracking();
        let (product, order) = (listen(&tracking, "cache:billing:product:"), listen(&tracking, "cache:billing:order:"));
        tracking.told(b"cache:billing:product:7");
        tracking.told(b"cache:billing:product");
        tracking.told(b"cache:billing:product:\xFF");
        tracking.written(&key(8));
        assert_eq!(*product.forgotten.lock().unwrap(), ["7", "8"]);
        assert!(order.forgotten.lock().unwrap().is_empty());
    }

    #[test]
    fn keeps_nothing_whose_ticket_is_older_than_a_message() {
        let tracking = tracking();
        let keeps = |ticket| tracking.keep(&key(7), ticket, || {});
        let ticket = tracking.ticket(&key(7), Moment::now());
        assert!(keeps(ticket));
        tracking.told(b"cache:billing:product:7");
        assert!(!keeps(ticket));
        assert!(keeps(tracking.ticket(&key(7), Moment::now())));
    }

    #[test]
    fn is_live_within_a_session_while_the_server_answers_and_nothing_changes() {
        let changes = Arc::<AtomicU64>::default();
        let tracking = Tracking::new("redis://127.0.0.1:6379", changes.clone(), None);
        let told = listen(&tracking, "cache:billing:product:");
        let is_live = || tracking.is_live(Moment::now());
        let wanted = tracking.wanted();
        let session = tracking.begin(&wanted);
        assert!(!is_live(), "it has not answered yet");
        session.is_alive_for(Moment::now(), LONG);
        assert!(is_live() && tracking.state(Moment::now()) == TrackerState::Live);
        assert!(!tracking.is_live(Moment::now().within(LONG + LONG)), "it has not answered for long");
        let ticket = tracking.ticket(&key(7), Moment::now());
        drop(session);
        assert!(!is_live() && told.flushes.load(Ordering::Relaxed) == 1);
        assert!(!tracking.keep(&key(7), ticket, || {}), "its message may have been missed");

        let wanted = tracking.wanted();
        let session = tracking.begin(&wanted);
        session.is_alive_for(Moment::now(), LONG);
        changes.fetch_add(1, Ordering::Relaxed);
        assert!(!is_live(), "entries may be at another server");
        drop(session);
        let wanted = tracking.wanted();
        let session = tracking.begin(&wanted);
        session.is_alive_for(Moment::now(), LONG);
        let _more = listen(&tracking, "cache:billing:order:");
        assert!(!is_live(), "the server does not tell of these");
        session.is_alive_for(Moment::now(), LONG);
        assert!(!is_live(), "nor after its next answer");
    }

    #[tokio::test]
    async fn wakes_those_who_wait_for_a_message() {
        let (tracking, key) = (tracking(), key(7));
        let before = tracking.generation(&key);
        tracking.told(b"cache:billing:product:7");
        tracking.told_since(&key, before).await;
        let tell = async { tracking.told(b"cache:billing:product:7") };
        tokio::join!(biased; tracking.told_since(&key, before + 1), tell);
    }
}
