//! Code that the tests of this program share, and that needs the library's types. The rest is in `testkit`.

pub(crate) mod fixture;
pub(crate) mod process;
pub(crate) mod tls_server;
pub(crate) mod traffic;
