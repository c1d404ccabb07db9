//! `get_with` and `lookup_with`: what a loader is told, how its answer is stored, and the TTL that a lookup reports.

use std::collections::HashSet;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use cache_aside::proof::{Phase, Step};
use cache_aside::{
    Backend, BoxError, Cache, CacheBuilder, EntryState, Error, Inspection, Load, Loaded, Lookup, Outcome,
};
use testkit::server::Server;
use tokio::sync::mpsc::unbounded_channel;
use tokio::task::JoinHandle;

use super::{LONG, cause, product, stock};
use crate::support::fixture::{
    Gate, Primary, Product, builder, load_at_gate, loaf, lookup, on_every_backend, on_every_server, products, until,
};
use crate::support::process::Process;

const TTL: Duration = Duration::from_millis(100);

const MINUTE: Duration = Duration::from_secs(60);

/// Longer than any TTL.
const DAYS_36_500: Duration = Duration::from_secs(36_500 * 24 * 60 * 60);

fn exact(backend: &Backend) -> CacheBuilder<Product> {
    builder(backend).jitter(0.0)
}

/// Its records grow stale soon, and stay.
fn short(backend: &Backend) -> Cache<Product> {
    exact(backend).ttl(TTL).not_found_ttl(None).stale_if_error(LONG).build().unwrap()
}

/// Stores the product, and waits until its TTL is over.
async fn grown_stale(cache: &Cache<Product>, product: Product) {
    cache.invalidate("p-001").await.unwrap();
    answered(cache, Loaded::record(product).ttl(TTL)).await;
    until_stored(cache, EntryState::Stale).await;
}

async fn until_stored(cache: &Cache<Product>, state: EntryState) {
    until(MINUTE, "it lives on", async || inspect(cache).await.state == state).await;
}

/// Looks the product up with a loader that gives this answer. Returns what the loader was told, if it ran.
async fn asked(
    cache: &Cache<Product>,
    answer: Loaded<Product>,
) -> (Result<Lookup<Product>, Error>, Option<Load<Product>>) {
    let (tell, told) = mpsc::channel();
    let loader = move |load| {
        tell.send(load).unwrap();
        async move { Ok::<_, BoxError>(answer) }
    };
    (cache.lookup_with("p-001", loader).await, told.try_recv().ok())
}

/// Looks the product up with a loader that gives this answer, and that runs.
async fn answered(cache: &Cache<Product>, answer: Loaded<Product>) -> Lookup<Product> {
    let (found, told) = asked(cache, answer).await;
    assert!(told.is_some(), "{found:?}");
    found.unwrap()
}

/// Starts a lookup whose loader is held at the gate, and then says that the record is unchanged.
async fn unchanged_at_gate(cache: &Cache<Product>) -> (Gate, JoinHandle<Result<Lookup<Product>, Error>>) {
    let gate = Gate::closed();
    let get = {
        let gate = gate.clone();
        cache.lookup_with("p-001", |_| async move {
            gate.pass().await;
            Ok::<_, BoxError>(Loaded::unchanged())
        })
    };
    let get = tokio::spawn(get);
    gate.arrival().await;
    (gate, get)
}

async fn inspect(cache: &Cache<Product>) -> Inspection {
    cache.inspect("p-001").await.unwrap()
}

fn is_about(ttl: Option<Duration>, expected: Duration) -> bool {
    ttl.is_some_and(|ttl| ttl <= expected && ttl > expected - MINUTE / 2)
}

#[tokio::test]
async fn a_first_load_is_told_its_id_and_deadline_and_of_no_record() {
    on_every_backend(async |backend| {
        let cache = builder(&backend).load_timeout(MINUTE).build().unwrap();
        let began = Instant::now();
        let (found, told) = asked(&cache, Loaded::record(loaf(1))).await;
        let ended = Instant::now();
        assert_eq!(found.unwrap().value.as_deref(), Some(&loaf(1)));
        let told = told.unwrap();
        assert_eq!((told.id().as_str(), told.stale()), ("p-001", None));
        assert!((began + MINUTE..=ended + MINUTE).contains(&told.deadline()), "{told:?}");
        let hit = asked(&cache, Loaded::record(loaf(2))).await;
        assert!(hit.1.is_none(), "a hit needs no loader");
        assert_eq!(hit.0.unwrap().value.as_deref(), Some(&loaf(1)));
    })
    .await;
}

