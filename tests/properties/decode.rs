//! Decoding: any hash is read as a record, a not-found entry, or a miss; and every record survives a round trip through
//! its hash.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZero;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arbitrary::{Arbitrary, Result, Unstructured};
use cache_aside::proof::{StoredHash, decode, encode};
use cache_aside::{Cacheable, Embeddable, FieldValue};
use chrono::{DateTime, FixedOffset, NaiveDate, Utc};

const META: &[u8] = b"~meta";
const ABSENT: &[u8] = b"absent";

/// A field of every kind.
#[derive(Debug, Clone, PartialEq, Cacheable, Arbitrary)]
#[cacheable(namespace = "fuzz", entity = "record")]
struct Record {
    #[cacheable(id)]
    owner: String,
    #[cacheable(id)]
    number: u64,
    tiny: u8,
    small: i16,
    medium: u32,
    large: i64,
    huge: i128,
    size: usize,
    positive: NonZero<u32>,
    not_zero: NonZero<i64>,
    letter: char,
    flag: bool,
    single: f32,
    double: f64,
    text: String,
    boxed: Box<str>,
    shared: Arc<str>,
    bytes: Vec<u8>,
    four: [u8; 4],
    nothing: [u8; 0],
    duration: Duration,
    address: IpAddr,
    note: Option<String>,
    blob: Option<Vec<u8>>,
    count: Option<u32>,
    #[cacheable(default)]
    stock: u32,
    #[cacheable(default)]
    label: Option<String>,
    #[cacheable(rename = "type")]
    kind: String,
    #[cacheable(rename = "a field: {with} spaces")]
    r#enum: i8,
    #[cacheable(skip)]
    #[arbitrary(default)]
    skipped: u32,
    #[cacheable(json)]
    tree: BTreeMap<String, Vec<i64>>,
    #[cacheable(json)]
    optional_tree: Option<Tree>,
    #[cacheable(json)]
    #[arbitrary(with = finite)]
    ratio: f64,
    #[cacheable(with = "reversed")]
    mirrored: Vec<u8>,
    #[cacheable(with = "reversed", default)]
    mirrored_or_empty: Vec<u8>,
    #[arbitrary(with = shared_bytes)]
    shared_bytes: bytes::Bytes,
    #[arbitrary(with = uuid)]
    uuid: uuid::Uuid,
    #[arbitrary(with = instant)]
    instant: DateTime<Utc>,
    #[arbitrary(with = local)]
    local: DateTime<FixedOffset>,
    #[arbitrary(with = date)]
    date: NaiveDate,
    #[arbitrary(with = decimal)]
    decimal: rust_decimal::Decimal,
    #[arbitrary(with = clock)]
    clock: SystemTime,
    #[arbitrary(with = socket)]
    socket: SocketAddr,
    status: Status,
    earlier_status: Option<Box<Status>>,
    balance: Cents,
    limit: Limit,
    #[cacheable(embed)]
    home: Address,
    #[cacheable(embed)]
    work: Option<Address>,
    #[cacheable(embed(prefix = ""))]
    audit: Audit,
}

#[derive(Debug, Clone, PartialEq, FieldValue, Arbitrary)]
#[cacheable(rename_all = "SCREAMING-KEBAB-CASE")]
enum Status {
    OnSale,
    #[cacheable(rename = "gone", alias = "deleted")]
    SoldOut,
    #[cacheable(other)]
    Unknown,
}

#[derive(Debug, Clone, PartialEq, FieldValue, Arbitrary)]
struct Cents(i64);

#[derive(Debug, Clone, PartialEq, FieldValue, Arbitrary)]
struct Limit(Option<Cents>);

#[derive(Debug, Clone, PartialEq, Embeddable, Arbitrary)]
#[cacheable(rename_all = "camelCase")]
struct Address {
    street_name: String,
    city: Option<String>,
    #[cacheable(embed)]
    point: Point,
    #[cacheable(embed)]
    other_point: Option<Point>,
    #[cacheable(skip)]
    #[arbitrary(default)]
    seen: u32,
}

#[derive(Debug, Clone, PartialEq, Embeddable, Arbitrary)]
struct Point {
    latitude: i32,
    #[cacheable(rename = "lon", alias = "lng")]
    longitude: i32,
    status: Option<Status>,
}

#[derive(Debug, Clone, PartialEq, Embeddable, Arbitrary)]
struct Audit {
    #[cacheable(default)]
    changed_by: u64,
    #[cacheable(json)]
    notes: Option<Vec<String>>,
}

#[derive(Debug, Clone, PartialEq, Arbitrary, serde::Serialize, serde::Deserialize)]
enum Tree {
    Leaf,
    Text(String),
    Named { name: Option<String>, children: Vec<u8> },
}

