//! `get_many_with`: a loader that answers for each id.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use cache_aside::{BoxError, Cache, EntryState, Error, Loaded};

use super::{Calls, LONG, cause, product, stock};
use crate::support::fixture::{Product, builder, on_every_backend, products, remembering};

type Answer = Result<Loaded<Product>, BoxError>;

fn found(id: &str) -> Answer {
    Ok(Loaded::record(product(id, 1)))
}

fn failed(message: &str) -> Answer {
    Err(message.into())
}

/// Gets these ids with a loader that has these answers, and returns the stocks and errors by id. Counts the loader's calls.
async fn get_many<const N: usize>(
    cache: &Cache<Product>,
    ids: [&str; N],
    answers: impl Fn() -> Vec<(&'static str, Answer)> + Send + Sync + 'static,
) -> ([Result<Option<u32>, Error>; N], Vec<Vec<String>>) {
    let calls = Calls::default();
    let loader = {
        let calls = calls.clone();
        move |ids: Vec<String>| {
            calls.add(&ids);
            let answers: Vec<_> = answers().into_iter().map(|(id, answer)| (id.to_owned(), answer)).collect();
            async { Ok::<_, BoxError>(answers) }
        }
    };
    let stock = |product: Option<Arc<Product>>| product.map(|product| product.stock);
    let found: Vec<_> = cache.get_many_with(ids, loader).await.into_iter().map(|got| got.map(stock)).collect();
    (found.try_into().unwrap(), calls.take())
}

#[tokio::test]
async fn an_id_that_fails_fails_alone() {
    #[derive(Debug, thiserror::Error)]
    #[error("shard 2 is down")]
    struct ShardDown;

    on_every_backend(async |backend| {
        let cache = remembering(&backend);
        let answers = || vec![("b", Err(ShardDown.into())), ("a", found("a")), ("c", Ok(Loaded::not_found()))];
        let ([a, b, c], calls) = get_many(&cache, ["a", "b", "c"], answers).await;
        assert_eq!((a.unwrap(), c.unwrap()), (Some(1), None));
        let error = b.unwrap_err();
        assert!(error.downcast_ref::<ShardDown>().is_some(), "{error:?}");
        assert!(error.to_string().contains("cache:billing:product:b"), "{error}");
        assert_eq!(calls, [["a", "b", "c"]]);
        let states = [("a", EntryState::Record), ("b", EntryState::Missing), ("c", EntryState::NotFound)];
        for (id, state) in states {
            assert_eq!(cache.inspect(id).await.unwrap().state, state, "{id}");
        }

        let ([a, b, c], calls) = get_many(&cache, ["a", "b", "c"], || vec![("b", found("b"))]).await;
        assert_eq!((a.unwrap(), b.unwrap(), c.unwrap()), (Some(1), Some(1), None));
        assert_eq!(calls, [["b"]], "the others are cached, also that there is no c");
    })
    .await;
}

#[tokio::test]
async fn an_id_that_is_left_out_is_an_error_and_nothing_is_cached_for_it() {
    on_every_backend(async |backend| {
        let cache = products(&backend);
        let ([a, b], _) = get_many(&cache, ["a", "b"], || vec![("a", found("a"))]).await;
        assert_eq!(a.unwrap(), Some(1));
        let cause = cause(&b.unwrap_err());
        assert!(cause.contains("left this id out") && cause.contains("Loaded::not_found()"), "{cause}");
        assert_eq!(cache.inspect("b").await.unwrap().state, EntryState::Missing);
        assert_eq!(cache.stats().other_ids, 0);

        let ([a, b], calls) = get_many(&cache, ["a", "b"], || vec![("b", found("b"))]).await;
        assert_eq!((a.unwrap(), b.unwrap(), calls), (Some(1), Some(1), vec![vec!["b".to_owned()]]));

        let ([none], _) = get_many(&cache, ["c"], Vec::new).await;
        assert!(matches!(none, Err(Error::Load { .. })), "{none:?}");
    })
    .await;
}

#[tokio::test]
async fn each_answer_is_stored_as_it_says() {
    on_every_backend(async |backend| {
        let cache = builder(&backend).not_found_ttl(None).jitter(0.0).build().unwrap();
        let answers = || {
            vec![
                ("a", found("a").map(|answer| answer.ttl(LONG))),
                ("b", found("b").map(Loaded::no_store)),
                ("c", Ok(Loaded::not_found().ttl(LONG))),
                ("d", Ok(Loaded::not_found())),
                ("e", found("e").map(|answer| answer.stale_for(LONG))),
            ]
        };
        let (found, _) = get_many(&cache, ["a", "b", "c", "d", "e"], answers).await;
        assert_eq!(found.map(Result::unwrap), [Some(1), Some(1), None, None, Some(1)]);
        let is_long = |ttl: Option<Duration>| ttl.is_some_and(|ttl| ttl > LONG / 2);
        let (a, c) = (cache.ttl("a").await.unwrap(), cache.ttl("c").await.unwrap());
        assert!(is_long(a) && is_long(c), "{a:?}, {c:?}");
        for id in ["b", "d"] {
            assert_eq!(cache.inspect(id).await.unwrap().state, EntryState::Missing, "{id}");
        }
        assert_eq!(cache.inspect("e").await.unwrap().stale_ttl, Some(LONG));
    })
    .await;
}

#[tokio::test]
async fn a_loader_that_fails_as_a_whole_fails_all_ids_that_it_was_called_with() {
    on_every_backend(async |backend| {
        let cache = products(&backend);
        let ([a], _) = get_many(&cache, ["a"], || vec![("a", found("a"))]).await;
        assert_eq!(a.unwrap(), Some(1));
        let loader = |_| async { Err::<Vec<(String, Answer)>, _>("no connection") };
        let answers = cache.get_many_with(["a", "b", "c"], loader).await;
        assert!(answers[0].is_ok(), "it is cached");
        for failed in &answers[1..] {
            assert_eq!(cause(failed.as_ref().unwrap_err()), "no connection");
        }
        let loader = |_| async { panic!("on purpose") as Result<Vec<(String, Answer)>, BoxError> };
        let answers = cache.get_many_with(["a", "b"], loader).await;
        assert!(answers[0].is_ok());
        assert!(matches!(&answers[1], Err(Error::LoadPanicked { message, .. }) if message == "on purpose"));
    })
    .await;
}

#[tokio::test]
async fn a_loader_of_many_records_that_gets_its_own_is_told_of_the_cycle() {
    on_every_backend(async |backend| {
        let cache = products(&backend);
        let own = cache.clone();
        let loader = move |ids: Vec<String>| {
            let own = own.clone();
            async move {
                own.get(ids[0].clone(), |_| async { Ok::<_, BoxError>(None) }).await?;
                Ok::<_, BoxError>(Vec::<(String, Answer)>::new())
            }
        };
        let failed = cache.get_many_with(["a", "b"], loader).await;
        for failed in failed {
            assert!(matches!(failed, Err(Error::LoadCycle { .. })), "{failed:?}");
        }
    })
    .await;
}

/// The loader may have answered for another spelling of an id, so the id can't be taken for missing.
#[tokio::test]
async fn an_answer_for_an_id_that_was_not_asked_for_fails_the_ids_without_an_answer() {
    on_every_backend(async |backend| {
        let cache = products(&backend);
        let answers = || vec![("a", found("a")), ("B", found("B")), ("c", Ok(Loaded::not_found()))];
        let ([a, b, c], _) = get_many(&cache, ["a", "b", "c"], answers).await;
        assert_eq!((a.unwrap(), c.unwrap()), (Some(1), None));
        let cause = cause(&b.unwrap_err());
        assert!(cause.contains("\"B\"") && cause.contains("not asked for"), "{cause}");
        for id in ["b", "B"] {
            assert_eq!(cache.inspect(id).await.unwrap().state, EntryState::Missing, "{id}");
        }
        assert_eq!(cache.stats().other_ids, 1);
    })
    .await;
}

#[tokio::test]
async fn a_record_with_another_id_than_its_answer_is_returned_and_not_cached() {
    on_every_backend(async |backend| {
        let cache = products(&backend);
        let ([a, b], _) = get_many(&cache, ["a", "b"], || vec![("a", found("A")), ("b", found("b"))]).await;
        assert_eq!((a.unwrap(), b.unwrap()), (Some(1), Some(1)));
        assert_eq!(
            (stock(&cache, "a").await, stock(&cache, "A").await, stock(&cache, "b").await),
            (None, None, Some(1))
        );
        assert_eq!(cache.stats().other_ids, 1);
    })
    .await;
}

#[tokio::test]
async fn around_the_cache_each_id_has_its_own_answer_too() {
    on_every_backend(async |backend| {
        let cache = products(&backend);
        let by_id = |id: &str| match id {
            "a" => found("a"),
            "b" => failed("on purpose"),
            _ => Ok(Loaded::not_found()),
        };
        for is_out in [true, false] {
            backend.outage(is_out);
            cache.set_enabled(is_out);
            let loader = move |ids: Vec<String>| async move {
                Ok::<_, BoxError>(ids.into_iter().map(|id| (id.clone(), by_id(&id))).collect::<HashMap<_, _>>())
            };
            let answers = cache.get_many_with(["a", "b", "c"], loader).await;
            assert_eq!(answers[0].as_ref().unwrap().as_ref().unwrap().stock, 1);
            assert_eq!(cause(answers[1].as_ref().unwrap_err()), "on purpose");
            assert_eq!(answers[2].as_ref().unwrap().as_deref(), None);
        }
        assert_eq!(cache.stats().bypasses, 6);
    })
    .await;
}
