//! Reads of some fields: only these are read, and a missing record is read through as by `get`.

use std::collections::HashMap;

use cache_aside::{BoxError, Cache, Cacheable, EntryState};

use crate::support::fixture::{
    Primary, Product, builder, load_at_gate, loaf, on_every_backend, on_every_server, products, settle,
};

const FIELDS: <Product as Cacheable>::Fields = Product::FIELDS;

#[tokio::test]
async fn some_fields_are_read_through_and_then_hit() {
    on_every_backend(async |backend| {
        let (cache, primary) = (products(&backend), Primary::of(loaf(42)));
        for _ in 0..2 {
            let found = cache.get_fields("p-001", (FIELDS.stock, FIELDS.name), primary.loader()).await.unwrap();
            assert_eq!(found, Some((42, "Sourdough Loaf".to_owned())));
        }
        assert_eq!(cache.get_fields("p-001", FIELDS.price_cents, primary.loader()).await.unwrap(), Some(650));
        assert_eq!(cache.get_fields("p-001", (FIELDS.note,), primary.loader()).await.unwrap(), Some((None,)));
        let twice = (FIELDS.name, FIELDS.note, FIELDS.name);
        let twice = cache.get_fields("p-001", twice, primary.loader()).await.unwrap().unwrap();
        assert_eq!((twice.0.as_str(), twice.1, twice.2.as_str()), ("Sourdough Loaf", None, "Sourdough Loaf"));
        assert_eq!(
            cache.get("p-001", primary.loader()).await.unwrap().as_deref(),
            Some(&loaf(42)),
            "it is stored whole"
        );
        let stats = cache.stats();
        assert_eq!((primary.loads(), stats.misses, stats.hits), (1, 1, 5));

        for _ in 0..2 {
            assert_eq!(cache.get_fields("p-002", FIELDS.note, primary.loader()).await.unwrap(), None);
        }
        assert_eq!((primary.loads(), cache.stats().not_found_hits), (2, 1));
    })
    .await;
}

/// Other fields of the hash are not even read.
#[tokio::test]
async fn only_these_fields_are_read() {
    on_every_server(async |server, backend| {
        let (cache, primary) = (products(&backend), Primary::of(loaf(42)));
        cache.get("p-001", primary.loader()).await.unwrap();
        let mut operator = server.client().await;
        let key = "cache:billing:product:p-001";
        let set = redis::cmd("HSET").arg(key).arg("price_cents").arg("much").to_owned();
        set.exec_async(&mut operator).await.unwrap();
        let stock = cache.get_fields("p-001", FIELDS.stock, primary.loader()).await.unwrap();
        assert_eq!((stock, primary.loads(), cache.stats().decode_errors), (Some(42), 1, 0));
        let price = cache.get_fields("p-001", (FIELDS.stock, FIELDS.price_cents), primary.loader()).await.unwrap();
        assert_eq!((price, primary.loads(), cache.stats().decode_errors), (Some((42, 650)), 2, 1));

        redis::cmd("DEL").arg(key).exec_async(&mut operator).await.unwrap();
        redis::cmd("SET").arg(key).arg("text").exec_async(&mut operator).await.unwrap();
        assert_eq!(cache.get_fields("p-001", FIELDS.stock, primary.loader()).await.unwrap(), Some(42));
        assert_eq!(cache.inspect("p-001").await.unwrap().state, EntryState::Record);
    })
    .await;
}

#[tokio::test]
async fn an_invalidation_during_a_load_holds_for_fields_too() {
    on_every_backend(async |backend| {
        let (cache, primary) = (products(&backend), Primary::of(loaf(1)));
        let (gate, early) = load_at_gate(&cache, &primary).await;
        primary.put(loaf(2));
        cache.invalidate("p-001").await.unwrap();
        let late = tokio::spawn(cache.get_fields("p-001", FIELDS.stock, primary.loader()));
        settle().await;
        gate.open();
        early.await.unwrap().unwrap();
        assert_eq!(late.await.unwrap().unwrap(), Some(2));
        assert_eq!((cache.stats().fenced_fills, primary.loads()), (1, 2));
    })
    .await;
}

#[tokio::test]
async fn reads_of_fields_and_of_the_whole_share_one_load() {
    on_every_backend(async |backend| {
        let (cache, primary) = (products(&backend), Primary::of(loaf(1)));
        let (gate, whole) = load_at_gate(&cache, &primary).await;
        let stock = tokio::spawn(cache.get_fields("p-001", FIELDS.stock, primary.loader()));
        settle().await;
        gate.open();
        assert_eq!(whole.await.unwrap().unwrap().unwrap().stock, stock.await.unwrap().unwrap().unwrap());
        assert_eq!((primary.loads(), cache.stats().stampedes_suppressed), (1, 1));
    })
    .await;
}

#[derive(Debug, Clone, PartialEq, Cacheable)]
#[cacheable(namespace = "billing", entity = "part")]
struct Part {
    #[cacheable(id)]
    shop: String,
    #[cacheable(id, rename = "no")]
    number: u64,
    #[cacheable(rename = "t", alias = "title")]
    name: String,
    #[cacheable(default)]
    grade: u8,
    #[cacheable(json)]
    sizes: HashMap<String, u32>,
    #[cacheable(skip)]
    opened: bool,
}

async fn part((shop, number): (String, u64)) -> Result<Option<Part>, BoxError> {
    let sizes = HashMap::from([("width".to_owned(), 3)]);
    Ok(Some(Part { shop, number, name: "Hinge".to_owned(), grade: 2, sizes, opened: true }))
}

/// A field under an alias, with a default, or as JSON is decoded as by a `get` of the whole record.
#[tokio::test]
async fn attributes_of_fields_hold() {
    on_every_server(async |server, backend| {
        let cache = Cache::<Part>::new(backend);
        let fields = (Part::FIELDS.name, (Part::FIELDS.grade, Part::FIELDS.sizes));
        let sizes = HashMap::from([("width".to_owned(), 3)]);
        for _ in 0..2 {
            let found = cache.get_fields(("acme", 7), fields, part).await.unwrap();
            assert_eq!(found, Some(("Hinge".to_owned(), (2, sizes.clone()))));
        }
        let mut old = redis::cmd("HSET");
        old.arg("cache:billing:part:acme/8").arg(&["shop", "acme", "no", "8", "title", "Screw", "sizes", "{}"]);
        old.exec_async(&mut server.client().await).await.unwrap();
        let found = cache.get_fields(("acme", 8), fields, part).await.unwrap();
        assert_eq!(found, Some(("Screw".to_owned(), (0, HashMap::new()))));
        let stats = cache.stats();
        assert_eq!((stats.hits, stats.misses, stats.decode_errors), (2, 1, 0));
    })
    .await;
}

#[tokio::test]
async fn during_an_outage_fields_come_from_the_loader() {
    on_every_backend(async |backend| {
        let (cache, primary) = (builder(&backend).build().unwrap(), Primary::of(loaf(1)));
        backend.outage(true);
        assert_eq!(cache.get_fields("p-001", FIELDS.stock, primary.loader()).await.unwrap(), Some(1));
        assert_eq!(cache.stats().bypasses, 1);
        backend.outage(false);
    })
    .await;
}
