//! What is measured, table by table: the bare driver, the peers, and the operations of cache-aside.

pub(crate) mod growth;
mod ours;
mod peers;
mod raw;

pub(crate) use self::raw::connect;
use crate::Failure;
use crate::measure::Contender;
use crate::records::{Product, Record, Sixteen, SixtyFour};

/// Contenders for one table; the others are compared with the first.
pub(crate) struct Section {
    pub(crate) title: &'static str,
    pub(crate) contenders: Vec<Contender>,
}

pub(crate) const HITS: &str = "Hits of 4 fields";

/// All tables, with connections of the runtime that this is called on.
pub(crate) async fn sections(url: &str) -> Result<Vec<Section>, Failure> {
    let mut small = hits::<Product>(url).await?;
    small.extend(ours::other_reads(url).await?);
    let mut updates = vec![raw::update(url).await?];
    updates.extend(ours::updates(url).await?);
    Ok(vec![
        Section { title: HITS, contenders: small },
        Section { title: "Hits of 16 fields", contenders: hits::<Sixteen>(url).await? },
        Section { title: "Hits of 64 fields", contenders: hits::<SixtyFour>(url).await? },
        Section { title: "Embedded hits", contenders: ours::embedded().await? },
        Section { title: "Batches of 100 hits", contenders: ours::batches(url).await? },
        Section { title: "Misses", contenders: vec![raw::miss(url).await?, ours::miss(url).await?] },
        Section { title: "Updates", contenders: updates },
        Section { title: "Invalidations", contenders: vec![raw::delete(url).await?, ours::invalidate(url).await?] },
    ])
}

/// Reads of entries that are there.
async fn hits<R: Record>(url: &str) -> Result<Vec<Contender>, Failure> {
    let mut contenders = raw::hits::<R>(url).await?;
    contenders.extend(peers::hits::<R>(url).await?);
    contenders.extend(ours::hits::<R>(url).await?);
    Ok(contenders)
}