#[tokio::test]
async fn get_with_is_told_the_same_as_lookup_with() {
    on_every_backend(async |backend| {
        let cache = short(&backend);
        grown_stale(&cache, loaf(1)).await;
        let loader = |load: Load<Product>| async move {
            let stale = load.stale().ok_or("no record")?;
            Ok::<_, BoxError>(Loaded::record(Product { stock: stale.stock + 1, ..(*stale).clone() }).ttl(MINUTE))
        };
        assert_eq!(cache.get_with("p-001", loader).await.unwrap().as_deref(), Some(&loaf(2)));
        assert_eq!(stock(&cache, "p-001").await, Some(2));
    })
    .await;
}

#[tokio::test]
async fn a_load_behind_a_stale_entry_is_given_its_record() {
    on_every_backend(async |backend| {
        let cache = short(&backend);
        grown_stale(&cache, loaf(1)).await;
        let (found, told) = asked(&cache, Loaded::record(loaf(2)).ttl(TTL)).await;
        assert_eq!(found.unwrap().outcome, Outcome::Loaded);
        assert_eq!(told.unwrap().stale().as_deref(), Some(&loaf(1)));

        cache.invalidate("p-001").await.unwrap();
        let (_, told) = asked(&cache, Loaded::record(loaf(3))).await;
        assert_eq!(told.unwrap().stale(), None, "it was invalidated");
    })
    .await;
}

#[tokio::test]
async fn a_load_around_the_cache_is_given_no_record() {
    on_every_backend(async |backend| {
        let cache = short(&backend);
        grown_stale(&cache, loaf(1)).await;
        cache.set_enabled(false);
        let (found, told) = asked(&cache, Loaded::record(loaf(2))).await;
        assert_eq!((found.unwrap().outcome, told.unwrap().stale()), (Outcome::Bypassed, None));
        cache.set_enabled(true);
        backend.outage(true);
        let (found, told) = asked(&cache, Loaded::unchanged()).await;
        assert_eq!(told.unwrap().stale(), None);
        assert!(cause(&found.unwrap_err()).contains("unchanged"));
        backend.outage(false);
    })
    .await;
}

#[tokio::test]
async fn a_refresh_ahead_is_given_the_live_record_and_may_confirm_it() {
    on_every_backend(async |backend| {
        let cache = exact(&backend).refresh_ahead(1e18).build().unwrap();
        answered(&cache, Loaded::record(loaf(1))).await;
        let (tell, mut told) = unbounded_channel();
        let loader = move |load: Load<Product>| async move {
            tell.send(load.stale()).unwrap();
            Ok::<_, BoxError>(Loaded::unchanged().ttl(LONG))
        };
        let hit = cache.lookup_with("p-001", loader).await.unwrap();
        assert_eq!((hit.outcome, hit.value.as_deref()), (Outcome::Hit, Some(&loaf(1))));
        assert_eq!(told.recv().await.unwrap().as_deref(), Some(&loaf(1)));
        let lives_on = async || is_about(cache.ttl("p-001").await.unwrap(), LONG);
        until(MINUTE, "it has no new TTL", lives_on).await;
        assert_eq!(stock(&cache, "p-001").await, Some(1));
    })
    .await;
}

#[tokio::test]
async fn a_loader_says_how_long_its_record_lives() {
    on_every_backend(async |backend| {
        let cache = exact(&backend).ttl_by(|_| MINUTE).build().unwrap();
        let found = answered(&cache, Loaded::record(loaf(1)).ttl(LONG)).await;
        assert_eq!((found.outcome, found.ttl), (Outcome::Loaded, Some(LONG)));
        assert!(is_about(cache.ttl("p-001").await.unwrap(), LONG));

        cache.invalidate("p-001").await.unwrap();
        let found = answered(&cache, Loaded::record(loaf(1)).ttl(Duration::MAX).stale_for(Duration::MAX)).await;
        assert_eq!(found.ttl, Some(DAYS_36_500));
        let stored = inspect(&cache).await;
        assert!(is_about(stored.ttl, DAYS_36_500) && stored.stale_ttl == Some(DAYS_36_500), "{stored:?}");

        cache.invalidate("p-001").await.unwrap();
        assert_eq!(answered(&cache, Loaded::record(loaf(1))).await.ttl, Some(MINUTE), "as the settings say");
    })
    .await;
}

