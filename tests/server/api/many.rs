//! Many gets at once: one round trip, one call of the loader, and for each key the same guarantees as for a single get.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cache_aside::{BoxError, Cache, Error, Lookup, OnOutage, Outcome};
use testkit::proxy::Proxy;
use testkit::server::{Flavor, Server};

use crate::support::fixture::{
    Gate, Product, builder, connect, loaf, on_every_backend, products, remembering, settle, until,
};

const LIMIT: Duration = Duration::from_secs(20);

fn product(id: &str, stock: u32) -> Product {
    Product { id: id.to_owned(), ..loaf(stock) }
}

/// A primary that is asked for many rows at once, and records the ids.
#[derive(Clone, Default)]
struct Primary {
    rows: Arc<Mutex<Vec<Product>>>,
    calls: Arc<Mutex<Vec<Vec<String>>>>,
    gate: Option<Gate>,
}

impl Primary {
    fn of(ids: impl IntoIterator<Item = impl AsRef<str>>) -> Self {
        let primary = Self::default();
        ids.into_iter().for_each(|id| primary.put(product(id.as_ref(), 1)));
        primary
    }

    fn behind(&self, gate: &Gate) -> Self {
        Self { gate: Some(gate.clone()), ..self.clone() }
    }

    fn put(&self, product: Product) {
        let mut rows = self.rows.lock().unwrap();
        rows.retain(|row| row.id != product.id);
        rows.push(product);
    }

    /// The ids that it was asked for in each call, sorted.
    fn calls(&self) -> Vec<Vec<String>> {
        std::mem::take(&mut *self.calls.lock().unwrap())
    }

    /// Waits until it is asked for a row, and perhaps for others.
    async fn is_asked_for(&self, id: &str) {
        let is_asked = async || self.calls.lock().unwrap().iter().flatten().any(|asked| asked == id);
        until(LIMIT, "it is not asked", is_asked).await;
    }

    async fn find(self, ids: Vec<String>) -> Result<Vec<Product>, BoxError> {
        let mut call = ids.clone();
        call.sort();
        self.calls.lock().unwrap().push(call);
        let found = self.rows.lock().unwrap().iter().rev().filter(|row| ids.contains(&row.id)).cloned().collect();
        if let Some(gate) = &self.gate {
            gate.pass().await;
        }
        Ok(found)
    }

    fn get_many(&self, cache: &Cache<Product>, ids: &[&str]) -> impl Future<Output = Answers> + Send + 'static {
        let primary = self.clone();
        let ids: Vec<_> = ids.iter().map(|id| (*id).to_owned()).collect();
        cache.lookup_many(ids, move |ids| primary.clone().find(ids))
    }

    /// A loader for one record.
    async fn get(&self, cache: &Cache<Product>, id: &str) -> Lookup<Product> {
        let primary = self.clone();
        cache.lookup(id, |id| async move { Ok::<_, BoxError>(primary.find(vec![id]).await?.pop()) }).await.unwrap()
    }
}

type Answers = Vec<Result<Lookup<Product>, Error>>;

fn stocks(answers: &Answers) -> Vec<Option<u32>> {
    answers.iter().map(|answer| answer.as_ref().unwrap().value.as_ref().map(|product| product.stock)).collect()
}

fn outcomes(answers: &Answers) -> Vec<Outcome> {
    answers.iter().map(|answer| answer.as_ref().unwrap().outcome).collect()
}

#[tokio::test]
async fn get_many_loads_missing_records_in_one_call_and_keeps_the_order() {
    on_every_backend(async |backend| {
        let cache = remembering(&backend);
        let primary = Primary::of(["a", "b", "c", "d"]);
        primary.get(&cache, "b").await;
        primary.calls();
        let answers = primary.get_many(&cache, &["d", "b", "x", "a", "d"]).await;
        assert_eq!(stocks(&answers), [Some(1), Some(1), None, Some(1), Some(1)]);
        let ids = answers.iter().map(|answer| Some(answer.as_ref().unwrap().value.as_ref()?.id.clone()));
        assert_eq!(ids.collect::<Vec<_>>(), ["d", "b", "", "a", "d"].map(|id| (!id.is_empty()).then(|| id.to_owned())));
        use Outcome::{Hit, Loaded, NotFoundHit};
        assert_eq!(outcomes(&answers), [Loaded, Hit, Loaded, Loaded, Loaded]);
        assert_eq!(primary.calls(), [["a", "d", "x"]]);

        let again = primary.get_many(&cache, &["a", "x", "b", "d"]).await;
        assert_eq!(outcomes(&again), [Hit, NotFoundHit, Hit, Hit]);
        assert_eq!(primary.calls(), [[""; 0]; 0]);
        let stats = cache.stats();
        assert_eq!((stats.hits, stats.not_found_hits, stats.misses), (4, 1, 4), "each id for itself");
        assert_eq!(stats.loads, 2, "each call of a loader");
        assert_eq!(cache.inspect("a").await.unwrap().lock_ttl, None, "no lease stays");
    })
    .await;
}

