//! The error of every call: [`Error`], and the [`Cause`] behind it.

use std::any::Any;
use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

/// Any error, boxed. Loaders may return it.
pub type BoxError = Box<dyn StdError + Send + Sync>;

/// An error of a call on a cache.
///
/// Each variant says what failed, for which key, and what to do about it. `Display` prints this level only. The chain of
/// causes follows from [`source`](StdError::source), and [`downcast_ref`](Error::downcast_ref) finds your own error in it.
/// It is `Clone`, because all callers that waited for one load get the same error.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The loader returned an error. The next `get` loads again at once.
    #[error("loading {key} failed")]
    #[non_exhaustive]
    Load {
        /// The entry's key.
        key: String,
        /// The loader's error.
        source: Cause,
    },

    /// The loader panicked, or was lost because its runtime shut down. The next `get` loads again at once.
    #[error("loading {key} panicked: {message}")]
    #[non_exhaustive]
    LoadPanicked {
        /// The entry's key.
        key: String,
        /// The message of the panic.
        message: String,
    },

    /// A loader has got a record, and that record's load waits for the load of this loader: none of them would end.
    #[error(
        "loads wait for each other: {keys}; a loader must not get its own record, nor one whose loader gets its own"
    )]
    #[non_exhaustive]
    LoadCycle {
        /// The entries' keys, each of which waits for the next: "cache:shop:order:1 -> cache:shop:order:2 -> cache:shop:order:1".
        keys: String,
    },

    /// The backend refused, or could not be reached. If the call was an `invalidate` or an update, it is unknown whether it
    /// was applied, and it is [retried](crate::Cache::pending) as an invalidation.
    #[error("can't {action} at {address}: {advice}")]
    #[non_exhaustive]
    Backend {
        /// The action that failed, with the entry's key: "invalidate cache:billing:product:p-001".
        action: String,
        /// The server's address, without user or password.
        address: String,
        /// What to do about it.
        advice: &'static str,
        /// The backend's error.
        source: Cause,
    },

    /// A deadline passed. If the call was an `invalidate` or an update, it is unknown whether it was applied, and it is
    /// [retried](crate::Cache::pending) as an invalidation.
    #[error("{action} did not end within {limit:?}: {advice}")]
    #[non_exhaustive]
    Timeout {
        /// The action that took too long, with the entry's key.
        action: String,
        /// The deadline.
        limit: Duration,
        /// What to do about it.
        advice: &'static str,
    },

    /// `inspect` was asked for an id that can't be part of a key, `modify` changed the id, or the id's `write_id` failed. All other
    /// calls accept an id that is too long or has an empty part: its record is never cached.
    #[error("the id in \"{key}\" is invalid: {mistake}")]
    #[non_exhaustive]
    InvalidId {
        /// The key as far as it was written, shortened.
        key: String,
        /// What is wrong with the id.
        mistake: &'static str,
    },

    /// A setting or a URL is invalid.
    #[error("{mistake}")]
    #[non_exhaustive]
    Config {
        /// What is wrong, and what to write instead.
        mistake: String,
    },
}

impl Error {
    /// Finds an error of type `X` among the causes: the loader's own error, what that wraps, and so on.
    ///
    /// It looks inside `Box`, `Arc`, `std::io::Error` and `anyhow::Error`, with and without context.
    ///
    /// # Examples
    ///
    /// ```
    /// # use cache_aside::{Backend, Cache, Cacheable};
    /// # #[derive(Debug, Cacheable)]
    /// # struct Product { #[cacheable(id)] id: String }
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), cache_aside::Error> {
    /// # let products: Cache<Product> = Cache::new(Backend::connect("memory://").await?);
    /// let error = products.get("p-001", |_id| async { Err(std::fmt::Error) }).await.unwrap_err();
    /// assert!(error.downcast_ref::<std::fmt::Error>().is_some());
    /// # Ok(())
    /// # }
    /// ```
    pub fn downcast_ref<X: StdError + 'static>(&self) -> Option<&X> {
        let mut cause = self.source();
        while let Some(error) = cause {
            if let Some(found) = error.downcast_ref::<X>() {
                return Some(found);
            }
            if let Some(boxed) = error.downcast_ref::<Box<X>>() {
                return Some(boxed);
            }
            if let Some(shared) = error.downcast_ref::<Arc<X>>() {
                return Some(shared);
            }
            // `io::Error::source` skips the wrapped error itself, and returns the source of that.
            let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
            cause = wrapped.map_or_else(|| error.source(), |wrapped| Some(wrapped));
        }
        None
    }

    pub(crate) fn invalid_id(key: &str, mistake: &'static str) -> Self {
        const SHOWN: usize = 100;
        let mut shown: String = key.chars().take(SHOWN).collect();
        if shown.len() < key.len() {
            shown.push_str("..");
        }
        Self::InvalidId { key: shown, mistake }
    }

    pub(crate) fn config(mistake: impl Into<String>) -> Self {
        Self::Config { mistake: mistake.into() }
    }
}

