//! A TCP proxy between a cache and a server: it can move to another server, cut its connections, or swallow what they
//! carry, as a network does that loses a connection without a trace.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

pub(crate) struct Proxy {
    port: u16,
    target: Arc<AtomicU16>,
    connections: watch::Sender<Fate>,
    accepting: JoinHandle<()>,
}

/// What becomes of the connections that exist.
#[derive(Clone, Default)]
struct Fate {
    cut: Arc<AtomicBool>,
    swallow: Arc<AtomicBool>,
}

impl Proxy {
    pub(crate) async fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = Arc::new(AtomicU16::new(port));
        let (connections, fate) = watch::channel(Fate::default());
        Self {
            port: listener.local_addr().unwrap().port(),
            target: target.clone(),
            connections,
            accepting: tokio::spawn(accept(listener, target, fate)),
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Connects new clients to another server.
    pub(crate) fn move_to(&self, port: u16) {
        self.target.store(port, Ordering::SeqCst);
    }

    /// Closes the connections that exist.
    pub(crate) fn cut(&self) {
        self.connections.send_replace(Fate::default()).cut.store(true, Ordering::SeqCst);
    }

    /// Carries nothing any more over the connections that exist, and leaves them open.
    pub(crate) fn swallow(&self) {
        self.connections.send_replace(Fate::default()).swallow.store(true, Ordering::SeqCst);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, target: Arc<AtomicU16>, fate: watch::Receiver<Fate>) {
    loop {
        let (client, _) = listener.accept().await.unwrap();
        let Ok(server) = TcpStream::connect(("127.0.0.1", target.load(Ordering::SeqCst))).await else {
            continue;
        };
        let fate = fate.borrow().clone();
        let (from_client, to_client) = client.into_split();
        let (from_server, to_server) = server.into_split();
        tokio::spawn(async move {
            tokio::select! {
                () = carry(from_client, to_server, &fate) => {}
                () = carry(from_server, to_client, &fate) => {}
            }
        });
    }
}

async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, fate: &Fate) {
    const LOOK: Duration = Duration::from_millis(5);
    let mut buffer = vec![0; 1 << 16];
    while !fate.cut.load(Ordering::SeqCst) {
        let Ok(read) = tokio::time::timeout(LOOK, from.read(&mut buffer)).await else {
            continue;
        };
        let Ok(length @ 1..) = read else {
            return;
        };
        if !fate.swallow.load(Ordering::SeqCst) && to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}
