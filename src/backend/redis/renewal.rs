//! Authenticates a live connection anew before its credentials end.
//!
//! Sends nothing itself: the connection's owner sends the command between its own, and hands in the reply. Whatever fails is tried
//! again after a pause, and the connection goes on meanwhile, since its server hasn't logged it off yet.

use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use redis::RedisResult;
use tokio::time::{Instant, sleep_until};

use super::address::Address;
use super::connect::{Link, Login};
use super::resp::Reply;
use crate::backend::credentials::{Granted, ProviderFailed};
use crate::backoff::Backoff;

pub(super) struct Renewal {
    address: Arc<Address>,
    /// How long the provider may take.
    limit: Duration,
    /// Waits until new credentials are due, and asks for them. `None` if nothing has to be renewed.
    next: Option<BoxFuture<'static, Result<Granted, ProviderFailed>>>,
    /// Credentials that the server has not accepted yet.
    granted: Option<Granted>,
    backoff: Backoff,
}

impl Renewal {
    /// For a new connection.
    pub(super) fn of(link: &Link, limit: Duration) -> Self {
        const FIRST_PAUSE: Duration = Duration::from_millis(50);
        const LONGEST_PAUSE: Duration = Duration::from_secs(5);
        let backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
        let mut renewal = Self { address: link.address.clone(), limit, next: None, granted: None, backoff };
        renewal.renew_at(link.renew_at);
        renewal
    }

    fn renew_at(&mut self, at: Option<Instant>) {
        let (limit, provider) = (self.limit, self.address.options.credentials.clone());
        self.next = at.zip(provider).map(|(at, provider)| {
            let granted = async move {
                sleep_until(at).await;
                provider.ask(Instant::now() + limit).await
            };
            granted.boxed()
        });
    }

    /// Ready when the [`login`](Self::login) is to be sent.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.granted.is_none() {
            let Some(next) = &mut self.next else { return Poll::Pending };
            match ready!(next.poll_unpin(cx)) {
                Ok(granted) => {
                    self.next = None;
                    self.granted = Some(granted);
                }
                // The provider has logged it.
                Err(_failed) => self.pause(),
            }
        }
        Poll::Ready(())
    }

    fn pause(&mut self) {
        let at = Instant::now() + self.backoff.next();
        self.renew_at(Some(at));
    }

    /// The login to send: once, unless its reply was lost.
    pub(super) fn login(&self) -> Option<Login<'_>> {
        self.granted.as_ref().map(Login::from)
    }

    /// Takes the server's reply to the login.
    pub(super) fn answered(&mut self, reply: &RedisResult<Reply>) {
        let Some(granted) = self.granted.take() else { return };
        match reply {
            Ok(_) => {
                self.backoff.reset();
                self.renew_at(granted.renew_at);
            }
            Err(refusal) => {
                if let Some(provider) = &self.address.options.credentials {
                    // Not the text, since it may quote the command.
                    provider.refused_at(&self.address.to_string(), refusal.code().unwrap_or_default());
                }
                self.pause();
            }
        }
    }
}
