//! `stale_if_error`: a record past its TTL is served if its load fails, and only then; never after an invalidation.

mod retry;

use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use cache_aside::proof::{Guard, Phase, Step};
use cache_aside::{Backend, BoxError, Cache, CacheBuilder, EntryState, Error, Lookup, Outcome, UpdateTtl};

use crate::support::fixture::{
    Found, Primary, Product, builder, get, load_at_gate, loaf, lookup, on_every_backend, on_every_server, products,
};
use crate::support::process::Process;

const TTL: Duration = Duration::from_millis(100);

const TAIL: Duration = Duration::from_secs(60);

fn tolerant(backend: &Backend) -> CacheBuilder<Product> {
    tolerating(builder(backend))
}

fn tolerating(cache: CacheBuilder<Product>) -> CacheBuilder<Product> {
    cache.ttl(TTL).not_found_ttl(None).jitter(0.0).stale_if_error(TAIL)
}

/// Loads the product, and waits until its TTL is over.
async fn grown_stale(cache: &Cache<Product>, primary: &Primary) {
    assert_eq!(lookup(cache, primary.loader()).await.unwrap().outcome, Outcome::Loaded);
    while cache.ttl("p-001").await.unwrap().is_some() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn age(lookup: &Lookup<Product>) -> Duration {
    match lookup.outcome {
        Outcome::Stale { age, revalidating: false } => age,
        other => panic!("{other:?}"),
    }
}

#[derive(Debug, Clone, Copy)]
enum Failure {
    Error,
    Panic,
    Timeout,
}

impl Failure {
    fn loader(self) -> impl Fn(String) -> Found + Clone + Send + Sync + 'static {
        move |_| match self {
            Self::Error => Box::pin(async { Err::<Option<Product>, BoxError>("on purpose".into()) }),
            Self::Panic => Box::pin(async { panic!("on purpose") }),
            Self::Timeout => Box::pin(std::future::pending()),
        }
    }
}

#[tokio::test]
async fn a_stale_record_is_served_with_its_age_after_any_load_failure() {
    on_every_backend(async |backend| {
        for failure in [Failure::Error, Failure::Panic, Failure::Timeout] {
            let cache = tolerant(&backend).load_timeout(TTL).build().unwrap();
            let (primary, began) = (Primary::of(loaf(1)), Instant::now());
            grown_stale(&cache, &primary).await;
            let first = lookup(&cache, failure.loader()).await.unwrap();
            let longest = began.elapsed() - TTL;
            assert_eq!(first.value.as_deref(), Some(&loaf(1)));
            assert!(age(&first) <= longest, "{failure:?}: {:?} > {longest:?}", age(&first));
            let stats = cache.stats();
            assert_eq!((stats.misses, stats.stale_served, stats.load_errors), (2, 1, 1), "{failure:?}");
            tokio::time::sleep(TTL).await;
            let second = lookup(&cache, failure.loader()).await.unwrap();
            assert!(age(&second) >= age(&first) + TTL, "{first:?}, {second:?}");
            cache.invalidate("p-001").await.unwrap();
        }
    })
    .await;
}

#[tokio::test]
async fn a_load_that_succeeds_replaces_the_stale_record() {
    on_every_backend(async |backend| {
        let (cache, primary) = (tolerant(&backend).build().unwrap(), Primary::of(loaf(1)));
        grown_stale(&cache, &primary).await;
        primary.put(loaf(2));
        let loaded = lookup(&cache, primary.loader()).await.unwrap();
        assert_eq!((loaded.outcome, loaded.value.as_deref()), (Outcome::Loaded, Some(&loaf(2))));
        assert_eq!(get(&cache, Failure::Error.loader()).await.unwrap().as_deref(), Some(&loaf(2)));
    })
    .await;
}

#[tokio::test]
async fn fields_of_a_stale_record_are_those_of_the_load() {
    on_every_backend(async |backend| {
        let (cache, primary) = (tolerant(&backend).build().unwrap(), Primary::of(loaf(1)));
        grown_stale(&cache, &primary).await;
        primary.put(loaf(2));
        assert_eq!(cache.get_fields("p-001", Product::FIELDS.stock, primary.loader()).await.unwrap(), Some(2));
        cache.invalidate("p-001").await.unwrap();
        grown_stale(&cache, &primary).await;
        primary.remove("p-001");
        assert_eq!(cache.get_fields("p-001", Product::FIELDS.stock, primary.loader()).await.unwrap(), None);
    })
    .await;
}

