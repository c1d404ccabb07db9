//! A thousand readers of one missing record: the number of loads, and the time from the load's end until the last
//! reader has the record.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cache_aside::{Backend, BoxError, Cache, Cacheable};

use crate::Failure;

pub(crate) const TITLE: &str = "Stampede";

const READERS: usize = 1_000;
const LOAD: Duration = Duration::from_millis(20);

#[derive(Debug, Clone, Cacheable)]
#[cacheable(namespace = "bench", entity = "stampede")]
struct Popular {
    #[cacheable(id)]
    id: u64,
    text: String,
}

/// The result of one stampede.
pub(crate) struct Stampede {
    loads: u32,
    /// From the end of the load until the last reader had the record.
    last: Duration,
}

pub(crate) async fn run(url: &str, rounds: u32) -> Result<Vec<Stampede>, Failure> {
    let cache = Cache::<Popular>::new(Backend::connect(url).await?);
    let mut stampedes = Vec::new();
    for _ in 0..rounds {
        cache.invalidate(1).await?;
        let (loads, loaded) = (Arc::new(AtomicU32::new(0)), Arc::new(Mutex::new(Instant::now())));
        let readers: Vec<_> = (0..READERS)
            .map(|_| {
                let (loads, loaded) = (loads.clone(), loaded.clone());
                tokio::spawn(cache.get(1, move |id| async move {
                    loads.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(LOAD).await;
                    *loaded.lock().expect("nobody panics") = Instant::now();
                    Ok::<_, BoxError>(Some(Popular { id, text: "wanted by all".to_owned() }))
                }))
            })
            .collect();
        for reader in readers {
            reader.await??;
        }
        let last = loaded.lock().expect("nobody panics").elapsed();
        stampedes.push(Stampede { loads: loads.load(Ordering::Relaxed), last });
    }
    Ok(stampedes)
}

/// Prints a row for each number of threads.
pub(crate) fn print(stampedes: &[(usize, Vec<Stampede>)]) {
    if stampedes.is_empty() {
        return;
    }
    println!("\n## {TITLE}\n\n{READERS} readers of one missing record, whose load takes {LOAD:?}.\n");
    println!("| threads | loads | from the load's end to the last reader: median (least to greatest) |\n|--:|--:|---|");
    for (threads, stampedes) in stampedes {
        let mut last: Vec<_> = stampedes.iter().map(|stampede| stampede.last).collect();
        last.sort_unstable();
        let loads = stampedes.iter().map(|stampede| stampede.loads).max().unwrap_or_default();
        let (least, median, greatest) = (last[0], last[last.len() / 2], last[last.len() - 1]);
        println!("| {threads} | {loads} | {median:.2?} ({least:.2?} to {greatest:.2?}) |");
    }
}
