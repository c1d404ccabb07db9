//! Ids: any text is an id with a key of its own, or its record is never cached; and no record is stored under another id.

use std::error::Error as _;

use cache_aside::{BoxError, EntryState, Error, OnOutage, Outcome};

use crate::support::fixture::{Gate, Primary, Product, builder, loaf, on_every_backend, on_every_server, products};

#[tokio::test]
async fn any_text_is_an_id_of_its_own() {
    on_every_backend(async |backend| {
        let cache = products(&backend);
        let ids =
            ["a:b", "{", "}", "{tag}", "a b", "a\nb", "\0", "%", "%3A", "a/b", "käse", "*", "?", "[a]", "\u{7F}", "''"];
        for id in ids {
            let product = Product { id: id.to_owned(), ..loaf(1) };
            let load = |id: String| async move { Ok::<_, BoxError>(Some(Product { id, ..loaf(1) })) };
            assert_eq!(cache.get(id, load).await.unwrap().as_deref(), Some(&product));
            assert_eq!(cache.lookup(id, load).await.unwrap().outcome, Outcome::Hit);
            assert!(cache.update_field(id, Product::FIELDS.stock, 2).await.unwrap());
            let key = cache.inspect(id).await.unwrap().key;
            let escaped = key.strip_prefix("cache:billing:product:").unwrap();
            assert!(!escaped.contains([':', '/', '{', '}', ' ', '\n', '\0']), "{escaped}");
        }
        for id in ids {
            assert_eq!(cache.peek(id).await.unwrap().unwrap().id, id, "no two ids share a key");
        }
    })
    .await;
}

#[tokio::test]
async fn the_record_of_an_id_that_cannot_be_a_key_is_loaded_around_the_cache() {
    on_every_backend(async |backend| {
        let cache = builder(&backend).on_outage(OnOutage::Fail).build().unwrap();
        let ids = [String::new(), "x".repeat(1 << 20), ":".repeat(400)];
        for id in &ids {
            let load = |id| async { Ok::<_, BoxError>(Some(Product { id, ..loaf(1) })) };
            for _ in 0..2 {
                let lookup = cache.lookup(id, load).await.unwrap();
                assert_eq!((lookup.outcome, &lookup.value.unwrap().id), (Outcome::Bypassed, id));
            }
            assert_eq!(cache.refresh(id, load).await.unwrap().unwrap().id, *id);
            assert_eq!(cache.get_fields(id, Product::FIELDS.stock, load).await.unwrap(), Some(1));
            let failed = cache.get(id, |_| async { Err::<Option<_>, _>("no route") }).await.unwrap_err();
            assert!(matches!(failed, Error::Load { .. }), "{failed}");
            assert!(failed.to_string().len() < 3_000, "{failed}");

            assert!(!cache.invalidate(id).await.unwrap());
            assert!(!cache.update_field(id, Product::FIELDS.stock, 1).await.unwrap());
            assert_eq!(cache.modify(id, |_| ()).await.unwrap(), None);
            assert_eq!(cache.peek(id).await.unwrap(), None);
            assert_eq!(cache.ttl(id).await.unwrap(), None);
            let error = cache.inspect(id).await.unwrap_err();
            assert!(matches!(error, Error::InvalidId { .. }), "{error}");
            assert!(error.to_string().contains("cache:billing:product:"), "{error}");
            assert!(error.to_string().len() < 300, "{error}");
        }
        let stats = cache.stats();
        assert_eq!((stats.bypasses, stats.loads, stats.invalid_ids), (15, 15, 30), "{stats:?}");

        let load = |ids: Vec<String>| async move {
            Ok::<_, BoxError>(ids.into_iter().map(|id| Product { id, ..loaf(1) }).collect::<Vec<_>>())
        };
        for (answer, id) in cache.lookup_many(&ids, load).await.into_iter().zip(&ids) {
            let answer = answer.unwrap();
            assert_eq!((answer.outcome, &answer.value.unwrap().id), (Outcome::Bypassed, id));
        }
    })
    .await;
}

/// One loader is enough for all who ask at once, though nothing is stored.
#[tokio::test]
async fn gets_of_an_id_that_cannot_be_a_key_share_a_load() {
    on_every_backend(async |backend| {
        let (cache, primary) = (products(&backend), Primary::of(Product { id: String::new(), ..loaf(1) }));
        let gate = Gate::closed();
        let get = || cache.get("", primary.gated(&gate));
        let (first, second, ()) = tokio::join!(get(), get(), async {
            gate.arrival().await;
            gate.open();
        });
        assert_eq!(first.unwrap().unwrap().stock, 1);
        assert_eq!(second.unwrap().unwrap().stock, 1);
        assert_eq!(primary.loads(), 1);
    })
    .await;
}

/// The record is the caller's, but under this id an invalidation of its own id would never reach it.
#[tokio::test]
async fn a_record_with_another_id_is_not_stored() {
    on_every_backend(async |backend| {
        let cache = products(&backend);
        let lower = |id: String| async move { Ok::<_, BoxError>(Some(Product { id: id.to_lowercase(), ..loaf(1) })) };
        for _ in 0..2 {
            let lookup = cache.lookup("ABC", lower).await.unwrap();
            assert_eq!((lookup.outcome, lookup.value.unwrap().id.as_str()), (Outcome::Loaded, "abc"));
        }
        let inspection = cache.inspect("ABC").await.unwrap();
        assert_eq!((inspection.state, inspection.lock_ttl), (EntryState::Missing, None));
        assert_eq!((cache.stats().other_ids, cache.stats().loads), (2, 2));

        let load = |ids: Vec<String>| async move {
            let found = ids.into_iter().filter(|id| id != "gone");
            Ok::<_, BoxError>(found.map(|id| Product { id: id.to_lowercase(), ..loaf(1) }).collect::<Vec<_>>())
        };
        let answers = cache.get_many(["abc", "DEF", "gone"], load).await;
        assert_eq!(answers[0].as_ref().unwrap().as_ref().unwrap().id, "abc");
        for answer in &answers[1..] {
            let error = answer.as_ref().unwrap_err();
            let cause = error.source().unwrap().to_string();
            assert!(cause.contains("\"def\""), "{cause}");
        }
        for id in ["DEF", "gone"] {
            assert_eq!(cache.inspect(id).await.unwrap().state, EntryState::Missing, "not cached as not found");
        }
        assert_eq!(cache.stats().other_ids, 3);
    })
    .await;
}

#[tokio::test]
async fn no_id_escapes_its_key_prefix() {
    on_every_server(async |server, backend| {
        let cache = products(&backend);
        for id in ["..", ":", "a:lock", "}:lock", "p-001}:lock{", "\r\nSET x y\r\n"] {
            cache.get(id, |id| async { Ok::<_, BoxError>(Some(Product { id, ..loaf(1) })) }).await.unwrap();
        }
        let mut client = server.client().await;
        let keys: Vec<String> = redis::cmd("KEYS").arg("*").query_async(&mut client).await.unwrap();
        assert_eq!(keys.len(), 6, "{keys:?}");
        assert!(keys.iter().all(|key| key.starts_with("cache:billing:product:")), "{keys:?}");
    })
    .await;
}
