//! The connection to a server that all steps but updates share.

mod greeting;
mod loss;
mod replies;

use std::time::Duration;

use cache_aside::Error;

const LIMIT: Duration = Duration::from_secs(20);

const LONG: Duration = Duration::from_secs(600);

/// An error with its causes.
fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
