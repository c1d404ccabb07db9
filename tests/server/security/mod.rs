//! Security: the ACL, credentials that change, TLS, and secrets in anything that is shown.

mod access;
mod credentials;
mod refusals;
mod secrets;
mod tls;