/// A load that found no record, and stores nothing, leaves nothing to serve later.
#[tokio::test]
async fn a_load_that_stores_nothing_removes_the_stale_record() {
    on_every_backend(async |backend| {
        let (cache, primary) = (tolerant(&backend).build().unwrap(), Primary::of(loaf(1)));
        grown_stale(&cache, &primary).await;
        primary.remove("p-001");
        assert_eq!(get(&cache, primary.loader()).await.unwrap(), None);
        primary.down(true);
        assert!(matches!(get(&cache, primary.loader()).await, Err(Error::Load { .. })));
    })
    .await;
}

#[tokio::test]
async fn without_stale_if_error_a_failed_load_is_an_error() {
    on_every_backend(async |backend| {
        let (tolerant, strict) = (tolerant(&backend).build().unwrap(), products(&backend));
        let primary = Primary::of(loaf(1));
        grown_stale(&tolerant, &primary).await;
        primary.down(true);
        assert!(matches!(get(&strict, primary.loader()).await, Err(Error::Load { .. })));
        assert_eq!(strict.inspect("p-001").await.unwrap().lock_ttl, None, "and the next get tries again");
        assert_eq!(get(&tolerant, primary.loader()).await.unwrap().as_deref(), Some(&loaf(1)), "it is still there");
    })
    .await;
}

#[tokio::test]
async fn after_an_invalidation_nothing_stale_is_served() {
    on_every_backend(async |backend| {
        let (cache, primary) = (tolerant(&backend).build().unwrap(), Primary::of(loaf(1)));
        grown_stale(&cache, &primary).await;
        assert!(cache.invalidate("p-001").await.unwrap());
        primary.down(true);
        assert!(matches!(get(&cache, primary.loader()).await, Err(Error::Load { .. })));
        assert!(matches!(cache.refresh("p-001", primary.loader()).await, Err(Error::Load { .. })));
    })
    .await;
}

/// Another process invalidates after a load has failed, before its entry is read again.
#[tokio::test]
async fn an_invalidation_between_a_failed_load_and_the_stale_read_is_kept() {
    on_every_backend(async |backend| {
        let (here, there) = (Process::of(&backend, None, tolerating), products(&backend));
        let primary = Primary::of(loaf(1));
        grown_stale(&here.cache, &primary).await;
        primary.down(true);
        let (failure, early) = load_at_gate(&here.cache, &primary).await;
        let look = here.hold(Step::Read, Phase::Before);
        failure.open();
        look.arrival().await;
        assert!(there.invalidate("p-001").await.unwrap());
        look.open();
        assert!(matches!(early.await.unwrap(), Err(Error::Load { .. })));
        let inspection = here.cache.inspect("p-001").await.unwrap();
        assert_eq!((inspection.state, inspection.lock_ttl), (EntryState::Missing, None));
    })
    .await;
}

/// Another process invalidates after the stale entry was read, before it is served; then a call starts.
#[tokio::test]
async fn a_late_call_joins_a_flight_that_serves_a_stale_entry_from_before_an_invalidation() {
    for (guard, late_is_served) in [(None, false), (Some(Guard::TimestampRule), true)] {
        on_every_backend(async |backend| {
            let (here, there) = (Process::of(&backend, guard, tolerating), products(&backend));
            let primary = Primary::of(loaf(1));
            grown_stale(&here.cache, &primary).await;
            primary.down(true);
            let (failure, early) = load_at_gate(&here.cache, &primary).await;
            let looked = here.hold(Step::Read, Phase::After);
            failure.open();
            looked.arrival().await;
            assert!(there.invalidate("p-001").await.unwrap());
            let mut late = Box::pin(get(&here.cache, primary.loader()));
            assert!(late.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending(), "it joins the flight");
            looked.open();
            assert_eq!(early.await.unwrap().unwrap().as_deref(), Some(&loaf(1)), "it came before the invalidation");
            assert_eq!(late.await.is_ok(), late_is_served, "without {guard:?}");
        })
        .await;
    }
}

/// A failed invalidation of this process still applies to this process.
#[tokio::test(start_paused = true)]
async fn after_a_failed_invalidation_nothing_stale_is_served() {
    let backend = Backend::connect("memory://").await.unwrap();
    let (here, primary) = (Process::of(&backend, None, tolerating), Primary::of(loaf(1)));
    grown_stale(&here.cache, &primary).await;
    primary.down(true);
    let (failure, early) = load_at_gate(&here.cache, &primary).await;
    let _unanswered = here.hold(Step::Invalidate, Phase::Before);
    assert!(matches!(here.cache.invalidate("p-001").await, Err(Error::Timeout { .. })));
    let _tried_again = here.hold(Step::Invalidate, Phase::Before);
    failure.open();
    assert!(matches!(early.await.unwrap(), Err(Error::Load { .. })));
    assert_eq!(here.cache.inspect("p-001").await.unwrap().state, EntryState::Stale, "it is there all the same");
}

