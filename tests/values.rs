//! The text forms of `FieldValue`: each row of the table is tested, because other clients of the same Redis rely on it;
//! and every value of every type survives a round trip.
#![allow(clippy::unwrap_used, missing_docs)]

use std::borrow::Cow;
use std::fmt::Debug;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::num::NonZero;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use cache_aside::proof::keys;
use cache_aside::{CacheId, CacheKey, Cacheable, FieldValue};
use proptest::prelude::*;

fn encoded<V: FieldValue>(value: &V) -> Option<String> {
    value.encode().map(|bytes| String::from_utf8(bytes).unwrap())
}

fn decoded<V: FieldValue>(bytes: impl AsRef<[u8]>) -> Option<V> {
    let bytes = bytes.as_ref();
    let borrowed = V::decode(Cow::Borrowed(bytes)).ok();
    let owned = V::decode(Cow::Owned(bytes.to_vec())).ok();
    assert_eq!(borrowed.is_some(), owned.is_some());
    owned
}

/// The value is written as this text, and read back from it.
#[track_caller]
#[allow(clippy::needless_pass_by_value, reason = "for literals")]
fn pin<V: FieldValue + PartialEq + Debug>(value: V, text: &str) {
    assert_eq!(encoded(&value).as_deref(), Some(text));
    assert_eq!(decoded(text), Some(value));
}

/// No value can be read from any of these texts.
#[track_caller]
fn refuse<V: FieldValue + Debug>(texts: &[&str]) {
    for text in texts {
        let value = decoded::<V>(text);
        assert!(value.is_none(), "{text:?} was read as {value:?}");
    }
}

#[test]
fn integers_are_plain_decimals() {
    pin(0_u8, "0");
    pin(255_u8, "255");
    pin(-128_i8, "-128");
    pin(65_535_u16, "65535");
    pin(i16::MIN, "-32768");
    pin(41_u32, "41");
    pin(i32::MIN, "-2147483648");
    pin(u64::MAX, "18446744073709551615");
    pin(650_i64, "650");
    pin(u128::MAX, "340282366920938463463374607431768211455");
    pin(i128::MAX, "170141183460469231731687303715884105727");
    pin(i128::MIN, "-170141183460469231731687303715884105728");
    pin(7_usize, "7");
    pin(-7_isize, "-7");
    pin(NonZero::new(7_u32).unwrap(), "7");
    pin(NonZero::new(-7_i64).unwrap(), "-7");
    refuse::<u8>(&["", "256", "-1", "+1", "01", "1.0", " 1", "1 ", "1\n", "0x1", "1e2", "a"]);
    refuse::<i32>(&["-0", "+0", "--1", "-", "2147483648"]);
    refuse::<NonZero<u8>>(&["0", ""]);
}

#[test]
fn texts_and_addresses_are_as_displayed() {
    pin('ß', "ß");
    pin(String::new(), "");
    pin("Sourdough Loaf".to_owned(), "Sourdough Loaf");
    pin(Box::<str>::from("a\0b"), "a\0b");
    pin(Arc::<str>::from("käse"), "käse");
    pin(IpAddr::V4(Ipv4Addr::LOCALHOST), "127.0.0.1");
    pin(IpAddr::V6(Ipv6Addr::LOCALHOST), "::1");
    pin(Ipv4Addr::new(10, 0, 0, 1), "10.0.0.1");
    pin(Ipv6Addr::UNSPECIFIED, "::");
    pin("127.0.0.1:6379".parse::<SocketAddr>().unwrap(), "127.0.0.1:6379");
    pin(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 80), "127.0.0.1:80");
    pin(SocketAddrV6::new(Ipv6Addr::LOCALHOST, 80, 0, 5), "[::1%5]:80");
    refuse::<char>(&["", "ab"]);
    refuse::<IpAddr>(&["", "1.2.3", "1.2.3.4 ", "localhost"]);
    refuse::<SocketAddr>(&["", "127.0.0.1", "::1:80", "127.0.0.1:65536", "localhost:80"]);
    assert_eq!(decoded::<String>([0xFF]), None);
    assert_eq!(decoded::<Arc<str>>([0xFF]), None);
}

#[test]
fn truth_is_spelt_out_and_read_from_digits_too() {
    pin(true, "true");
    pin(false, "false");
    assert_eq!(decoded::<bool>("1"), Some(true));
    assert_eq!(decoded::<bool>("0"), Some(false));
    refuse::<bool>(&["", "TRUE", "yes", "2", " true"]);
}

