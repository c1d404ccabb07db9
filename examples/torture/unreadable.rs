//! Which entries the caches of this process found unreadable. A get counts them and tells of their keys in the log alone,
//! so this listens to the log.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

use crate::clock;

/// What was heard: when, and which key.
#[derive(Clone, Default)]
pub(crate) struct Unreadable(Arc<Mutex<Vec<(u64, String)>>>);

impl Unreadable {
    /// Listens from now on, in the whole process.
    pub(crate) fn listen() -> Result<Self> {
        let heard = Self::default();
        tracing::subscriber::set_global_default(heard.clone()).context("something else listens to the log")?;
        Ok(heard)
    }

    /// Hands out what was heard since the last time.
    pub(crate) fn take(&self) -> Vec<(u64, String)> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Subscriber for Unreadable {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && *metadata.level() == Level::WARN && metadata.target().starts_with("cache_aside")
    }

    fn event(&self, event: &Event<'_>) {
        let mut warning = Warning::default();
        event.record(&mut warning);
        if warning.message.contains("unreadable") {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).push((clock::now(), warning.key));
        }
    }

    // Spans are not enabled.
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

#[derive(Default)]
struct Warning {
    key: String,
    message: String,
}

impl Visit for Warning {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        match field.name() {
            "key" => self.key = format!("{value:?}"),
            "message" => self.message = format!("{value:?}"),
            _ => {}
        }
    }
}
