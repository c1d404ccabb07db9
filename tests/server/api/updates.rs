//! Updates in place: only of whole records, without lost updates, and without a change of the deadline.

use std::time::{Duration, Instant};

use cache_aside::proof::{Phase, Rig, Step};
use cache_aside::{Backend, EntryState, Error, UpdateTtl};
use futures_util::FutureExt;
use testkit::server::{Flavor, Server};

use crate::support::fixture::{
    Gate, Primary, Product, builder, connect, loaf, on_every_backend, on_every_server, products, settle, until_applied,
};

/// Longer than anything here takes on a busy machine.
const LIMIT: Duration = Duration::from_secs(20);

#[tokio::test]
async fn sets_a_field_of_a_cached_record() {
    on_every_backend(async |backend| {
        let (cache, primary) = (products(&backend), Primary::of(loaf(42)));
        assert!(!cache.update_field("p-001", Product::FIELDS.stock, 41).await.unwrap(), "nothing there yet");
        assert_eq!(cache.inspect("p-001").await.unwrap().state, EntryState::Missing, "no partial record");
        cache.get("p-001", primary.loader()).await.unwrap();
        assert!(cache.update_field("p-001", Product::FIELDS.stock, 41).await.unwrap());
        assert_eq!(cache.peek("p-001").await.unwrap().as_deref(), Some(&loaf(41)));
        assert_eq!(cache.stats().updates, 1);
    })
    .await;
}

#[tokio::test]
async fn sets_and_clears_several_fields_in_one_step() {
    on_every_backend(async |backend| {
        let (cache, primary) = (products(&backend), Primary::of(Product { note: Some("new".into()), ..loaf(42) }));
        cache.get("p-001", primary.loader()).await.unwrap();
        let fields = Product::FIELDS;
        let changes = [fields.stock.set(1), fields.note.set(None), fields.stock.set(2)];
        assert!(cache.update_fields("p-001", changes).await.unwrap());
        assert_eq!(cache.peek("p-001").await.unwrap().as_deref(), Some(&loaf(2)), "the later change holds");
        for [first, last] in [[None, Some("b".to_owned())], [Some("a".to_owned()), None]] {
            let changes = [fields.note.set(first), fields.note.set(last.clone())];
            assert!(cache.update_fields("p-001", changes).await.unwrap());
            assert_eq!(cache.peek("p-001").await.unwrap().unwrap().note, last);
        }
        assert!(cache.update_fields("p-001", []).await.unwrap());
        assert_eq!(cache.peek("p-001").await.unwrap().as_deref(), Some(&loaf(2)));
    })
    .await;
}

#[tokio::test]
async fn deletes_a_not_found_entry_rather_than_merge_into_it() {
    on_every_backend(async |backend| {
        let (cache, primary) = (products(&backend), Primary::default());
        cache.get("p-001", primary.loader()).await.unwrap();
        assert!(!cache.update_field("p-001", Product::FIELDS.stock, 41).await.unwrap());
        assert_eq!(cache.inspect("p-001").await.unwrap().state, EntryState::Missing);
        cache.get("p-001", primary.loader()).await.unwrap();
        assert_eq!(cache.modify("p-001", |product| product.stock = 1).await.unwrap(), None);
        assert_eq!(cache.inspect("p-001").await.unwrap().state, EntryState::Missing);
    })
    .await;
}