#[test]
fn floats_are_the_shortest_decimals_that_read_back() {
    pin(1.0_f64, "1");
    pin(0.1_f64 + 0.2, "0.30000000000000004");
    pin(-0.5_f32, "-0.5");
    pin(0.1_f32, "0.1");
    pin(1e300_f64, "1e300");
    pin(f64::MAX, "1.7976931348623157e308");
    pin(5e-324_f64, "5e-324");
    pin(f64::INFINITY, "inf");
    pin(f64::NEG_INFINITY, "-inf");
    assert_eq!(encoded(&f64::NAN).as_deref(), Some("NaN"));
    assert!(decoded::<f64>("NaN").unwrap().is_nan());
    assert_eq!(encoded(&-0.0_f64).as_deref(), Some("-0"));
    assert!(decoded::<f64>("-0").unwrap().is_sign_negative());
    refuse::<f64>(&["", " 1", "1,5", "one"]);
}

#[test]
fn bytes_are_as_they_are() {
    assert_eq!(vec![0_u8, 0xFF].encode(), Some(vec![0, 0xFF]));
    assert_eq!([1_u8, 2, 3].encode(), Some(vec![1, 2, 3]));
    assert_eq!(decoded::<[u8; 3]>([1, 2, 3]), Some([1, 2, 3]));
    assert_eq!(decoded::<[u8; 3]>([1, 2]), None);
    assert_eq!(decoded::<[u8; 3]>([1, 2, 3, 4]), None);
    assert_eq!(decoded::<Vec<u8>>([]), Some(Vec::new()));
    assert_eq!(Box::<[u8]>::from([0, 0xFF]).encode(), Some(vec![0, 0xFF]));
    assert_eq!(decoded::<Arc<[u8]>>([0, 0xFF]), Some(Arc::from([0, 0xFF])));
}

#[test]
fn pointers_are_what_they_point_to() {
    pin(Box::new(7_u32), "7");
    pin(Arc::new("x".to_owned()), "x");
    pin(Some(Box::new(true)), "true");
    assert_eq!(Box::new(None::<u32>).encode(), None);
    assert_eq!(Arc::<Option<u32>>::missing(), Some(Arc::new(None)));
    assert_eq!(Box::<u32>::missing(), None);
    refuse::<Arc<u8>>(&["", "256"]);
}

#[test]
fn durations_are_decimal_seconds() {
    pin(Duration::ZERO, "0");
    pin(Duration::from_secs(90), "90");
    pin(Duration::from_millis(250), "0.25");
    pin(Duration::from_nanos(1), "0.000000001");
    pin(Duration::MAX, "18446744073709551615.999999999");
    assert_eq!(decoded::<Duration>("1.50"), Some(Duration::from_millis(1500)));
    refuse::<Duration>(&["", ".", "1.", ".5", "-1", "+1", "1e3", "1s", "0.0000000001", "18446744073709551616"]);
}

#[test]
fn system_times_are_rfc_3339_in_utc() {
    let at = |seconds, nanos| SystemTime::UNIX_EPOCH + Duration::new(seconds, nanos);
    pin(SystemTime::UNIX_EPOCH, "1970-01-01T00:00:00Z");
    pin(at(1_769_860_800, 0), "2026-01-31T12:00:00Z");
    pin(at(1_769_860_800, 500_000_000), "2026-01-31T12:00:00.500Z");
    pin(at(1_769_860_800, 123_456_000), "2026-01-31T12:00:00.123456Z");
    pin(at(1_769_860_800, 123_456_789), "2026-01-31T12:00:00.123456789Z");
    pin(at(253_402_300_799, 999_999_999), "9999-12-31T23:59:59.999999999Z");
    assert_eq!(decoded("2026-01-31T12:00:00.5Z"), Some(at(1_769_860_800, 500_000_000)));
    assert_eq!((SystemTime::UNIX_EPOCH - Duration::from_nanos(1)).encode(), None, "before 1970");
    assert_eq!(at(253_402_300_800, 0).encode(), None, "after 9999");
    refuse::<SystemTime>(&[
        "",
        "2026-01-31",
        "2026-01-31T12:00:00",
        "2026-01-31T12:00:00+01:00",
        "1969-12-31T23:59:59Z",
    ]);
}

#[test]
fn none_is_no_field() {
    assert_eq!(None::<u32>.encode(), None);
    assert_eq!(Option::<u32>::missing(), Some(None));
    pin(Some(7_u32), "7");
    pin(Some(String::new()), "");
    assert_eq!(u32::missing(), None);
    assert_eq!(String::missing(), None);
    refuse::<Option<u32>>(&["", "x"]);
}

