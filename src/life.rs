//! Whether a background task is driven: its runtime may have ended, or nobody may run it any more.
//!
//! A runtime of one thread runs only within `block_on`. A task that was started on one which is then only kept stands still
//! for good, and looks as if it were busy.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::task::AtomicWaker;

/// The signs of life of one task.
#[derive(Debug, Default)]
pub(crate) struct Life {
    polls: AtomicU64,
    waker: AtomicWaker,
}

impl Life {
    /// The same future, with signs of life.
    pub(crate) fn of(self: &Arc<Self>, future: impl Future<Output = ()> + Send + 'static) -> Alive {
        Alive { life: self.clone(), future: Box::pin(future) }
    }

    /// Wakes the task, and returns whether it has run within `patience`.
    pub(crate) async fn responds_within(&self, patience: Duration) -> bool {
        let polls = self.poke();
        tokio::time::sleep(patience).await;
        self.has_run_since(polls)
    }

    /// Wakes the task; returns what [`has_run_since`](Self::has_run_since) compares.
    pub(crate) fn poke(&self) -> u64 {
        let polls = self.polls.load(Ordering::Acquire);
        self.waker.wake();
        polls
    }

    pub(crate) fn has_run_since(&self, polls: u64) -> bool {
        self.polls.load(Ordering::Acquire) != polls
    }
}

/// A future that shows signs of life.
pub(crate) struct Alive {
    life: Arc<Life>,
    future: BoxFuture<'static, ()>,
}

impl Future for Alive {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.life.waker.register(cx.waker());
        self.life.polls.fetch_add(1, Ordering::AcqRel);
        self.future.as_mut().poll(cx)
    }
}
