//! What stands in for `tls.rs` in a build without the feature: there is nothing to set, and `rediss://` is refused.

use std::convert::Infallible;
use std::io;

use redis::RedisError;
use tokio::net::TcpStream;

use super::url::Address;

#[derive(Debug, Clone, Default)]
pub(in crate::backend) struct Tls {}

impl Tls {
    pub(in crate::backend) fn check(&self, scheme: &str) -> Result<(), String> {
        if scheme.starts_with("rediss") {
            return Err(format!("{scheme}:// needs TLS: switch on the feature `tls` of cache-aside"));
        }
        Ok(())
    }

    pub(in crate::backend) fn secure(&self, address: Address) -> Result<Address, String> {
        Ok(address)
    }
}

#[derive(Clone)]
pub(super) struct Connector(Infallible);

impl Connector {
    pub(super) async fn connect(&self, _host: &str, _stream: TcpStream) -> io::Result<TcpStream> {
        match self.0 {}
    }
}

pub(super) fn advice(_error: &RedisError) -> Option<&'static str> {
    None
}