#[test]
fn bytes_of_the_bytes_crate_are_as_they_are() {
    let value = bytes::Bytes::from_static(b"\0\xFF");
    assert_eq!(value.encode(), Some(vec![0, 0xFF]));
    assert_eq!(decoded(b"\0\xFF"), Some(value));
}

#[test]
fn uuids_are_hyphenated_lower_case() {
    let value = uuid::Uuid::from_u128(0x67e5_5044_10b1_426f_9247_bb68_0e5f_e0c8);
    pin(value, "67e55044-10b1-426f-9247-bb680e5fe0c8");
    refuse::<uuid::Uuid>(&["", "67e55044"]);
}

#[test]
fn times_are_rfc_3339() {
    use chrono::{DateTime, FixedOffset, NaiveDate, Utc};
    pin("2026-01-31T12:00:00Z".parse::<DateTime<Utc>>().unwrap(), "2026-01-31T12:00:00Z");
    pin("2026-01-31T12:00:00.125Z".parse::<DateTime<Utc>>().unwrap(), "2026-01-31T12:00:00.125Z");
    pin("2026-01-31T12:00:00+02:00".parse::<DateTime<FixedOffset>>().unwrap(), "2026-01-31T12:00:00+02:00");
    pin(NaiveDate::from_ymd_opt(2026, 1, 31).unwrap(), "2026-01-31");
    assert_eq!(decoded::<DateTime<Utc>>("2026-01-31T14:00:00+02:00"), decoded("2026-01-31T12:00:00Z"));
    let ancient = FixedOffset::west_opt(75).unwrap();
    let noon = "1840-01-01T12:00:00Z".parse::<DateTime<Utc>>().unwrap().with_timezone(&ancient);
    assert_eq!(encoded(&noon).as_deref(), Some("1840-01-01T12:00:00Z"), "no such offset in RFC 3339");
    assert_eq!(decoded::<DateTime<FixedOffset>>("1840-01-01T12:00:00Z"), Some(noon));
    let far = DateTime::<Utc>::MAX_UTC;
    assert_eq!(decoded::<DateTime<Utc>>(encoded(&far).unwrap()), Some(far));
    let east = FixedOffset::east_opt(3600).unwrap();
    assert_eq!(encoded(&far.with_timezone(&east)), encoded(&far), "its local time is in a year that there isn't");
    refuse::<DateTime<Utc>>(&["", "2026-01-31", "2026-01-31T12:00:00", "yesterday"]);
    refuse::<NaiveDate>(&["", "31.1.2026", "2026-02-30"]);
}

#[test]
fn times_of_chrono_without_an_offset_are_iso_8601() {
    use chrono::{NaiveDate, NaiveDateTime, NaiveTime};
    let noon = |nanos| NaiveTime::from_hms_nano_opt(12, 0, 0, nanos).unwrap();
    pin(noon(0), "12:00:00");
    pin(noon(500_000_000), "12:00:00.500");
    pin(noon(1), "12:00:00.000000001");
    let leap_second = NaiveTime::from_hms_nano_opt(23, 59, 59, 1_250_000_000).unwrap();
    pin(leap_second, "23:59:60.250");
    let day = NaiveDate::from_ymd_opt(2016, 12, 31).unwrap();
    pin(day.and_time(noon(0)), "2016-12-31T12:00:00");
    pin(day.and_time(noon(120_000_000)), "2016-12-31T12:00:00.120");
    pin(day.and_time(leap_second), "2016-12-31T23:59:60.250");
    pin(day.and_time(leap_second).and_utc(), "2016-12-31T23:59:60.250Z");
    for far in [NaiveDateTime::MIN, NaiveDateTime::MAX] {
        assert_eq!(decoded(encoded(&far).unwrap()), Some(far));
    }
    refuse::<NaiveTime>(&["", "24:00:00", "12", "noon"]);
    refuse::<NaiveDateTime>(&[
        "",
        "2026-01-31",
        "2026-01-31T12:00:00Z",
        "2026-01-31T12:00:00+01:00",
        "2026-02-30T12:00:00",
    ]);
}

