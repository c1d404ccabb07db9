//! The demo as its users see it: its endpoints over plain HTTP, and its page in a real browser.
#![allow(clippy::unwrap_used, missing_docs)]

mod browser;
mod endpoints;
mod guards;
mod page;
mod program;
mod running;
