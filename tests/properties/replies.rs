//! Replies: for any reply of a server to a read, split in any way, the get ends in time with a record, and so does the
//! next one.

use std::time::Duration;

use arbitrary::Arbitrary;
use cache_aside::{Backend, BoxError, Cache, Cacheable};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// How long the cache waits for a reply.
const PATIENCE: Duration = Duration::from_millis(30);
/// Every get ends within this time.
const LIMIT: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, Arbitrary)]
pub(crate) struct Input {
    pieces: Vec<Piece>,
    /// Whether the connection is closed after them.
    closes: bool,
}

impl Input {
    /// The reply of a server that has the record.
    #[allow(dead_code, reason = "the fuzz target has no use for it")]
    pub(crate) fn of_record() -> Self {
        Self { pieces: vec![Piece::Record], closes: false }
    }
}

/// A part of the server's data.
#[derive(Debug, Clone, Arbitrary)]
enum Piece {
    Array(i8),
    Text(Vec<u8>),
    Null,
    Number(i64),
    Error(String),
    Length(i64),
    Bytes(Vec<u8>),
    /// The record that the get asks for.
    Record,
    /// The rest comes in another packet.
    Pause,
}

#[derive(Debug, Cacheable)]
struct Thing {
    #[cacheable(id)]
    id: u64,
    name: String,
}

pub(crate) fn check(input: &Input) {
    let is_record = matches!(input.pieces[..], [Piece::Record]);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("redis://{}", listener.local_addr().unwrap());
        tokio::spawn(serve(listener, input.clone()));
        // It refuses most commands, so `connect` would fail.
        let backend = Backend::builder(&url).operation_timeout(PATIENCE).connect_lazy().unwrap();
        let cache = Cache::<Thing>::new(backend);
        for _ in 0..2 {
            let load = |id| async move { Ok::<_, BoxError>(Some(Thing { id, name: "loaded".to_owned() })) };
            let got = tokio::time::timeout(LIMIT, cache.get(1, load)).await.expect("it ends");
            let name = got.expect("it is read, or loaded").map(|thing| thing.name.clone());
            if is_record {
                assert_eq!(name.as_deref(), Some("cached"));
            }
        }
    });
}

async fn serve(listener: TcpListener, input: Input) {
    while let Ok((connection, _)) = listener.accept().await {
        tokio::spawn(answer(connection, input.clone()));
    }
}

/// Answers commands that a connection needs, and answers reads with the input.
async fn answer(connection: TcpStream, input: Input) -> std::io::Result<()> {
    let (reading, mut writing) = connection.into_split();
    let mut reading = BufReader::new(reading);
    loop {
        let mut arguments = Vec::new();
        for _ in 0..length(&mut reading).await? {
            let mut argument = vec![0; length(&mut reading).await?];
            reading.read_exact(&mut argument).await?;
            reading.read_exact(&mut [0; 2]).await?;
            arguments.push(argument);
        }
        match arguments.first().map_or(&b""[..], Vec::as_slice) {
            b"HELLO" => writing.write_all(b"%1\r\n+proto\r\n:3\r\n").await?,
            b"CLIENT" => writing.write_all(b"+OK\r\n").await?,
            b"PING" => writing.write_all(b"+PONG\r\n").await?,
            b"ROLE" => writing.write_all(b"*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n").await?,
            b"HMGET" | b"HGETALL" => {
                for piece in &input.pieces {
                    writing.write_all(&piece.bytes()).await?;
                    if let Piece::Pause = piece {
                        tokio::task::yield_now().await;
                    }
                }
                if input.closes {
                    return Ok(());
                }
            }
            _ => writing.write_all(b"-ERR not here\r\n").await?,
        }
    }
}

async fn length(reading: &mut (impl AsyncBufReadExt + Unpin)) -> std::io::Result<usize> {
    let mut line = String::new();
    reading.read_line(&mut line).await?;
    line.trim_start_matches(['*', '$']).trim_end().parse().map_err(std::io::Error::other)
}

impl Piece {
    fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Array(length) => format!("*{length}\r\n").into_bytes(),
            Self::Text(text) => [format!("${}\r\n", text.len()).as_bytes(), text, b"\r\n"].concat(),
            Self::Null => b"$-1\r\n".to_vec(),
            Self::Number(number) => format!(":{number}\r\n").into_bytes(),
            Self::Error(text) => format!("-{text}\r\n").into_bytes(),
            Self::Length(length) => format!("${length}\r\n").into_bytes(),
            Self::Bytes(bytes) => bytes.clone(),
            Self::Record => b"*3\r\n$1\r\n1\r\n$6\r\ncached\r\n$-1\r\n".to_vec(),
            Self::Pause => Vec::new(),
        }
    }
}