#[test]
fn times_of_time_are_those_of_chrono() {
    use ::time::macros::{date, datetime, time};
    use ::time::{Date, OffsetDateTime, PrimitiveDateTime, Time};
    pin(datetime!(2026-01-31 12:00 UTC), "2026-01-31T12:00:00Z");
    pin(datetime!(2026-01-31 12:00:00.5 UTC), "2026-01-31T12:00:00.500Z");
    pin(datetime!(2026-01-31 12:00:00.123456789 +02:00), "2026-01-31T12:00:00.123456789+02:00");
    pin(datetime!(0000-01-01 00:00 UTC), "0000-01-01T00:00:00Z");
    pin(datetime!(9999-12-31 23:59:59 -01:00), "9999-12-31T23:59:59-01:00");
    let noon = datetime!(1840-01-01 12:00 UTC);
    let ancient = noon.to_offset(::time::UtcOffset::from_whole_seconds(-75).unwrap());
    assert_eq!(encoded(&ancient).as_deref(), Some("1840-01-01T12:00:00Z"), "no such offset in RFC 3339");
    assert_eq!(decoded("1840-01-01T12:00:00Z"), Some(ancient));
    assert_eq!(decoded("2026-01-31T12:00:00.5Z"), Some(datetime!(2026-01-31 12:00:00.5 UTC)));
    assert_eq!(datetime!(-0001-01-01 00:00 UTC).encode(), None, "RFC 3339 has no such year");
    assert_eq!(datetime!(9999-12-31 23:59:59 -00:00:30).encode(), None, "in UTC it is in a year that there isn't");
    pin(datetime!(2026-01-31 12:00:00.12), "2026-01-31T12:00:00.120");
    pin(date!(2026 - 01 - 31), "2026-01-31");
    pin(time!(12:00), "12:00:00");
    pin(time!(23:59:59.000001), "23:59:59.000001");
    assert_eq!(date!(-0001 - 01 - 01).encode(), None);
    refuse::<OffsetDateTime>(&["", "2026-01-31", "2026-01-31T12:00:00", "yesterday"]);
    refuse::<PrimitiveDateTime>(&["", "2026-01-31", "2026-01-31T12:00:00Z", "2026-01-31T12:00:00+01:00"]);
    refuse::<Date>(&["", "2026-02-30", "31.1.2026", "2026-01-31T00:00:00Z"]);
    refuse::<Time>(&["", "24:00:00", "12", "12:00:00Z", "12:00:00+01:00", "T12:00:00"]);
}

#[test]
fn times_of_jiff_are_those_of_chrono() {
    use jiff::civil::{Date, DateTime, Time, date, time};
    use jiff::tz::{TimeZone, offset};
    use jiff::{Timestamp, Zoned};
    let at = |nanos| Timestamp::new(1_769_860_800, nanos).unwrap();
    pin(at(0), "2026-01-31T12:00:00Z");
    pin(at(500_000_000), "2026-01-31T12:00:00.500Z");
    pin(at(1), "2026-01-31T12:00:00.000000001Z");
    for far in [Timestamp::MIN, Timestamp::MAX] {
        assert_eq!(decoded(encoded(&far).unwrap()), Some(far));
    }
    pin(at(0).to_zoned(TimeZone::UTC), "2026-01-31T12:00:00+00:00[UTC]");
    pin(at(500_000_000).to_zoned(TimeZone::fixed(offset(2))), "2026-01-31T14:00:00.500+02:00[+02:00]");
    pin(at(0).in_tz("Europe/Rome").unwrap(), "2026-01-31T13:00:00+01:00[Europe/Rome]");
    pin(date(2026, 1, 31).at(12, 0, 0, 120_000_000), "2026-01-31T12:00:00.120");
    pin(date(2026, 1, 31), "2026-01-31");
    pin(time(12, 0, 0, 0), "12:00:00");
    refuse::<Timestamp>(&["", "2026-01-31", "2026-01-31T12:00:00", "yesterday"]);
    refuse::<Zoned>(&[
        "",
        "2026-01-31T12:00:00Z",
        "2026-01-31T12:00:00+01:00[Nowhere/Atlantis]",
        "2026-01-31T12:00:00-05:00[Europe/Rome]",
    ]);
    refuse::<DateTime>(&["", "2026-01-31T12:00:00Z", "2026-02-30T12:00:00"]);
    refuse::<Date>(&["", "2026-02-30", "31.1.2026"]);
    refuse::<Time>(&["", "24:00:00", "noon"]);
}

#[test]
fn the_same_instant_is_the_same_text_in_every_crate() {
    for nanos in [0, 1, 1_000, 1_500_000, 120_000_000, 500_000_000, 999_999_999] {
        let since = Duration::new(1_769_860_800, nanos);
        let chrono = chrono::DateTime::from_timestamp(1_769_860_800, nanos).unwrap();
        let time = ::time::OffsetDateTime::UNIX_EPOCH + since;
        let jiff = jiff::Timestamp::new(1_769_860_800, nanos.cast_signed()).unwrap();
        let text = encoded(&(SystemTime::UNIX_EPOCH + since));
        assert_eq!([encoded(&chrono), encoded(&time), encoded(&jiff)], [text.clone(), text.clone(), text]);

        let clock = ::time::Time::from_hms_nano(1, 2, 3, nanos).unwrap();
        let text = encoded(&chrono::NaiveTime::from_hms_nano_opt(1, 2, 3, nanos).unwrap());
        assert_eq!([encoded(&clock), encoded(&jiff::civil::time(1, 2, 3, nanos.cast_signed()))], [text.clone(), text]);
    }
}

