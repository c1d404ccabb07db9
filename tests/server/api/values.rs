//! Values that are not stored as they are: those that JSON can't hold, texts that don't decode again, fields that are skipped,
//! and texts that only the variant `other` stands for.

use std::collections::{HashMap, HashSet};
use std::fmt::Debug;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use cache_aside::{Backend, BoxError, Cache, Cacheable, Embeddable, EntryState, FieldValue, Outcome};
use serde::{Deserialize, Serialize};

use crate::support::fixture::{on_every_backend, on_every_server};

async fn get<T: Cacheable<Id = u64> + Clone>(cache: &Cache<T>, record: &T) -> (T, Outcome) {
    let loaded = record.clone();
    let lookup = cache.lookup(record.id(), |_| async { Ok::<_, BoxError>(Some(loaded)) }).await.unwrap();
    let value = lookup.value.unwrap();
    (T::clone(&value), lookup.outcome)
}

/// The record is stored, and comes back as it was.
async fn is_stored<T: Cacheable<Id = u64> + Clone + PartialEq + Debug>(backend: &Backend, record: &T) {
    let cache: Cache<T> = Cache::new(backend.clone());
    cache.invalidate(record.id()).await.unwrap();
    assert_eq!(get(&cache, record).await, (record.clone(), Outcome::Loaded));
    assert_eq!(get(&cache, record).await, (record.clone(), Outcome::Hit));
    assert_eq!(cache.stats().encode_errors, 0);
}

