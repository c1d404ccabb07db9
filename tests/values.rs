//! The text forms of `FieldValue`: each row of the table is tested, because other clients of the same Redis rely on it;
//! and every value of every type survives a round trip.
#![allow(clippy::unwrap_used, missing_docs)]

use std::borrow::Cow;
use std::fmt::Debug;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZero;
use std::sync::Arc;
use std::time::Duration;

use cache_aside::FieldValue;
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
    refuse::<char>(&["", "ab"]);
    refuse::<IpAddr>(&["", "1.2.3", "1.2.3.4 ", "localhost"]);
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
    }
}
