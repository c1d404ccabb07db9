//! The model's counterexamples as schedules of the real code: each step is held at the critical point. Every schedule
//! keeps the promise with all guards, and breaks it without the one that it is about.

use std::sync::Arc;
use std::time::Duration;

use cache_aside::proof::{Guard, Phase, Rig, Step};
use cache_aside::{Backend, BoxError, CacheBuilder, EntryState, Error, Load, Loaded, Outcome};

use crate::support::fixture::{Found, Primary, Product, load_at_gate, loaf, lookup, on_every_backend, settle};
use crate::support::process::{Process, rig};

/// Two processes, as far as the protocol is concerned: they share only the store.
struct Stage {
    here: Process,
    there: Process,
    primary: Primary,
}

impl Stage {
    fn new(backend: &Backend, without: Option<Guard>) -> Self {
        Self::rigged(backend, || rig(without))
    }

    /// Invalidations can be held between their two commands.
    fn with_split_invalidations(backend: &Backend, without: Option<Guard>) -> Self {
        Self::rigged(backend, || rig(without).split_invalidations())
    }

    /// Writes can be held at this phase. Unless they are held within, they are the store's own.
    fn with_writes_held(backend: &Backend, moment: Phase) -> Self {
        let stage = if moment == Phase::Within { Self::with_split_invalidations } else { Self::new };
        stage(backend, None)
    }

    fn rigged(backend: &Backend, rig: impl Fn() -> Rig) -> Self {
        Self::of(backend, rig, |cache| {
            let cache = cache.lock_ttl(Duration::from_secs(3)).ttl(Duration::from_secs(60));
            cache.not_found_ttl(Duration::from_secs(20))
        })
    }

    fn of(
        backend: &Backend,
        rig: impl Fn() -> Rig,
        set: impl Fn(CacheBuilder<Product>) -> CacheBuilder<Product>,
    ) -> Self {
        let process = || Process::rigged(backend, rig(), &set);
        Self { here: process(), there: process(), primary: Primary::of(loaf(1)) }
    }

    async fn row(&self) -> Option<u32> {
        (self.primary.loader())("p-001".to_owned()).await.unwrap().map(|row| row.stock)
    }

    /// The stock that a get which starts now returns.
    async fn seen(&self, process: &Process) -> Option<u32> {
        process.get(self.primary.loader()).await.unwrap()
    }

    /// Whether gets that start now return the primary's row.
    async fn is_fresh(&self) -> bool {
        let row = self.row().await;
        self.seen(&self.here).await == row && self.seen(&self.there).await == row
    }
}

/// Runs a schedule with all guards, and without one. The schedule returns whether the promise was kept.
async fn needs(guard: Guard, schedule: impl AsyncFn(Stage) -> bool) {
    needs_on(Stage::new, guard, schedule).await;
}

