//! Caches with a bound loader: a type, a closure for one record or for many, a closure that blocks; and `warm`.

use std::future::ready;
use std::sync::Arc;
use std::time::Duration;

use cache_aside::{Backend, BoxError, Cache, EntryState, Error, Loader, LoadingCache, Lookup, Outcome};
use futures_util::future::{BoxFuture, join_all};

use super::{AtOnce, Calls, LONG, cause, ids, product, stock};
use crate::support::fixture::{Gate, Product, builder, on_every_backend, products, remembering, settle};

/// Longer than a test, and shorter than a load may take.
const WINDOW: Duration = Duration::from_secs(25);

/// Has each product but those whose id begins with `x`, fails for `bad`, and panics for `panic`.
#[derive(Clone, Default)]
struct Repository {
    calls: Calls,
    calls_of_one: Calls,
    at_once: AtOnce,
}

impl Repository {
    fn find(id: &str) -> Result<Option<Product>, BoxError> {
        match id {
            "bad" => Err("on purpose".into()),
            "panic" => panic!("on purpose"),
            _ if id.starts_with('x') => Ok(None),
            _ => Ok(Some(product(id, 1))),
        }
    }

    /// A loader of one.
    fn one(&self) -> impl Fn(String) -> BoxFuture<'static, Result<Option<Product>, BoxError>> + Send + Sync + 'static {
        let repository = self.clone();
        move |id| {
            let repository = repository.clone();
            Box::pin(async move { repository.load(id).await })
        }
    }

    /// A loader of many.
    fn many(
        &self,
    ) -> impl Fn(Vec<String>) -> BoxFuture<'static, Result<Vec<Product>, BoxError>> + Send + Sync + 'static {
        let repository = self.clone();
        move |ids| {
            let repository = repository.clone();
            Box::pin(async move { repository.load_many(ids).await })
        }
    }
}

impl Loader<Product> for Repository {
    type Error = BoxError;

    async fn load(&self, id: String) -> Result<Option<Product>, BoxError> {
        self.calls_of_one.add(std::slice::from_ref(&id));
        self.at_once.work().await;
        Self::find(&id)
    }

    async fn load_many(&self, ids: Vec<String>) -> Result<Vec<Product>, BoxError> {
        self.calls.add(&ids);
        self.at_once.work().await;
        ids.iter().filter_map(|id| Self::find(id).transpose()).collect()
    }
}

/// A loader that knows how to load one record only. Its loads are held at the gate.
#[derive(Clone)]
struct OneByOne {
    called: Calls,
    gate: Gate,
}

impl OneByOne {
    fn bind(self, cache: &Cache<Product>) -> LoadingCache<Product> {
        cache.loaded_by(self)
    }

    fn bind_closure(self, cache: &Cache<Product>) -> LoadingCache<Product> {
        cache.with_loader(move |id| {
            let loader = self.clone();
            loader.called.add(std::slice::from_ref(&id));
            async move {
                loader.gate.pass().await;
                Repository::find(&id)
            }
        })
    }
}

impl Loader<Product> for OneByOne {
    type Error = BoxError;

    fn load(&self, id: String) -> impl Future<Output = Result<Option<Product>, BoxError>> + Send {
        self.called.add(std::slice::from_ref(&id));
        async move {
            self.gate.pass().await;
            Repository::find(&id)
        }
    }
}

fn stock_of(found: Result<Option<Arc<Product>>, Error>) -> Option<u32> {
    found.unwrap().map(|product| product.stock)
}

fn outcomes(found: &[Result<Lookup<Product>, Error>]) -> Vec<Outcome> {
    found.iter().map(|found| found.as_ref().unwrap().outcome).collect()
}

/// Gets each of the ids by itself, all at the same time.
async fn get_each(cache: &LoadingCache<Product>, ids: &[impl AsRef<str>]) -> Vec<Option<String>> {
    let found = join_all(ids.iter().map(|id| cache.get(id.as_ref()))).await;
    found.into_iter().map(|found| found.unwrap().map(|product| product.id.clone())).collect()
}

