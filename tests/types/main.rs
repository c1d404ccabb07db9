//! Domain types as services have them: enums, newtypes, embedded structs and dates in cached structs; and the rows of twenty
//! public Rust services. These were chosen before the derives were built, by what they stand for (a user, a project, a refund),
//! not by their fields.
#![allow(clippy::unwrap_used, missing_docs)]

#[macro_use]
mod sample;
#[macro_use]
mod row;

mod crates_io;
mod domain;
mod hyperswitch;
mod labrinth;
mod lakekeeper;
mod lemmy;
mod matrix;
mod page;
mod rauthy;
mod svix;
mod vaultwarden;
mod windmill;
mod zed;

use cache_aside::{Backend, BoxError, Cache, CacheKey, Outcome};

use crate::row::Row;
use crate::sample::Samples;

/// Does something with each of the rows.
macro_rules! for_each_row {
    ($do_it:ident => $then:expr) => {
        for_each_row! { $do_it => $then,
            labrinth::DBUser labrinth::DBProject labrinth::DBVersion
            hyperswitch::MerchantAccount hyperswitch::Customer hyperswitch::Refund
            lemmy::Person lemmy::Community lemmy::Post
            vaultwarden::User vaultwarden::Cipher
            zed::User zed::Project
            crates_io::Crate crates_io::Version
            svix::Endpoint
            matrix::SessionLookup
            lakekeeper::WarehouseRecord
            windmill::Script
            rauthy::User
        }
    };
    ($do_it:ident => $then:expr, $($project:ident::$row:ident)*) => {
        $($then($do_it::<$project::$row>(concat!(stringify!($project), "::", stringify!($row))));)*
    };
}

/// The fields of a row, and how many of them need neither `json` nor `with`.
struct Count {
    fields: usize,
    before: usize,
    now: usize,
}

impl Count {
    fn print(&self, name: &str) {
        let Self { fields, before, now } = self;
        println!("{name:30} {fields:6} {before:6} {:5.1} % {now:6} {:5.1} %", self.share(*before), self.share(*now));
    }

    #[allow(clippy::cast_precision_loss)]
    fn share(&self, part: usize) -> f64 {
        100.0 * part as f64 / self.fields as f64
    }
}

#[test]
fn nearly_all_fields_of_twenty_public_rows_need_neither_json_nor_with() {
    fn count<T: Row>(name: &str) -> Count {
        let plain = |is_plain: fn(&row::RowField) -> bool| T::AS_WRITTEN.iter().filter(|field| is_plain(field)).count();
        let count = Count {
            fields: T::AS_WRITTEN.len(),
            before: plain(row::RowField::was_plain),
            now: plain(row::RowField::is_plain),
        };
        count.print(name);
        count
    }
    println!("{:30} {:>6} {:>14} {:>14}", "", "fields", "before", "now");
    let mut counts = Vec::new();
    for_each_row!(count => |count| counts.push(count));
    let sum = |part: fn(&Count) -> usize| counts.iter().map(part).sum();
    let all =
        Count { fields: sum(|count| count.fields), before: sum(|count| count.before), now: sum(|count| count.now) };
    all.print("all");
    assert_eq!((counts.len(), all.fields), (20, 449));
    assert!(all.share(all.now) >= 95.0);
}

#[tokio::test]
async fn a_hit_is_the_row_that_was_loaded() {
    async fn round_trip<T: Row>(name: &str)
    where
        T::Id: CacheKey<T::Id>,
    {
        for has_options in [true, false] {
            let cache: Cache<T> = Cache::new(Backend::connect("memory://").await.unwrap());
            let mut row = T::sample(&mut Samples::new(has_options));
            let id = row.id();
            let result = Ok::<_, BoxError>(Some(row.clone()));
            let loaded = cache.lookup(id.clone(), |_| async { result }).await.unwrap();
            assert_eq!(loaded.outcome, Outcome::Loaded, "{name}");
            let hit = cache.lookup(id, |_| async { Err::<_, BoxError>("it is in the cache".into()) }).await.unwrap();
            assert_eq!(hit.outcome, Outcome::Hit, "{name}");
            row.reset_skipped();
            assert_eq!(*hit.value.unwrap(), row);
            assert_eq!(*loaded.value.unwrap(), row);
        }
    }
    let mut trips: Vec<std::pin::Pin<Box<dyn Future<Output = ()>>>> = Vec::new();
    for_each_row!(round_trip => |trip| trips.push(Box::pin(trip)));
    for trip in trips {
        trip.await;
    }
}