#[tokio::test]
async fn a_loader_says_how_long_the_cache_remembers_that_there_is_no_record() {
    on_every_backend(async |backend| {
        let cache = exact(&backend).not_found_ttl(None).build().unwrap();
        let found = answered(&cache, Loaded::not_found()).await;
        assert_eq!((found.value, found.ttl, inspect(&cache).await.state), (None, None, EntryState::Missing));

        let found = answered(&cache, Loaded::not_found().ttl(MINUTE)).await;
        assert_eq!((found.value, found.outcome, found.ttl), (None, Outcome::Loaded, Some(MINUTE)));
        let (hit, told) = asked(&cache, Loaded::record(loaf(1))).await;
        let hit = hit.unwrap();
        assert_eq!((hit.value, hit.outcome, told.is_some()), (None, Outcome::NotFoundHit, false));
        assert!(is_about(hit.ttl, MINUTE), "{:?}", hit.ttl);

        let remembering = products(&backend);
        remembering.invalidate("p-001").await.unwrap();
        answered(&remembering, Loaded::not_found().no_store()).await;
        assert_eq!(inspect(&remembering).await.state, EntryState::Missing);
        answered(&remembering, Loaded::not_found().ttl(Duration::from_micros(999))).await;
        assert_eq!(inspect(&remembering).await.state, EntryState::Missing);
    })
    .await;
}

#[tokio::test]
async fn jitter_shortens_the_ttl_that_a_loader_sets() {
    on_every_backend(async |backend| {
        let cache = builder(&backend).jitter(0.5).build().unwrap();
        let mut ttls = HashSet::new();
        for number in 0..20 {
            let id = format!("p-{number:03}");
            let record = product(&id, 1);
            let load = |_| async { Ok::<_, BoxError>(Loaded::record(record).ttl(LONG)) };
            let ttl = cache.lookup_with(id.as_str(), load).await.unwrap().ttl.unwrap();
            assert!((LONG / 2..=LONG).contains(&ttl), "{ttl:?}");
            let stored = cache.ttl(id).await.unwrap().unwrap();
            assert!(stored <= ttl && stored > ttl - MINUTE, "{stored:?} of {ttl:?}");
            ttls.insert(ttl);
        }
        assert!(ttls.len() > 1, "they would expire together");
    })
    .await;
}

#[tokio::test]
async fn a_record_with_a_ttl_below_1_ms_is_not_stored() {
    on_every_backend(async |backend| {
        let cache = products(&backend);
        for ttl in [Duration::ZERO, Duration::from_micros(999)] {
            let found = answered(&cache, Loaded::record(loaf(1)).ttl(ttl)).await;
            assert_eq!((found.value.as_deref(), found.ttl), (Some(&loaf(1)), None));
            assert_eq!(inspect(&cache).await.state, EntryState::Missing);
        }
    })
    .await;
}

#[tokio::test]
async fn no_store_keeps_a_record_out_of_the_cache_and_removes_the_one_that_is_there() {
    on_every_backend(async |backend| {
        let cache = short(&backend);
        for answer in [Loaded::record(loaf(2)).no_store(), Loaded::record(loaf(2)).ttl(MINUTE).no_store()] {
            grown_stale(&cache, loaf(1)).await;
            let found = answered(&cache, answer).await;
            assert_eq!((found.value.as_deref(), found.ttl), (Some(&loaf(2)), None));
            assert_eq!(inspect(&cache).await.state, EntryState::Missing);
        }
        grown_stale(&cache, loaf(1)).await;
        let found = answered(&cache, Loaded::unchanged().no_store()).await;
        assert_eq!((found.value.as_deref(), found.ttl), (Some(&loaf(1)), None));
        assert_eq!(inspect(&cache).await.state, EntryState::Missing);
    })
    .await;
}