/// The errors that a service's own tests need. The others are easy to get from a cache: an [`Error::InvalidId`] by `inspect("")`,
/// an [`Error::LoadPanicked`] with a loader that panics, an [`Error::LoadCycle`] with one that gets its own record.
#[cfg(feature = "testing")]
impl Error {
    /// Makes an [`Error::Load`]: `key` is the entry's key, `source` the loader's error.
    pub fn load(key: impl Into<String>, source: impl Into<BoxError> + 'static) -> Self {
        Self::Load { key: key.into(), source: Cause::new(boxed(source)) }
    }

    /// Makes an [`Error::Backend`]: `action` is what the error says that can't be done, for example
    /// "read cache:billing:product:p-001".
    ///
    /// # Examples
    ///
    /// ```
    /// # use cache_aside::Error;
    /// let error = Error::backend("read cache:billing:product:p-001", "connection refused");
    /// assert!(matches!(error, Error::Backend { .. }));
    /// assert_eq!(error.to_string(), "can't read cache:billing:product:p-001 at test://: this error was made by a test");
    /// ```
    pub fn backend(action: impl Into<String>, source: impl Into<BoxError> + 'static) -> Self {
        let (action, address) = (action.into(), "test://".to_owned());
        Self::Backend { action, address, advice: MADE_BY_A_TEST, source: Cause::new(boxed(source)) }
    }

    /// Makes an [`Error::Timeout`]: `action` is what the error says that took too long, for example
    /// "loading cache:billing:product:p-001".
    pub fn timeout(action: impl Into<String>, limit: Duration) -> Self {
        Self::Timeout { action: action.into(), limit, advice: MADE_BY_A_TEST }
    }
}

/// The advice in errors that a test has made.
#[cfg(feature = "testing")]
const MADE_BY_A_TEST: &str = "this error was made by a test";

/// The error behind an [`Error`], shared by all callers that got it.
#[derive(Clone)]
pub struct Cause(Arc<dyn StdError + Send + Sync>);

impl Cause {
    pub(crate) fn new(error: impl Into<BoxError>) -> Self {
        match error.into().downcast::<Passed>() {
            Ok(passed) => passed.0,
            Err(error) => Self(Arc::from(error)),
        }
    }

    /// Boxes the cause, so that [`new`](Self::new) restores it.
    pub(crate) fn into_boxed(self) -> BoxError {
        Box::new(Passed(self))
    }
}

/// A cause on its way from the loader of a batch to the load of each record.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Passed(Cause);

/// Boxes a loader's error. An `anyhow::Error` is unpacked, because its plain conversion would hide the type inside.
pub(crate) fn boxed<E: Into<BoxError> + 'static>(error: E) -> BoxError {
    let mut error = Some(error);
    let any: &mut dyn Any = &mut error;
    match any.downcast_mut::<Option<anyhow::Error>>().and_then(Option::take) {
        Some(anyhow) => anyhow.reallocate_into_boxed_dyn_error_without_backtrace(),
        None => error.expect("only an `anyhow::Error` was taken").into(),
    }
}

impl Deref for Cause {
    type Target = dyn StdError + Send + Sync;

    fn deref(&self) -> &Self::Target {
        &*self.0
    }
}

impl fmt::Debug for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}