#[tokio::test]
async fn an_update_keeps_the_ttl_unless_update_ttl_is_refresh() {
    on_every_backend(async |backend| {
        let primary = Primary::of(loaf(0));
        let keeping = builder(&backend).jitter(0.0).build().unwrap();
        keeping.get("p-001", primary.loader()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
        let mut last = keeping.ttl("p-001").await.unwrap().unwrap();
        for stock in 1..10 {
            assert!(keeping.update_field("p-001", Product::FIELDS.stock, stock).await.unwrap());
            assert!(keeping.modify("p-001", |product| product.price_cents += 1).await.unwrap().is_some());
            let ttl = keeping.ttl("p-001").await.unwrap().unwrap();
            assert!(ttl <= last, "{ttl:?} > {last:?}");
            last = ttl;
        }
        let refreshing =
            builder(&backend).ttl(Duration::from_secs(60)).jitter(0.0).update_ttl(UpdateTtl::Refresh).build().unwrap();
        assert!(refreshing.update_field("p-001", Product::FIELDS.stock, 10).await.unwrap());
        assert!(refreshing.ttl("p-001").await.unwrap().unwrap() > Duration::from_secs(40));
    })
    .await;
}

#[tokio::test]
async fn modifies_by_a_function_and_writes_only_what_changed() {
    on_every_backend(async |backend| {
        let (cache, primary) = (products(&backend), Primary::of(loaf(42)));
        assert_eq!(cache.modify("p-001", |product| product.stock = 0).await.unwrap(), None);
        cache.get("p-001", primary.loader()).await.unwrap();
        let modified = cache.modify("p-001", |product| {
            product.stock -= 2;
            product.note = Some("sold two".into());
        });
        let expected = Product { note: Some("sold two".into()), ..loaf(40) };
        assert_eq!(modified.await.unwrap().as_deref(), Some(&expected));
        assert_eq!(cache.peek("p-001").await.unwrap().as_deref(), Some(&expected));
        assert_eq!(cache.modify("p-001", |_| ()).await.unwrap().as_deref(), Some(&expected), "nothing changed");
    })
    .await;
}

#[tokio::test]
async fn writes_only_the_fields_that_a_modification_changed() {
    on_every_server(async |server, backend| {
        let (cache, primary) = (products(&backend), Primary::of(loaf(42)));
        cache.get("p-001", primary.loader()).await.unwrap();
        let mut client = server.client().await;
        let key = "cache:billing:product:p-001";
        redis::cmd("HSET").arg(key).arg("unknown").arg("kept").exec_async(&mut client).await.unwrap();
        redis::cmd("CONFIG").arg(&["SET", "slowlog-log-slower-than", "0"]).exec_async(&mut client).await.unwrap();
        cache.modify("p-001", |product| product.stock = 1).await.unwrap().unwrap();
        let log: Vec<Vec<redis::Value>> =
            redis::cmd("SLOWLOG").arg("GET").arg("-1").query_async(&mut client).await.unwrap();
        let commands: Vec<Vec<String>> =
            log.into_iter().map(|entry| redis::from_redis_value(entry[3].clone()).unwrap()).collect();
        assert!(commands.contains(&["HSET", key, "stock", "1"].map(str::to_owned).to_vec()), "{commands:?}");
        let unknown: String = redis::cmd("HGET").arg(key).arg("unknown").query_async(&mut client).await.unwrap();
        assert_eq!(unknown, "kept");
    })
    .await;
}

#[tokio::test]
async fn refuses_to_modify_an_id() {
    on_every_backend(async |backend| {
        let (cache, primary) = (products(&backend), Primary::of(loaf(42)));
        cache.get("p-001", primary.loader()).await.unwrap();
        let refused = cache.modify("p-001", |product| product.id = "p-002".into()).await.unwrap_err();
        assert!(matches!(refused, Error::InvalidId { .. }), "{refused}");
        assert_eq!(cache.peek("p-001").await.unwrap().as_deref(), Some(&loaf(42)));
        assert!(cache.update_field("p-001", Product::FIELDS.stock, 1).await.unwrap(), "and goes on working");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_four_tasks_update_one_entry() {
    on_every_backend(async |backend| {
        let (cache, primary) = (builder(&backend).update_timeout(LIMIT).build().unwrap(), Primary::of(loaf(0)));
        cache.get("p-001", primary.loader()).await.unwrap();
        let before = cache.ttl("p-001").await.unwrap().unwrap();
        // Each field has a last writer, so both must have changed: a lost update would leave one unchanged.
        let tasks: Vec<_> = (0..64_u32)
            .map(|task| {
                let cache = cache.clone();
                tokio::spawn(async move {
                    match task % 2 {
                        0 => cache.update_field("p-001", Product::FIELDS.stock, 1000 + task).await,
                        _ => cache.update_field("p-001", Product::FIELDS.price_cents, 1000 + i64::from(task)).await,
                    }
                })
            })
            .collect();
        for task in tasks {
            assert!(task.await.unwrap().unwrap());
        }
        let last = cache.peek("p-001").await.unwrap().unwrap();
        assert!(last.stock >= 1000 && last.price_cents >= 1000 && last.name == loaf(0).name, "{last:?}");
        assert_eq!(cache.stats().updates, 64);
        assert!(cache.ttl("p-001").await.unwrap().unwrap() <= before);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_increments_from_32_tasks_lose_none() {
    on_every_backend(async |backend| increment_a_thousand_times([&backend, &backend]).await).await;
    // Updates over two backends compete at the server, as those of two processes do.
    on_every_server(async |server, backend| {
        let another = connect(&server.url()).await;
        increment_a_thousand_times([&backend, &another]).await;
    })
    .await;
}

async fn increment_a_thousand_times(backends: [&Backend; 2]) {
    let caches = backends.map(|backend| builder(backend).ttl(LIMIT * 10).update_timeout(LIMIT).build().unwrap());
    let primary = Primary::of(loaf(0));
    caches[0].invalidate("p-001").await.unwrap();
    caches[0].get("p-001", primary.loader()).await.unwrap();
    let before = caches[0].ttl("p-001").await.unwrap().unwrap();
    let tasks: Vec<_> = (0..32)
        .map(|task| {
            let cache = caches[task % 2].clone();
            let increments = if task < 8 { 32 } else { 31 };
            tokio::spawn(async move {
                for _ in 0..increments {
                    cache.modify("p-001", |product| product.stock += 1).await.unwrap().unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(caches[1].peek("p-001").await.unwrap().as_deref(), Some(&loaf(1000)));
    assert!(caches[0].ttl("p-001").await.unwrap().unwrap() <= before);
    assert_eq!(primary.loads(), 1);
}

#[tokio::test]
async fn an_update_of_an_entry_that_others_keep_changing_ends_by_update_timeout() {
    const UPDATE_TIMEOUT: Duration = Duration::from_millis(300);
    on_every_server(async |server, backend| {
        let operator = server.client().await;
        let change_between = Rig::new().hook(move |point| {
            let (mut operator, within_update) = (operator.clone(), (Step::Update, Phase::Within));
            async move {
                if (point.step, point.phase) == within_update {
                    redis::cmd("HINCRBY").arg(point.key).arg("stock").arg(1).exec_async(&mut operator).await.unwrap();
                }
            }
            .boxed()
        });
        let cache = builder(&backend.rigged(change_between)).update_timeout(UPDATE_TIMEOUT).build().unwrap();
        let primary = Primary::of(loaf(1));
        cache.get("p-001", primary.loader()).await.unwrap();
        let began = Instant::now();
        let error = cache.update_field("p-001", Product::FIELDS.price_cents, 1).await.unwrap_err();
        assert!((UPDATE_TIMEOUT..LIMIT).contains(&began.elapsed()), "{:?}", began.elapsed());
        assert!(matches!(error, Error::Timeout { limit: UPDATE_TIMEOUT, .. }), "{error:?}");
        assert!(error.to_string().contains("others keep changing the entry"), "{error}");
        until_applied(&cache).await;
        assert_eq!(cache.inspect("p-001").await.unwrap().state, EntryState::Missing);
    })
    .await;
}

#[tokio::test]
async fn updates_at_the_same_time_take_turns_on_update_connections() {
    const UPDATE_CONNECTIONS: usize = 3;
    const UPDATES: u32 = 20;
    let server = Server::start(Flavor::Redis70).await;
    let gate = Gate::closed();
    let held = gate.clone();
    let hold = Rig::new().hook(move |point| {
        let gate = held.clone();
        async move {
            if (point.step, point.phase) == (Step::Update, Phase::Within) {
                gate.pass().await;
            }
        }
        .boxed()
    });
    let backend = Backend::builder(&server.url()).update_connections(UPDATE_CONNECTIONS).operation_timeout(LIMIT);
    let backend = backend.connect().await.unwrap().rigged(hold);
    let cache = builder(&backend).update_timeout(LIMIT).build().unwrap();
    let mut updates = Vec::new();
    for number in 0..UPDATES {
        let primary = Primary::of(Product { id: number.to_string(), ..loaf(1) });
        cache.get(number.to_string(), primary.loader()).await.unwrap();
        let cache = cache.clone();
        updates.push(tokio::spawn(async move {
            cache.update_field(number.to_string(), Product::FIELDS.stock, number).await
        }));
    }
    for _ in 0..UPDATE_CONNECTIONS {
        gate.arrival().await;
    }
    settle().await;
    assert_eq!(server.connections().await, 1 + UPDATE_CONNECTIONS, "beside the one that all other steps share");
    gate.open();
    for update in updates {
        assert!(update.await.unwrap().unwrap());
    }
    assert_eq!(server.connections().await, 1 + UPDATE_CONNECTIONS);
}