fn some(ids: &[impl AsRef<str>]) -> Vec<Option<String>> {
    ids.iter().map(|id| Some(id.as_ref().to_owned())).collect()
}

#[tokio::test]
async fn a_loader_type_loads_one_record_or_many() {
    on_every_backend(async |backend| {
        let repository = Repository::default();
        let cache = remembering(&backend).loaded_by(repository.clone());
        assert_eq!(stock_of(cache.get("a").await), Some(1));
        assert_eq!(stock_of(cache.get("x").await), None);
        assert_eq!(repository.calls_of_one.take(), [["a"], ["x"]]);
        assert_eq!(cause(&cache.get("bad").await.unwrap_err()), "on purpose");
        let panicked = cache.get("panic").await.unwrap_err();
        assert!(matches!(&panicked, Error::LoadPanicked { message, .. } if message == "on purpose"), "{panicked:?}");
        repository.calls_of_one.take();

        let found = cache.lookup_many(["a", "x", "b", "c", "x2"]).await;
        use Outcome::{Hit, Loaded, NotFoundHit};
        assert_eq!(outcomes(&found), [Hit, NotFoundHit, Loaded, Loaded, Loaded]);
        let many = cache.get_many(["b", "x2"]).await;
        assert_eq!(many.into_iter().map(stock_of).collect::<Vec<_>>(), [Some(1), None]);
        assert_eq!(repository.calls.take(), [["b", "c", "x2"]]);
        assert!(repository.calls_of_one.take().is_empty(), "single gets share no calls without a window");
    })
    .await;
}