#[test]
fn big_decimals_keep_their_scale() {
    use bigdecimal::BigDecimal;
    let decimal = |text: &str| text.parse::<BigDecimal>().unwrap();
    pin(decimal("12.50"), "12.50");
    pin(decimal("0"), "0");
    pin(decimal("-79228162514264337593543950336.5"), "-79228162514264337593543950336.5");
    // What is written with an exponent is short, whatever its value.
    pin(decimal("1e100"), "1e+100");
    pin(decimal("1e-100"), "1E-100");
    pin(decimal("1e1000000000"), "1e+1000000000");
    refuse::<BigDecimal>(&["", "x", "1,5", "NaN"]);
}

#[test]
fn texts_of_other_crates_are_as_they_are() {
    use compact_str::CompactString;
    use smol_str::SmolStr;
    pin(SmolStr::new("käse"), "käse");
    pin(CompactString::new("a\0b"), "a\0b");
    pin(SmolStr::default(), "");
    assert_eq!(decoded::<SmolStr>([0xFF]), None);
    assert_eq!(decoded::<CompactString>([0xFF]), None);
    pin(url::Url::parse("https://Example.org/ä?b#c").unwrap(), "https://example.org/%C3%A4?b#c");
    refuse::<url::Url>(&["", "example.org", "/path"]);
}

#[test]
fn ulids_are_26_upper_case_characters() {
    use ulid::Ulid;
    pin(Ulid::from(0x0185_3ac0_1234_5678_9abc_def0_1234_5678), "01GMXC04HMASW9NF6YY0938NKR");
    pin(Ulid::nil(), "00000000000000000000000000");
    refuse::<Ulid>(&["", "01GMXC04HM", "not a ULID, but as long..!"]);
}

#[test]
fn json_values_are_json_text() {
    use serde_json::{Value, json};
    // Of several keys, the order depends on a feature of `serde_json`.
    pin(json!({"b": [1, null]}), r#"{"b":[1,null]}"#);
    pin(Value::Null, "null");
    assert_eq!(None::<Value>.encode(), None);
    assert_eq!(decoded::<Option<Value>>("null"), Some(Some(Value::Null)));
    let nested = |depth| (0..depth).fold(json!(1), |inner, _| json!([inner]));
    round_trip(&nested(100)).unwrap();
    assert_eq!(nested(200).encode(), None, "it would not be read again");
    refuse::<Value>(&["", "{", "nil", "1 2"]);
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, FieldValue, CacheId)]
#[cacheable(rename_all = "kebab-case")]
enum Region {
    NorthSea,
    #[cacheable(rename = "alps", alias = "mountains")]
    HighAlps,
    #[cacheable(other)]
    Elsewhere,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, FieldValue, CacheId)]
struct OrderId(u64);

#[derive(Debug, Clone, PartialEq, Eq, Hash, FieldValue, CacheId)]
struct Sku(smol_str::SmolStr);

#[derive(Debug, Clone, PartialEq, FieldValue)]
struct Limit(Option<OrderId>);

#[test]
fn a_variant_is_its_text_and_a_newtype_what_it_wraps() {
    pin(Region::NorthSea, "north-sea");
    pin(Region::HighAlps, "alps");
    pin(Region::Elsewhere, "elsewhere");
    assert_eq!(decoded("mountains"), Some(Region::HighAlps));
    assert_eq!(decoded("NorthSea"), Some(Region::Elsewhere));
    pin(OrderId(7), "7");
    refuse::<OrderId>(&["", "-1", "07"]);
    pin(Limit(Some(OrderId(7))), "7");
    assert_eq!(Limit(None).encode(), None);
    assert_eq!(Limit::missing(), Some(Limit(None)));
}

#[track_caller]
#[allow(clippy::needless_pass_by_value, reason = "for literals")]
fn pin_id<I: CacheId>(id: I, text: &str) {
    let mut written = String::new();
    id.write_id(&mut written).unwrap();
    assert_eq!(written, text);
}

