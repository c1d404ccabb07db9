//! Bad input: ids of all kinds, and entries that somebody else has written.

use cache_aside::{BoxError, EntryState, Error, Outcome};

use crate::fixture::{Primary, Product, loaf, on_every_backend, on_every_server, products};

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
async fn no_id_leads_out_of_its_prefix() {
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

#[tokio::test]
async fn an_entry_that_somebody_has_overwritten_is_loaded_anew() {
    on_every_server(async |server, backend| {
        let (cache, primary) = (products(&backend), Primary::of(loaf(42)));
        let mut client = server.client().await;
        let key = "cache:billing:product:p-001";
        let whole: &[&[u8]] = &[b"id", b"p-001", b"name", b"Loaf", b"price_cents", b"650", b"stock", b"1"];
        let mut overwrites: Vec<(&str, Vec<&[u8]>)> = vec![
            ("SET", vec![b"a string"]),
            ("RPUSH", vec![b"a list"]),
            ("SADD", vec![b"a set"]),
            ("ZADD", vec![b"1", b"a sorted set"]),
            ("HSET", whole[..6].to_vec()),
            ("HSET", vec![b"unknown", b"1"]),
            ("HSET", vec![b"~meta", b"something new"]),
            ("HSET", vec![b"~meta", b"absent", b"stock", b"1"]),
            ("HSET", [whole, &[b"~meta", b"stale=60000 newer=1"]].concat()),
        ];
        for malformed in [&b"many"[..], b"", b"-1", b"4294967296", b"1.0", b"\xFF\xFE"] {
            overwrites.push(("HSET", [&whole[..7], &[malformed]].concat()));
        }
        overwrites.push(("HSET", [&whole[..3], &[b"\xFF invalid UTF-8"], &whole[4..]].concat()));
        let mut seen = 0;
        for (command, arguments) in overwrites {
            let arguments_are_unknown = arguments.first() == Some(&&b"unknown"[..]);
            redis::cmd("DEL").arg(key).exec_async(&mut client).await.unwrap();
            redis::cmd(command).arg(key).arg(arguments).exec_async(&mut client).await.unwrap();
            assert_eq!(cache.inspect("p-001").await.unwrap().state, EntryState::Unreadable);
            assert_eq!(cache.peek("p-001").await.unwrap(), None);
            let lookup = cache.lookup("p-001", primary.loader()).await.unwrap();
            assert_eq!((lookup.outcome, lookup.value.as_deref()), (Outcome::Loaded, Some(&loaf(42))), "{command}");
            // A peek asks for the fields that it knows.
            seen += if arguments_are_unknown { 1 } else { 2 };
            assert_eq!(cache.stats().decode_errors, seen, "one by the peek, one by the get");
            assert_eq!(cache.inspect("p-001").await.unwrap().state, EntryState::Record);
            assert!(cache.ttl("p-001").await.unwrap().is_some());
        }
        redis::cmd("SET").arg(key).arg("a string").exec_async(&mut client).await.unwrap();
        assert!(!cache.update_field("p-001", Product::FIELDS.stock, 1).await.unwrap());
        assert_eq!(cache.inspect("p-001").await.unwrap().state, EntryState::Missing);
        redis::cmd("SET").arg(key).arg("a string").exec_async(&mut client).await.unwrap();
        assert!(cache.invalidate("p-001").await.unwrap());
    })
    .await;
}