#[tokio::test]
async fn a_loader_of_one_record_loads_many_32_at_a_time() {
    on_every_backend(async |backend| {
        for bind in [OneByOne::bind, OneByOne::bind_closure] {
            let loader = OneByOne { called: Calls::default(), gate: Gate::closed() };
            let cache = bind(loader.clone(), &products(&backend));
            let get = tokio::spawn(cache.get_many(ids(100)));
            for _ in 0..32 {
                loader.gate.arrival().await;
            }
            settle().await;
            assert_eq!(loader.called.take().len(), 32, "the others have not begun");
            loader.gate.open();
            assert!(get.await.unwrap().into_iter().all(|found| stock_of(found) == Some(1)));
            assert_eq!(loader.called.take().len(), 100 - 32);
            cache.invalidate_many(ids(100)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn in_get_many_with_a_closure_for_one_record_an_id_that_fails_fails_alone() {
    on_every_backend(async |backend| {
        let repository = Repository::default();
        let cache = remembering(&backend).with_loader(repository.one());
        let found = cache.get_many(["a", "bad", "x", "b"]).await;
        assert_eq!(cause(found[1].as_ref().unwrap_err()), "on purpose");
        let others = [0, 2, 3].map(|place: usize| found[place].as_ref().unwrap().as_ref().map(|found| found.stock));
        assert_eq!(others, [Some(1), None, Some(1)]);
        assert_eq!(cache.inspect("bad").await.unwrap().state, EntryState::Missing);
        assert_eq!(cache.inspect("x").await.unwrap().state, EntryState::NotFound);
        repository.calls_of_one.take();
        let found = cache.lookup_many(["a", "x", "b"]).await;
        assert_eq!(outcomes(&found), [Outcome::Hit, Outcome::NotFoundHit, Outcome::Hit]);
        assert!(repository.calls_of_one.take().is_empty());
    })
    .await;
}

#[tokio::test]
async fn in_get_many_with_a_closure_for_one_record_an_id_that_panics_fails_alone() {
    on_every_backend(async |backend| {
        let cache = products(&backend).with_loader(|id: String| async move { Repository::find(&id) });
        let blocking = products(&backend).with_blocking_loader(|id: String| Repository::find(&id));
        for cache in [cache, blocking] {
            let found = cache.get_many(["a", "panic", "b"]).await;
            let panicked = found[1].as_ref().unwrap_err();
            assert!(matches!(panicked, Error::LoadPanicked { message, .. } if message == "on purpose"), "{panicked:?}");
            assert!(found[0].is_ok() && found[2].is_ok(), "{found:?}");
            cache.invalidate_many(["a", "b"]).await;
        }
    })
    .await;
}

#[tokio::test]
async fn single_gets_within_the_window_are_one_call() {
    on_every_backend(async |backend| {
        let (repository, ids) = (Repository::default(), ids(100));
        let cache = products(&backend).with_batch_loader(repository.many()).window(Duration::from_secs(1));
        assert_eq!(get_each(&cache, &ids).await, some(&ids));
        let calls = repository.calls.take();
        assert!(calls.len() <= 2, "the window splits them once at most: {calls:?}");
        let mut asked = calls.concat();
        asked.sort();
        assert_eq!(asked, ids, "each once");
        assert_eq!((cache.stats().loads, cache.stats().misses), (calls.len() as u64, 100), "a call is a load");

        assert_eq!(get_each(&cache, &ids).await, some(&ids));
        assert!(repository.calls.take().is_empty(), "all are cached");
    })
    .await;
}

#[tokio::test]
async fn a_call_with_the_most_ids_starts_at_once() {
    on_every_backend(async |backend| {
        let (repository, ids) = (Repository::default(), ids(100));
        let cache = products(&backend).with_batch_loader(repository.many()).window(Duration::MAX);
        for (at_most, calls) in [(100, vec![100]), (50, vec![50, 50]), (1, vec![1; 100]), (0, vec![1; 100])] {
            let cache = cache.clone().at_most(at_most);
            let got = tokio::time::timeout(WINDOW / 2, get_each(&cache, &ids)).await;
            assert_eq!(got.expect("nothing more is waited for"), some(&ids));
            let asked = repository.calls.take();
            assert_eq!(asked.iter().map(Vec::len).collect::<Vec<_>>(), calls, "at most {at_most}");
            for invalidated in cache.invalidate_many(ids.iter().map(String::as_str)).await {
                assert!(invalidated.unwrap());
            }
        }
    })
    .await;
}

#[tokio::test]
async fn what_is_left_over_waits_for_the_window() {
    on_every_backend(async |backend| {
        let (repository, ids) = (Repository::default(), ids(100));
        let cache = products(&backend).with_batch_loader(repository.many());
        let cache = cache.window(Duration::from_millis(500)).at_most(40);
        assert_eq!(get_each(&cache, &ids).await, some(&ids));
        let calls = repository.calls.take();
        assert!(calls.iter().all(|call| call.len() <= 40), "{calls:?}");
        assert!((3..=4).contains(&calls.len()), "{calls:?}");
        assert_eq!(get_each(&cache, &["one more"]).await, some(&["one more"]));
        assert_eq!(repository.calls.take(), [["one more"]]);
    })
    .await;
}

#[tokio::test]
async fn an_id_that_is_asked_for_twice_is_once_in_the_call() {
    on_every_backend(async |backend| {
        let repository = Repository::default();
        let cache = products(&backend).with_batch_loader(repository.many()).window(WINDOW).at_most(2);
        assert_eq!(get_each(&cache, &["a", "a", "b", "b", "a"]).await, some(&["a", "a", "b", "b", "a"]));
        assert_eq!(repository.calls.take(), [["a", "b"]]);
        assert_eq!(cache.stats().stampedes_suppressed, 3);

        cache.invalidate("a").await.unwrap();
        // The handles share the loads of the cache that is behind them.
        let clone = cache.clone();
        let (a, again, c) = tokio::join!(cache.get("a"), clone.get("a"), cache.get("c"));
        assert_eq!([a, again, c].map(stock_of), [Some(1); 3]);
        assert_eq!(repository.calls.take(), [["a", "c"]]);
    })
    .await;
}

/// Loads around the cache are not shared when it is disabled, but their call is.
#[tokio::test]
async fn around_the_cache_an_id_that_is_asked_for_twice_is_once_in_the_call() {
    on_every_backend(async |backend| {
        let repository = Repository::default();
        let cache = products(&backend).with_batch_loader(repository.many()).window(WINDOW).at_most(2);
        cache.set_enabled(false);
        assert_eq!(get_each(&cache, &["a", "a", "b"]).await, some(&["a", "a", "b"]));
        assert_eq!(repository.calls.take(), [["a", "b"]]);
        cache.set_enabled(true);
        backend.outage(true);
        assert_eq!(get_each(&cache, &["a", "a", "b"]).await, some(&["a", "a", "b"]));
        assert_eq!(repository.calls.take(), [["a", "b"]]);
        assert_eq!(cache.stats().bypasses, 6);
    })
    .await;
}

#[tokio::test]
async fn an_id_that_the_call_has_no_record_of_is_not_found() {
    on_every_backend(async |backend| {
        let repository = Repository::default();
        let cache = remembering(&backend).with_batch_loader(repository.many()).window(WINDOW).at_most(2);
        assert_eq!(get_each(&cache, &["a", "x"]).await, [Some("a".to_owned()), None]);
        assert_eq!(cache.lookup("x").await.unwrap().outcome, Outcome::NotFoundHit);
    })
    .await;
}

#[tokio::test]
async fn a_call_that_fails_or_panics_fails_the_gets_that_share_it() {
    on_every_backend(async |backend| {
        let repository = Repository::default();
        let cache = products(&backend).with_batch_loader(repository.many()).window(WINDOW).at_most(2);
        let (a, bad) = tokio::join!(cache.get("a"), cache.get("bad"));
        for failed in [a, bad] {
            assert_eq!(cause(&failed.unwrap_err()), "on purpose");
        }
        let (a, panicked) = tokio::join!(cache.get("a"), cache.get("panic"));
        for failed in [a, panicked] {
            let failed = failed.unwrap_err();
            assert!(matches!(&failed, Error::LoadPanicked { message, .. } if message == "on purpose"), "{failed:?}");
        }
        assert_eq!(get_each(&cache, &["a", "b"]).await, some(&["a", "b"]));
    })
    .await;
}

/// Its record is loaded around the cache, in a call that it may share.
#[tokio::test]
async fn an_id_that_can_not_be_a_key_is_loaded_with_the_others() {
    on_every_backend(async |backend| {
        let long = "i".repeat(2_000);
        for is_batched in [true, false] {
            let repository = Repository::default();
            let cache = match is_batched {
                true => products(&backend).with_batch_loader(repository.many()).window(WINDOW).at_most(3),
                false => products(&backend).loaded_by(repository.clone()),
            };
            assert_eq!(get_each(&cache, &["", "a", &long]).await, some(&["", "a", &long]));
            if is_batched {
                assert_eq!(repository.calls.take(), [["", "a", &long]]);
            }
            assert_eq!(stock(&cache, "a").await, Some(1));
            assert_eq!(cache.peek("").await.unwrap(), None);
            assert_eq!((cache.stats().bypasses, cache.stats().invalid_ids), (2, 3));
            let many = cache.lookup_many(["", "a", ""]).await;
            assert_eq!(outcomes(&many), [Outcome::Bypassed, Outcome::Hit, Outcome::Bypassed]);
            assert_eq!(repository.calls.take(), [[""]]);
            cache.invalidate("a").await.unwrap();
        }
    })
    .await;
}

#[tokio::test]
async fn a_window_lets_the_single_gets_of_any_loader_share_calls() {
    on_every_backend(async |backend| {
        let repository = Repository::default();
        let cache = products(&backend).loaded_by(repository.clone());
        let windowed = cache.clone().window(WINDOW).at_most(2);
        assert_eq!(get_each(&windowed, &["a", "b"]).await, some(&["a", "b"]));
        assert_eq!(repository.calls.take(), [["a", "b"]]);
        assert_eq!(get_each(&cache, &["c", "d"]).await, some(&["c", "d"]), "the other handle is as before");
        assert!(repository.calls.take().is_empty());
        assert_eq!(repository.calls_of_one.take().len(), 2);
        let unshared = cache.at_most(1);
        assert_eq!(get_each(&unshared, &["e"]).await, some(&["e"]));
        assert!(repository.calls.take().is_empty(), "the most ids alone share nothing");
    })
    .await;
}

#[tokio::test]
async fn a_blocking_loader_runs_on_threads_for_it() {
    on_every_backend(async |backend| {
        let own = std::thread::current().id();
        let cache = products(&backend).with_blocking_loader(move |id: String| {
            assert_ne!(std::thread::current().id(), own);
            std::thread::sleep(Duration::from_millis(1));
            Repository::find(&id)
        });
        assert_eq!(stock_of(cache.get("a").await), Some(1));
        assert_eq!(stock_of(cache.get("x").await), None);
        assert_eq!(cache.lookup("a").await.unwrap().outcome, Outcome::Hit);
        assert_eq!(cause(&cache.get("bad").await.unwrap_err()), "on purpose");
        let panicked = cache.get("panic").await.unwrap_err();
        assert!(matches!(&panicked, Error::LoadPanicked { message, .. } if message == "on purpose"), "{panicked:?}");
        let many = cache.get_many(["a", "b", "bad", "x"]).await;
        assert!(many[0].is_ok() && many[1].is_ok() && many[3].is_ok(), "{many:?}");
        assert_eq!(cause(many[2].as_ref().unwrap_err()), "on purpose");
    })
    .await;
}

#[tokio::test]
async fn the_wait_for_a_blocking_loader_ends_with_the_load_timeout() {
    on_every_backend(async |backend| {
        let (sender, receiver) = std::sync::mpsc::channel::<()>();
        let receiver = std::sync::Mutex::new(receiver);
        let cache = builder(&backend).load_timeout(Duration::from_millis(100)).build().unwrap();
        let cache = cache.with_blocking_loader(move |id: String| {
            let _ = receiver.lock().unwrap().recv();
            Repository::find(&id)
        });
        let failed = cache.get("a").await.unwrap_err();
        assert!(matches!(failed, Error::Timeout { .. }), "{failed:?}");
        drop(sender);
    })
    .await;
}

#[tokio::test]
async fn every_operation_that_loads_has_the_bound_loader() {
    on_every_backend(async |backend| {
        let (repository, cache) = (Repository::default(), remembering(&backend));
        for cache in [
            cache.with_loader(repository.one()),
            cache.loaded_by(repository.clone()),
            cache.with_batch_loader(repository.many()),
            cache.with_blocking_loader(|id: String| Repository::find(&id)),
        ] {
            let fields = Product::FIELDS;
            assert_eq!(cache.get_fields("a", fields.stock).await.unwrap(), Some(1));
            let found = cache.get_fields("a", (fields.name, fields.stock)).await.unwrap();
            assert_eq!(found, Some(("Sourdough Loaf".to_owned(), 1)));
            assert_eq!(cache.get_fields("x", fields.stock).await.unwrap(), None);

            cache.update_field("a", fields.stock, 7).await.unwrap();
            assert_eq!(stock_of(cache.get("a").await), Some(7));
            assert_eq!(stock_of(cache.get_fresh("a").await), Some(7));
            assert_eq!(stock_of(cache.refresh("a").await), Some(1), "it is loaded anew");
            assert_eq!(stock(&cache, "a").await, Some(1));
            assert_eq!(stock_of(cache.refresh("x").await), None);
            assert!(cache.refresh("bad").await.is_err());

            use Outcome::{Hit, Loaded, NotFoundHit};
            let found = cache.lookup_many(["a", "b", "x", "b"]).await;
            assert_eq!(outcomes(&found), [Hit, Loaded, NotFoundHit, Loaded]);
            assert_eq!(cache.lookup("b").await.unwrap().outcome, Hit);
            assert_eq!(stock_of(cache.get_fresh("c").await), Some(1));
            for invalidated in cache.invalidate_many(["a", "b", "c", "x"]).await {
                invalidated.unwrap();
            }
        }
    })
    .await;
}

#[tokio::test]
async fn warm_loads_what_is_missing() {
    on_every_backend(async |backend| {
        let (repository, ids) = (Repository::default(), ids(100));
        let cache = remembering(&backend).with_batch_loader(repository.many());
        cache.get_many(&ids[..30]).await;
        cache.get("x").await.unwrap();
        repository.calls.take();
        let warmed = cache.warm(ids.iter().map(String::as_str).chain(["x"]), 20).await;
        assert_eq!((warmed.cached, warmed.loaded, warmed.failed), (31, 70, 0));
        assert!(warmed.error.is_none());
        let calls = repository.calls.take();
        assert_eq!(calls.iter().map(Vec::len).collect::<Vec<_>>(), [10, 20, 20, 20], "at most 20 at a time");
        let mut asked = calls.concat();
        asked.sort();
        assert_eq!(asked, ids[30..]);

        let warmed = cache.warm(&ids, 1_000).await;
        assert_eq!((warmed.cached, warmed.loaded, warmed.failed), (100, 0, 0));
        assert!(repository.calls.take().is_empty());
        let warmed = cache.warm([""; 0], 10).await;
        assert_eq!((warmed.cached, warmed.loaded, warmed.failed), (0, 0, 0));
    })
    .await;
}

#[tokio::test]
async fn warm_counts_failures_and_goes_on() {
    on_every_backend(async |backend| {
        let repository = Repository::default();
        let cache = products(&backend).with_loader(repository.one());
        let warmed = cache.warm(["a", "bad", "b", "bad", "c"], 2).await;
        assert_eq!((warmed.cached, warmed.loaded, warmed.failed), (0, 3, 2));
        assert_eq!(cause(&warmed.error.unwrap()), "on purpose");
        assert_eq!(outcomes(&cache.lookup_many(["a", "b", "c"]).await), [Outcome::Hit; 3]);
    })
    .await;
}

#[tokio::test]
async fn warm_bounds_how_many_loads_run_at_the_same_time() {
    on_every_backend(async |backend| {
        for (at_a_time, most) in [(0, 1), (1, 1), (8, 8)] {
            let (repository, ids) = (Repository::default(), ids(24));
            let cache = products(&backend).with_loader(repository.one());
            assert_eq!(cache.warm(&ids, at_a_time).await.loaded, ids.len());
            assert!(repository.at_once.most() <= most, "{} of {at_a_time}", repository.at_once.most());
            cache.invalidate_many(&ids).await;
        }
    })
    .await;
}

/// Without a second thread, and without what drives sockets.
#[test]
fn a_runtime_of_one_thread_is_enough() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        let cache = products(&Backend::connect("memory://").await.unwrap());
        let repository = Repository::default();
        for cache in [
            cache.with_loader(repository.one()),
            cache.loaded_by(repository.clone()),
            cache.with_batch_loader(repository.many()),
            cache.with_blocking_loader(|id: String| Repository::find(&id)),
        ] {
            assert_eq!(stock_of(cache.get("a").await), Some(1));
            assert_eq!(cache.warm(ids(50), 10).await.loaded, 50);
            assert_eq!(get_each(&cache, &ids(50)).await, some(&ids(50)));
            cache.invalidate_many(ids(50)).await;
            cache.invalidate("a").await.unwrap();
        }
    });
}

/// Loads outlive their callers, so the cache may be made and dropped anywhere.
#[tokio::test]
async fn a_get_of_a_handle_that_is_gone_goes_on() {
    on_every_backend(async |backend| {
        let repository = Repository::default();
        let get = {
            let cache = products(&backend).with_batch_loader(repository.many()).window(Duration::from_millis(1));
            tokio::spawn(cache.get("a"))
        };
        assert_eq!(stock_of(get.await.unwrap()), Some(1));
        let refresh = products(&backend).with_loader(repository.one()).refresh("a");
        assert_eq!(stock_of(refresh.await), Some(1));
        let warm = products(&backend).with_loader(|_| ready(Ok::<_, BoxError>(None))).warm(["a", "x"], 2);
        let warmed = warm.await;
        assert_eq!((warmed.cached, warmed.loaded), (1, 1));
        let cache: Cache<Product> = builder(&backend).ttl(LONG).build().unwrap();
        assert_eq!(stock(&cache, "a").await, Some(1));
    })
    .await;
}
