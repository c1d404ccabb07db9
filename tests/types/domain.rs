//! The derives `FieldValue`, `CacheId` and `Embeddable`, on the embedded backend.

use std::marker::PhantomData;
use std::sync::Arc;

use cache_aside::{Backend, BoxError, Cache, CacheId, Cacheable, Embeddable, FieldValue, Outcome};
use time::OffsetDateTime;
use uuid::Uuid;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, FieldValue, CacheId)]
#[cacheable(rename_all = "snake_case")]
enum Region {
    NorthSea,
    Alps,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, FieldValue)]
#[cacheable(rename_all = "snake_case")]
enum Status {
    Draft,
    Active,
    #[cacheable(rename = "gone", alias = "deleted")]
    Discontinued,
    #[cacheable(other)]
    Unknown,
}

#[derive(Debug, Clone, PartialEq, FieldValue)]
struct Cents(i64);

#[derive(Debug, Clone, PartialEq, Embeddable)]
struct Address {
    street: String,
    city: Option<String>,
    #[cacheable(embed)]
    point: Point,
}

#[derive(Debug, Clone, PartialEq, Embeddable)]
struct Point {
    #[cacheable(rename = "lat")]
    latitude: f64,
    #[cacheable(skip)]
    seen: u32,
}

#[derive(Debug, Clone, PartialEq, Embeddable)]
#[cacheable(rename_all = "camelCase")]
struct Audit {
    created_by: u64,
    #[cacheable(alias = "changed")]
    updated_by: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Cacheable)]
#[cacheable(namespace = "shop", rename_all = "camelCase")]
struct Customer {
    #[cacheable(id)]
    region: Region,
    #[cacheable(id)]
    id: Uuid,
    status: Status,
    previous_status: Option<Box<Status>>,
    balance: Cents,
    #[cacheable(embed)]
    home: Address,
    #[cacheable(embed)]
    work: Option<Address>,
    #[cacheable(embed(prefix = ""))]
    audit: Audit,
    last_seen: Option<OffsetDateTime>,
    #[cacheable(with = "grams")]
    weight: Option<f64>,
    #[cacheable(skip)]
    token: String,
}

/// Kilograms in the program, grams in Redis.
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

fn customer() -> Customer {
    let point = |latitude| Point { latitude, seen: 3 };
    Customer {
        region: Region::NorthSea,
        id: Uuid::from_u128(7),
        status: Status::Active,
        previous_status: None,
        balance: Cents(650),
        home: Address { street: "Quay 7".into(), city: Some("Husum".into()), point: point(54.5) },
        work: None,
        audit: Audit { created_by: 1, updated_by: None },
        last_seen: Some(OffsetDateTime::UNIX_EPOCH),
        weight: Some(1.5),
        token: "secret".into(),
    }
}

async fn cached() -> (Cache<Customer>, (Region, Uuid)) {
    let cache = Cache::new(Backend::connect("memory://").await.unwrap());
    let id = customer().id();
    let loaded = cache.get(id, |_| async { Ok::<_, BoxError>(Some(customer())) }).await.unwrap().unwrap();
    assert_eq!(*loaded, hit(), "a load returns what a hit would");
    (cache, id)
}

/// The customer without what is not stored.
fn hit() -> Customer {
    let mut customer = customer();
    customer.token.clear();
    customer.home.point.seen = 0;
    customer
}

#[tokio::test]
async fn a_hash_has_the_texts_of_the_types() {
    let (cache, id) = cached().await;
    let inspection = cache.inspect(id).await.unwrap();
    assert_eq!(inspection.key, "cache:shop:customer:north_sea/00000000-0000-0000-0000-000000000007");
    let fields: Vec<_> =
        inspection.fields.iter().map(|(name, text)| (name.as_str(), std::str::from_utf8(text).unwrap())).collect();
    let expected = [
        ("region", "north_sea"),
        ("id", "00000000-0000-0000-0000-000000000007"),
        ("status", "active"),
        ("balance", "650"),
        ("home.street", "Quay 7"),
        ("home.city", "Husum"),
        ("home.point.lat", "54.5"),
        ("createdBy", "1"),
        ("lastSeen", "1970-01-01T00:00:00Z"),
        ("weight", "1500"),
    ];
    assert_eq!(fields, expected);
    assert_eq!(*cache.peek(id).await.unwrap().unwrap(), hit());
    let names = Customer::SCHEMA.fields;
    assert_eq!(names.len(), 15, "{names:?}");
    assert_eq!(Customer::SCHEMA.aliases, ["changed"]);
}

