//! A timeout that doesn't count the time in which this process stood still.

use std::pin::pin;
use std::time::Duration;

use tokio::time::timeout;

/// Awaits a future for at most `limit`; `None` if it took longer.
///
/// The time is counted in parts, and a part counts once however late it ends. So after the process has stood still, the future
/// is polled again and finds what has become ready meanwhile, in place of a deadline that has passed.
pub(super) async fn within<R>(limit: Duration, future: impl Future<Output = R>) -> Option<R> {
    const PARTS: u32 = 10;
    let mut future = pin!(future);
    for _ in 0..PARTS {
        if let Ok(output) = timeout(limit / PARTS, &mut future).await {
            return Some(output);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use tokio::time::{Instant, advance, sleep};

    use super::*;

    const LIMIT: Duration = Duration::from_millis(100);

    #[tokio::test(start_paused = true)]
    async fn ends_at_the_limit() {
        let began = Instant::now();
        assert_eq!(within(LIMIT, sleep(LIMIT * 2)).await, None);
        assert_eq!(began.elapsed(), LIMIT);
        assert_eq!(within(LIMIT, async { 7 }).await, Some(7));
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_of_the_process_is_no_delay_of_the_future() {
        let waits = tokio::spawn(within(LIMIT, async {
            // Two things that take turns, as a socket and its driver do.
            sleep(LIMIT / 2).await;
            tokio::task::yield_now().await;
            sleep(LIMIT / 5).await;
        }));
        tokio::task::yield_now().await;
        advance(LIMIT * 3).await;
        assert_eq!(waits.await.unwrap(), Some(()));
    }
}
