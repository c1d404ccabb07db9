//! The meter of builds without the feature `metrics`: it measures nothing, and costs nothing.

use crate::cache::Outcome;

#[derive(Clone, Copy)]
pub(crate) struct Began;

impl Began {
    pub(crate) fn now() -> Self {
        Self
    }
}

#[derive(Clone, Copy)]
pub(crate) enum Write {
    Update,
    Invalidate,
}

pub(crate) struct CacheMeter;

impl CacheMeter {
    pub(crate) fn new(_namespace: &str, _entity: &'static str) -> Self {
        Self
    }

    pub(crate) fn got(&self, _outcome: Option<Outcome>, _began: Began) {}
    pub(crate) fn wrote(&self, _write: Write, _done: Option<bool>) {}
    pub(crate) fn loaded(&self, _ok: bool, _began: Began) {}
    pub(crate) fn waited_for_lease(&self, _began: Began) {}
    pub(crate) fn fenced_fill(&self) {}
    pub(crate) fn lease_lost(&self) {}
    pub(crate) fn refresh_ahead(&self) {}
    pub(crate) fn decode_error(&self) {}
}

pub(crate) struct BackendMeter;

impl BackendMeter {
    pub(crate) fn new(_address: &str) -> Self {
        Self
    }

    pub(crate) fn step_failed(&self, _answered: bool) {}
    pub(crate) fn update_connections(&self, _in_use_and_idle: impl FnOnce() -> (usize, usize)) {}
}

pub(crate) struct BreakerMeter;

impl BreakerMeter {
    pub(crate) fn new(_address: &str) -> Self {
        Self
    }

    pub(crate) fn opened(&self) {}
    pub(crate) fn closed(&self) {}
}

pub(crate) struct NearMeter;

impl NearMeter {
    pub(crate) fn new(_namespace: &str, _entity: &'static str) -> Self {
        Self
    }

    pub(crate) fn invalidation(&self) {}
    pub(crate) fn flush(&self) {}
    pub(crate) fn refused_insert(&self) {}
}

pub(crate) struct TrackerMeter;

impl TrackerMeter {
    pub(crate) fn new(_address: &str) -> Self {
        Self
    }

    pub(crate) fn begun(&self) {}
    pub(crate) fn ended(&self) {}
}

pub(crate) fn pending(_prefix: &str, _gone: usize, _come: usize) {}
