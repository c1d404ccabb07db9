//! The contenders of each table: the bare driver, other caches and drivers, and the operations of cache-aside.

#[allow(dead_code, reason = "nobody reads the embedded structs")]
mod domain;
pub(crate) mod growth;
mod in_memory;
mod ours;
mod peers;
mod raw;
mod shared;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

pub(crate) use self::raw::connect;
use crate::Failure;
use crate::measure::Contender;
use crate::records::{Product, Record, Sixteen, SixtyFour};

/// A group of contenders, all compared with the first.
pub(crate) struct Table {
    pub(crate) title: &'static str,
    /// Creates them, with connections on the current runtime.
    pub(crate) contenders: fn(&str) -> Preparing<'_>,
}

type Preparing<'a> = BoxFuture<'a, Result<Vec<Contender>, Failure>>;

pub(crate) const HITS: &str = "Hits of 4 fields";

pub(crate) const TABLES: [Table; 12] = [
    Table { title: HITS, contenders: |url| small_hits(url).boxed() },
    Table { title: "Hits of 16 fields", contenders: |url| hits::<Sixteen>(url).boxed() },
    Table { title: "Hits of 64 fields", contenders: |url| hits::<SixtyFour>(url).boxed() },
    Table { title: "Hits of domain types", contenders: |url| domain::hits(url).boxed() },
    Table { title: "Near hits", contenders: |url| near_hits(url).boxed() },
    Table { title: "Embedded hits", contenders: |_url| ours::embedded().boxed() },
    Table { title: "Batches of 100 hits", contenders: |url| ours::batches(url).boxed() },
    Table { title: "Misses", contenders: |url| misses(url).boxed() },
    Table { title: "Updates", contenders: |url| updates(url).boxed() },
    Table { title: "Invalidations", contenders: |url| invalidations(url).boxed() },
    Table { title: "Reads beside large fills", contenders: |url| shared::beside_fills(url).boxed() },
    Table { title: "Hits of several runtimes", contenders: |url| shared::runtimes(url).boxed() },
];

/// Reads of existing entries.
async fn hits<R: Record>(url: &str) -> Result<Vec<Contender>, Failure> {
    let mut contenders = raw::hits::<R>(url).await?;
    contenders.extend(peers::hits::<R>(url).await?);
    contenders.extend(ours::hits::<R>(url).await?);
    Ok(contenders)
}

async fn small_hits(url: &str) -> Result<Vec<Contender>, Failure> {
    let mut contenders = hits::<Product>(url).await?;
    contenders.extend(ours::other_reads(url).await?);
    Ok(contenders)
}

/// Reads from this process' memory.
async fn near_hits(url: &str) -> Result<Vec<Contender>, Failure> {
    let mut contenders = in_memory::hits();
    contenders.push(ours::near_hits(url).await?);
    Ok(contenders)
}

async fn misses(url: &str) -> Result<Vec<Contender>, Failure> {
    Ok(vec![raw::miss(url).await?, ours::miss(url).await?])
}

async fn updates(url: &str) -> Result<Vec<Contender>, Failure> {
    let mut contenders = vec![raw::update(url).await?];
    contenders.extend(ours::updates(url).await?);
    Ok(contenders)
}

async fn invalidations(url: &str) -> Result<Vec<Contender>, Failure> {
    Ok(vec![raw::delete(url).await?, ours::invalidate(url).await?])
}
