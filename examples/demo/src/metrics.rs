//! The figures in Prometheus' text format.

use std::fmt::Write as _;
use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderName, header};

use crate::figures::Figures;
use crate::service::Shop;

pub(crate) async fn export(State(shop): State<Arc<Shop>>) -> ([(HeaderName, &'static str); 1], String) {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text(&shop.figures()))
}

fn text(figures: &Figures) -> String {
    let counters = [
        ("cache_hits_total", "Gets answered by a cached record.", figures.hits),
        ("cache_not_found_hits_total", "Gets answered by a not-found entry.", figures.not_found_hits),
        ("cache_misses_total", "Gets that needed a load.", figures.misses),
        ("cache_bypasses_total", "Gets that went around the cache.", figures.bypasses),
        ("cache_stale_served_total", "Gets answered by a record past its TTL.", figures.stale_served),
        (
            "cache_stale_revalidating_total",
            "The part of these whose load was under way; the load of the others had failed.",
            figures.stale_revalidating,
        ),
        ("cache_loads_total", "Loaders that were run.", figures.loads),
        ("cache_load_errors_total", "Loads that failed.", figures.load_errors),
        ("cache_stampedes_suppressed_total", "Gets that shared another's load.", figures.stampedes_suppressed),
        ("cache_fenced_fills_total", "Loads that were not stored: overtaken.", figures.fenced_fills),
        ("cache_decode_errors_total", "Entries that were unreadable.", figures.decode_errors),
        ("cache_updates_total", "Updates of cached records in place.", figures.updates),
        ("cache_invalidations_total", "Keys that were invalidated.", figures.invalidations),
        ("cache_near_hits_total", "Hits that the near cache has answered.", figures.near_hits),
        (
            "cache_near_invalidations_total",
            "Messages of the server that an entry has changed.",
            figures.near_invalidations,
        ),
        ("cache_near_flushes_total", "How often the near cache was emptied.", figures.near_flushes),
        (
            "cache_near_refused_inserts_total",
            "Entries that the near cache did not keep: may have changed while they were read.",
            figures.near_refused_inserts,
        ),
        ("primary_reads_total", "Reads of the primary database.", figures.primary_reads_total),
    ];
    let mut text = String::new();
    for (name, help, value) in counters {
        push(&mut text, format_args!("# HELP {name} {help}\n# TYPE {name} counter\n{name} {value}\n"));
    }
    let gauges = [
        ("cache_hit_ratio", "The share of gets that an entry answered.", figures.hit_rate_pct / 100.0),
        ("cache_outage", "1 while the cache is switched off.", f64::from(u8::from(figures.outage))),
        (
            "cache_tracker_live",
            "1 while the server tells the near cache of changes.",
            f64::from(u8::from(figures.tracker == "live")),
        ),
        (
            "primary_read_latency_seconds",
            "What a read of the primary takes on average.",
            figures.primary_read_latency_ms / 1000.0,
        ),
    ];
    for (name, help, value) in gauges {
        push(&mut text, format_args!("# HELP {name} {help}\n# TYPE {name} gauge\n{name} {value}\n"));
    }
    let name = "cache_read_duration_seconds";
    push(&mut text, format_args!("# HELP {name} Duration of reads by outcome.\n# TYPE {name} summary\n"));
    for total in &figures.outcomes {
        let (outcome, count, seconds) = (total.outcome, total.count, total.total_ms / 1000.0);
        push(&mut text, format_args!("{name}_sum{{outcome=\"{outcome}\"}} {seconds}\n"));
        push(&mut text, format_args!("{name}_count{{outcome=\"{outcome}\"}} {count}\n"));
    }
    text
}

fn push(text: &mut String, line: std::fmt::Arguments<'_>) {
    // Writing to a string never fails.
    let _ = text.write_fmt(line);
}