/// More than one task may poll before it has to yield.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn get_many_reads_hundreds_of_records() {
    on_every_backend(async |backend| {
        let ids: Vec<_> = (0..500).map(|number| number.to_string()).collect();
        let (cache, primary) = (products(&backend), Primary::of(&ids));
        let ids: Vec<_> = ids.iter().map(String::as_str).collect();
        for outcome in [Outcome::Loaded, Outcome::Hit] {
            assert_eq!(outcomes(&primary.get_many(&cache, &ids).await), vec![outcome; ids.len()]);
        }
    })
    .await;
}

#[tokio::test]
async fn get_many_takes_no_ids_and_invalid_ids() {
    on_every_backend(async |backend| {
        let (cache, primary) = (products(&backend), Primary::of(["a"]));
        assert!(primary.get_many(&cache, &[]).await.is_empty());
        let answers = primary.get_many(&cache, &["", "a", ""]).await;
        assert_eq!(outcomes(&answers), [Outcome::Bypassed, Outcome::Loaded, Outcome::Bypassed]);
        assert_eq!(primary.calls().concat().len(), 2, "the invalid id is asked for once");
        assert_eq!(cache.stats().invalid_ids, 2);
    })
    .await;
}

#[tokio::test]
async fn get_many_loads_thousands_of_records_in_parts() {
    on_every_backend(async |backend| {
        let ids: Vec<_> = (0..2_500).map(|id| id.to_string()).collect();
        let (cache, primary) = (products(&backend), Primary::of(&ids));
        let answers = primary.get_many(&cache, &ids.iter().map(String::as_str).collect::<Vec<_>>()).await;
        let found = answers.iter().map(|answer| &answer.as_ref().unwrap().value.as_ref().unwrap().id);
        assert!(found.eq(&ids), "in order");
        assert_eq!(primary.calls().iter().map(Vec::len).collect::<Vec<_>>(), [1_024, 1_024, 452]);
    })
    .await;
}

/// A distant server is still asked only once.
#[tokio::test]
async fn get_many_reads_in_one_round_trip() {
    const TRIP: Duration = Duration::from_millis(200);
    let server = Server::start(Flavor::Redis70).await;
    let proxy = Proxy::to(server.port()).await;
    let ids: Vec<_> = (0..100).map(|id| id.to_string()).collect();
    let ids: Vec<_> = ids.iter().map(String::as_str).collect();
    let (cache, primary) = (products(&connect(&proxy.url()).await), Primary::of(&ids));
    primary.get_many(&cache, &ids).await;
    proxy.delay(TRIP / 2);
    // A busy machine holds up some attempts.
    let is_one_trip = async || {
        let began = Instant::now();
        let answers = primary.get_many(&cache, &ids).await;
        assert!(outcomes(&answers).iter().all(|outcome| *outcome == Outcome::Hit));
        began.elapsed() < 2 * TRIP
    };
    until(LIMIT, "it takes more than one round trip", is_one_trip).await;
}