#[test]
fn ids_are_as_the_values_are_and_bytes_are_digits() {
    pin_id([0_u8, 0xA1, 0xFF], "00a1ff");
    pin_id(chrono::NaiveDate::from_ymd_opt(2026, 1, 31).unwrap(), "2026-01-31");
    pin_id(jiff::civil::date(2026, 1, 31), "2026-01-31");
    pin_id(::time::macros::date!(2026 - 01 - 31), "2026-01-31");
    pin_id(ulid::Ulid::nil(), "00000000000000000000000000");
    pin_id(Region::HighAlps, "alps");
    pin_id(OrderId(7), "7");
    pin_id(smol_str::SmolStr::new("käse"), "käse");
    pin_id(compact_str::CompactString::new("a/b"), "a/b");
    assert!(::time::macros::date!(-0001 - 01 - 01).write_id(&mut String::new()).is_err());
}

macro_rules! accepts {
    ($($ty:ty: $($key:expr),*;)*) => {$({
        #[derive(Debug, Cacheable)]
        #[cacheable(entity = "thing")]
        struct Thing {
            #[cacheable(id)]
            id: $ty,
        }

        fn key(key: impl CacheKey<$ty>) -> String {
            keys::<Thing>(&key).unwrap().0
        }

        let keys = [$(key($key)),*];
        assert!(keys.iter().all(|key| *key == keys[0]), "{keys:?}");
    })*};
}

#[test]
fn a_call_takes_what_an_id_is_made_of() {
    use compact_str::CompactString;
    use smol_str::SmolStr;
    accepts! {
        SmolStr: SmolStr::new("a"), &SmolStr::new("a"), "a", &"a", Cow::Borrowed("a"), &Cow::Borrowed("a");
        CompactString: CompactString::new("a"), &CompactString::new("a"), "a", &"a", Cow::Borrowed("a");
        OrderId: OrderId(7), &OrderId(7), 7, &7;
        Sku: Sku("a".into()), SmolStr::new("a"), "a";
        Region: Region::HighAlps, &Region::HighAlps;
        [u8; 2]: [1, 2], &[1, 2];
        ulid::Ulid: ulid::Ulid::nil(), &ulid::Ulid::nil();
    }
}

#[test]
fn decimals_are_as_displayed() {
    use rust_decimal::Decimal;
    pin("12.50".parse::<Decimal>().unwrap(), "12.50");
    assert_eq!(encoded(&"12.50".parse::<Decimal>().unwrap()).as_deref(), Some("12.50"));
    pin(Decimal::MIN, "-79228162514264337593543950335");
    refuse::<Decimal>(&["", "x", "1,5"]);
}

/// An encoded value is decoded to the same value, borrowed and owned.
fn round_trip<V: FieldValue + PartialEq + Debug>(value: &V) -> Result<(), TestCaseError> {
    match value.encode() {
        Some(bytes) => {
            prop_assert_eq!(&V::decode(Cow::Borrowed(&bytes)).unwrap(), value);
            prop_assert_eq!(&V::decode(Cow::Owned(bytes)).unwrap(), value);
        }
        None => prop_assert_eq!(&V::missing().unwrap(), value),
    }
    Ok(())
}

macro_rules! round_trips {
    ($($name:ident: $value:expr;)*) => {
        proptest! {$(
            #[test]
            fn $name(value in $value) {
                round_trip(&value)?;
            }
        )*}
    };
}

fn non_zero<V: Arbitrary, N: Debug>(make: fn(V) -> Option<N>) -> impl Strategy<Value = N> {
    any::<V>().prop_filter_map("zero", make)
}

