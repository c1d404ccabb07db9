//! Values for the fields of rows.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::Hash;
use std::marker::PhantomData;
use std::net::{IpAddr, Ipv4Addr};

use chrono::{DateTime, FixedOffset, NaiveDateTime, Utc};
use serde_json::json;
use serde_json::value::RawValue;
use time::{Date, PrimitiveDateTime, Time};
use url::Url;
use uuid::Uuid;

/// A row of numbers that values are made of, so that those of two fields differ.
#[derive(Debug)]
pub(crate) struct Samples {
    last: u8,
    has_options: bool,
}

impl Samples {
    /// With `Some` in each `Option`, or with `None`.
    pub(crate) fn new(has_options: bool) -> Self {
        Self { last: 0, has_options }
    }

    fn next(&mut self) -> u8 {
        self.last += 1;
        self.last
    }

    fn next_second(&mut self) -> i64 {
        1_800_000_000 + i64::from(self.next())
    }
}

pub(crate) trait Sample {
    fn sample(samples: &mut Samples) -> Self;
}

macro_rules! samples {
    ($($ty:ty: |$samples:ident| $value:expr;)*) => {$(
        impl Sample for $ty {
            fn sample($samples: &mut Samples) -> Self {
                $value
            }
        }
    )*};
}

samples! {
    bool: |samples| samples.next().is_multiple_of(2);
    u8: |samples| samples.next();
    u32: |samples| samples.next().into();
    i16: |samples| samples.next().into();
    i32: |samples| -i32::from(samples.next());
    i64: |samples| i64::from(samples.next()) << 40;
    f32: |samples| f32::from(samples.next()) / 10.0;
    String: |samples| format!("Grüße \"{}\"", samples.next());
    Uuid: |samples| Uuid::from_u128(samples.next().into());
    IpAddr: |samples| Ipv4Addr::new(192, 0, 2, samples.next()).into();
    Box<Url>: |samples| Box::new(format!("https://example.org/{}?q=a%20b", samples.next()).parse().unwrap());
    DateTime<Utc>: |samples| DateTime::from_timestamp(samples.next_second(), 123_456_000).unwrap();
    DateTime<FixedOffset>: |samples| DateTime::<Utc>::sample(samples).with_timezone(&FixedOffset::east_opt(3600).unwrap());
    NaiveDateTime: |samples| DateTime::<Utc>::sample(samples).naive_utc();
    PrimitiveDateTime: |samples| {
        let date = Date::from_ordinal_date(2026, samples.next().into()).unwrap();
        PrimitiveDateTime::new(date, Time::from_hms_micro(12, 30, 0, 250_000).unwrap())
    };
    serde_json::Value: |samples| json!({ "number": samples.next(), "list": ["a", null, 0.5] });
    Box<RawValue>: |samples| RawValue::from_string(format!("{{ \"number\": {}, \"none\": null }}", samples.next())).unwrap();
}

impl<V: Sample> Sample for Option<V> {
    fn sample(samples: &mut Samples) -> Self {
        samples.has_options.then(|| V::sample(samples))
    }
}

impl<V: Sample> Sample for Vec<V> {
    fn sample(samples: &mut Samples) -> Self {
        vec![V::sample(samples), V::sample(samples)]
    }
}

impl<V: Sample + Eq + Hash> Sample for HashSet<V> {
    fn sample(samples: &mut Samples) -> Self {
        Vec::sample(samples).into_iter().collect()
    }
}

impl<V: Sample> Sample for HashMap<String, V> {
    fn sample(samples: &mut Samples) -> Self {
        Self::from([(String::sample(samples), V::sample(samples)), (String::sample(samples), V::sample(samples))])
    }
}

impl<V: Sample> Sample for BTreeMap<String, V> {
    fn sample(samples: &mut Samples) -> Self {
        HashMap::sample(samples).into_iter().collect()
    }
}

impl<T> Sample for PhantomData<T> {
    fn sample(_: &mut Samples) -> Self {
        PhantomData
    }
}

/// For newtypes.
macro_rules! sample_newtypes {
    ($($name:ident $(<$($parameter:ident),*>)?),* $(,)?) => {$(
        impl $(<$($parameter: $crate::sample::Sample),*>)? $crate::sample::Sample for $name $(<$($parameter),*>)? {
            fn sample(samples: &mut $crate::sample::Samples) -> Self {
                Self($crate::sample::Sample::sample(samples))
            }
        }
    )*};
}

/// For enums: the variant that stands for all.
macro_rules! sample_variants {
    ($($name:ident::$variant:ident),* $(,)?) => {$(
        impl $crate::sample::Sample for $name {
            fn sample(_: &mut $crate::sample::Samples) -> Self {
                Self::$variant
            }
        }
    )*};
}

/// Defines a struct that is no row itself.
macro_rules! part {
    ($(#[$of_struct:meta])* struct $name:ident { $($(#[$of_field:meta])* $field:ident: $ty:ty,)* }) => {
        $(#[$of_struct])*
        pub(crate) struct $name {
            $($(#[$of_field])* $field: $ty,)*
        }

        impl $crate::sample::Sample for $name {
            fn sample(samples: &mut $crate::sample::Samples) -> Self {
                // It may have no fields.
                let _ = &samples;
                Self { $($field: $crate::sample::Sample::sample(samples),)* }
            }
        }
    };
}
