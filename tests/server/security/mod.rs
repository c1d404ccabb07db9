//! Security: the ACL, TLS, and secrets in anything that is shown.

mod access;
mod refusals;
mod secrets;
mod tls;