#[tokio::test]
async fn a_stale_record_is_served_when_a_load_around_the_cache_fails() {
    on_every_backend(async |backend| {
        let (slow, primary) = (tolerant(&backend).build().unwrap(), Primary::of(loaf(1)));
        grown_stale(&slow, &primary).await;
        primary.put(loaf(2));
        let (gate, loading) = load_at_gate(&slow, &primary).await;
        let hasty = tolerant(&backend).wait_timeout(TTL).build().unwrap();
        let served = lookup(&hasty, Failure::Error.loader()).await.unwrap();
        assert_eq!(served.value.as_deref(), Some(&loaf(1)));
        assert!(age(&served) >= TTL, "{served:?}");
        gate.open();
        loading.await.unwrap().unwrap();
        let filled = get(&hasty, Failure::Error.loader()).await.unwrap();
        assert_eq!(filled.as_deref(), Some(&loaf(2)), "the other load kept its lease");
    })
    .await;
}

#[tokio::test]
async fn an_entry_filled_in_the_meantime_is_served_when_a_load_fails() {
    on_every_backend(async |backend| {
        let (here, there) = (tolerant(&backend).build().unwrap(), products(&backend));
        let primary = Primary::of(loaf(1));
        primary.down(true);
        let (failure, early) = load_at_gate(&here, &primary).await;
        primary.down(false);
        primary.put(loaf(2));
        there.invalidate("p-001").await.unwrap();
        there.get("p-001", primary.loader()).await.unwrap();
        failure.open();
        assert_eq!(early.await.unwrap().unwrap().as_deref(), Some(&loaf(2)));
        assert_eq!((here.stats().stale_served, here.stats().load_errors), (0, 1));
    })
    .await;
}

#[tokio::test]
async fn processes_with_and_without_stale_if_error_share_a_key() {
    on_every_backend(async |backend| {
        let (tolerant, strict) = (tolerant(&backend).build().unwrap(), products(&backend));
        let primary = Primary::of(loaf(1));
        let fresh = self::tolerant(&backend).ttl(Duration::from_secs(30)).build().unwrap();
        fresh.get("p-001", primary.loader()).await.unwrap();
        assert_eq!(strict.peek("p-001").await.unwrap().as_deref(), Some(&loaf(1)));
        assert_eq!(lookup(&strict, primary.loader()).await.unwrap().outcome, Outcome::Hit);
        assert!(strict.invalidate("p-001").await.unwrap());
        grown_stale(&tolerant, &primary).await;
        for cache in [&tolerant, &strict] {
            assert_eq!(cache.peek("p-001").await.unwrap(), None);
            assert_eq!(cache.ttl("p-001").await.unwrap(), None);
        }
        assert_eq!(lookup(&strict, primary.loader()).await.unwrap().outcome, Outcome::Loaded);
        assert_eq!(lookup(&tolerant, primary.loader()).await.unwrap().outcome, Outcome::Hit);
        assert_eq!(tolerant.inspect("p-001").await.unwrap().stale_ttl, None, "who filled it keeps nothing");
    })
    .await;
}

#[tokio::test]
async fn pttl_is_asked_for_only_where_an_entry_may_be_stale() {
    on_every_server(async |server, backend| {
        let (tolerant, strict) = (tolerant(&backend).ttl(TAIL).build().unwrap(), products(&backend));
        let primary = Primary::of(loaf(1));
        let mut client = server.client().await;
        let entries: [(_, _, [Option<&u64>; 2]); 4] = [
            (&strict, &strict, [Some(&1), None]),
            (&strict, &tolerant, [Some(&1), Some(&1)]),
            (&tolerant, &strict, [Some(&2), Some(&1)]),
            (&tolerant, &tolerant, [Some(&1), Some(&1)]),
        ];
        for (filler, reader, commands) in entries {
            filler.refresh("p-001", primary.loader()).await.unwrap();
            redis::cmd("CONFIG").arg("RESETSTAT").exec_async(&mut client).await.unwrap();
            let loads = primary.loads();
            // A lookup always asks for it.
            reader.get("p-001", primary.loader()).await.unwrap();
            let calls = server.calls().await;
            assert_eq!(primary.loads(), loads, "a hit");
            assert_eq!([calls.get("hmget"), calls.get("pttl")], commands);
        }
    })
    .await;
}