round_trips! {
    u8_comes_back: any::<u8>();
    u16_comes_back: any::<u16>();
    u32_comes_back: any::<u32>();
    u64_comes_back: any::<u64>();
    u128_comes_back: any::<u128>();
    usize_comes_back: any::<usize>();
    i8_comes_back: any::<i8>();
    i16_comes_back: any::<i16>();
    i32_comes_back: any::<i32>();
    i64_comes_back: any::<i64>();
    i128_comes_back: any::<i128>();
    isize_comes_back: any::<isize>();
    non_zero_u8_comes_back: non_zero(NonZero::<u8>::new);
    non_zero_u16_comes_back: non_zero(NonZero::<u16>::new);
    non_zero_u32_comes_back: non_zero(NonZero::<u32>::new);
    non_zero_u64_comes_back: non_zero(NonZero::<u64>::new);
    non_zero_u128_comes_back: non_zero(NonZero::<u128>::new);
    non_zero_usize_comes_back: non_zero(NonZero::<usize>::new);
    non_zero_i8_comes_back: non_zero(NonZero::<i8>::new);
    non_zero_i16_comes_back: non_zero(NonZero::<i16>::new);
    non_zero_i32_comes_back: non_zero(NonZero::<i32>::new);
    non_zero_i64_comes_back: non_zero(NonZero::<i64>::new);
    non_zero_i128_comes_back: non_zero(NonZero::<i128>::new);
    non_zero_isize_comes_back: non_zero(NonZero::<isize>::new);
    bool_comes_back: any::<bool>();
    char_comes_back: any::<char>();
    string_comes_back: any::<String>();
    box_str_comes_back: any::<String>().prop_map(Box::<str>::from);
    arc_str_comes_back: any::<String>().prop_map(Arc::<str>::from);
    ip_addr_comes_back: any::<IpAddr>();
    ipv4_addr_comes_back: any::<Ipv4Addr>();
    ipv6_addr_comes_back: any::<Ipv6Addr>();
    vec_comes_back: any::<Vec<u8>>();
    array_comes_back: any::<[u8; 16]>();
    empty_array_comes_back: any::<[u8; 0]>();
    duration_comes_back: any::<Duration>();
    option_comes_back: any::<Option<String>>();
    option_of_bytes_comes_back: any::<Option<Vec<u8>>>();
    socket_addr_comes_back: (any::<IpAddr>(), any::<u16>()).prop_map(SocketAddr::from);
    boxed_bytes_come_back: any::<Vec<u8>>().prop_map(Vec::into_boxed_slice);
    shared_bytes_come_back: any::<Vec<u8>>().prop_map(Arc::<[u8]>::from);
    pointer_comes_back: any::<Option<u32>>().prop_map(|value| value.map(|value| Box::new(Arc::new(value))));
    system_time_comes_back: (0..253_402_300_800_u64, 0_u32..1_000_000_000)
        .prop_map(|(seconds, nanos)| SystemTime::UNIX_EPOCH + Duration::new(seconds, nanos));
    newtype_comes_back: any::<Option<u64>>().prop_map(|number| Limit(number.map(OrderId)));
    variant_comes_back: (0_usize..3).prop_map(|at| [Region::NorthSea, Region::HighAlps, Region::Elsewhere][at].clone());
    json_value_comes_back: (any::<i64>(), any::<String>(), -1e300..1e300)
        .prop_map(|(number, text, float)| serde_json::json!({ &text: [number, float, null_or(number, &text)] }));
    smol_str_comes_back: any::<String>().prop_map(smol_str::SmolStr::from);
    compact_string_comes_back: any::<String>().prop_map(compact_str::CompactString::from);
    ulid_comes_back: any::<u128>().prop_map(ulid::Ulid::from);
    url_comes_back: any::<String>().prop_filter_map("no URL", |path| url::Url::parse("https://a.org").unwrap().join(&path).ok());
    big_decimal_comes_back: (any::<i128>(), -2000_i64..2000)
        .prop_map(|(digits, scale)| bigdecimal::BigDecimal::new(digits.into(), scale));
}

fn null_or(number: i64, text: &str) -> Option<&str> {
    (number % 2 == 0).then_some(text)
}

round_trips! {
    bytes_come_back: any::<Vec<u8>>().prop_map(bytes::Bytes::from);
}

round_trips! {
    uuid_comes_back: any::<u128>().prop_map(uuid::Uuid::from_u128);
}

mod chrono_round_trips {
    use super::*;
    use chrono::{DateTime, FixedOffset, NaiveDate, Utc};

    /// RFC 3339 has years of four digits.
    fn instant() -> impl Strategy<Value = DateTime<Utc>> {
        let seconds = -62_135_596_800_i64..253_402_300_800;
        (seconds, 0_u32..1_000_000_000).prop_map(|(seconds, nanos)| DateTime::from_timestamp(seconds, nanos).unwrap())
    }

    /// .. and offsets of whole minutes.
    fn offset() -> impl Strategy<Value = FixedOffset> {
        (-720..840).prop_map(|minutes| FixedOffset::east_opt(minutes * 60).unwrap())
    }

    round_trips! {
        instant_comes_back: instant();
        date_comes_back: instant().prop_map(|time| -> NaiveDate { time.date_naive() });
        date_and_time_comes_back: instant().prop_map(|time| time.naive_utc());
        time_of_day_comes_back: instant().prop_map(|time| time.time());
    }

    proptest! {
        #[test]
        fn local_time_comes_back_with_its_offset(
            seconds in -62_000_000_000_i64..253_000_000_000,
            nanos in 0_u32..1_000_000_000,
            offset in offset(),
        ) {
            let time = DateTime::from_timestamp(seconds, nanos).unwrap().with_timezone(&offset);
            round_trip(&time)?;
            let back = DateTime::<FixedOffset>::decode(time.encode().unwrap().into()).unwrap();
            prop_assert_eq!(back.offset(), &offset);
        }
    }
}

