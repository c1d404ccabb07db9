//! Credentials that change: what the user's provider returns, and when it has to be asked again.
//!
//! Connections ask in `redis/connect.rs` when they are made, and in `redis/renewal.rs` before their credentials end. Nothing here
//! is ever shown: neither user nor password.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::time::{Instant, timeout_at};
use tokio_util::task::AbortOnDropHandle;

use crate::error::{BoxError, Cause, boxed};
use crate::repeats::Repeats;

/// A user and a password for the servers, and how long they are valid: what the closure of
/// [`BackendBuilder::credentials`](crate::BackendBuilder::credentials) returns. `Debug` shows neither user nor password.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use cache_aside::Credentials;
///
/// let credentials = Credentials::new("billing-service", "TOKEN").valid_for(Duration::from_secs(15 * 60));
/// assert!(!format!("{credentials:?}").contains("TOKEN"));
/// ```
#[derive(Clone)]
#[must_use]
pub struct Credentials {
    user: String,
    password: String,
    lifetime: Option<Duration>,
}

impl Credentials {
    /// A user and a password without an end. At a server that has a password but no users, the user is `default`; with an empty
    /// user, the password is sent alone.
    pub fn new(user: impl Into<String>, password: impl Into<String>) -> Self {
        Self { user: user.into(), password: password.into(), lifetime: None }
    }

    /// How long they are valid, from the moment when the closure was called. When a fifth of it is left, the closure is called
    /// again, and live connections authenticate anew: after 12 minutes with an IAM token of ElastiCache, which is valid for 15,
    /// and after 48 with one of Entra ID that is valid for an hour; but never sooner than after 100 ms. Default: no end.
    pub fn valid_for(mut self, lifetime: Duration) -> Self {
        self.lifetime = Some(lifetime);
        self
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("valid_for", &self.lifetime).finish_non_exhaustive()
    }
}

/// The user's closure, erased.
#[derive(Clone)]
pub(in crate::backend) struct Provider(Arc<Inner>);

struct Inner {
    provide: Box<dyn Fn() -> BoxFuture<'static, Result<Credentials, BoxError>> + Send + Sync>,
    repeats: Repeats,
}

/// Credentials that a provider has returned.
pub(in crate::backend) struct Granted {
    credentials: Credentials,
    /// When to authenticate anew, unless they have no end.
    pub(in crate::backend) renew_at: Option<Instant>,
}

impl Granted {
    fn new(credentials: Credentials, asked: Instant) -> Self {
        /// The parts of a lifetime, of which the last one is left for attempts to renew it that fail.
        const PARTS: u32 = 5;
        /// A provider whose credentials end at once isn't asked without a pause.
        const SHORTEST: Duration = Duration::from_millis(100);
        let renew_in = credentials.lifetime.map(|lifetime| (lifetime / PARTS * (PARTS - 1)).max(SHORTEST));
        // A lifetime that is longer than time itself has no end.
        Self { renew_at: renew_in.and_then(|renew_in| asked.checked_add(renew_in)), credentials }
    }

    /// `None` if the password is sent alone.
    pub(in crate::backend) fn user(&self) -> Option<&str> {
        Some(&*self.credentials.user).filter(|user| !user.is_empty())
    }

    pub(in crate::backend) fn password(&self) -> &str {
        &self.credentials.password
    }
}

/// Why there are no credentials.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the credentials provider failed")]
pub(in crate::backend) struct ProviderFailed {
    source: Cause,
}

impl Provider {
    pub(in crate::backend) fn new<Fut, E>(provide: impl Fn() -> Fut + Send + Sync + 'static) -> Self
    where
        Fut: Future<Output = Result<Credentials, E>> + Send + 'static,
        E: Into<BoxError> + 'static,
    {
        let provide = move || -> BoxFuture<'static, _> {
            let provided = provide();
            Box::pin(async move { provided.await.map_err(boxed) })
        };
        Self(Arc::new(Inner { provide: Box::new(provide), repeats: Repeats::default() }))
    }

    /// Asks for credentials, in a task of its own: if the closure panics, the connection's task goes on.
    pub(in crate::backend) async fn ask(&self, deadline: Instant) -> Result<Granted, ProviderFailed> {
        let (asked, inner) = (Instant::now(), self.0.clone());
        let answer = AbortOnDropHandle::new(tokio::spawn(async move { (inner.provide)().await }));
        let failure = match timeout_at(deadline, answer).await {
            Ok(Ok(Ok(credentials))) => return Ok(Granted::new(credentials, asked)),
            Ok(Ok(Err(error))) => error,
            Ok(Err(error)) if error.is_panic() => "it panicked".into(),
            Ok(Err(_cancelled)) => "its runtime shut down".into(),
            Err(_elapsed) => format!("it did not answer within {:?}", deadline - asked).into(),
        };
        let error = failure.to_string();
        self.0.repeats.warn(error.clone(), |times| {
            tracing::warn!(error, times, "the credentials provider failed");
        });
        Err(ProviderFailed { source: Cause::new(failure) })
    }

    /// Logs that a server has refused new credentials for a connection that it serves.
    pub(in crate::backend) fn refused_at(&self, address: &str, code: &str) {
        self.0.repeats.warn(format!("{address} {code}"), |times| {
            tracing::warn!(
                address,
                code,
                times,
                "new credentials are refused: the connection goes on with its old ones"
            );
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn credentials_are_renewed_when_a_fifth_of_their_lifetime_is_left() {
        let minutes = |minutes: u64| Duration::from_secs(minutes * 60);
        let renewed_after = |credentials: Credentials| {
            let now = Instant::now();
            Granted::new(credentials, now).renew_at.map(|at| at - now)
        };
        let credentials = || Credentials::new("user", "password");
        assert_eq!(renewed_after(credentials()), None);
        assert_eq!(renewed_after(credentials().valid_for(minutes(15))), Some(minutes(12)));
        assert_eq!(renewed_after(credentials().valid_for(Duration::ZERO)), Some(Duration::from_millis(100)));
        assert_eq!(renewed_after(credentials().valid_for(Duration::MAX)), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_provider_that_fails_panics_or_hangs_is_named_with_the_cause() {
        async fn failure<Fut>(provide: impl Fn() -> Fut + Send + Sync + 'static) -> String
        where
            Fut: Future<Output = Result<Credentials, BoxError>> + Send + 'static,
        {
            let limit = Duration::from_secs(2);
            let failed = Provider::new(provide).ask(Instant::now() + limit).await.err().expect("it fails");
            format!("{failed}: {}", failed.source)
        }
        let failed = "the credentials provider failed: ";
        assert_eq!(failure(|| async { Err("sealed".into()) }).await, format!("{failed}sealed"));
        assert_eq!(failure(|| async { panic!("in a test") }).await, format!("{failed}it panicked"));
        assert_eq!(failure(std::future::pending).await, format!("{failed}it did not answer within 2s"));
    }
}
