//! Ids: any text either is an id with a key of its own, or is refused.

use cache_aside::{BoxError, Error, Outcome};

use crate::support::fixture::{Product, loaf, on_every_backend, on_every_server, products};

#[tokio::test]
async fn any_text_is_an_id_or_a_clear_error() {
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
        for id in [String::new(), "x".repeat(1 << 20), ":".repeat(400)] {
            let load = |_| async { Ok::<_, BoxError>(Some(loaf(1))) };
            for error in [
                cache.get(&id, load).await.unwrap_err(),
                cache.refresh(&id, load).await.unwrap_err(),
                cache.peek(&id).await.unwrap_err(),
                cache.invalidate(&id).await.unwrap_err(),
                cache.update_field(&id, Product::FIELDS.stock, 1).await.unwrap_err(),
                cache.modify(&id, |_| ()).await.unwrap_err(),
                cache.ttl(&id).await.unwrap_err(),
                cache.inspect(&id).await.unwrap_err(),
            ] {
                assert!(matches!(error, Error::InvalidId { .. }), "{error}");
                assert!(error.to_string().contains("cache:billing:product:"), "{error}");
                assert!(error.to_string().len() < 300, "{error}");
            }
        }
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
