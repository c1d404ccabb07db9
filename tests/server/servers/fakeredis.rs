//! fakeredis, a look-alike that has no scripts, and neither `INFO` nor `ROLE`.

use cache_aside::TrackerState;
use testkit::program::Program;

use super::{Works, is_used};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fakeredis_without_scripts() {
    let server = Program::fakeredis().await;
    is_used(&server.url(), Works { updates: true, clear: true, near: TrackerState::Unsupported }).await;
}
