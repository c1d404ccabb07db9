//! The deadlines of steps and of their round trips, which few of them miss. To set a timer for each and to take it back,
//! tokio takes a lock twice that all threads share. So a thread keeps timers as they were set, and lends them: a deadline
//! costs a look at the clock.
//!
//! A timer that is lent rings at the deadline or earlier, and is set again if it was too early. One that is kept wakes nobody.
//! It keeps its runtime's handle alive until its thread ends, or awaits something on another runtime.

use std::cell::RefCell;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;
use std::{future, mem};

use futures_util::task::AtomicWaker;
use tokio::runtime::Id;
use tokio::task::unconstrained;
use tokio::time::{Instant, Sleep, sleep_until};

/// The most timers that a thread keeps, of some 200 bytes each. Who waits beside as many others pays for a new one.
const MOST_KEPT: usize = 256;

thread_local! {
    static KEPT: RefCell<Vec<Timer>> = const { RefCell::new(Vec::new()) };
}

/// Awaits a future on this runtime, the current one, for as long as `limit` from when it first has to wait; `None` when it took
/// longer.
pub(super) async fn within<R>(
    limit: Duration,
    runtime: Id,
    mut future: Pin<&mut impl Future<Output = R>>,
) -> Option<R> {
    let mut deadline = None;
    let output = future::poll_fn(|cx| {
        if let Poll::Ready(output) = future.as_mut().poll(cx) {
            return Poll::Ready(Some(output));
        }
        deadline.get_or_insert_with(|| Deadline::after(limit, runtime)).poll(cx).map(|()| None)
    })
    .await;
    if let Some(Deadline { timer, .. }) = deadline {
        timer.keep();
    }
    output
}

/// A time, and the timer that was lent to await it.
struct Deadline {
    at: Instant,
    timer: Timer,
}

impl Deadline {
    fn after(limit: Duration, runtime: Id) -> Self {
        let at = Instant::now() + limit;
        Self { at, timer: Timer::lent(runtime, at).unwrap_or_else(|| Timer::new(runtime, at)) }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.timer.bell.waits.register(cx.waker());
        if self.timer.has_rung() && Instant::now() < self.at {
            self.timer.set(self.at);
        }
        if self.timer.has_rung() { Poll::Ready(()) } else { Poll::Pending }
    }
}

struct Timer {
    runtime: Id,
    sleep: Pin<Box<Sleep>>,
    bell: Arc<Bell>,
}

/// What a timer rings, whoever waits for it.
#[derive(Default)]
struct Bell {
    has_rung: AtomicBool,
    waits: AtomicWaker,
}

impl Timer {
    fn new(runtime: Id, at: Instant) -> Self {
        let mut timer = Self { runtime, sleep: Box::pin(sleep_until(at)), bell: Arc::default() };
        timer.start();
        timer
    }

    /// One that this thread has kept.
    fn lent(runtime: Id, at: Instant) -> Option<Self> {
        let mut timer = KEPT.try_with(|kept| kept.borrow_mut().pop()).ok()??;
        if timer.runtime != runtime {
            let of_another_runtime = KEPT.try_with(|kept| mem::take(&mut *kept.borrow_mut()));
            drop(of_another_runtime);
            return None;
        }
        if timer.has_rung() {
            // As have those of a runtime that has ended, where setting one panics.
            return None;
        }
        if timer.sleep.deadline() > at {
            timer.set(at);
        }
        Some(timer)
    }

    fn keep(self) {
        if self.has_rung() {
            return;
        }
        self.bell.waits.take();
        // A thread that ends has no place any more.
        let _ = KEPT.try_with(|kept| {
            let mut kept = kept.borrow_mut();
            if kept.len() < MOST_KEPT {
                kept.push(self);
            }
        });
    }

    fn has_rung(&self) -> bool {
        self.bell.has_rung.load(Ordering::Acquire)
    }

    fn set(&mut self, at: Instant) {
        self.bell.has_rung.store(false, Ordering::Relaxed);
        self.sleep.as_mut().reset(at);
        self.start();
    }

