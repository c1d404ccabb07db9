//! A proxy that understands commands: it stands in front of a real server, answers some commands itself, and forwards
//! the others.

use std::io::{Error, ErrorKind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// How long to wait for more commands whose replies go out together.
const GATHERED: Duration = Duration::from_millis(2);

/// How a command is answered.
#[derive(Debug)]
pub enum Answer {
    /// By the server behind the proxy.
    Server,
    /// With these bytes; the server is not asked.
    Fake(&'static str),
    /// By the server. These bytes follow its reply and the replies to all commands that come soon after this one, in
    /// one piece.
    ServerThen(&'static str),
    /// Not at all: the connection ends.
    HangUp,
}

/// Decides by a command's name, in upper case.
type Rule = dyn Fn(&str) -> Answer + Send + Sync;

/// The proxy; dropping it ends it.
#[derive(Debug)]
pub struct Fake {
    port: u16,
    target: Arc<AtomicU16>,
    accepted: Arc<AtomicUsize>,
    accepting: JoinHandle<()>,
}

impl Fake {
    /// Starts a proxy in front of the server on this port, with a rule for each command by its name in upper case.
    pub async fn before(port: u16, rule: impl Fn(&str) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port_of_fake = listener.local_addr().unwrap().port();
        let (target, accepted) = (Arc::new(AtomicU16::new(port)), Arc::new(AtomicUsize::new(0)));
        let (to, count, rule) = (target.clone(), accepted.clone(), Arc::<Rule>::from(Box::new(rule) as Box<Rule>));
        let accepting = tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                count.fetch_add(1, Ordering::SeqCst);
                let Ok(server) = TcpStream::connect(("127.0.0.1", to.load(Ordering::SeqCst))).await else {
                    continue;
                };
                tokio::spawn(serve(client, server, rule.clone()));
            }
        });
        Self { port: port_of_fake, target, accepted, accepting }
    }

    /// The proxy's URL.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// How many connections there have been.
    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }

    /// Connects new clients to another server.
    pub fn move_to(&self, port: u16) {
        self.target.store(port, Ordering::SeqCst);
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn serve(mut client: TcpStream, mut server: TcpStream, rule: Arc<Rule>) -> std::io::Result<()> {
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (mut commands, mut replies) = (Vec::new(), Vec::new());
    loop {
        let (mut out, mut rest) = (Vec::new(), "");
        loop {
            while let Some(length) = frame_length(&commands) {
                let command: Vec<u8> = commands.drain(..length).collect();
                let answer = rule(&name(&command));
                if let Answer::Fake(reply) = answer {
                    out.extend(reply.as_bytes());
                    continue;
                }
                if let Answer::HangUp = answer {
                    return Ok(());
                }
                if let Answer::ServerThen(bytes) = answer {
                    rest = bytes;
                }
                server.write_all(&command).await?;
                pass_reply(&mut server, &mut replies, &mut out).await?;
            }
            if rest.is_empty() {
                break;
            }
            match timeout(GATHERED, client.read_buf(&mut commands)).await {
                Ok(read) => is_open(read?)?,
                Err(_elapsed) => break,
            }
        }
        out.extend(rest.as_bytes());
        client.write_all(&out).await?;
        tokio::select! {
            read = client.read_buf(&mut commands) => is_open(read?)?,
            read = server.read_buf(&mut replies) => {
                is_open(read?)?;
                // Messages outside of replies.
                while let Some(length) = frame_length(&replies) {
                    let message: Vec<u8> = replies.drain(..length).collect();
                    client.write_all(&message).await?;
                }
            }
        }
    }
}

/// Moves one reply from `replies` to `out`, with the messages before it.
async fn pass_reply(server: &mut TcpStream, replies: &mut Vec<u8>, out: &mut Vec<u8>) -> std::io::Result<()> {
    loop {
        let Some(length) = frame_length(replies) else {
            is_open(server.read_buf(replies).await?)?;
            continue;
        };
        let is_message = replies[0] == b'>';
        out.extend(replies.drain(..length));
        if !is_message {
            return Ok(());
        }
    }
}

fn is_open(read: usize) -> std::io::Result<()> {
    if read == 0 { Err(Error::from(ErrorKind::UnexpectedEof)) } else { Ok(()) }
}

/// The length of the first RESP frame, once all of it has come.
fn frame_length(bytes: &[u8]) -> Option<usize> {
    let line = bytes.windows(2).position(|two| two == b"\r\n")?;
    let mut end = line + 2;
    let number = || -> i64 { String::from_utf8_lossy(&bytes[1..line]).parse().unwrap() };
    let frames = match bytes[0] {
        b'$' | b'!' | b'=' => {
            end += usize::try_from(number()).map_or(0, |length| length + 2);
            0
        }
        b'*' | b'~' | b'>' => number(),
        b'%' => number() * 2,
        _ => 0,
    };
    for _ in 0..frames {
        end += frame_length(bytes.get(end..)?)?;
    }
    (end <= bytes.len()).then_some(end)
}

/// The first word of a command: `*1\r\n$4\r\nROLE\r\n`.
fn name(command: &[u8]) -> String {
    let word = command.split(|byte| *byte == b'\n').nth(2).unwrap_or_default();
    String::from_utf8_lossy(word.trim_ascii()).to_uppercase()
}