#[tokio::test]
async fn get_many_waits_for_records_that_other_calls_load() {
    on_every_backend(async |backend| {
        let (here, there) = (products(&backend), products(&backend));
        let (primary, gate) = (Primary::of(["a", "b", "c"]), Gate::closed());
        let first = tokio::spawn(primary.behind(&gate).get_many(&here, &["a", "b"]));
        gate.arrival().await;
        let second = tokio::spawn(primary.get_many(&here, &["b", "c"]));
        let third = tokio::spawn(primary.get_many(&there, &["a", "c", "d"]));
        // By then it has found out that it has to wait for `a`.
        primary.is_asked_for("d").await;
        let single = {
            let (cache, primary) = (here.clone(), primary.clone());
            tokio::spawn(async move { primary.get(&cache, "a").await })
        };
        settle().await;
        assert!(!second.is_finished() && !third.is_finished() && !single.is_finished());
        gate.open();
        use Outcome::{Coalesced, Hit, Loaded, Waited};
        assert_eq!(outcomes(&first.await.unwrap()), [Loaded, Loaded]);
        let (second, third) = (outcomes(&second.await.unwrap()), outcomes(&third.await.unwrap()));
        assert_eq!((second[0], third[0], third[2]), (Coalesced, Waited, Loaded));
        assert!([second[1], third[1]].contains(&Loaded), "one of them loads c: {second:?} {third:?}");
        assert!([second[1], third[1]].iter().any(|outcome| [Waited, Hit].contains(outcome)), "{second:?} {third:?}");
        assert_eq!(single.await.unwrap().outcome, Coalesced);
        let mut loaded = primary.calls();
        assert_eq!(loaded.remove(0), ["a", "b"]);
        let mut loaded = loaded.concat();
        loaded.sort();
        assert_eq!(loaded, ["c", "d"], "each once");
    })
    .await;
}

/// The loader doesn't wait for records that other processes load.
#[tokio::test]
async fn get_many_loads_its_own_records_before_it_waits_for_others() {
    on_every_backend(async |backend| {
        let (here, there) = (products(&backend), products(&backend));
        let (primary, gate) = (Primary::of(["a", "b", "c"]), Gate::closed());
        let other = tokio::spawn(primary.behind(&gate).get_many(&there, &["a"]));
        gate.arrival().await;
        let (own, own_gate) = (Primary::of(["a", "b", "c"]), Gate::closed());
        let get = tokio::spawn(own.behind(&own_gate).get_many(&here, &["a", "b", "c"]));
        own_gate.arrival().await;
        assert_eq!(own.calls(), [["b", "c"]]);
        own_gate.open();
        settle().await;
        assert!(!get.is_finished(), "it waits for the other's");
        gate.open();
        other.await.unwrap();
        assert_eq!(outcomes(&get.await.unwrap()), [Outcome::Waited, Outcome::Loaded, Outcome::Loaded]);
    })
    .await;
}

#[tokio::test]
async fn a_record_that_another_process_fails_to_load_is_loaded_here() {
    on_every_backend(async |backend| {
        let (here, there) = (products(&backend), products(&backend));
        let (primary, gate) = (Primary::of(["a", "b"]), Gate::closed());
        let other = {
            let gate = gate.clone();
            tokio::spawn(there.get("a", |_| async move {
                gate.pass().await;
                Err("the primary is down")
            }))
        };
        gate.arrival().await;
        let get = tokio::spawn(primary.get_many(&here, &["a", "b"]));
        primary.is_asked_for("b").await;
        gate.open();
        assert!(other.await.unwrap().is_err());
        assert_eq!(outcomes(&get.await.unwrap()), [Outcome::Loaded, Outcome::Loaded]);
        assert_eq!(primary.calls(), [["b"], ["a"]]);
    })
    .await;
}

#[tokio::test]
async fn an_invalidation_fences_its_own_record_and_no_other() {
    on_every_backend(async |backend| {
        let (cache, primary, gate) = (products(&backend), Primary::of(["a", "b", "c"]), Gate::closed());
        let early = tokio::spawn(primary.behind(&gate).get_many(&cache, &["a", "b", "c"]));
        gate.arrival().await;
        primary.put(product("b", 2));
        cache.invalidate("b").await.unwrap();
        // It starts after `invalidate` has returned, and finds the old load under way.
        let late = tokio::spawn(primary.get_many(&cache, &["a", "b"]));
        settle().await;
        gate.open();
        assert_eq!(stocks(&early.await.unwrap()), [Some(1), Some(1), Some(1)]);
        assert_eq!(stocks(&late.await.unwrap()), [Some(1), Some(2)]);
        assert_eq!(cache.peek("b").await.unwrap().unwrap().stock, 2);
        assert_eq!(cache.stats().fenced_fills, 1);
        let again = primary.get_many(&cache, &["a", "b", "c"]).await;
        assert_eq!(outcomes(&again), [Outcome::Hit; 3], "the others were stored");
    })
    .await;
}