#[tokio::test]
async fn a_loader_says_how_long_its_record_is_kept_past_its_ttl() {
    on_every_backend(async |backend| {
        let (strict, tolerant) = (exact(&backend).build().unwrap(), short(&backend));
        let answer = || Loaded::record(loaf(1)).ttl(LONG);
        answered(&tolerant, answer()).await;
        assert_eq!(inspect(&tolerant).await.stale_ttl, Some(LONG), "as the settings say");
        for (stale_for, kept) in [(MINUTE, Some(MINUTE)), (LONG * 2, Some(LONG * 2)), (Duration::ZERO, None)] {
            for cache in [&strict, &tolerant] {
                cache.invalidate("p-001").await.unwrap();
                answered(cache, answer().stale_for(stale_for)).await;
                assert_eq!(inspect(cache).await.stale_ttl, kept, "{stale_for:?}");
            }
        }
    })
    .await;
}

/// What one cache asks for is kept, and each serves what its own settings allow.
#[tokio::test]
async fn a_record_that_is_kept_for_long_is_served_stale_only_as_the_settings_allow() {
    on_every_backend(async |backend| {
        let primary = Primary::default();
        primary.down(true);
        let strict = exact(&backend).build().unwrap();
        let brief = exact(&backend).stale_if_error(Duration::from_millis(1)).build().unwrap();
        answered(&strict, Loaded::record(loaf(1)).ttl(TTL).stale_for(LONG)).await;
        until_stored(&strict, EntryState::Stale).await;
        tokio::time::sleep(Duration::from_millis(5)).await;
        for cache in [&strict, &brief] {
            let failed = lookup(cache, primary.loader()).await;
            assert!(matches!(failed, Err(Error::Load { .. })), "{failed:?}");
        }
        let served = lookup(&short(&backend), primary.loader()).await.unwrap();
        assert!(matches!(served.outcome, Outcome::Stale { revalidating: false, .. }), "{served:?}");
        assert_eq!((served.value.as_deref(), served.ttl), (Some(&loaf(1)), None));
    })
    .await;
}

#[tokio::test]
async fn an_unchanged_record_lives_on() {
    on_every_backend(async |backend| {
        let cache = short(&backend);
        for (answer, ttl, kept) in [
            (Loaded::unchanged().ttl(LONG), LONG, Some(LONG)),
            (Loaded::unchanged().ttl(MINUTE).stale_for(MINUTE), MINUTE, Some(MINUTE)),
            (Loaded::unchanged().ttl(MINUTE).stale_for(Duration::ZERO), MINUTE, None),
        ] {
            grown_stale(&cache, loaf(1)).await;
            let found = answered(&cache, answer).await;
            assert_eq!((found.outcome, found.value.as_deref()), (Outcome::Loaded, Some(&loaf(1))));
            assert_eq!(found.ttl, Some(ttl));
            let stored = inspect(&cache).await;
            assert_eq!((stored.state, stored.stale_ttl, stored.lock_ttl), (EntryState::Record, kept, None));
            assert!(is_about(stored.ttl, ttl), "{stored:?}");
            assert_eq!(cache.peek("p-001").await.unwrap().as_deref(), Some(&loaf(1)));
            cache.invalidate("p-001").await.unwrap();
        }
        assert_eq!(cache.stats().fenced_fills, 0);
    })
    .await;
}

/// Without an answer's own TTL, the record gets the one that the settings give it.
#[tokio::test]
async fn an_unchanged_record_has_the_ttl_of_the_settings() {
    on_every_backend(async |backend| {
        let by_stock = |product: &Product| MINUTE * product.stock;
        let cache = exact(&backend).ttl_by(by_stock).stale_if_error(LONG).build().unwrap();
        grown_stale(&cache, loaf(3)).await;
        assert_eq!(answered(&cache, Loaded::unchanged()).await.ttl, Some(MINUTE * 3));
        assert!(is_about(cache.ttl("p-001").await.unwrap(), MINUTE * 3));
    })
    .await;
}

