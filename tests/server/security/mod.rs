//! Who may do what, over which connections, and what is shown to whom: ACL, TLS, secrets.

mod access;
mod secrets;
mod tls;
