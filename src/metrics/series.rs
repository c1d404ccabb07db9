//! One series of a metric: its name and its labels. Without the feature `metrics` it is empty and does nothing.
//!
//! The recorder is looked up for each event, since an application may install it after its caches are built.

#![cfg_attr(not(feature = "metrics"), expect(unused_variables))]

#[cfg(feature = "metrics")]
use std::time::Instant;

#[cfg(feature = "metrics")]
use ::metrics::{Key, Label, Level, Metadata, Unit, with_recorder};

#[cfg(feature = "metrics")]
const METADATA: Metadata<'static> = Metadata::new("cache_aside", Level::INFO, Some("cache_aside"));

/// A metric's name and help text.
pub(crate) type Name = (&'static str, &'static str);

/// Measures a duration, if metrics are recorded.
#[derive(Clone, Copy)]
pub(crate) struct Stopwatch {
    #[cfg(feature = "metrics")]
    started: Instant,
}

impl Stopwatch {
    pub(crate) fn start() -> Self {
        Self {
            #[cfg(feature = "metrics")]
            started: Instant::now(),
        }
    }
}

pub(crate) struct Series {
    #[cfg(feature = "metrics")]
    key: Key,
}

/// The constructors also describe the metric to the recorder that is installed at that time.
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
    pub(crate) fn record(&self, stopwatch: Stopwatch) {
        #[cfg(feature = "metrics")]
        with_recorder(|recorder| {
            recorder.register_histogram(&self.key, &METADATA).record(stopwatch.started.elapsed().as_secs_f64());
        });
    }
}
