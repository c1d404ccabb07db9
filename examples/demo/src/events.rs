//! The live figures as server-sent events: one `figures` event at once, and then two per second until the server stops.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::State;
use axum::response::Sse;
use axum::response::sse::Event;
use futures_util::{Stream, stream};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use crate::service::Shop;

const PERIOD: Duration = Duration::from_millis(500);

pub(crate) async fn stream(
    State(shop): State<Arc<Shop>>,
    Extension(stopping): Extension<watch::Receiver<bool>>,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    Sse::new(stream::unfold((ticks, shop, stopping), async |(mut ticks, shop, mut stopping)| {
        tokio::select! {
            _ = ticks.tick() => {}
            _ = stopping.wait_for(|stopping| *stopping) => return None,
        }
        let event = Event::default().event("figures").json_data(shop.figures());
        // Figures are numbers and names, which can always be JSON.
        let event = event.unwrap_or_else(|error| Event::default().comment(error.to_string()));
        Some((Ok(event), (ticks, shop, stopping)))
    }))
}
