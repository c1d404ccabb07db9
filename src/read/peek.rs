//! Looks at what is stored; loads nothing.

use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use crate::cache::{Core, Inspection};
use crate::error::Error;
use crate::record::{Key, Reading, Record};

impl Core {
    pub(crate) fn peek(&self, key: Result<Key, Error>) -> BoxFuture<'_, Result<Option<Record>, Error>> {
        async move {
            let key = key?;
            if !self.policy.enabled || self.backend.is_pending(&key) {
                return Ok(None);
            }
            let found = self.read_entry(&key, &self.selection).await?;
            Ok(match found.map(|found| self.read(&key, &found)) {
                Some(Reading::Record(record)) => Some(record),
                Some(Reading::Stale(..) | Reading::NotFound | Reading::Unreadable(_)) | None => None,
            })
        }
        .boxed()
    }

    pub(crate) fn ttl(&self, key: Result<Key, Error>) -> BoxFuture<'_, Result<Option<Duration>, Error>> {
        async move {
            let found = self.backend.look(&key?).await?.found;
            Ok(found.and_then(|found| found.ttl()).filter(|ttl| !ttl.is_zero()))
        }
        .boxed()
    }

    pub(crate) fn inspect(&self, key: Result<Key, Error>) -> BoxFuture<'_, Result<Inspection, Error>> {
        async move {
            let key = key?;
            let look = self.backend.look(&key).await?;
            Ok(Inspection::new(self.shape, &key, &look))
        }
        .boxed()
    }
}
