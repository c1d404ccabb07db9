//! Experiments that single reads can't show: a stampede, and the race of an invalidation with a load.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::http::StatusCode;
use cache_aside::{BoxError, Outcome};
use serde::Serialize;
use tokio::sync::oneshot;

use crate::failure::Failure;
use crate::figures::{Figures, millis, name};
use crate::primary::{Edit, Product};
use crate::service::Shop;

/// Many readers of one cold key. Times are in milliseconds from the start of the first reader.
#[derive(Debug, Serialize)]
pub(crate) struct Stampede {
    id: String,
    concurrency: usize,
    /// Whether the key could be made cold, which is impossible while the cache can't be reached.
    invalidated: bool,
    primary_reads: usize,
    elapsed_ms: f64,
    slowest_ms: f64,
    loads: Vec<Span>,
    results: Vec<Reader>,
    stats: Figures,
}

#[derive(Debug, Clone, Copy, Serialize)]
struct Span {
    began_ms: f64,
    ended_ms: f64,
}

#[derive(Debug, Serialize)]
struct Reader {
    outcome: &'static str,
    started_ms: f64,
    served_ms: f64,
    waited_ms: f64,
}

/// An invalidation during a load, step by step.
#[derive(Debug, Serialize)]
pub(crate) struct Race {
    id: String,
    steps: Vec<Step>,
    /// Whether the fill of the fenced load was refused.
    fenced: bool,
    old_stock: u32,
    new_stock: u32,
    /// The record that the reader of the fenced load got.
    reader_stock: Option<u32>,
    reader_outcome: &'static str,
    /// The record that a read gets which starts after the invalidation.
    later_stock: Option<u32>,
    later_outcome: &'static str,
    elapsed_ms: f64,
    stats: Figures,
}

#[derive(Debug, Serialize)]
struct Step {
    at_ms: f64,
    who: &'static str,
    what: String,
}

impl Shop {
    /// Starts `concurrency` readers of a key that was just invalidated.
    pub(crate) async fn stampede(&self, id: &str, concurrency: usize) -> Result<Stampede, Failure> {
        let _alone = self.experiment.lock().await;
        let invalidated = self.cache().invalidate(id).await.is_ok();
        let loads = Arc::new(Mutex::new(Vec::new()));
        let began = Instant::now();
        let readers: Vec<_> = (0..concurrency)
            .map(|_| {
                let (primary, loads) = (self.primary.clone(), loads.clone());
                let lookup = self.cache().lookup(id.to_owned(), move |id| async move {
                    let began_ms = millis(began.elapsed());
                    let found = primary.find(id).await;
                    let load = Span { began_ms, ended_ms: millis(began.elapsed()) };
                    loads.lock().unwrap_or_else(PoisonError::into_inner).push(load);
                    found
                });
                tokio::spawn(async move {
                    let started = began.elapsed();
                    let lookup = lookup.await;
                    (started, lookup, began.elapsed())
                })
            })
            .collect();
        let (mut results, mut exists) = (Vec::with_capacity(concurrency), false);
        for reader in readers {
            let (started, lookup, served) = reader.await.map_err(|lost| Failure::from(BoxError::from(lost)))?;
            let lookup = lookup?;
            let waited = served - started;
            self.latencies.add(lookup.outcome, waited);
            exists |= lookup.value.is_some();
            results.push(Reader {
                outcome: name(lookup.outcome),
                started_ms: millis(started),
                served_ms: millis(served),
                waited_ms: millis(waited),
            });
        }
        let loads = loads.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let stampede = Stampede {
            id: id.to_owned(),
            concurrency,
            invalidated,
            primary_reads: loads.len(),
            elapsed_ms: millis(began.elapsed()),
            slowest_ms: results.iter().map(|reader| reader.waited_ms).fold(0.0, f64::max),
            loads,
            results,
            stats: self.figures(),
        };
        if exists { Ok(stampede) } else { Err(Failure::unknown(id).with(&stampede)) }
    }

    /// Writes and invalidates while a reader's slow load already has the old row. A cache that fills with a plain `SET`
    /// would then have the old row until its TTL ends.
    pub(crate) async fn race(&self, id: &str) -> Result<Race, Failure> {
        let _alone = self.experiment.lock().await;
        let began = Instant::now();
        let mut steps = Vec::new();
        let mut step_at = |at, who, what: String| steps.push(Step { at_ms: millis(at), who, what });

        self.cache().invalidate(id).await?;

        // The loader returns its row only when it is told to.
        let (read, row) = oneshot::channel();
        let (go_on, told) = oneshot::channel::<()>();
        let primary = self.primary.clone();
        let lookup = self.cache().lookup(id.to_owned(), move |id| async move {
            let asked = began.elapsed();
            let found = primary.find(id).await?;
            // Both fail only if the race was given up.
            let _ = read.send((asked, found.clone()));
            let _ = told.await;
            Ok::<_, BoxError>(found)
        });
        let reader = tokio::spawn(async move {
            let began = Instant::now();
            (lookup.await, began.elapsed())
        });
        let Ok((asked, found)) = row.await else {
            let (ended, _) = reader.await.map_err(|lost| Failure::from(BoxError::from(lost)))?;
            ended?;
            return Err(Failure::new(StatusCode::CONFLICT, "another reader loaded in between: try again"));
        };
        let Product { stock: old_stock, .. } = found.ok_or_else(|| Failure::unknown(id))?;
        step_at(asked, "reader", "misses, takes the lease, and asks the primary".into());
        let mut step = |who, what| step_at(began.elapsed(), who, what);
        step("reader", format!("has the row with stock {old_stock}, and returns it slowly"));

        let new_stock = old_stock.checked_add(1).unwrap_or_else(|| old_stock - 1);
        self.primary.update(id, Edit::Stock(new_stock)).await?;
        step("writer", format!("commits stock {new_stock} to the primary"));
        self.cache().invalidate(id).await?;
        step("writer", "invalidates: the reader's lease is revoked".into());
        tokio::time::sleep(self.primary.latency().min(Duration::from_secs(1))).await;

        step("reader", format!("tries to fill the cache with stock {old_stock}"));
        let _ = go_on.send(());
        let (overtaken, took) = reader.await.map_err(|lost| Failure::from(BoxError::from(lost)))?;
        let overtaken = overtaken?;
        self.latencies.add(overtaken.outcome, took);
        // Other readers in between load the new row.
        let stored = self.cache().peek(id).await?;
        let fenced = overtaken.outcome == Outcome::Loaded && stored.is_none_or(|product| product.stock != old_stock);
        let refused = "refuses the fill: its lease was revoked. The reader asked before the write, so it gets its row";
        step("cache", if fenced { refused } else { "accepted the fill" }.into());

        let asked = Instant::now();
        let later = self.products().lookup(id).await?;
        self.latencies.add(later.outcome, asked.elapsed());
        let later_stock = later.value.as_ref().map(|product| product.stock);
        let seen = later_stock.map_or_else(|| "nothing".to_owned(), |stock| format!("stock {stock}"));
        step("later reader", format!("gets {seen} ({})", name(later.outcome)));

        Ok(Race {
            id: id.to_owned(),
            steps,
            fenced,
            old_stock,
            new_stock,
            reader_stock: overtaken.value.as_ref().map(|product| product.stock),
            reader_outcome: name(overtaken.outcome),
            later_stock,
            later_outcome: name(later.outcome),
            elapsed_ms: millis(began.elapsed()),
            stats: self.figures(),
        })
    }
}
