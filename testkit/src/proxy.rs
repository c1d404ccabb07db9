//! A TCP proxy between a cache and a server, which simulates a network: it can move to another server, cut its
//! connections, lose a request or a reply, drop data without a trace, and add latency.

use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// How long a connection may take to notice a change.
const LOOK: Duration = Duration::from_millis(5);

/// The proxy; dropping it ends it.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    plan: Arc<Plan>,
    accepting: JoinHandle<()>,
}

/// The part of an exchange that is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lost {
    /// The request: its connection is cut before the server receives it.
    Request,
    /// The reply: its connection is cut after the server has carried out the request.
    Reply,
    /// The reply, without a trace: its connection stays open, and carries nothing any more.
    ReplySilently,
    /// The reply is held back until it is [released](Proxy::release).
    ReplyForNow,
}

#[derive(Debug)]
struct Plan {
    target: AtomicU16,
    delay_micros: AtomicU64,
    /// Whether new connections carry nothing either.
    swallow: AtomicBool,
    /// What to lose of the next request that contains these bytes.
    loss: Mutex<Option<(Vec<u8>, Lost)>>,
    lines: Mutex<Vec<Arc<Line>>>,
    accepted: AtomicUsize,
}

/// One connection.
#[derive(Debug, Default)]
struct Line {
    cut: AtomicBool,
    swallow: AtomicBool,
    lose_replies: AtomicBool,
    hold_replies: AtomicBool,
}

impl Proxy {
    /// Starts a proxy in front of the server on this port.
    pub async fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let plan = Arc::new(Plan {
            target: AtomicU16::new(port),
            delay_micros: AtomicU64::new(0),
            swallow: AtomicBool::new(false),
            loss: Mutex::default(),
            lines: Mutex::default(),
            accepted: AtomicUsize::new(0),
        });
        Self {
            port: listener.local_addr().unwrap().port(),
            plan: plan.clone(),
            accepting: tokio::spawn(accept(listener, plan)),
        }
    }

    /// The proxy's URL.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// How many connections there have been.
    pub fn accepted(&self) -> usize {
        self.plan.accepted.load(Ordering::SeqCst)
    }

    /// Connects new clients to another server.
    pub fn move_to(&self, port: u16) {
        self.plan.target.store(port, Ordering::SeqCst);
    }

    /// Closes the existing connections.
    pub fn cut(&self) {
        self.plan.lines.lock().unwrap().drain(..).for_each(|line| line.cut.store(true, Ordering::SeqCst));
    }

    /// Becomes a black hole: existing and new connections carry nothing any more and stay open. Afterwards only new
    /// ones work.
    pub fn black_hole(&self, on: bool) {
        self.plan.swallow.store(on, Ordering::SeqCst);
        self.swallow();
    }

    /// Stops the existing connections from carrying anything, and leaves them open.
    pub fn swallow(&self) {
        self.plan.lines.lock().unwrap().drain(..).for_each(|line| line.swallow.store(true, Ordering::SeqCst));
    }

    /// Delivers the replies that were held back.
    pub fn release(&self) {
        self.plan.lines.lock().unwrap().iter().for_each(|line| line.hold_replies.store(false, Ordering::SeqCst));
    }

    /// Delays everything, in both directions.
    pub fn delay(&self, delay: Duration) {
        self.plan.delay_micros.store(u64::try_from(delay.as_micros()).unwrap(), Ordering::SeqCst);
    }

    /// Loses the next request that contains these bytes, or its reply. Returns once it has passed.
    pub async fn lose(&self, request: &str, lost: Lost) {
        *self.plan.loss.lock().unwrap() = Some((request.as_bytes().to_vec(), lost));
        while self.plan.loss.lock().unwrap().is_some() {
            tokio::time::sleep(LOOK).await;
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, plan: Arc<Plan>) {
    loop {
        let (client, _) = listener.accept().await.unwrap();
        let Ok(server) = TcpStream::connect(("127.0.0.1", plan.target.load(Ordering::SeqCst))).await else {
            continue;
        };
        // Otherwise a small message is delayed until the previous one is acknowledged.
        client.set_nodelay(true).unwrap();
        server.set_nodelay(true).unwrap();
        plan.accepted.fetch_add(1, Ordering::SeqCst);
        let line = Arc::<Line>::default();
        line.swallow.store(plan.swallow.load(Ordering::SeqCst), Ordering::SeqCst);
        plan.lines.lock().unwrap().push(line.clone());
        let (from_client, to_client) = client.into_split();
        let (from_server, to_server) = server.into_split();
        let plan = plan.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = carry(from_client, to_server, &plan, &line, |request| line.request(&plan, request)) => {}
                () = carry(from_server, to_client, &plan, &line, |_reply| line.reply()) => {}
            }
        });
    }
}

/// What happens to some bytes on a connection.
enum Piece {
    Passes,
    PassesAndCutsTheLine,
    Waits,
    Vanishes,
    CutsTheLine,
}

impl Line {
    fn request(&self, plan: &Plan, request: &[u8]) -> Piece {
        let holds = |bytes: &[u8]| request.windows(bytes.len()).any(|window| window == bytes);
        let lost = plan.loss.lock().unwrap().take_if(|(bytes, _)| holds(bytes)).map(|(_, lost)| lost);
        self.lose_replies.fetch_or(matches!(lost, Some(Lost::Reply | Lost::ReplySilently)), Ordering::SeqCst);
        self.hold_replies.fetch_or(lost == Some(Lost::ReplyForNow), Ordering::SeqCst);
        match lost {
            Some(Lost::Request) => Piece::CutsTheLine,
            Some(Lost::Reply) => Piece::PassesAndCutsTheLine,
            Some(Lost::ReplySilently | Lost::ReplyForNow) | None => Piece::Passes,
        }
    }

    fn reply(&self) -> Piece {
        match self.lose_replies.load(Ordering::SeqCst) {
            true => Piece::Vanishes,
            false if self.hold_replies.load(Ordering::SeqCst) => Piece::Waits,
            false => Piece::Passes,
        }
    }
}

async fn carry(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    plan: &Plan,
    line: &Line,
    look: impl Fn(&[u8]) -> Piece,
) {
    let mut buffer = vec![0; 1 << 16];
    while !line.cut.load(Ordering::SeqCst) {
        let Ok(read) = tokio::time::timeout(LOOK, from.read(&mut buffer)).await else {
            continue;
        };
        let Ok(length @ 1..) = read else {
            return;
        };
        let delay = plan.delay_micros.load(Ordering::SeqCst);
        if delay > 0 {
            tokio::time::sleep(Duration::from_micros(delay)).await;
        }
        if line.swallow.load(Ordering::SeqCst) {
            continue;
        }
        let mut piece = look(&buffer[..length]);
        while matches!(piece, Piece::Waits) && !line.cut.load(Ordering::SeqCst) {
            tokio::time::sleep(LOOK).await;
            piece = look(&buffer[..length]);
        }
        match piece {
            Piece::Vanishes => continue,
            Piece::CutsTheLine | Piece::Waits => return,
            Piece::Passes | Piece::PassesAndCutsTheLine => {}
        }
        if to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
        if matches!(piece, Piece::PassesAndCutsTheLine) {
            // Until the server has carried it out.
            tokio::time::sleep(LOOK * 4).await;
            return;
        }
    }
}
