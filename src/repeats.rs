//! Limits repeated warnings: one line for each cause, and then a count at intervals.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// The shortest time between two lines about one cause.
const INTERVAL: Duration = Duration::from_secs(10);
/// Causes beyond this number share one count, so that the map stays small.
const MOST_CAUSES: usize = 64;

/// The causes that were logged recently.
#[derive(Debug, Default)]
pub(crate) struct Repeats {
    causes: Mutex<HashMap<String, Counted>>,
}

#[derive(Debug)]
struct Counted {
    logged: Instant,
    /// Occurrences since the last line.
    since: u64,
}

impl Repeats {
    /// Counts one occurrence, and calls `log` if a line is due, with the number of occurrences since the last line, if there was
    /// one.
    pub(crate) fn warn(&self, cause: String, log: impl FnOnce(Option<u64>)) {
        let now = Instant::now();
        let mut causes = self.causes.lock();
        let has_room = |causes: &HashMap<_, _>| causes.len() < MOST_CAUSES || causes.contains_key(&cause);
        if !has_room(&causes) {
            causes.retain(|_, counted| now - counted.logged < INTERVAL);
        }
        let cause = if has_room(&causes) { cause } else { String::new() };
        let times = if let Some(counted) = causes.get_mut(&cause) {
            counted.since += 1;
            if now - counted.logged < INTERVAL {
                return;
            }
            counted.logged = now;
            Some(std::mem::take(&mut counted.since))
        } else {
            causes.insert(cause, Counted { logged: now, since: 0 });
            None
        };
        drop(causes);
        log(times);
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_cause_is_logged_once_and_then_counted() {
        let (repeats, mut logged) = (Repeats::default(), Vec::new());
        let mut warn = |cause: &str| repeats.warn(cause.to_owned(), |times| logged.push((cause.to_owned(), times)));
        (0..100).for_each(|_| warn("full"));
        warn("slow");
        advance(INTERVAL).await;
        (0..100).for_each(|_| warn("full"));
        let expected = [("full", None), ("slow", None), ("full", Some(100))];
        assert_eq!(logged, expected.map(|(cause, times)| (cause.to_owned(), times)));
    }

    #[tokio::test(start_paused = true)]
    async fn causes_without_end_share_one_line() {
        let (repeats, mut lines) = (Repeats::default(), 0);
        (0..10_000).for_each(|cause| repeats.warn(cause.to_string(), |_| lines += 1));
        assert_eq!(lines, MOST_CAUSES + 1);
        assert!(repeats.causes.lock().len() <= MOST_CAUSES + 1);
    }
}
