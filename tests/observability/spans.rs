//! The spans and events that a subscriber receives.

use std::fmt::Debug;
use std::sync::{Arc, Mutex};

use cache_aside::{Backend, BoxError, Cache, Cacheable};
use tracing::field::{Field, Visit};
use tracing::{Event, Id, Level, Metadata, Subscriber, span};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context, SubscriberExt as _};

#[derive(Debug, Cacheable)]
#[cacheable(namespace = "billing")]
struct Product {
    #[cacheable(id)]
    id: String,
    stock: u32,
}

/// Records everything at this level or above.
struct Notes {
    level: Level,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Notes {
    fn write(&self, kind: &str, fields: impl FnOnce(&mut Line)) {
        let mut line = Line(kind.to_owned());
        fields(&mut line);
        self.lines.lock().unwrap().push(line.0);
    }
}

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.push_str(&format!(" {}={value:?}", field.name()));
    }
}

impl<S: Subscriber> Layer<S> for Notes {
    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        metadata.target().starts_with("cache_aside") && *metadata.level() <= self.level
    }

    fn on_new_span(&self, span: &span::Attributes<'_>, _: &Id, _: Context<'_, S>) {
        self.write(span.metadata().name(), |line| span.record(line));
    }

    fn on_record(&self, _: &Id, values: &span::Record<'_>, _: Context<'_, S>) {
        self.write("recorded", |line| values.record(line));
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        self.write("event", |line| event.record(line));
    }
}

/// Everything at a level while a cache is used, and then fails.
///
/// The first run only registers the callsites. One that another test registers while a subscriber is being added may miss that
/// subscriber; the next one that is added sees all that are there.
fn notes(level: Level) -> Vec<String> {
    run(level);
    run(level)
}

fn run(level: Level) -> Vec<String> {
    let notes = Notes { level, lines: Arc::default() };
    let lines = notes.lines.clone();
    tracing::subscriber::with_default(tracing_subscriber::registry().with(notes), || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let backend = Backend::connect_lazy("redis://user:secret@127.0.0.1:1").unwrap();
            let embedded: Cache<Product> = Cache::new(Backend::connect("memory://").await.unwrap());
            let dead: Cache<Product> = Cache::builder(backend).max_entry_bytes(1).build().unwrap();
            for cache in [&embedded, &dead] {
                let load = |id| async { Ok::<_, BoxError>(Some(Product { id, stock: 42 })) };
                cache.get("the-id", load).await.unwrap();
                cache.get("the-id", load).await.unwrap();
                let both = cache.get_many(["one", "two"], |ids| async {
                    Ok::<_, BoxError>(ids.into_iter().map(|id| Product { id, stock: 42 }))
                });
                assert!(both.await.iter().all(Result::is_ok));
                let _ = cache.invalidate_many(["one", "two"]).await;
                let _ = cache.update_field("the-id", Product::FIELDS.stock, 41).await;
                let _ = cache.invalidate("the-id").await;
                let _ = cache.clear().await;
                cache.get("the-id", |_| async { Err::<Option<Product>, _>("it failed") }).await.unwrap_err();
            }
        });
    });
    std::mem::take(&mut *lines.lock().unwrap())
}

#[test]
fn spans_name_the_entity_and_the_outcome() {
    let notes = notes(Level::INFO);
    println!("{notes:#?}");
    for line in [
        "cache.get entity=\"product\"",
        "cache.load entity=\"product\"",
        "cache.get_many entity=\"product\" ids=2",
        "cache.load entity=\"product\" ids=2",
        "cache.invalidate_many entity=\"product\" ids=2",
        "cache.update entity=\"product\"",
        "cache.invalidate entity=\"product\"",
        "cache.clear entity=\"product\"",
        "recorded outcome=\"loaded\"",
        "recorded outcome=\"hit\"",
        "recorded outcome=\"bypassed\"",
        "recorded reason=\"outage\"",
        "recorded reason=\"pending\"",
        "recorded outcome=\"error\"",
        "recorded otel.status_code=\"ERROR\"",
    ] {
        assert!(notes.iter().any(|note| note == line), "no {line}");
    }
    assert!(notes.iter().all(|note| !note.contains("the-id")), "ids are for debug level");
}

#[test]
fn ids_are_seen_at_debug_level_and_secrets_never() {
    let debug = notes(Level::DEBUG);
    assert!(debug.iter().any(|note| note == "recorded key=cache:billing:product:the-id"), "{debug:#?}");
    let all = notes(Level::TRACE);
    assert!(all.iter().all(|note| !note.contains("secret")), "{all:#?}");
}