mod reversed {
    use std::convert::Infallible;

    pub(super) fn encode(bytes: &[u8]) -> Vec<u8> {
        bytes.iter().rev().copied().collect()
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Vec<u8>, Infallible> {
        Ok(encode(bytes))
    }
}

/// JSON has no other values.
fn finite(input: &mut Unstructured<'_>) -> Result<f64> {
    let any = f64::arbitrary(input)?;
    Ok(if any.is_finite() { any } else { 0.1 })
}

fn shared_bytes(input: &mut Unstructured<'_>) -> Result<bytes::Bytes> {
    Ok(Vec::arbitrary(input)?.into())
}

fn uuid(input: &mut Unstructured<'_>) -> Result<uuid::Uuid> {
    Ok(uuid::Uuid::from_bytes(Arbitrary::arbitrary(input)?))
}

fn instant(input: &mut Unstructured<'_>) -> Result<DateTime<Utc>> {
    let range = DateTime::<Utc>::MIN_UTC.timestamp()..=DateTime::<Utc>::MAX_UTC.timestamp();
    let seconds = input.int_in_range(range)?;
    let nanos = input.int_in_range(0..=999_999_999)?;
    Ok(DateTime::from_timestamp(seconds, nanos).unwrap_or_default())
}

fn local(input: &mut Unstructured<'_>) -> Result<DateTime<FixedOffset>> {
    let offset = FixedOffset::east_opt(input.int_in_range(-86_399..=86_399)?);
    Ok(instant(input)?.with_timezone(&offset.expect("it is less than a day")))
}

fn date(input: &mut Unstructured<'_>) -> Result<NaiveDate> {
    Ok(instant(input)?.date_naive())
}

/// RFC 3339 in UTC has the years from 1970 to 9999.
fn clock(input: &mut Unstructured<'_>) -> Result<SystemTime> {
    let since = Duration::new(input.int_in_range(0..=253_402_300_799)?, input.int_in_range(0..=999_999_999)?);
    Ok(SystemTime::UNIX_EPOCH + since)
}

fn socket(input: &mut Unstructured<'_>) -> Result<SocketAddr> {
    Ok(SocketAddr::new(Arbitrary::arbitrary(input)?, Arbitrary::arbitrary(input)?))
}

fn decimal(input: &mut Unstructured<'_>) -> Result<rust_decimal::Decimal> {
    let scale = input.int_in_range(0..=28)?;
    let (low, middle, high, negative) = Arbitrary::arbitrary(input)?;
    Ok(rust_decimal::Decimal::from_parts(low, middle, high, negative, scale))
}

/// A record, and a hash: that of the record, or an empty one, with random changes.
#[derive(Debug, Arbitrary)]
pub(crate) struct Input {
    record: Record,
    from_nothing: bool,
    edits: Vec<Edit>,
}

#[derive(Debug, Arbitrary)]
enum Edit {
    Set(Name, Value),
    Append(Name, Value),
    Remove(Name),
    Rotate(u8),
}

#[derive(Debug, Arbitrary)]
enum Name {
    Known(u8),
    Meta,
    Other(Vec<u8>),
}

#[derive(Debug, Arbitrary)]
enum Value {
    Bytes(Vec<u8>),
    Text(String),
    /// Texts that look like values, and that some parser may accept.
    Near(u8),
}

const NEAR: &str = "|0|1|-0|-1|+1|01|1_000|256|1e5|1e400|-1e400|NaN|-NaN|nan|inf|infinity|-inf|.5|5.|1.0000000000\
    |true|TRUE|ON-SALE|deleted|null|{}|[]|\"Leaf\"|absent|é|::ffff:1.2.3.4|01.2.3.4|2026-01-31|+262142-12-31|2026-01-31T23:59:60Z\
    |2026-01-31 12:00:00+00:00|-262143-01-01T00:00:00+23:59|+262142-12-31T23:59:59.999999999-23:59\
    |79228162514264337593543950335.5|{67e55044-10b1-426f-9247-bb680e5fe0c8}\
    |-00000000000000000000000000000000.0000000000000000000000000001";

impl Value {
    fn into_bytes(self) -> Vec<u8> {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Text(text) => text.into_bytes(),
            Self::Near(which) => NEAR.split('|').cycle().nth(which.into()).unwrap_or_default().into(),
        }
    }
}

/// The properties.
pub(crate) fn check(input: Input) {
    let hash = encode(&input.record).expect("every value of these types can be stored");
    let back = decode(hash.clone()).expect("what was encoded is readable");
    let back = back.expect("what was encoded is a record");
    assert_same(&input.record, &back);

    let names = names(&input.record);
    let mut edited = if input.from_nothing { StoredHash::new() } else { hash };
    for edit in input.edits {
        apply(edit, &names, &mut edited);
    }
    check_hash(&edited, &names);
}

