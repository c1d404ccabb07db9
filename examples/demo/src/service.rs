//! The shop: everything that a service does with the cache in front of a primary. Start reading here.
//!
//! Reads go through the cache. A write commits to the primary first, and then invalidates the entry or updates it in
//! place. If the cache can't be reached, reads go on, and a write reports that the cache doesn't have it: the library
//! remembers it, and applies it later.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use axum::http::StatusCode;
use cache_aside::{
    Backend, BoxError, Cache, Cacheable, EntryState, Error, Load, Loaded, LoadingCache, NearCache, Outcome,
};
use serde::Serialize;
use serde_json::json;
use tokio::sync::Mutex;

use crate::caches::Caches;
use crate::failure::{Failure, chain};
use crate::figures::{Figures, Latencies, millis, name};
use crate::primary::{Edit, Primary, Product};

/// Longer than the default, for machines that are busy building.
const UPDATE_TIMEOUT: Duration = Duration::from_secs(5);

/// The TTL of a record that is to be seen past it.
const SOON_OVER: Duration = Duration::from_millis(50);

/// More than the shop has products.
const NEAR_ENTRIES: usize = 1_000;

pub(crate) struct Shop {
    pub(crate) primary: Primary,
    caches: Caches,
    pub(crate) latencies: Latencies,
    /// Held by an experiment, since two at once would mix up their figures.
    pub(crate) experiment: Mutex<()>,
    backend: Backend,
    outage: AtomicBool,
    address: String,
}

/// A read, with its outcome. Latencies are in milliseconds, lifetimes in seconds.
#[derive(Debug, Serialize)]
pub(crate) struct Read {
    id: String,
    record: Option<Product>,
    /// Whether the cache had the answer, which may also be that there is no such product.
    hit: bool,
    outcome: &'static str,
    /// The read of Redis alone; a near hit has none.
    redis_latency_ms: f64,
    /// The whole call.
    total_latency_ms: f64,
    ttl_remaining: Option<f64>,
    stats: Figures,
}

/// A write to the primary, and its effect on the entry.
#[derive(Debug, Serialize)]
pub(crate) struct Written {
    id: String,
    /// Whether there was an entry to invalidate.
    #[serde(skip_serializing_if = "Option::is_none")]
    invalidated: Option<bool>,
    /// Whether there was an entry to update.
    #[serde(skip_serializing_if = "Option::is_none")]
    applied: Option<bool>,
    stats: Figures,
}

/// A stored entry.
#[derive(Debug, Serialize)]
pub(crate) struct Stored {
    key: String,
    state: &'static str,
    fields: Vec<(String, String)>,
    ttl_remaining: Option<f64>,
    /// The longest lifetime of such an entry.
    ttl_full: Option<f64>,
    lock_ttl_remaining: Option<f64>,
}

impl Shop {
    pub(crate) fn new(backend: Backend, primary: Primary) -> Result<Self, Error> {
        let products = |near_cache: Option<NearCache>| {
            let builder = Cache::builder(backend.clone()).update_timeout(UPDATE_TIMEOUT);
            let cache = builder.near_cache(near_cache).build()?;
            let loader = primary.clone();
            Ok::<_, Error>(cache.with_loader(move |id| {
                let primary = loader.clone();
                async move { primary.find(id).await }
            }))
        };
        let caches = Caches::new(products(None)?, products(Some(NearCache::entries(NEAR_ENTRIES)))?);
        Ok(Self {
            primary,
            caches,
            latencies: Latencies::default(),
            experiment: Mutex::new(()),
            address: backend.to_string(),
            backend,
            outage: AtomicBool::new(false),
        })
    }

    pub(crate) fn cache(&self) -> &Cache<Product> {
        self.products()
    }

    /// The same cache, with the primary as its loader.
    pub(crate) fn products(&self) -> &LoadingCache<Product> {
        self.caches.chosen()
    }

    /// Invalidates all products: a server may still have entries of another database.
    pub(crate) async fn forget_earlier_runs(&self, products: Vec<Product>) -> Result<(), Error> {
        let ids = products.into_iter().map(|product| product.id);
        self.cache().invalidate_many(ids).await.into_iter().try_for_each(|result| result.map(drop))?;
        self.caches.reset_stats();
        Ok(())
    }

    /// Reads through the cache. The answer for a missing product has status 404 and the same fields.
    pub(crate) async fn read(&self, id: &str) -> Result<Read, Failure> {
        let began = Instant::now();
        let lookup = self.products().lookup(id).await?;
        let took = began.elapsed();
        self.latencies.add(lookup.outcome, took);
        let read = Read {
            id: id.to_owned(),
            record: lookup.value.as_deref().cloned(),
            hit: matches!(lookup.outcome, Outcome::Hit | Outcome::NotFoundHit | Outcome::NearHit),
            outcome: name(lookup.outcome),
            redis_latency_ms: millis(lookup.cache_latency),
            total_latency_ms: millis(took),
            ttl_remaining: lookup.ttl.map(|ttl| ttl.as_secs_f64()),
            stats: self.figures(),
        };
        if read.record.is_none() { Err(Failure::unknown(id).with(&read)) } else { Ok(read) }
    }

