//! Security: the ACL, TLS, and secrets in anything that is shown.

mod access;
mod secrets;
mod tls;