fn check_hash(hash: &StoredHash, names: &[Vec<u8>]) {
    let reading = decode::<Record>(hash.clone());
    if hash.iter().any(|(name, _)| name == META) {
        let is_not_found = matches!(hash.as_slice(), [(_, value)] if value == ABSENT);
        assert_eq!(matches!(reading, Ok(None)), is_not_found);
        let is_known = |text: &[u8]| text.starts_with(b"stale=") || text.starts_with(b"load=");
        let is_record = hash.iter().all(|(name, text)| name != META || is_known(text));
        assert!(is_record || !matches!(reading, Ok(Some(_))), "a record with such a `~meta`: {}", shown(hash));
        return;
    }
    assert!(!matches!(reading, Ok(None)), "not found without `~meta`: {}", shown(hash));

    let known = hash.iter().filter(|(name, _)| names.contains(name)).cloned().collect();
    let without_unknown = decode::<Record>(known);
    assert_eq!(reading.is_ok(), without_unknown.is_ok(), "unknown fields matter: {}", shown(hash));
    let (Ok(Some(record)), Ok(Some(same))) = (reading, without_unknown) else {
        return;
    };
    assert_same(&record, &same);
    let has_work = hash.iter().any(|(name, _)| names.contains(name) && name.starts_with(b"work."));
    assert_eq!(record.work.is_some(), has_work, "an embedded struct is absent as a whole: {}", shown(hash));

    let canonical = encode(&record).expect("what was decoded can be encoded");
    let again = decode(canonical).expect("what was encoded is readable").expect("what was encoded is a record");
    assert_same(&record, &again);
}

/// The names of all fields, including those that this record omits.
fn names(record: &Record) -> Vec<Vec<u8>> {
    let mut whole = record.clone();
    whole.note.get_or_insert_default();
    whole.blob.get_or_insert_default();
    whole.count.get_or_insert_default();
    whole.label.get_or_insert_default();
    whole.optional_tree.get_or_insert(Tree::Leaf);
    whole.earlier_status.get_or_insert_with(|| Box::new(Status::OnSale));
    whole.limit.0.get_or_insert(Cents(0));
    whole.audit.notes.get_or_insert_default();
    let work = whole.work.get_or_insert_with(|| whole.home.clone());
    for address in [&mut whole.home, work] {
        address.city.get_or_insert_default();
        let other = address.other_point.get_or_insert_with(|| address.point.clone());
        for point in [&mut address.point, other] {
            point.status.get_or_insert(Status::Unknown);
        }
    }
    let hash = encode(&whole).expect("every value of these types can be stored");
    hash.into_iter().map(|(name, _)| name).collect()
}

fn apply(edit: Edit, names: &[Vec<u8>], hash: &mut StoredHash) {
    let named = |name| match name {
        Name::Known(which) => names[usize::from(which) % names.len()].clone(),
        Name::Meta => META.to_vec(),
        Name::Other(name) => name,
    };
    match edit {
        Edit::Set(name, value) => {
            let (name, value) = (named(name), value.into_bytes());
            match hash.iter_mut().find(|(present, _)| *present == name) {
                Some(field) => field.1 = value,
                None => hash.push((name, value)),
            }
        }
        Edit::Append(name, value) => hash.push((named(name), value.into_bytes())),
        Edit::Remove(name) => {
            let name = named(name);
            hash.retain(|(present, _)| *present != name);
        }
        Edit::Rotate(by) => {
            let by = usize::from(by) % hash.len().max(1);
            hash.rotate_left(by);
        }
    }
}

/// Whether the values are equal and are stored as the same text. That distinguishes values which `==` doesn't: `0.0`
/// from `-0.0`, `1.0` from `1.00`, one offset from another.
fn assert_same(one: &Record, other: &Record) {
    let stored = |record| encode(record).expect("every value of these types can be stored");
    let (one_hash, other_hash) = (stored(one), stored(other));
    assert!(one_hash == other_hash, "{} became {}", shown(&one_hash), shown(&other_hash));
    let (mut one, mut other) = (one.clone(), other.clone());
    // Their texts are equal, so either both or neither are `NaN`.
    if one.single.is_nan() {
        (one.single, other.single) = (0.0, 0.0);
    }
    if one.double.is_nan() {
        (one.double, other.double) = (0.0, 0.0);
    }
    assert_eq!(one, other);
}

fn shown(hash: &StoredHash) -> String {
    let fields = hash.iter().map(|(name, value)| format!("{}={}", name.escape_ascii(), value.escape_ascii()));
    fields.collect::<Vec<_>>().join(" ")
}