/// Every get has the loader's record, and each load is counted as one that could not be stored.
async fn is_never_stored<T: Cacheable<Id = u64> + Clone + Debug>(backend: &Backend, record: &T) {
    let cache: Cache<T> = Cache::new(backend.clone());
    cache.invalidate(record.id()).await.unwrap();
    for loads in 1..3 {
        let (found, outcome) = get(&cache, record).await;
        assert_eq!((format!("{found:?}"), outcome), (format!("{record:?}"), Outcome::Loaded));
        assert_eq!((cache.stats().encode_errors, cache.stats().decode_errors), (loads, 0));
        let inspection = cache.inspect(record.id()).await.unwrap();
        assert_eq!((inspection.state, inspection.lock_ttl), (EntryState::Missing, None), "{record:?}");
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
struct Discount(Option<u32>);

impl Default for Discount {
    fn default() -> Self {
        Self(Some(10))
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Pixel {
    red: Option<f32>,
}

#[derive(Debug, Clone, PartialEq, Cacheable)]
#[cacheable(namespace = "values")]
struct Json {
    #[cacheable(id)]
    id: u64,
    #[cacheable(json)]
    floats: Vec<f64>,
    #[cacheable(json)]
    nested: Option<Option<u32>>,
    #[cacheable(json, default)]
    discount: Discount,
    #[cacheable(json)]
    pixel: Pixel,
    #[cacheable(json)]
    tags: HashSet<String>,
    #[cacheable(json)]
    by_point: HashMap<(u8, u8), u8>,
    #[cacheable(json)]
    by_number: HashMap<u32, HashSet<u8>>,
    document: serde_json::Value,
    #[cacheable(default)]
    limit: Limit,
}

/// Its default is not its `None`.
#[derive(Debug, Clone, PartialEq, FieldValue)]
struct Limit(Option<u32>);

impl Default for Limit {
    fn default() -> Self {
        Self(Some(10))
    }
}

fn json() -> Json {
    Json {
        id: 7,
        floats: vec![0.1, -0.0, 1e300],
        nested: None,
        discount: Discount(None),
        pixel: Pixel { red: None },
        tags: (0..100).map(|tag| tag.to_string()).collect(),
        by_point: HashMap::new(),
        by_number: (0..100).map(|number| (number, (0..100).collect())).collect(),
        document: serde_json::json!({ "a": [null, 1.5] }),
        limit: Limit(None),
    }
}

#[tokio::test]
async fn json_is_lossless_or_not_stored() {
    on_every_backend(async |backend| {
        is_stored(&backend, &json()).await;
        for nested in [Some(None), Some(Some(1))] {
            is_stored(&backend, &Json { nested, discount: Discount(Some(1)), ..json() }).await;
        }
        is_stored(&backend, &Json { document: serde_json::Value::Null, ..json() }).await;

        for odd in [f64::NAN, f64::INFINITY] {
            is_never_stored(&backend, &Json { floats: vec![1.0, odd], ..json() }).await;
        }
        is_never_stored(&backend, &Json { pixel: Pixel { red: Some(f32::NAN) }, ..json() }).await;
        is_never_stored(&backend, &Json { by_point: HashMap::from([((1, 2), 3)]), ..json() }).await;
    })
    .await;
}

#[tokio::test]
async fn a_null_is_stored_as_null_unless_it_is_the_fields_own_none() {
    let backend = Backend::connect("memory://").await.unwrap();
    let cache: Cache<Json> = Cache::new(backend);
    get(&cache, &json()).await;
    let fields = cache.inspect(7).await.unwrap().fields;
    let text = |name: &str| {
        let field = fields.iter().find(|(field, _)| field == name);
        field.map(|(_, text)| String::from_utf8(text.clone()).unwrap())
    };
    assert_eq!((text("nested"), text("discount").as_deref()), (None, Some("null")));
    assert!(cache.update_field(7, Json::FIELDS.nested, Some(None)).await.unwrap());
    assert_eq!(cache.peek(7).await.unwrap().unwrap().nested, Some(None));
}

#[tokio::test]
async fn an_update_with_a_value_that_json_cannot_hold_removes_the_entry() {
    on_every_backend(async |backend| {
        let cache: Cache<Json> = Cache::new(backend);
        get(&cache, &json()).await;
        assert!(!cache.update_field(7, Json::FIELDS.floats, vec![f64::NAN]).await.unwrap());
        assert_eq!(cache.inspect(7).await.unwrap().state, EntryState::Missing);
        assert_eq!(cache.stats().encode_errors, 1);
    })
    .await;
}

#[derive(Debug, Clone, PartialEq, Cacheable)]
#[cacheable(namespace = "values")]
struct Weighed {
    #[cacheable(id)]
    id: u64,
    #[cacheable(with = "grams")]
    weight: Option<f64>,
}

/// Kilograms in the program, whole grams in Redis, and no more than 4 tons.
mod grams {
    use cache_aside::BoxError;

    pub(super) fn encode(kilograms: &f64) -> String {
        format!("{:.0}", kilograms * 1000.0)
    }

    pub(super) fn decode(text: &[u8]) -> Result<f64, BoxError> {
        let grams: u32 = std::str::from_utf8(text)?.parse()?;
        Ok(f64::from(grams) / 1000.0)
    }
}

#[tokio::test]
async fn a_text_of_with_that_does_not_decode_again_is_not_stored() {
    on_every_backend(async |backend| {
        for weight in [None, Some(1.5)] {
            is_stored(&backend, &Weighed { id: 7, weight }).await;
        }
        for weight in [-1.0, f64::NAN, 1e9] {
            is_never_stored(&backend, &Weighed { id: 7, weight: Some(weight) }).await;
        }
    })
    .await;
}

#[derive(Debug, Clone, PartialEq, FieldValue)]
struct Moment(Option<Box<SystemTime>>);

#[derive(Debug, Clone, PartialEq, Cacheable)]
#[cacheable(namespace = "values")]
struct Timed {
    #[cacheable(id)]
    id: u64,
    seen: Option<SystemTime>,
    moment: Moment,
}

/// It isn't taken for a `None`.
#[tokio::test]
async fn a_value_that_has_no_text_is_not_stored_in_an_option_either() {
    on_every_backend(async |backend| {
        let none = Timed { id: 7, seen: None, moment: Moment(None) };
        let old = SystemTime::UNIX_EPOCH - Duration::from_secs(1);
        is_stored(&backend, &none).await;
        is_stored(&backend, &Timed { seen: Some(SystemTime::UNIX_EPOCH), ..none.clone() }).await;
        is_never_stored(&backend, &Timed { seen: Some(old), ..none.clone() }).await;
        is_never_stored(&backend, &Timed { moment: Moment(Some(Box::new(old))), ..none }).await;
    })
    .await;
}

#[derive(Debug, Clone, PartialEq, Cacheable)]
#[cacheable(namespace = "values")]
struct Session {
    #[cacheable(id)]
    id: u64,
    #[cacheable(skip)]
    token: String,
    stock: u32,
}

#[tokio::test]
async fn what_a_get_returns_does_not_depend_on_whether_it_was_a_hit() {
    on_every_backend(async |backend| {
        let cache: Cache<Session> = Cache::new(backend.clone());
        let loaded = Session { id: 7, token: "secret".into(), stock: 1 };
        let hit = Session { token: String::new(), ..loaded.clone() };
        assert_eq!(get(&cache, &loaded).await, (hit.clone(), Outcome::Loaded));
        assert_eq!(get(&cache, &loaded).await, (hit.clone(), Outcome::Hit));
        let again = loaded.clone();
        let load = |_| async { Ok::<_, BoxError>(Some(again)) };
        assert_eq!(cache.refresh(7, load).await.unwrap().as_deref(), Some(&hit));
        let load_many = |_| {
            let loaded = Session { id: 8, token: "secret".into(), stock: 1 };
            async { Ok::<_, BoxError>([loaded]) }
        };
        assert_eq!(cache.get_many([8], load_many).await[0].as_ref().unwrap().as_ref().unwrap().token, "");
        let modified = cache.modify(7, |session| session.token = "set".into()).await.unwrap().unwrap();
        assert_eq!(modified.token, "");
        let disabled: Cache<Session> = Cache::builder(backend).enabled(false).build().unwrap();
        assert_eq!(get(&disabled, &loaded).await, (hit, Outcome::Bypassed));
    })
    .await;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, FieldValue)]
#[cacheable(rename_all = "snake_case")]
enum Status {
    OnSale,
    #[cacheable(rename = "gone", alias = "deleted")]
    Discontinued,
    #[cacheable(other)]
    Unknown,
}

#[derive(Debug, Clone, PartialEq, Embeddable)]
struct Part {
    status: Status,
}

#[derive(Debug, Clone, PartialEq, FieldValue)]
struct First(Arc<Status>);

#[derive(Debug, Clone, PartialEq, Cacheable)]
#[cacheable(namespace = "values")]
struct Offer {
    #[cacheable(id)]
    id: u64,
    status: Status,
    before: Option<Box<Status>>,
    first: First,
    #[cacheable(embed)]
    part: Part,
    #[cacheable(embed)]
    optional: Option<Part>,
    featured: bool,
    stock: u32,
}

fn offer() -> Offer {
    let part = Part { status: Status::OnSale };
    Offer {
        id: 7,
        status: Status::Unknown,
        before: None,
        first: First(Arc::new(Status::OnSale)),
        part: part.clone(),
        optional: Some(part),
        featured: true,
        stock: 1,
    }
}

#[tokio::test]
async fn an_update_deletes_an_entry_with_a_text_that_only_other_stands_for() {
    on_every_server(async |server, backend| {
        let (cache, mut client): (Cache<Offer>, _) = (Cache::new(backend), server.client().await);
        let texts = [
            ("status", Status::Unknown),
            ("before", Status::Unknown),
            ("first", Status::Unknown),
            ("part.status", Status::Unknown),
            ("optional.status", Status::Unknown),
        ];
        for (field, expected) in texts {
            for by_field in [true, false] {
                get(&cache, &offer()).await;
                let mut set = redis::cmd("HSET");
                set.arg("cache:values:offer:7").arg(field).arg("auctioned").exec_async(&mut client).await.unwrap();
                let (read, outcome) = get(&cache, &offer()).await;
                let found = match field {
                    "status" => read.status,
                    "before" => *read.before.unwrap(),
                    "first" => *read.first.0,
                    "part.status" => read.part.status,
                    _ => read.optional.unwrap().status,
                };
                assert_eq!((found, outcome), (expected, Outcome::Hit), "{field}");
                let applied = match by_field {
                    true => cache.update_field(7, Offer::FIELDS.stock, 2).await.unwrap(),
                    false => cache.modify(7, |offer| offer.stock = 2).await.unwrap().is_some(),
                };
                assert!(!applied, "{field}");
                assert_eq!(cache.inspect(7).await.unwrap().state, EntryState::Missing, "{field}");
            }
        }
        // The own text of `other`, an alias, and another form of `true` are good values.
        for (field, text) in [("status", "unknown"), ("status", "deleted"), ("featured", "1")] {
            get(&cache, &offer()).await;
            redis::cmd("HSET").arg("cache:values:offer:7").arg(field).arg(text).exec_async(&mut client).await.unwrap();
            assert!(cache.update_field(7, Offer::FIELDS.stock, 2).await.unwrap(), "{field} {text}");
            assert!(cache.modify(7, |offer| offer.stock = 3).await.unwrap().is_some(), "{field} {text}");
        }
    })
    .await;
}
