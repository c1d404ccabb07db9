//! What the tests of this program share, and what needs the library's types. All else is in `testkit`.

pub(crate) mod fixture;
pub(crate) mod process;
pub(crate) mod tls_server;
pub(crate) mod traffic;
