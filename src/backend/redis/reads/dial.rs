//! Connecting: the stream that the URL asks for, the user and the database, and the question whether this is a primary.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use redis::io::tcp::socket2::{SockRef, TcpKeepalive};
use redis::{ConnectionAddr, ErrorKind, RedisConnectionInfo, RedisError, RedisResult};
use resp_rs::ParseError;
use resp_rs::resp2::{Frame, parse_frame};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{Duplex, encode, server_error};
use crate::backend::redis::connect::{Address, Beside, KEEPALIVE, Shared};
use crate::backend::redis::errors::unexpected_reply;

/// A new connection.
pub(super) struct Dialed {
    pub(super) link: Box<dyn Duplex>,
    /// The shared connection beside which it was made.
    pub(super) beside: Beside,
}

/// Why there is no connection.
pub(super) enum Undialed {
    /// The server is there, and doesn't tell its role.
    Unfit(RedisError),
    Failed(RedisError),
}

impl<E: Into<RedisError>> From<E> for Undialed {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

/// Connects to the server of the shared connection.
pub(super) async fn dial(shared: &Arc<Shared>, limit: Duration) -> Result<Dialed, Undialed> {
    let dial = async {
        let (address, beside) = shared.whereabouts().await?;
        let mut link = connect(&address).await?;
        greet(&mut link, address.info.redis_settings()).await?;
        Ok(Dialed { link, beside })
    };
    let timed_out = |_elapsed| Err(io::Error::from(io::ErrorKind::TimedOut).into());
    tokio::time::timeout(limit, dial).await.unwrap_or_else(timed_out)
}

async fn connect(address: &Address) -> RedisResult<Box<dyn Duplex>> {
    Ok(match (address.info.addr(), &address.tls) {
        (ConnectionAddr::Tcp(host, port), _) => Box::new(connect_tcp(host, *port).await?),
        (ConnectionAddr::TcpTls { host, port, .. }, Some(tls)) => {
            Box::new(tls.connect(host, connect_tcp(host, *port).await?).await?)
        }
        #[cfg(unix)]
        (ConnectionAddr::Unix(path), _) => Box::new(tokio::net::UnixStream::connect(path).await?),
        _ => return Err((ErrorKind::InvalidClientConfig, "reads can't connect to this kind of address").into()),
    })
}

async fn connect_tcp(host: &str, port: u16) -> io::Result<TcpStream> {
    let stream = TcpStream::connect((host, port)).await?;
    stream.set_nodelay(true)?;
    SockRef::from(&stream).set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE))?;
    Ok(stream)
}

/// Says who this is and which database it wants, and asks what the server is.
async fn greet(link: &mut Box<dyn Duplex>, settings: &RedisConnectionInfo) -> Result<(), Undialed> {
    let mut commands = Vec::new();
    let user = settings.username().map(str::as_bytes);
    if let Some(password) = settings.password().map(str::as_bytes) {
        match user {
            Some(user) => encode(&mut commands, &[b"AUTH", user, password]),
            None => encode(&mut commands, &[b"AUTH", password]),
        }
    }
    if settings.db() != 0 {
        encode(&mut commands, &[b"SELECT", settings.db().to_string().as_bytes()]);
    }
    encode(&mut commands, &[b"ROLE"]);
    link.write_all(&commands).await?;
    link.flush().await?;

    let mut received = BytesMut::new();
    if settings.password().is_some()
        && let Frame::Error(_) = next_frame(link, &mut received).await?
    {
        return Err(Undialed::Failed((ErrorKind::AuthenticationFailed, "Password authentication failed").into()));
    }
    if settings.db() != 0
        && let Frame::Error(text) = next_frame(link, &mut received).await?
    {
        return Err(Undialed::Failed(server_error(&text)));
    }
    match next_frame(link, &mut received).await? {
        Frame::Error(text) if text.starts_with(b"NOPERM") || text.starts_with(b"ERR unknown command") => {
            Err(Undialed::Unfit(server_error(&text)))
        }
        reply => check_role(&reply).map_err(Undialed::Failed),
    }
}

/// Fails unless this reply to ROLE is a primary's.
pub(super) fn check_role(reply: &Frame) -> RedisResult<()> {
    match reply {
        Frame::Error(text) => Err(server_error(text)),
        Frame::Array(Some(role)) => match role.first() {
            Some(Frame::BulkString(Some(role))) if **role == *b"master" => Ok(()),
            _ => Err(server_error(b"READONLY the server that reads go to is a replica")),
        },
        _ => Err(unexpected_reply()),
    }
}

async fn next_frame(link: &mut Box<dyn Duplex>, received: &mut BytesMut) -> RedisResult<Frame> {
    loop {
        match parse_frame(received.clone().freeze()) {
            Ok((frame, rest)) => {
                *received = rest.into();
                return Ok(frame);
            }
            Err(ParseError::Incomplete) => {
                if link.read_buf(received).await? == 0 {
                    return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
                }
            }
            Err(error) => return Err(garbled(&error)),
        }
    }
}

/// What was received is no reply of a Redis server.
pub(super) fn garbled(error: &ParseError) -> RedisError {
    (ErrorKind::Parse, "the reply of a read can't be understood", error.to_string()).into()
}