    /// Writes one field to the primary, and then invalidates the entry: this is always right.
    pub(crate) async fn update(&self, id: &str, edit: Edit) -> Result<Written, Failure> {
        if !self.primary.update(id, edit).await? {
            return Err(Failure::unknown(id));
        }
        let invalidated = self.cache().invalidate(id).await.map_err(|error| untold(&error))?;
        Ok(self.written(id, Some(invalidated), None))
    }

    /// Writes one field to the primary, and then to the entry, which stays in the cache: this is right if the writers
    /// of one product take turns.
    pub(crate) async fn update_cached(&self, id: &str, edit: Edit) -> Result<Written, Failure> {
        let fields = Product::FIELDS;
        if !self.primary.update(id, edit.clone()).await? {
            return Err(Failure::unknown(id));
        }
        let updated = match edit {
            Edit::Name(name) => self.cache().update_field(id, fields.name, name).await,
            Edit::PriceCents(cents) => self.cache().update_field(id, fields.price_cents, cents).await,
            Edit::Stock(stock) => self.cache().update_field(id, fields.stock, stock).await,
        };
        let applied = updated.map_err(|error| untold(&error))?;
        Ok(self.written(id, None, Some(applied)))
    }

    /// Creates a product. If somebody asked for it before, its not-found entry is removed too.
    pub(crate) async fn create(&self, product: Product) -> Result<Written, Failure> {
        let id = product.id.clone();
        if !self.primary.create(product).await? {
            return Err(Failure::new(StatusCode::CONFLICT, format!("there is a product `{id}` already")));
        }
        let invalidated = self.cache().invalidate(&id).await.map_err(|error| untold(&error))?;
        Ok(self.written(&id, Some(invalidated), None))
    }

    /// Invalidates by hand. The answer for an unknown id has status 404, and its not-found entry is removed.
    pub(crate) async fn invalidate(&self, id: &str) -> Result<Written, Failure> {
        let invalidated = self.cache().invalidate(id).await?;
        let written = self.written(id, Some(invalidated), None);
        if self.primary.contains(id).await? { Ok(written) } else { Err(Failure::unknown(id).with(&written)) }
    }

    /// Stores a product for a moment, and shows its entry once the TTL is over.
    pub(crate) async fn expire(&self, id: &str) -> Result<Stored, Failure> {
        self.cache().invalidate(id).await?;
        let primary = self.primary.clone();
        let load = move |load: Load<Product>| async move {
            let found = primary.find_at_once(load.id().clone()).await?;
            Ok::<_, BoxError>(Loaded::from(found).ttl(SOON_OVER))
        };
        self.cache().get_with(id, load).await?.ok_or_else(|| Failure::unknown(id))?;
        tokio::time::sleep(SOON_OVER * 2).await;
        self.inspect(id).await
    }

    /// Shows the stored entry.
    pub(crate) async fn inspect(&self, id: &str) -> Result<Stored, Failure> {
        let entry = self.cache().inspect(id).await?;
        let (state, ttl_full) = match entry.state {
            EntryState::Missing => ("missing", None),
            EntryState::Record => ("record", Product::SCHEMA.ttl),
            EntryState::Stale => ("stale", None),
            EntryState::NotFound => ("not_found", Product::SCHEMA.not_found_ttl),
            _ => ("unreadable", None),
        };
        let fields = entry.fields.into_iter();
        Ok(Stored {
            key: entry.key,
            state,
            fields: fields.map(|(name, value)| (name, String::from_utf8_lossy(&value).into_owned())).collect(),
            ttl_remaining: entry.ttl.map(|ttl| ttl.as_secs_f64()),
            ttl_full: ttl_full.map(|ttl| ttl.as_secs_f64()),
            lock_ttl_remaining: entry.lock_ttl.map(|ttl| ttl.as_secs_f64()),
        })
    }

    /// Makes the cache unreachable, or reachable again. Only the near cache loses its records.
    pub(crate) fn set_outage(&self, on: bool) {
        self.backend.outage(on);
        self.outage.store(on, Ordering::Relaxed);
    }

    /// Puts the near cache in front of Redis, or removes it.
    pub(crate) fn set_near_cache(&self, on: bool) -> Result<(), Failure> {
        if self.caches.use_near(on) {
            return Ok(());
        }
        let error = format!(
            "{} is in this process already: a near cache needs no messages there, and is not used",
            self.address
        );
        Err(Failure::new(StatusCode::CONFLICT, error))
    }

    pub(crate) fn figures(&self) -> Figures {
        let outage = self.outage.load(Ordering::Relaxed);
        Figures::new(&self.caches, &self.primary, &self.latencies, outage, &self.address)
    }

    pub(crate) fn reset(&self) {
        self.caches.reset_stats();
        self.primary.reset();
        self.latencies.reset();
    }

    fn written(&self, id: &str, invalidated: Option<bool>, applied: Option<bool>) -> Written {
        Written { id: id.to_owned(), invalidated, applied, stats: self.figures() }
    }
}

/// The write is in the primary, but not in the cache.
fn untold(error: &Error) -> Failure {
    let error = format!(
        "the primary was written, but the cache could not be updated: that will be done when it is back, and until \
         then this product is read from the primary ({})",
        chain(error)
    );
    Failure::new(StatusCode::SERVICE_UNAVAILABLE, error).with(&json!({ "primary_written": true }))
}
