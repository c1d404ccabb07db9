//! Reads of the cache that never load: `peek`, `ttl`, `inspect`.

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
            let Some(reading) = found.map(|found| found.read(self.shape)) else { return Ok(None) };
            self.report_unreadable(&key, &reading);
            Ok(match reading {
                Reading::Record(record) => Some(record),
                Reading::Stale(..) | Reading::NotFound | Reading::Unreadable(_) => None,
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