#[tokio::test]
async fn a_failing_batch_loader_fails_only_the_records_that_it_was_to_load() {
    #[derive(Debug, thiserror::Error)]
    #[error("no connection")]
    struct NoConnection;

    on_every_backend(async |backend| {
        let (cache, primary) = (products(&backend), Primary::of(["a", "b", "c"]));
        primary.get(&cache, "b").await;
        let answers =
            cache.get_many(["a", "b", "c"], |_| async { Err::<Vec<Product>, _>(anyhow::Error::new(NoConnection)) });
        let answers = answers.await;
        assert!(answers[1].is_ok());
        for failed in [&answers[0], &answers[2]] {
            let error = failed.as_ref().unwrap_err();
            assert!(matches!(error, Error::Load { .. }), "{error:?}");
            assert!(error.downcast_ref::<NoConnection>().is_some());
            assert_eq!(std::error::Error::source(error).unwrap().to_string(), "no connection");
        }
        assert_eq!(cache.inspect("a").await.unwrap().lock_ttl, None, "its lease was given back");

        let answers = cache.get_many(["a", "b"], |_| async { panic!("on purpose") as Result<Vec<_>, BoxError> }).await;
        assert!(matches!(&answers[0], Err(Error::LoadPanicked { message, .. }) if message == "on purpose"));
        assert!(answers[1].is_ok());
        assert_eq!(outcomes(&primary.get_many(&cache, &["a", "c"]).await), [Outcome::Loaded; 2]);
    })
    .await;
}

/// The loader may have searched for another spelling of the id, so the record can't be taken for missing.
#[tokio::test]
async fn a_batch_loader_that_returns_a_record_not_asked_for_is_an_error() {
    on_every_backend(async |backend| {
        let cache = products(&backend);
        let load = |_| async { Ok::<_, BoxError>([product("a", 1), product("B", 1)]) };
        let answers = cache.get_many(["a", "b", "c"], load).await;
        assert_eq!(answers[0].as_ref().unwrap().as_ref().unwrap().id, "a");
        for mistaken in &answers[1..] {
            let cause = std::error::Error::source(mistaken.as_ref().unwrap_err()).unwrap().to_string();
            assert!(cause.contains("the id that it was asked for"), "{cause}");
        }
        assert_eq!(cache.stats().not_found_hits, 0);
        assert!(cache.inspect("b").await.unwrap().fields.is_empty(), "it isn't noted as missing");
    })
    .await;
}

#[tokio::test]
async fn a_dropped_get_many_leaves_its_load_running() {
    on_every_backend(async |backend| {
        let (cache, primary, gate) = (products(&backend), Primary::of(["a", "b"]), Gate::closed());
        let dropped = tokio::spawn(primary.behind(&gate).get_many(&cache, &["a", "b"]));
        gate.arrival().await;
        dropped.abort();
        assert!(dropped.await.unwrap_err().is_cancelled());
        let next = tokio::spawn(primary.get_many(&cache, &["b", "a"]));
        settle().await;
        gate.open();
        assert_eq!(outcomes(&next.await.unwrap()), [Outcome::Coalesced; 2]);
        assert_eq!(primary.calls().len(), 1);
    })
    .await;
}

#[tokio::test]
async fn get_many_around_the_cache_loads_in_one_call() {
    on_every_backend(async |backend| {
        let (cache, primary) = (products(&backend), Primary::of(["a", "b", "c"]));
        let off = builder(&backend).enabled(false).build().unwrap();
        assert_eq!(outcomes(&primary.get_many(&off, &["a", "x", "b"]).await), [Outcome::Bypassed; 3]);
        assert_eq!(primary.calls(), [["a", "b", "x"]]);

        backend.outage(true);
        let answers = primary.get_many(&cache, &["a", "x", "b"]).await;
        assert_eq!((outcomes(&answers), stocks(&answers)), (vec![Outcome::Bypassed; 3], vec![Some(1), None, Some(1)]));
        assert_eq!(primary.calls(), [["a", "b", "x"]]);

        let narrow = builder(&backend).max_bypass_loads(2).build().unwrap();
        assert_eq!(stocks(&primary.get_many(&narrow, &["a", "x", "b", "c"]).await), [Some(1), None, Some(1), Some(1)]);
        let calls = primary.calls();
        assert!(calls.iter().all(|call| call.len() <= 2), "{calls:?}");

        let fails = builder(&backend).on_outage(OnOutage::Fail).build().unwrap();
        let answers = primary.get_many(&fails, &["a", "b"]).await;
        assert!(answers.iter().all(|answer| matches!(answer, Err(Error::Backend { .. }))), "{answers:?}");
        backend.outage(false);
    })
    .await;
}