#[tokio::test]
async fn the_reported_ttl_ends_where_the_stale_tail_begins() {
    on_every_backend(async |backend| {
        let ttl = Duration::from_secs(30);
        let (cache, primary) = (tolerant(&backend).ttl(ttl).build().unwrap(), Primary::of(loaf(1)));
        cache.get("p-001", primary.loader()).await.unwrap();
        let left = cache.ttl("p-001").await.unwrap().unwrap();
        assert!(left <= ttl && left > ttl / 2, "{left:?}");
        let fresh = cache.inspect("p-001").await.unwrap();
        assert_eq!((fresh.state, fresh.stale_ttl), (EntryState::Record, Some(TAIL)));
        assert!(fresh.ttl.unwrap() <= left);
        assert!(fresh.to_string().contains("60.0 s to be kept stale"), "{fresh}");
        assert!(fresh.fields.contains(&("~meta".to_owned(), b"stale=60000".to_vec())), "{fresh}");

        let cache = tolerant(&backend).build().unwrap();
        cache.invalidate("p-001").await.unwrap();
        grown_stale(&cache, &primary).await;
        let stale = cache.inspect("p-001").await.unwrap();
        assert_eq!((stale.state, stale.ttl), (EntryState::Stale, None));
        assert!(stale.stale_ttl.unwrap() <= TAIL && stale.stale_ttl.unwrap() > TAIL / 2, "{stale}");
        assert_eq!(cache.peek("p-001").await.unwrap(), None);
    })
    .await;
}

#[tokio::test]
async fn not_found_entries_have_no_stale_tail() {
    on_every_backend(async |backend| {
        let not_found_ttl = Duration::from_secs(20);
        let cache = tolerant(&backend).ttl(TAIL).not_found_ttl(not_found_ttl).build().unwrap();
        let primary = Primary::default();
        assert_eq!(get(&cache, primary.loader()).await.unwrap(), None);
        let inspection = cache.inspect("p-001").await.unwrap();
        assert_eq!((inspection.state, inspection.stale_ttl), (EntryState::NotFound, None));
        assert!(inspection.ttl.unwrap() <= not_found_ttl);
    })
    .await;
}

#[tokio::test]
async fn an_update_keeps_ttl_and_stale_tail_unless_update_ttl_is_refresh() {
    on_every_backend(async |backend| {
        let keeping = tolerant(&backend).ttl(Duration::from_secs(30)).build().unwrap();
        let primary = Primary::of(loaf(1));
        keeping.get("p-001", primary.loader()).await.unwrap();
        let before = keeping.ttl("p-001").await.unwrap().unwrap();
        assert!(keeping.update_field("p-001", Product::FIELDS.stock, 2).await.unwrap());
        assert_eq!(keeping.modify("p-001", |product| product.stock += 1).await.unwrap().as_deref(), Some(&loaf(3)));
        let after = keeping.inspect("p-001").await.unwrap();
        assert!(after.ttl.unwrap() <= before && after.ttl.unwrap() > before / 2, "{after}");
        assert_eq!(after.stale_ttl, Some(TAIL));

        // It keeps the grace period of the entry, whatever its own setting is.
        let (ttl, refreshing) = (Duration::from_secs(90), builder(&backend).update_ttl(UpdateTtl::Refresh));
        let refreshing = refreshing.ttl(ttl).jitter(0.0).build().unwrap();
        assert!(refreshing.update_field("p-001", Product::FIELDS.stock, 4).await.unwrap());
        let refreshed = refreshing.inspect("p-001").await.unwrap();
        assert!(refreshed.ttl.unwrap() <= ttl && refreshed.ttl.unwrap() > ttl / 2, "{refreshed}");
        assert_eq!(refreshed.stale_ttl, Some(TAIL));
    })
    .await;
}

#[tokio::test]
async fn an_update_drops_a_stale_record() {
    on_every_backend(async |backend| {
        let (tolerant, strict) = (tolerant(&backend).build().unwrap(), products(&backend));
        let refreshing = builder(&backend).update_ttl(UpdateTtl::Refresh).build().unwrap();
        let primary = Primary::of(loaf(1));
        for cache in [&tolerant, &strict, &refreshing] {
            for modifies in [false, true] {
                grown_stale(&tolerant, &primary).await;
                age(&lookup(&tolerant, Failure::Error.loader()).await.unwrap());
                let updated = match modifies {
                    false => cache.update_field("p-001", Product::FIELDS.stock, 2).await.unwrap(),
                    true => cache.modify("p-001", |product| product.stock = 2).await.unwrap().is_some(),
                };
                let inspection = cache.inspect("p-001").await.unwrap();
                assert!(!updated, "there is no live record");
                assert_eq!((inspection.state, inspection.lock_ttl), (EntryState::Missing, None));
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_record_is_gone_after_its_stale_tail() {
    on_every_backend(async |backend| {
        let (cache, primary) = (tolerant(&backend).stale_if_error(TTL).build().unwrap(), Primary::of(loaf(1)));
        grown_stale(&cache, &primary).await;
        tokio::time::sleep(TTL * 2).await;
        assert_eq!(cache.inspect("p-001").await.unwrap().state, EntryState::Missing);
        primary.down(true);
        assert!(matches!(get(&cache, primary.loader()).await, Err(Error::Load { .. })));
    })
    .await;
}
