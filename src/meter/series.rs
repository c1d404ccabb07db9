//! One series of a metric: its name and its labels. Without the feature `metrics` it is empty, and measures nothing.
//!
//! Every event asks for the recorder that is installed at that moment, by a key that is made once.

#![cfg_attr(not(feature = "metrics"), expect(unused_variables))]

#[cfg(feature = "metrics")]
use std::time::Instant;

#[cfg(feature = "metrics")]
use metrics::{Key, Label, Level, Metadata, Unit, with_recorder};

#[cfg(feature = "metrics")]
const METADATA: Metadata<'static> = Metadata::new("cache_aside", Level::INFO, Some("cache_aside"));

/// A metric's name, and what it means.
pub(crate) type Name = (&'static str, &'static str);

/// When something that is timed began.
#[derive(Clone, Copy)]
pub(crate) struct Began {
    #[cfg(feature = "metrics")]
    at: Instant,
}

impl Began {
    pub(crate) fn now() -> Self {
        Self {
            #[cfg(feature = "metrics")]
            at: Instant::now(),
        }
    }
}

pub(crate) struct Series {
    #[cfg(feature = "metrics")]
    key: Key,
}

/// Each constructor also says what the name means, to the recorder that is installed now.
impl Series {
    pub(super) fn counter(name: Name, labels: &[(&'static str, &str)]) -> Self {
        #[cfg(feature = "metrics")]
        with_recorder(|recorder| recorder.describe_counter(name.0.into(), Some(Unit::Count), name.1.into()));
        Self::new(name, labels)
    }

    pub(super) fn gauge(name: Name, labels: &[(&'static str, &str)]) -> Self {
        #[cfg(feature = "metrics")]
        with_recorder(|recorder| recorder.describe_gauge(name.0.into(), Some(Unit::Count), name.1.into()));
        Self::new(name, labels)
    }

    pub(super) fn seconds(name: Name, labels: &[(&'static str, &str)]) -> Self {
        #[cfg(feature = "metrics")]
        with_recorder(|recorder| recorder.describe_histogram(name.0.into(), Some(Unit::Seconds), name.1.into()));
        Self::new(name, labels)
    }

    fn new(name: Name, labels: &[(&'static str, &str)]) -> Self {
        Self {
            #[cfg(feature = "metrics")]
            key: {
                let labels = labels.iter().map(|(name, value)| Label::new(*name, (*value).to_owned()));
                Key::from_parts(name.0, labels.collect::<Vec<_>>())
            },
        }
    }

    /// Adds to a counter.
    pub(crate) fn count(&self, more: u64) {
        #[cfg(feature = "metrics")]
        with_recorder(|recorder| recorder.register_counter(&self.key, &METADATA).increment(more));
    }

    /// Adds to a gauge.
    pub(crate) fn add(&self, more: f64) {
        #[cfg(feature = "metrics")]
        with_recorder(|recorder| recorder.register_gauge(&self.key, &METADATA).increment(more));
    }

    /// Adds a duration to a histogram.
    pub(crate) fn ended(&self, began: Began) {
        #[cfg(feature = "metrics")]
        with_recorder(|recorder| {
            recorder.register_histogram(&self.key, &METADATA).record(began.at.elapsed().as_secs_f64());
        });
    }
}