mod time_round_trips {
    use super::*;
    use ::time::{OffsetDateTime, PrimitiveDateTime, UtcOffset};

    fn instant() -> impl Strategy<Value = OffsetDateTime> {
        // From 0000 to 9999, with a day left for offsets.
        let nanos = -62_167_132_800_000_000_000_i128..253_402_214_400_000_000_000;
        nanos.prop_map(|nanos| OffsetDateTime::from_unix_timestamp_nanos(nanos).unwrap())
    }

    fn local() -> impl Strategy<Value = OffsetDateTime> {
        let offset = (-23 * 60_i32..=23 * 60).prop_map(|minutes| UtcOffset::from_whole_seconds(minutes * 60).unwrap());
        (instant(), offset).prop_map(|(time, offset)| time.to_offset(offset))
    }

    round_trips! {
        instant_comes_back: instant();
        date_comes_back: instant().prop_map(|time| time.date());
        time_of_day_comes_back: instant().prop_map(|time| time.time());
        date_and_time_comes_back: instant().prop_map(|time| PrimitiveDateTime::new(time.date(), time.time()));
    }

    proptest! {
        #[test]
        fn local_time_comes_back_with_its_offset(time in local()) {
            let back = OffsetDateTime::decode(time.encode().unwrap().into()).unwrap();
            prop_assert_eq!((back, back.offset()), (time, time.offset()));
        }

        #[test]
        fn the_text_is_that_of_chrono(time in local()) {
            let offset = chrono::FixedOffset::east_opt(time.offset().whole_seconds()).unwrap();
            let chrono = chrono::DateTime::from_timestamp(time.unix_timestamp(), time.nanosecond()).unwrap();
            prop_assert_eq!(encoded(&time), encoded(&chrono.with_timezone(&offset)));
        }
    }
}

mod jiff_round_trips {
    use super::*;
    use jiff::Timestamp;
    use jiff::tz::{Offset, TimeZone};

    fn instant() -> impl Strategy<Value = Timestamp> {
        let nanos = Timestamp::MIN.as_nanosecond()..=Timestamp::MAX.as_nanosecond();
        nanos.prop_map(|nanos| Timestamp::from_nanosecond(nanos).unwrap())
    }

    fn zone() -> impl Strategy<Value = TimeZone> {
        (-23 * 60..=23 * 60).prop_map(|minutes| TimeZone::fixed(Offset::from_seconds(minutes * 60).unwrap()))
    }

    round_trips! {
        instant_comes_back: instant();
        zoned_comes_back: (instant(), zone()).prop_map(|(time, zone)| time.to_zoned(zone));
        date_and_time_comes_back: (instant(), zone()).prop_map(|(time, zone)| time.to_zoned(zone).datetime());
        date_comes_back: (instant(), zone()).prop_map(|(time, zone)| time.to_zoned(zone).date());
        time_of_day_comes_back: (instant(), zone()).prop_map(|(time, zone)| time.to_zoned(zone).time());
    }
}

round_trips! {
    decimal_comes_back: (any::<i64>(), 0_u32..28).prop_map(|(digits, scale)| rust_decimal::Decimal::new(digits, scale));
}

/// Floats are compared by their bits: `-0.0` stays negative, and `NaN` stays `NaN`.
macro_rules! float_round_trips {
    ($($name:ident: $float:ty;)*) => {
        proptest! {$(
            #[test]
            fn $name(value in proptest::num::$name::ANY) {
                let back = <$float>::decode(value.encode().unwrap().into()).unwrap();
                prop_assert!(back.to_bits() == value.to_bits() || back.is_nan() && value.is_nan());
                prop_assert!(value.encode().unwrap().len() <= 24);
            }
        )*}
    };
}

float_round_trips! {
    f32: f32;
    f64: f64;
}

proptest! {
    #[test]
    fn no_bytes_make_a_decoder_panic(bytes: Vec<u8>) {
        decoded::<i128>(&bytes);
        decoded::<NonZero<u8>>(&bytes);
        decoded::<f64>(&bytes);
        decoded::<char>(&bytes);
        decoded::<bool>(&bytes);
        decoded::<IpAddr>(&bytes);
        decoded::<Duration>(&bytes);
        decoded::<Arc<str>>(&bytes);
        decoded::<Option<[u8; 4]>>(&bytes);
        decoded::<SystemTime>(&bytes);
        decoded::<::time::Date>(&bytes);
        decoded::<jiff::Zoned>(&bytes);
        decoded::<bigdecimal::BigDecimal>(&bytes);
        decoded::<Region>(&bytes);
    }
}
