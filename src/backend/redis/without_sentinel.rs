//! What stands in for `sentinel.rs` in a build without the feature: there is no master to follow, and its URLs are refused.

use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{RedisError, RedisResult};

use super::connect::{Address, Beside, Generation};
use super::node::Limits;
use super::tls::Tls;

#[derive(Clone, Copy)]
pub(in crate::backend) struct Sentinels(Infallible);

impl Sentinels {
    pub(in crate::backend) fn check_feature(scheme: &str) -> Result<(), String> {
        Err(format!("{scheme}:// needs sentinels: switch on the feature `sentinel` of cache-aside"))
    }

    pub(in crate::backend) fn parse(_url: &str) -> Result<Self, String> {
        Err("it names sentinels".to_owned())
    }

    pub(in crate::backend) fn secure(self, _tls: &Tls) -> Result<Self, String> {
        match self.0 {}
    }
}

impl fmt::Display for Sentinels {
    fn fmt(&self, _f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {}
    }
}

pub(super) struct Master(Infallible);

impl Master {
    pub(super) fn follow(sentinels: Sentinels, _limits: Limits) -> Arc<Self> {
        match sentinels.0 {}
    }

    pub(super) fn generation(&self) -> Generation {
        match self.0 {}
    }

    pub(super) async fn connection(&self) -> RedisResult<(MultiplexedConnection, u64)> {
        match self.0 {}
    }

    pub(super) async fn connect_beside(&self) -> RedisResult<MultiplexedConnection> {
        match self.0 {}
    }

    pub(super) async fn whereabouts(&self) -> RedisResult<(Address, Beside)> {
        match self.0 {}
    }

    pub(super) fn lost_beside(&self, _beside: &Beside) {
        match self.0 {}
    }

    pub(super) fn check(&self, _number: u64, _error: Option<&RedisError>) {
        match self.0 {}
    }

    pub(super) fn timed_out(&self, _limit: Duration) {
        match self.0 {}
    }

    pub(super) fn look_again(&self) {
        match self.0 {}
    }
}

pub(super) fn advice(_error: &RedisError) -> Option<&'static str> {
    None
}
