//! One series of a metric, and what it measures with. Without the feature `metrics` both are empty and do nothing.

#[cfg(feature = "metrics")]
use std::time::Instant;

#[cfg(feature = "metrics")]
use ::metrics::{Key, Label, Metadata, Unit, with_recorder};

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

/// One series of a metric: its name and its labels. Without the feature `metrics` it is empty and does nothing.
///
/// The recorder is looked up for each event, since an application may install it after its caches are built.
pub(crate) struct Series {
    #[cfg(feature = "metrics")]
    key: Key,
}

#[cfg(feature = "metrics")]
const METADATA: Metadata<'static> = Metadata::new("cache_aside", ::metrics::Level::INFO, Some("cache_aside"));

/// A kind of series, and the unit of its values: counters and gauges count, histograms measure seconds or numbers.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    Counter,
    Gauge,
    Seconds,
    Number,
}

#[cfg_attr(not(feature = "metrics"), expect(unused_variables))]
impl Series {
    /// Also describes the metric to the recorder that is installed now.
    pub(super) fn new(kind: Kind, name: Name, labels: &[(&'static str, &str)]) -> Self {
        #[cfg(feature = "metrics")]
        with_recorder(|recorder| match kind {
            Kind::Counter => recorder.describe_counter(name.0.into(), Some(Unit::Count), name.1.into()),
            Kind::Gauge => recorder.describe_gauge(name.0.into(), Some(Unit::Count), name.1.into()),
            Kind::Seconds => recorder.describe_histogram(name.0.into(), Some(Unit::Seconds), name.1.into()),
            Kind::Number => recorder.describe_histogram(name.0.into(), Some(Unit::Count), name.1.into()),
        });
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

    /// Adds a number to a histogram.
    #[cfg_attr(feature = "metrics", expect(clippy::cast_precision_loss, reason = "small numbers"))]
    pub(super) fn record_number(&self, number: usize) {
        #[cfg(feature = "metrics")]
        with_recorder(|recorder| recorder.register_histogram(&self.key, &METADATA).record(number as f64));
    }

    /// Adds a duration to a histogram.
    pub(crate) fn record(&self, stopwatch: Stopwatch) {
        #[cfg(feature = "metrics")]
        with_recorder(|recorder| {
            recorder.register_histogram(&self.key, &METADATA).record(stopwatch.started.elapsed().as_secs_f64());
        });
    }
}
