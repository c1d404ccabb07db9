//! The tables of `docs/types.md`: each row is read from the page, and compared with what `redis-cli` shows of a record that the
//! library has stored.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZero;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use cache_aside::{Backend, BoxError, Cache, CacheKey, Cacheable};
use chrono::{FixedOffset, Utc};
use serde::Serialize;
use serde_json::json;
use testkit::server::{Flavor, Server};
use time::macros::{date, datetime, time};

include!("page/definitions.rs");

/// A struct with an example of each field, and the fields as they are written.
macro_rules! example {
    (
        $(#[$of_struct:meta])*
        struct $name:ident { $($(#[$of_field:meta])* $field:ident: $ty:ty = $value:expr,)* }
    ) => {
        #[derive(Debug, Clone, Cacheable)]
        $(#[$of_struct])*
        struct $name { $($(#[$of_field])* $field: $ty,)* }

        impl $name {
            const ROWS: &'static [Row] = &[$(
                Row {
                    name: stringify!($field),
                    attributes: stringify!($(#[$of_field])*),
                    ty: stringify!($ty),
                    value: stringify!($value),
                },
            )*];

            fn example() -> Self {
                Self { $($field: $value,)* }
            }
        }
    };
}

struct Row {
    name: &'static str,
    attributes: &'static str,
    ty: &'static str,
    value: &'static str,
}

example! {
    #[cacheable(singleton)]
    struct Types {
        flag: bool = true,
        count: u64 = 42,
        delta: i64 = -7,
        rank: NonZero<u32> = NonZero::new(7).unwrap(),
        ratio: f64 = 0.25,
        large: f64 = 1e300,
        odd: f64 = f64::NAN,
        letter: char = 'x',
        name: String = "Sourdough Loaf".into(),
        greeting: String = "Grüße".into(),
        empty: String = String::new(),
        octets: Vec<u8> = vec![0, 10, 255],
        magic: [u8; 4] = *b"PNG\n",
        ip: IpAddr = Ipv4Addr::LOCALHOST.into(),
        address: SocketAddr = SocketAddr::from((Ipv6Addr::LOCALHOST, 6379)),
        pause: Duration = Duration::from_millis(1500),
        instant: SystemTime = SystemTime::UNIX_EPOCH + Duration::from_millis(250),
        some: Option<u32> = Some(1),
        none: Option<u32> = None,
        shared: Arc<Status> = Arc::new(Status::OnSale),
        status: Status = Status::OnSale,
        sku: Sku = Sku("p-001".into()),
        utc: chrono::DateTime<Utc> = "2026-01-31T12:00:00Z".parse().unwrap(),
        zoned: chrono::DateTime<FixedOffset> = "2026-01-31T12:00:00+01:00".parse().unwrap(),
        local: chrono::NaiveDateTime = "2026-01-31T12:00:00".parse().unwrap(),
        day: chrono::NaiveDate = "2026-01-31".parse().unwrap(),
        hour: chrono::NaiveTime = "12:00:00".parse().unwrap(),
        time_utc: time::OffsetDateTime = datetime!(2026-01-31 12:00 UTC),
        time_local: time::PrimitiveDateTime = datetime!(2026-01-31 12:00),
        time_day: time::Date = date!(2026-01-31),
        time_hour: time::Time = time!(12:00),
        jiff_utc: jiff::Timestamp = "2026-01-31T12:00:00Z".parse().unwrap(),
        jiff_zoned: jiff::Zoned = "2026-01-31T12:00:00+00:00[UTC]".parse().unwrap(),
        jiff_local: jiff::civil::DateTime = jiff::civil::date(2026, 1, 31).at(12, 0, 0, 0),
        jiff_day: jiff::civil::Date = jiff::civil::date(2026, 1, 31),
        jiff_hour: jiff::civil::Time = jiff::civil::time(12, 0, 0, 0),
        price: rust_decimal::Decimal = "6.50".parse().unwrap(),
        long_price: bigdecimal::BigDecimal = "6.50".parse().unwrap(),
        uuid: uuid::Uuid = uuid::Uuid::from_u128(7),
        ulid: ulid::Ulid = ulid::Ulid(7),
        url: url::Url = "https://example.org".parse().unwrap(),
        small: smol_str::SmolStr = "bread".into(),
        compact: compact_str::CompactString = "bread".into(),
        data: bytes::Bytes = "bread".into(),
        document: serde_json::Value = json!({ "tags": ["sour", null] }),
    }
}

example! {
    #[cacheable(singleton, rename_all = "camelCase")]
    struct Attributes {
        on_sale: bool = true,
        #[cacheable(rename = "price")]
        price_cents: i64 = 650,
        #[cacheable(alias = "amount")]
        stock: u32 = 42,
        #[cacheable(default)]
        color: String = "brown".into(),
        #[cacheable(skip)]
        token: String = "secret".into(),
        #[cacheable(json)]
        tags: Vec<String> = vec!["sour".into()],
        #[cacheable(json)]
        note: Option<String> = Some("no \"salt\"".into()),
        #[cacheable(json)]
        old_note: Option<String> = None,
        #[cacheable(with = "grams")]
        weight: f64 = 1.5,
        #[cacheable(with = "grams")]
        net_weight: Option<f64> = None,
        #[cacheable(embed)]
        home: Address = Address { street: "Quay 7".into(), city: Some("Husum".into()) },
        #[cacheable(embed)]
        work: Option<Address> = None,
        #[cacheable(embed(prefix = "by_"))]
        audit: Audit = Audit { created_by: 7 },
        #[cacheable(embed(prefix = ""))]
        own_audit: Audit = Audit { created_by: 8 },
    }
}

// An id has eight parts at most.

example! {
    struct Ids {
        #[cacheable(id)]
        number: u64 = 42,
        #[cacheable(id)]
        text: String = "p-001".into(),
        #[cacheable(id)]
        odd_text: String = "50% off/día".into(),
        #[cacheable(id)]
        letter: char = 'x',
        #[cacheable(id)]
        flag: bool = true,
        #[cacheable(id)]
        ip: IpAddr = Ipv6Addr::LOCALHOST.into(),
        #[cacheable(id)]
        digest: [u8; 4] = [0, 10, 171, 255],
    }
}

example! {
    struct MoreIds {
        #[cacheable(id)]
        status: Status = Status::OnSale,
        #[cacheable(id)]
        sku: Sku = Sku("p-001".into()),
        #[cacheable(id)]
        day: chrono::NaiveDate = "2026-01-31".parse().unwrap(),
        #[cacheable(id)]
        time_day: time::Date = date!(2026-01-31),
        #[cacheable(id)]
        jiff_day: jiff::civil::Date = jiff::civil::date(2026, 1, 31),
        #[cacheable(id)]
        uuid: uuid::Uuid = uuid::Uuid::from_u128(7),
        #[cacheable(id)]
        ulid: ulid::Ulid = ulid::Ulid(7),
    }
}

fn page() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/types.md");
    std::fs::read_to_string(path).unwrap()
}

/// The rows of the tables in a section of the page, and in each cell the texts in backticks.
fn table(heading: &str) -> Vec<Vec<Vec<String>>> {
    let page = page();
    let section = page.split("\n## ").find(|section| section.starts_with(heading)).unwrap();
    let rows = section.lines().filter(|line| line.starts_with("| `"));
    let codes = |cell: &str| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect();
    rows.map(|row| row.trim_matches('|').split('|').map(codes).collect()).collect()
}

fn without_spaces(text: &str) -> String {
    text.split_whitespace().collect()
}

/// What `redis-cli` shows of a record, a line for each name and each text.
async fn shown<T: Cacheable + Clone>(server: &Server, record: T) -> Vec<String>
where
    T::Id: CacheKey<T::Id>,
{
    let cache: Cache<T> = Cache::new(Backend::connect(&server.url()).await.unwrap());
    let id = record.id();
    cache.get(id.clone(), |_| async { Ok::<_, BoxError>(Some(record)) }).await.unwrap();
    redis_cli(server, &["HGETALL", &cache.inspect(id).await.unwrap().key])
}

/// What `redis-cli` shows at a terminal, without the numbers of the lines.
fn redis_cli(server: &Server, arguments: &[&str]) -> Vec<String> {
    let port = server.port().to_string();
    let output = Command::new("redis-cli").args(["-p", &port, "--no-raw"]).args(arguments).output().unwrap();
    let lines = String::from_utf8(output.stdout).unwrap();
    lines.lines().map(|line| line.split_once(") ").unwrap_or_else(|| panic!("{lines}")).1.to_owned()).collect()
}

#[test]
fn the_page_has_the_definitions_that_are_tested() {
    let definitions = concat!("```rust\n", include_str!("page/definitions.rs"), "```\n");
    assert!(page().contains(definitions), "{definitions}");
}

#[tokio::test]
async fn the_table_of_types_has_what_redis_cli_shows() {
    let server = Server::start(Flavor::Redis70).await;
    let shown = shown(&server, Types::example()).await;
    let text_of = |name: &str| {
        let at = shown.iter().step_by(2).position(|shown| *shown == format!("{name:?}"));
        at.map(|at| shown[2 * at + 1].clone())
    };
    let rows = table("Types");
    for (row, expected) in rows.iter().zip(Types::ROWS) {
        assert_eq!(without_spaces(&row[0][0]), without_spaces(expected.ty));
        assert_eq!(without_spaces(&row[1][0]), without_spaces(expected.value), "{}", expected.ty);
        assert_eq!(row[2].first().cloned(), text_of(expected.name), "{}", expected.ty);
    }
    assert_eq!(rows.len(), Types::ROWS.len());
}

#[tokio::test]
async fn the_table_of_attributes_has_what_redis_cli_shows() {
    let server = Server::start(Flavor::Redis70).await;
    let shown = shown(&server, Attributes::example()).await;
    let rows = table("Attributes of a field");
    for (row, expected) in rows.iter().zip(Attributes::ROWS) {
        let declaration = format!("{} {}: {}", expected.attributes, expected.name, expected.ty);
        assert_eq!(without_spaces(&row[0][0]), without_spaces(&declaration));
        assert_eq!(without_spaces(&row[1][0]), without_spaces(expected.value), "{declaration}");
    }
    assert_eq!(rows.len(), Attributes::ROWS.len());
    let names_and_texts: Vec<_> = rows.iter().flat_map(|row| row[2].clone()).collect();
    let without_quotes = |(at, text): (usize, &String)| if at % 2 == 0 { text.replace('"', "") } else { text.clone() };
    assert_eq!(names_and_texts, shown.iter().enumerate().map(without_quotes).collect::<Vec<_>>());
}

#[test]
fn the_table_of_texts_has_the_variants() {
    let rows = table("Enums, newtypes and embedded structs");
    let rows: Vec<_> = rows.iter().filter(|row| row.len() == 2).collect();
    for row in &rows {
        let status = Status::decode(row[0][0].as_bytes().into()).unwrap();
        assert_eq!(row[1], [format!("Status::{status:?}")], "{:?}", row[0]);
    }
    assert_eq!(rows.len(), 5);
    let text_of = |status: Status| String::from_utf8(status.encode().unwrap()).unwrap();
    assert_eq!([Status::Discontinued, Status::Unknown].map(text_of), ["gone", "unknown"]);
}

#[tokio::test]
async fn the_table_of_ids_has_what_is_in_the_key() {
    let server = Server::start(Flavor::Redis70).await;
    shown(&server, Ids::example()).await;
    shown(&server, MoreIds::example()).await;
    let parts_of = |entity: &str| {
        let keys = redis_cli(&server, &["KEYS", &format!("cache:{entity}:*")]);
        let [key] = keys.as_slice() else { panic!("{keys:?}") };
        let id = key.trim_matches('"').strip_prefix(&format!("cache:{entity}:")).unwrap();
        id.split('/').map(str::to_owned).collect::<Vec<_>>()
    };
    let parts = [parts_of("ids"), parts_of("more_ids")].concat();
    let expected: Vec<_> = Ids::ROWS.iter().chain(MoreIds::ROWS).collect();
    let rows = table("Ids");
    for ((row, expected), part) in rows.iter().zip(&expected).zip(&parts) {
        assert_eq!(without_spaces(&row[0][0]), without_spaces(expected.ty));
        assert_eq!(without_spaces(&row[1][0]), without_spaces(expected.value), "{}", expected.ty);
        assert_eq!(row[2], [part.as_str()], "{}", expected.ty);
    }
    assert_eq!((rows.len(), parts.len()), (expected.len(), expected.len()));
}

#[derive(Serialize, Cacheable)]
#[serde(rename_all = "camelCase")]
struct WithSerde {
    #[cacheable(id)]
    id: u64,
    #[serde(rename = "price")]
    price_cents: i64,
    #[serde(alias = "amount", default)]
    in_stock: u32,
    #[serde(flatten)]
    #[cacheable(json)]
    extra: serde_json::Map<String, serde_json::Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<String>,
}

#[test]
fn attributes_of_serde_change_no_name_and_no_default() {
    assert_eq!(WithSerde::SCHEMA.fields, ["id", "price_cents", "in_stock", "extra", "note"]);
    assert!(WithSerde::SCHEMA.aliases.is_empty());
}