#[tokio::test]
async fn unchanged_without_a_record_is_an_error_that_says_what_to_answer() {
    on_every_backend(async |backend| {
        let cache = products(&backend);
        let (failed, told) = asked(&cache, Loaded::unchanged()).await;
        assert_eq!(told.unwrap().stale(), None);
        let cause = cause(&failed.unwrap_err());
        assert!(cause.contains("answer `record` or `not_found`"), "{cause}");
        assert_eq!(inspect(&cache).await.state, EntryState::Missing);
        assert_eq!(cache.stats().load_errors, 1);

        answered(&cache, Loaded::not_found().ttl(TTL)).await;
        until_stored(&cache, EntryState::Missing).await;
        let (failed, _) = asked(&cache, Loaded::unchanged()).await;
        assert!(matches!(failed, Err(Error::Load { .. })), "{failed:?}");
    })
    .await;
}

/// The bytes that a server receives while `work` runs, other than those of the question itself.
async fn received<R>(server: &Server, work: impl Future<Output = R>) -> (u64, R) {
    let mut operator = server.client().await;
    let mut all = async || {
        let info: String = redis::cmd("INFO").arg("stats").query_async(&mut operator).await.unwrap();
        let bytes = info.lines().find_map(|line| line.strip_prefix("total_net_input_bytes:")).unwrap();
        bytes.trim().parse::<u64>().unwrap()
    };
    let (first, before) = (all().await, all().await);
    let done = work.await;
    (all().await - before - (before - first), done)
}

#[tokio::test]
async fn an_unchanged_answer_sends_no_record() {
    on_every_server(async |server, backend| {
        let cache = short(&backend);
        let large = Product { note: Some("x".repeat(100_000)), ..loaf(1) };
        // The first time the server doesn't know the script.
        for is_known in [false, true] {
            grown_stale(&cache, large.clone()).await;
            let (reading, (gate, get)) = received(server, unchanged_at_gate(&cache)).await;
            let touch = async {
                gate.open();
                get.await.unwrap().unwrap()
            };
            let (touching, found) = received(server, touch).await;
            assert_eq!((found.outcome, found.value.as_deref()), (Outcome::Loaded, Some(&large)));
            println!("{touching} bytes of {}", reading + touching);
            if is_known {
                assert!(touching < 200, "{touching}");
                assert!(reading + touching < 1_000, "{}", reading + touching);
            }
        }
        cache.invalidate("p-001").await.unwrap();
        let (filling, _) = received(server, answered(&cache, Loaded::record(large))).await;
        assert!(filling > 100_000, "or a record would not be noticed: {filling}");
    })
    .await;
}

#[tokio::test]
async fn an_unchanged_record_whose_entry_is_gone_is_filled_again() {
    on_every_server(async |server, backend| {
        let cache = short(&backend);
        grown_stale(&cache, loaf(1)).await;
        let mut operator = server.client().await;
        let loader = |load: Load<Product>| async move {
            assert_eq!(load.stale().as_deref(), Some(&loaf(1)));
            // As a server that runs out of memory does.
            let deleted: u64 = redis::cmd("DEL").arg("cache:billing:product:p-001").query_async(&mut operator).await?;
            assert_eq!(deleted, 1);
            Ok::<_, BoxError>(Loaded::unchanged().ttl(LONG))
        };
        let found = cache.lookup_with("p-001", loader).await.unwrap();
        assert_eq!((found.outcome, found.ttl, found.value.as_deref()), (Outcome::Loaded, Some(LONG), Some(&loaf(1))));
        let stored = inspect(&cache).await;
        assert_eq!((stored.state, stored.stale_ttl, stored.lock_ttl), (EntryState::Record, Some(LONG), None));
        assert!(is_about(stored.ttl, LONG), "{stored:?}");
        assert_eq!(cache.peek("p-001").await.unwrap().as_deref(), Some(&loaf(1)));
        assert_eq!(cache.stats().fenced_fills, 0);
    })
    .await;
}

#[tokio::test]
async fn an_unchanged_record_that_is_invalidated_meanwhile_does_not_live_on() {
    on_every_backend(async |backend| {
        let cache = short(&backend);
        grown_stale(&cache, loaf(1)).await;
        let (gate, get) = unchanged_at_gate(&cache).await;
        assert!(cache.invalidate("p-001").await.unwrap());
        gate.open();
        assert_eq!(get.await.unwrap().unwrap().value.as_deref(), Some(&loaf(1)), "it called before the change");
        assert_eq!(inspect(&cache).await.state, EntryState::Missing);
        assert_eq!(cache.stats().fenced_fills, 1);
        let next = answered(&cache, Loaded::record(loaf(2))).await;
        assert_eq!((next.outcome, next.value.as_deref()), (Outcome::Loaded, Some(&loaf(2))));
    })
    .await;
}