async fn needs_on(stage: fn(&Backend, Option<Guard>) -> Stage, guard: Guard, schedule: impl AsyncFn(Stage) -> bool) {
    on_every_backend(async |backend| {
        assert!(schedule(stage(&backend, None)).await, "broken with all guards in");
        stage(&backend, None).here.cache.invalidate("p-001").await.unwrap();
        assert!(!schedule(stage(&backend, Some(guard))).await, "kept without {guard:?}: this shows nothing");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_holder_whose_lease_ran_out_overwrites_what_the_next_one_filled() {
    needs(Guard::TokenCheck, async |stage| {
        let renewal = stage.here.hold(Step::Renew, Phase::Before);
        let (loaded, late) = load_at_gate(&stage.here.cache, &stage.primary).await;
        renewal.arrival().await;
        while stage.there.cache.inspect("p-001").await.unwrap().lock_ttl.is_some() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        stage.primary.put(loaf(2));
        stage.there.cache.invalidate("p-001").await.unwrap();
        assert_eq!(stage.seen(&stage.there).await, Some(2));
        loaded.open();
        late.await.unwrap().unwrap();
        renewal.open();
        stage.is_fresh().await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_load_from_before_an_invalidation_fills_after_it() {
    needs(Guard::Revocation, async |stage| {
        let fill = stage.here.hold(Step::Fill, Phase::Before);
        let early = stage.here.get(stage.primary.loader());
        fill.arrival().await;
        stage.primary.put(loaf(2));
        stage.there.cache.invalidate("p-001").await.unwrap();
        fill.open();
        early.await.unwrap();
        stage.is_fresh().await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fill_arrives_between_an_invalidations_two_commands() {
    needs_on(Stage::with_split_invalidations, Guard::LeaseFirst, async |stage| {
        let fill = stage.here.hold(Step::Fill, Phase::Before);
        let early = stage.here.get(stage.primary.loader());
        fill.arrival().await;
        stage.primary.put(loaf(2));
        let halfway = stage.there.hold(Step::Invalidate, Phase::Within);
        let writer = stage.there.cache.clone();
        let invalidation = tokio::spawn(async move { writer.invalidate("p-001").await });
        halfway.arrival().await;
        fill.open();
        early.await.unwrap();
        halfway.open();
        invalidation.await.unwrap().unwrap();
        stage.is_fresh().await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fill_arrives_between_an_updates_look_and_its_revocation() {
    needs(Guard::AtomicRevocation, async |stage| {
        let fill = stage.here.hold(Step::Fill, Phase::Before);
        let early = stage.here.get(stage.primary.loader());
        fill.arrival().await;
        stage.primary.put(loaf(2));
        let looked = stage.there.hold(Step::Update, Phase::Within);
        let writer = stage.there.cache.clone();
        let update = tokio::spawn(async move { writer.update_field("p-001", Product::FIELDS.stock, 2).await });
        looked.arrival().await;
        fill.open();
        early.await.unwrap();
        looked.open();
        update.await.unwrap().unwrap();
        stage.is_fresh().await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_call_joins_a_load_from_before_an_invalidation() {
    needs(Guard::TimestampRule, async |stage| {
        let (loaded, early) = load_at_gate(&stage.here.cache, &stage.primary).await;
        stage.primary.put(loaf(2));
        stage.there.cache.invalidate("p-001").await.unwrap();
        let late = stage.here.join(stage.primary.loader());
        loaded.open();
        early.await.unwrap().unwrap();
        late.await.unwrap() == Some(2)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_call_joins_a_flight_whose_fill_was_accepted_before_an_invalidation() {
    needs(Guard::TimestampRule, async |stage| {
        let filled = stage.here.hold(Step::Fill, Phase::After);
        let early = stage.here.get(stage.primary.loader());
        filled.arrival().await;
        stage.primary.put(loaf(2));
        stage.there.cache.invalidate("p-001").await.unwrap();
        let late = stage.here.join(stage.primary.loader());
        filled.open();
        early.await.unwrap();
        late.await.unwrap() == Some(2)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_call_joins_a_flight_that_found_an_entry_before_an_invalidation() {
    needs(Guard::TimestampRule, async |stage| {
        let (missed, found) =
            (stage.here.hold(Step::Acquire, Phase::Before), stage.here.hold(Step::Acquire, Phase::After));
        let early = stage.here.get(stage.primary.loader());
        missed.arrival().await;
        assert_eq!(stage.seen(&stage.there).await, Some(1));
        missed.open();
        found.arrival().await;
        stage.primary.put(loaf(2));
        stage.there.cache.invalidate("p-001").await.unwrap();
        let late = stage.here.join(stage.primary.loader());
        found.open();
        early.await.unwrap();
        late.await.unwrap() == Some(2)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_load_fills_under_the_next_lease_of_the_same_token() {
    needs(Guard::FreshTokens, async |stage| {
        let first_fill = stage.here.hold(Step::Fill, Phase::Before);
        let first = stage.here.get(stage.primary.loader());
        first_fill.arrival().await;
        stage.primary.put(loaf(2));
        stage.here.cache.invalidate("p-001").await.unwrap();
        let (loaded, second) = load_at_gate(&stage.here.cache, &stage.primary).await;
        first_fill.open();
        first.await.unwrap();
        loaded.open();
        second.await.unwrap().unwrap();
        stage.is_fresh().await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_is_granted_after_another_has_filled() {
    needs(Guard::Recheck, async |stage| {
        let missed = stage.here.hold(Step::Read, Phase::After);
        let late = stage.here.get(stage.primary.loader());
        missed.arrival().await;
        stage.seen(&stage.there).await;
        missed.open();
        late.await.unwrap();
        stage.primary.loads() == 1
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_update_adds_fields_to_a_not_found_entry() {
    needs(Guard::WholeNotFound, async |stage| {
        stage.primary.remove("p-001");
        assert_eq!(stage.seen(&stage.here).await, None);
        stage.primary.put(loaf(1));
        let applied = stage.there.cache.update_field("p-001", Product::FIELDS.stock, 1).await.unwrap();
        !applied && stage.there.cache.inspect("p-001").await.unwrap().state == EntryState::Missing
    })
    .await;
}

/// The action of another process while a get is held.
#[derive(Debug, Clone, Copy)]
enum Write {
    Invalidate,
    Update,
    Delete,
}

impl Write {
    async fn carry_out(self, stage: &Stage) {
        let writer = &stage.there.cache;
        match self {
            Self::Invalidate => {
                stage.primary.put(loaf(2));
                writer.invalidate("p-001").await.unwrap();
            }
            Self::Update => {
                stage.primary.put(loaf(2));
                writer.update_field("p-001", Product::FIELDS.stock, 2).await.unwrap();
            }
            Self::Delete => {
                stage.primary.remove("p-001");
                writer.invalidate("p-001").await.unwrap();
            }
        }
    }
}

/// A get is held before or after each of its steps while another process writes, which revokes its lease. Then it
/// continues, or is dropped.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_at_any_point_of_a_get_is_seen_afterwards() {
    on_every_backend(async |backend| {
        for step in [Step::Read, Step::Acquire, Step::Fill] {
            for moment in [Phase::Before, Phase::After] {
                for write in [Write::Invalidate, Write::Update, Write::Delete] {
                    for dropped in [false, true] {
                        let stage = Stage::new(&backend, None);
                        let gate = stage.here.hold(step, moment);
                        let held = stage.here.get(stage.primary.loader());
                        gate.arrival().await;
                        write.carry_out(&stage).await;
                        let late = match step {
                            Step::Read => stage.here.get(stage.primary.loader()),
                            _ => stage.here.join(stage.primary.loader()),
                        };
                        if dropped {
                            held.abort();
                        }
                        gate.open();
                        let at = format!("{write:?} at {moment:?} {step:?}, dropped: {dropped}");
                        assert_eq!(late.await.unwrap(), stage.row().await, "{at}");
                        match held.await {
                            Ok(seen) => assert!([Some(1), stage.row().await].contains(&seen), "{at}: {seen:?}"),
                            Err(ended) => assert!(dropped && ended.is_cancelled(), "{at}"),
                        }
                        assert!(stage.is_fresh().await, "{at}");
                        stage.there.cache.invalidate("p-001").await.unwrap();
                    }
                }
            }
        }
    })
    .await;
}

/// A write is held at each of its steps while another process reads, and then continues.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_get_at_any_point_of_a_write_keeps_the_promise() {
    on_every_backend(async |backend| {
        for (write, step, moment) in [
            (Write::Invalidate, Step::Invalidate, Phase::Before),
            (Write::Invalidate, Step::Invalidate, Phase::Within),
            (Write::Invalidate, Step::Invalidate, Phase::After),
            (Write::Update, Step::Update, Phase::Before),
            (Write::Update, Step::Update, Phase::Within),
            (Write::Update, Step::Update, Phase::After),
        ] {
            for cached in [false, true] {
                let stage = Arc::new(Stage::with_writes_held(&backend, moment));
                if cached {
                    stage.seen(&stage.here).await;
                }
                let gate = stage.there.hold(step, moment);
                let writing = tokio::spawn({
                    let stage = stage.clone();
                    async move { write.carry_out(&stage).await }
                });
                gate.arrival().await;
                let at = format!("{write:?}, {moment:?}, cached: {cached}");
                let seen = stage.seen(&stage.here).await;
                assert!([Some(1), Some(2)].contains(&seen), "{at}: {seen:?}");
                gate.open();
                writing.await.unwrap();
                assert!(stage.is_fresh().await, "{at}");
                stage.there.cache.invalidate("p-001").await.unwrap();
            }
        }
    })
    .await;
}

/// The writer doesn't know the outcome of its call, and invalidates.
#[tokio::test(start_paused = true)]
async fn a_write_whose_reply_is_late_is_an_error_and_an_invalidation_repairs_it() {
    let backend = Backend::connect("memory://").await.unwrap();
    for (step, moment) in [
        (Step::Invalidate, Phase::Before),
        (Step::Invalidate, Phase::Within),
        (Step::Invalidate, Phase::After),
        (Step::Update, Phase::Before),
        (Step::Update, Phase::After),
    ] {
        let stage = Stage::with_writes_held(&backend, moment);
        stage.seen(&stage.here).await;
        stage.primary.put(loaf(2));
        let gate = stage.there.hold(step, moment);
        let written = match step {
            Step::Invalidate => stage.there.cache.invalidate("p-001").await,
            _ => stage.there.cache.update_field("p-001", Product::FIELDS.stock, 2).await,
        };
        assert!(matches!(written, Err(Error::Timeout { .. })), "{step:?} {moment:?}: {written:?}");
        drop(gate);
        stage.there.cache.invalidate("p-001").await.unwrap();
        assert!(stage.is_fresh().await, "{step:?} {moment:?}");
    }
}

/// A step whose reply comes after its deadline may or may not have been carried out: the outcome must not matter.
#[tokio::test(start_paused = true)]
async fn a_step_whose_reply_is_late_breaks_no_promise() {
    let backend = Backend::connect("memory://").await.unwrap();
    for step in [Step::Read, Step::Acquire, Step::Fill] {
        let stage = Stage::new(&backend, None);
        let gate = stage.here.hold(step, Phase::After);
        let lookup = tokio::spawn(lookup(&stage.here.cache, stage.primary.loader()));
        gate.arrival().await;
        // The gate stays closed: the step ends at its deadline.
        let lookup = lookup.await.unwrap().unwrap();
        let expected = if step == Step::Fill { Outcome::Loaded } else { Outcome::Bypassed };
        assert_eq!((lookup.outcome, lookup.value.as_deref()), (expected, Some(&loaf(1))), "{step:?}");
        stage.primary.put(loaf(2));
        stage.there.cache.invalidate("p-001").await.unwrap();
        assert!(stage.is_fresh().await, "{step:?}");
        stage.there.cache.invalidate("p-001").await.unwrap();
    }
}

/// A stage whose records are stale after a moment, and are served while they are loaded anew.
fn with_stale_records(backend: &Backend, without: Option<Guard>) -> Stage {
    let set = |cache: CacheBuilder<Product>| {
        let cache =
            cache.lock_ttl(Duration::from_secs(3)).ttl(Duration::from_millis(50)).jitter(0.0).not_found_ttl(None);
        cache.stale_while_revalidate(Duration::from_secs(60))
    };
    Stage::of(backend, || rig(without), set)
}

impl Stage {
    /// Loads the row, and waits until its record is stale.
    async fn grown_stale(&self) {
        self.there.cache.invalidate("p-001").await.unwrap();
        self.seen(&self.there).await;
        self.until_stale().await;
    }

    async fn until_stale(&self) {
        while self.there.cache.inspect("p-001").await.unwrap().state != EntryState::Stale {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_get_joins_a_flight_behind_a_stale_record_after_an_invalidation() {
    needs_on(with_stale_records, Guard::OwnRead, async |stage| {
        stage.primary.put(loaf(1));
        stage.grown_stale().await;
        let (loaded, served) = load_at_gate(&stage.here.cache, &stage.primary).await;
        served.await.unwrap().unwrap();
        stage.primary.put(loaf(2));
        stage.there.cache.invalidate("p-001").await.unwrap();
        let read = stage.here.hold(Step::Read, Phase::After);
        let mut late = stage.here.get(stage.primary.loader());
        tokio::select! {
            () = read.arrival() => read.open(),
            // Without the guard it reads nothing, and gets the record that the flight's leader has seen.
            seen = &mut late => {
                loaded.open();
                return seen.unwrap() == Some(2);
            }
        }
        settle().await;
        loaded.open();
        late.await.unwrap() == Some(2)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_is_confirmed_that_another_process_has_replaced_meanwhile() {
    needs_on(with_stale_records, Guard::GrantedRecord, async |stage| {
        stage.primary.put(loaf(1));
        stage.grown_stale().await;
        // The get has seen stock 1, and another process fills stock 2 before it is granted the lease.
        let acquire = stage.here.hold(Step::Acquire, Phase::Before);
        let row = stage.primary.clone();
        let confirm = move |load: Load<Product>| async move {
            let row = (row.loader())(load.id().clone()).await?;
            let is_same = load.stale().as_deref() == row.as_ref();
            Ok::<_, BoxError>(if is_same { Loaded::unchanged() } else { Loaded::from(row) })
        };
        stage.here.cache.get_with("p-001", confirm).await.unwrap();
        acquire.arrival().await;
        stage.primary.put(loaf(2));
        stage.there.cache.refresh("p-001", stage.primary.loader()).await.unwrap();
        stage.until_stale().await;
        stage.primary.put(loaf(1));
        let loads = stage.here.cache.stats().loads;
        acquire.open();
        let inspect = async || stage.there.cache.inspect("p-001").await.unwrap();
        while stage.here.cache.stats().loads == loads || inspect().await.lock_ttl.is_some() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let stored = inspect().await.fields;
        stored.iter().any(|(name, value)| name == "stock" && value == b"1")
    })
    .await;
}

/// A stage whose leases, and the marks of loads that have left nothing, outlive the schedule on a busy machine too.
fn with_lasting_marks(backend: &Backend, without: Option<Guard>) -> Stage {
    let set = |cache: CacheBuilder<Product>| cache.lock_ttl(Duration::from_secs(60)).wait_poll(Duration::from_secs(2));
    Stage::of(backend, || rig(without), set)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_is_taken_over_from_a_mark_that_another_process_has_taken_over() {
    needs_on(with_lasting_marks, Guard::MarkCheck, async |stage| {
        let before = stage.there.cache.stats();
        let down = |_: String| Box::pin(async { Err("on purpose".into()) }) as Found;
        stage.there.cache.get("p-001", down).await.unwrap_err();
        let take_over = stage.here.hold(Step::TakeOver, Phase::Before);
        let late = stage.here.get(stage.primary.loader());
        take_over.arrival().await;
        let (loaded, first) = load_at_gate(&stage.there.cache, &stage.primary).await;
        let tried = stage.here.hold(Step::TakeOver, Phase::After);
        take_over.open();
        tried.arrival().await;
        tried.open();
        loaded.open();
        first.await.unwrap().unwrap();
        late.await.unwrap();
        // The other load was not displaced.
        stage.there.cache.stats().fenced_fills == before.fenced_fills
    })
    .await;
}
