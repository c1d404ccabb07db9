//! Replaces `tls.rs` in a build without the feature: there is nothing to set, and `rediss://` is refused.

use std::io;

use redis::RedisError;
use tokio::net::TcpStream;

#[derive(Debug, Clone, Default)]
pub(in crate::backend) struct Tls {}

impl Tls {
    pub(in crate::backend) fn connector(&self, scheme: &str) -> Result<Option<Connector>, String> {
        if scheme.starts_with("rediss") {
            return Err(format!("{scheme}:// needs TLS: switch on the feature `tls` of cache-aside"));
        }
        Ok(None)
    }
}

#[derive(Clone)]
pub(in crate::backend) enum Connector {}

impl Connector {
    pub(super) fn check_name(&self, _host: &str) -> Result<(), String> {
        match *self {}
    }

    pub(super) async fn connect(&self, _host: &str, _stream: TcpStream) -> io::Result<TcpStream> {
        match *self {}
    }
}

pub(super) fn advice(_error: &RedisError) -> Option<&'static str> {
    None
}