    fn start(&mut self) {
        let bell = Waker::from(self.bell.clone());
        // A task without budget left would have the bell rung at once, as if the time were over.
        let mut sleep = unconstrained(self.sleep.as_mut());
        if Pin::new(&mut sleep).poll(&mut Context::from_waker(&bell)).is_ready() {
            bell.wake();
        }
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.has_rung.store(true, Ordering::Release);
        self.waits.wake();
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use tokio::runtime::{Builder, Handle, Runtime};
    use tokio::time::sleep;

    use super::*;

    const SHORT: Duration = Duration::from_millis(20);
    const LONG: Duration = Duration::from_millis(500);

    fn runtime() -> Runtime {
        Builder::new_current_thread().enable_time().start_paused(true).build().unwrap()
    }

    /// Awaits what takes so long; returns whether it ended, and after what time.
    async fn wait(limit: Duration, takes: Duration) -> (bool, Duration) {
        let began = Instant::now();
        let ended = within(limit, Handle::current().id(), pin!(sleep(takes))).await.is_some();
        (ended, began.elapsed())
    }

    fn kept() -> usize {
        KEPT.with_borrow(Vec::len)
    }

    #[test]
    fn each_future_has_its_own_limit_whosever_timer_it_has() {
        runtime().block_on(async {
            let moment = Duration::from_millis(1);
            for (limit, takes) in [(LONG, moment), (SHORT, LONG), (LONG, SHORT), (LONG, LONG * 2), (SHORT, moment)] {
                let expected = (takes < limit, takes.min(limit));
                assert_eq!(tokio::spawn(wait(limit, takes)).await.unwrap(), expected, "{takes:?} of {limit:?}");
                // One that has rung is not kept.
                assert_eq!(kept(), usize::from(takes < limit));
            }
            // The timer rings while it is kept.
            sleep(LONG).await;
            assert_eq!(wait(LONG, LONG * 2).await, (false, LONG));
        });
    }

    #[test]
    fn what_is_there_at_once_needs_no_timer() {
        runtime().block_on(async {
            let limit = Duration::ZERO;
            assert_eq!(within(limit, Handle::current().id(), pin!(future::ready(7))).await, Some(7));
            assert_eq!(kept(), 0);
        });
    }

    #[derive(Default)]
    struct Woken(AtomicBool);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_timer_wakes_who_waited_last_and_nobody_once_it_is_kept() {
        runtime().block_on(async {
            let [first, last] = [Arc::<Woken>::default(), Arc::default()];
            let mut waits = Box::pin(wait(LONG, LONG / 2));
            for woken in [&first, &last] {
                assert!(waits.as_mut().poll(&mut Context::from_waker(&woken.clone().into())).is_pending());
            }
            sleep(LONG / 2).await;
            assert!(last.0.load(Ordering::Relaxed) && !first.0.load(Ordering::Relaxed));
            assert!(waits.as_mut().poll(&mut Context::from_waker(&last.clone().into())).is_ready());
            assert_eq!((kept(), Arc::strong_count(&last)), (1, 1));
        });
    }

    /// Whoever spends the budget in a `block_on` of several threads is woken at once, and not when others have run.
    #[test]
    fn a_task_without_budget_still_has_its_deadline() {
        let waits = async {
            while futures_util::poll!(pin!(tokio::task::consume_budget())).is_ready() {}
            wait(SHORT, LONG).await
        };
        let (ended, after) = Builder::new_multi_thread().enable_time().build().unwrap().block_on(waits);
        assert!(!ended && after >= SHORT, "after {after:?}");
    }

    #[test]
    fn the_next_runtime_of_a_thread_gets_no_timers_of_the_one_before() {
        let before = runtime();
        before.block_on(async { tokio::join!(wait(LONG, SHORT), wait(LONG, SHORT)) });
        assert_eq!(kept(), 2);
        drop(before);
        runtime().block_on(async {
            assert_eq!(wait(SHORT, LONG).await, (false, SHORT));
            assert_eq!(kept(), 0);
        });
    }

    #[test]
    fn a_thread_keeps_no_more_timers_than_it_may() {
        runtime().block_on(async {
            let waits = futures_util::future::join_all((0..2 * MOST_KEPT).map(|_| wait(LONG, SHORT))).await;
            assert!(waits.iter().all(|(ended, _)| *ended));
            assert_eq!(kept(), MOST_KEPT);
        });
    }
}