#[tokio::test]
async fn an_embedded_field_has_a_handle_of_its_own() {
    let (cache, id) = cached().await;
    let fields = Customer::FIELDS;
    assert_eq!(fields.home.city.name(), "home.city");
    assert_eq!(fields.home.point.latitude.name(), "home.point.lat");
    assert_eq!(fields.audit.created_by.name(), "createdBy");
    assert!(cache.update_field(id, fields.home.city, None).await.unwrap());
    assert!(cache.update_field(id, fields.home.point.latitude, 55.0).await.unwrap());
    let load = |_| async { Ok::<_, BoxError>(None) };
    let read = (fields.home.city, fields.home.point.latitude, fields.work, fields.balance);
    let read = cache.get_fields(id, read, load).await.unwrap().unwrap();
    assert_eq!(read, (None, 55.0, None, Cents(650)));
}

#[tokio::test]
async fn an_optional_part_is_set_and_read_as_a_whole() {
    let (cache, id) = cached().await;
    let address = Address { street: "Mole 1".into(), city: None, point: Point { latitude: 54.0, seen: 0 } };
    assert!(cache.update_field(id, Customer::FIELDS.work, Some(address.clone())).await.unwrap());
    assert_eq!(cache.peek(id).await.unwrap().unwrap().work, Some(address.clone()));
    let load = |_| async { Ok::<_, BoxError>(None) };
    assert_eq!(cache.get_fields(id, Customer::FIELDS.work, load).await.unwrap().unwrap(), Some(address));

    assert!(cache.modify(id, |customer| customer.work = None).await.unwrap().is_some());
    assert_eq!(*cache.peek(id).await.unwrap().unwrap(), hit());
    let names = cache.inspect(id).await.unwrap().fields;
    assert!(names.iter().all(|(name, _)| !name.starts_with("work")), "{names:?}");
}

#[derive(Debug, PartialEq, Cacheable)]
#[cacheable(singleton, entity = "settings")]
struct Settings {
    theme: Option<String>,
    limit: u32,
}

#[tokio::test]
async fn a_singleton_has_one_key() {
    let cache: Cache<Settings> = Cache::new(Backend::connect("memory://").await.unwrap());
    let load = |()| async { Ok::<_, BoxError>(Some(Settings { theme: None, limit: 5 })) };
    assert_eq!(cache.lookup((), load).await.unwrap().outcome, Outcome::Loaded);
    assert_eq!(cache.lookup((), load).await.unwrap().outcome, Outcome::Hit);
    assert_eq!(cache.inspect(()).await.unwrap().key, "cache:settings:_");
    assert!(cache.update_field((), Settings::FIELDS.limit, 6).await.unwrap());
    assert_eq!(cache.get_fields((), Settings::FIELDS.theme, load).await.unwrap(), Some(None));
    let settings: Option<Arc<Settings>> = cache.peek(()).await.unwrap();
    assert_eq!(settings.unwrap().limit, 6);
    assert!(cache.invalidate(()).await.unwrap());
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, FieldValue, CacheId)]
struct TenantId(String);

#[derive(Debug, Clone, PartialEq, Eq, Hash, FieldValue, CacheId)]
struct OrderId {
    number: u64,
}

/// A link to a record of type `T`.
#[derive(Debug, FieldValue)]
struct Link<T>(u64, PhantomData<T>);

#[derive(Debug, Cacheable)]
struct Order {
    #[cacheable(id)]
    tenant: TenantId,
    #[cacheable(id)]
    order: OrderId,
    parent: Option<Link<Order>>,
}

#[tokio::test]
async fn what_a_newtype_wraps_is_accepted_as_an_id() {
    let cache: Cache<Order> = Cache::new(Backend::connect("memory://").await.unwrap());
    let load = |(tenant, order)| async { Ok::<_, BoxError>(Some(Order { tenant, order, parent: None })) };
    assert_eq!(cache.get(("acme", 1), load).await.unwrap().unwrap().order, OrderId { number: 1 });
    for removed in [
        cache.invalidate(("acme".to_owned(), OrderId { number: 1 })).await,
        cache.invalidate((TenantId("acme".into()), &1)).await,
        cache.invalidate(&("acme".to_owned(), 1)).await,
    ] {
        removed.unwrap();
    }
    let load = |(tenant, order)| async {
        Ok::<_, BoxError>(Some(Order { tenant, order, parent: Some(Link(7, PhantomData)) }))
    };
    cache.get(("acme", 1), load).await.unwrap();
    let inspection = cache.inspect(("acme", 1)).await.unwrap();
    assert_eq!(inspection.key, "cache:order:acme/1");
    let fields: Vec<_> = inspection.fields.iter().map(|(name, text)| (name.as_str(), &**text)).collect();
    assert_eq!(fields, [("tenant", b"acme".as_slice()), ("order", b"1"), ("parent", b"7")]);
    assert_eq!(cache.peek(("acme", 1)).await.unwrap().unwrap().parent.as_ref().unwrap().0, 7);
}