/// A record that another process has stored since is neither confirmed nor replaced.
#[tokio::test]
async fn an_unchanged_answer_says_nothing_about_the_record_of_another_process() {
    on_every_backend(async |backend| {
        let (here, there) = (short(&backend), short(&backend));
        grown_stale(&here, loaf(1)).await;
        let (gate, get) = unchanged_at_gate(&here).await;
        there.invalidate("p-001").await.unwrap();
        answered(&there, Loaded::record(loaf(2)).ttl(MINUTE)).await;
        gate.open();
        get.await.unwrap().unwrap();
        assert_eq!(stock(&here, "p-001").await, Some(2));
        let ttl = here.ttl("p-001").await.unwrap();
        assert!(is_about(ttl, MINUTE), "{ttl:?}");
    })
    .await;
}

#[tokio::test]
async fn a_lookup_reports_what_is_left_of_the_ttl() {
    on_every_backend(async |backend| {
        let set = |cache: CacheBuilder<Product>| cache.jitter(0.0).not_found_ttl(TTL).stale_if_error(LONG);
        let (here, there) = (set(builder(&backend)).build().unwrap(), Process::of(&backend, None, set));
        let (primary, ttl) = (Primary::of(loaf(1)), Duration::from_secs(30));

        let (gate, _led) = load_at_gate(&here, &primary).await;
        let coalesced = tokio::spawn(lookup(&here, primary.loader()));
        let refused = there.hold(Step::Acquire, Phase::After);
        let waited = tokio::spawn(lookup(&there.cache, primary.loader()));
        refused.arrival().await;
        refused.open();
        gate.open();
        let (coalesced, waited) = (coalesced.await.unwrap().unwrap(), waited.await.unwrap().unwrap());
        assert_eq!((coalesced.outcome, waited.outcome), (Outcome::Coalesced, Outcome::Waited));
        assert_eq!(coalesced.ttl, Some(ttl));
        assert!(is_about(waited.ttl, ttl), "{waited:?}");

        let hit = lookup(&here, primary.loader()).await.unwrap();
        assert!(hit.outcome == Outcome::Hit && is_about(hit.ttl, ttl), "{hit:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
        let later = lookup(&here, primary.loader()).await.unwrap();
        assert!(later.ttl < hit.ttl, "{later:?}, {hit:?}");

        here.set_enabled(false);
        let bypassed = lookup(&here, primary.loader()).await.unwrap();
        assert_eq!((bypassed.outcome, bypassed.ttl), (Outcome::Bypassed, None));
        here.set_enabled(true);

        here.invalidate("p-001").await.unwrap();
        let loaded = lookup(&here, primary.loader()).await.unwrap();
        assert_eq!((loaded.outcome, loaded.ttl), (Outcome::Loaded, Some(ttl)));
    })
    .await;
}

#[tokio::test]
async fn a_lookup_of_what_is_not_stored_reports_no_ttl() {
    on_every_backend(async |backend| {
        let (cache, primary) = (short(&backend), Primary::of(loaf(1)));
        grown_stale(&cache, loaf(1)).await;
        primary.down(true);
        let stale = lookup(&cache, primary.loader()).await.unwrap();
        assert!(stale.outcome != Outcome::Loaded && stale.ttl.is_none(), "{stale:?}");
        primary.down(false);

        cache.invalidate("p-001").await.unwrap();
        let (gate, fenced) = {
            let gate = Gate::closed();
            (gate.clone(), tokio::spawn(lookup(&cache, primary.gated(&gate))))
        };
        gate.arrival().await;
        cache.invalidate("p-001").await.unwrap();
        gate.open();
        let fenced = fenced.await.unwrap().unwrap();
        assert_eq!((fenced.outcome, fenced.ttl), (Outcome::Loaded, None));

        let other = |_| async { Ok::<_, BoxError>(Some(product("P-001", 1))) };
        let other = cache.lookup("p-001", other).await.unwrap();
        assert_eq!((other.outcome, other.ttl), (Outcome::Loaded, None), "another id than the one asked for");
    })
    .await;
}
