//! The entry is a plain hash: another client, in another language, can read it and write anything to it.

use std::path::Path;
use std::process::Command;

use cache_aside::{BoxError, Cache, Cacheable, EntryState, FieldValue, Outcome};
use testkit::server::Server;

use crate::support::fixture::{Primary, Product, loaf, on_every_server, products};

const SCRIPT: &str = r"
import sys, redis
client = redis.Redis(port=int(sys.argv[1]), decode_responses=True)
key = 'cache:billing:product:p-001'
record = client.hgetall(key)
assert record == {'id': 'p-001', 'name': 'Sourdough Loaf', 'price_cents': '650', 'stock': '42'}, record
assert 0 < client.ttl(key) <= 30
assert client.keys('*') == [key]
client.hset(key, 'stock', 17)
client.hincrby(key, 'price_cents', 5)
";

fn run_python(script: &str, server: &Server) {
    let packages = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/python");
    assert!(packages.exists(), "{} not found: run ./scripts/install-servers", packages.display());
    let python = Command::new("python3")
        .args(["-c", script, &server.port().to_string()])
        .env("PYTHONPATH", packages)
        .output()
        .unwrap();
    assert!(python.status.success(), "{}", String::from_utf8_lossy(&python.stderr));
}

#[tokio::test]
async fn python_reads_the_hash_and_sets_a_field() {
    on_every_server(async |server, backend| {
        let (cache, primary) = (products(&backend), Primary::of(loaf(42)));
        cache.get("p-001", primary.loader()).await.unwrap();
        run_python(SCRIPT, server);
        let read = cache.get("p-001", primary.loader()).await.unwrap().unwrap();
        assert_eq!((read.stock, read.price_cents, primary.loads()), (17, 655, 1));
    })
    .await;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, FieldValue)]
#[cacheable(rename_all = "snake_case")]
enum Status {
    OnSale,
    #[cacheable(rename = "gone", alias = "deleted")]
    Discontinued,
}

#[derive(Debug, Cacheable)]
#[cacheable(namespace = "billing")]
struct Offer {
    #[cacheable(id)]
    id: u64,
    status: Status,
}

const SCRIPT_OF_STATUS: &str = r"
import sys, redis
client = redis.Redis(port=int(sys.argv[1]), decode_responses=True)
assert client.hget('cache:billing:offer:7', 'status') == 'on_sale'
client.hset('cache:billing:offer:7', 'status', 'deleted')
";

#[tokio::test]
async fn python_reads_and_sets_the_text_of_an_enum() {
    on_every_server(async |server, backend| {
        let offers: Cache<Offer> = Cache::new(backend);
        let load = |id| async move { Ok::<_, BoxError>(Some(Offer { id, status: Status::OnSale })) };
        offers.get(7, load).await.unwrap();
        run_python(SCRIPT_OF_STATUS, server);
        let lookup = offers.lookup(7, load).await.unwrap();
        assert_eq!((lookup.outcome, lookup.value.unwrap().status), (Outcome::Hit, Status::Discontinued));
    })
    .await;
}

#[tokio::test]
async fn an_entry_that_another_client_has_overwritten_is_loaded_again() {
    on_every_server(async |server, backend| {
        let (cache, primary) = (products(&backend), Primary::of(loaf(42)));
        let mut client = server.client().await;
        let key = "cache:billing:product:p-001";
        let whole: &[&[u8]] = &[b"id", b"p-001", b"name", b"Loaf", b"price_cents", b"650", b"stock", b"1"];
        let mut overwrites: Vec<(&str, Vec<&[u8]>)> = vec![
            ("SET", vec![b"a string"]),
            ("RPUSH", vec![b"a list"]),
            ("SADD", vec![b"a set"]),
            ("ZADD", vec![b"1", b"a sorted set"]),
            ("HSET", whole[..6].to_vec()),
            ("HSET", vec![b"unknown", b"1"]),
            ("HSET", vec![b"~meta", b"something new"]),
            ("HSET", vec![b"~meta", b"absent", b"stock", b"1"]),
            ("HSET", [whole, &[b"~meta", b"stale=60000 newer=1"]].concat()),
        ];
        for malformed in [&b"many"[..], b"", b"-1", b"4294967296", b"1.0", b"\xFF\xFE"] {
            overwrites.push(("HSET", [&whole[..7], &[malformed]].concat()));
        }
        overwrites.push(("HSET", [&whole[..3], &[b"\xFF invalid UTF-8"], &whole[4..]].concat()));
        let mut seen = 0;
        for (command, arguments) in overwrites {
            let arguments_are_unknown = arguments.first() == Some(&&b"unknown"[..]);
            redis::cmd("DEL").arg(key).exec_async(&mut client).await.unwrap();
            redis::cmd(command).arg(key).arg(arguments).exec_async(&mut client).await.unwrap();
            assert_eq!(cache.inspect("p-001").await.unwrap().state, EntryState::Unreadable);
            assert_eq!(cache.peek("p-001").await.unwrap(), None);
            let lookup = cache.lookup("p-001", primary.loader()).await.unwrap();
            assert_eq!((lookup.outcome, lookup.value.as_deref()), (Outcome::Loaded, Some(&loaf(42))), "{command}");
            // A peek reads only the fields that it knows.
            seen += if arguments_are_unknown { 1 } else { 2 };
            assert_eq!(cache.stats().decode_errors, seen, "one by the peek, one by the get");
            assert_eq!(cache.inspect("p-001").await.unwrap().state, EntryState::Record);
            assert!(cache.ttl("p-001").await.unwrap().is_some());
        }
        redis::cmd("SET").arg(key).arg("a string").exec_async(&mut client).await.unwrap();
        assert!(!cache.update_field("p-001", Product::FIELDS.stock, 1).await.unwrap());
        assert_eq!(cache.inspect("p-001").await.unwrap().state, EntryState::Missing);
        redis::cmd("SET").arg(key).arg("a string").exec_async(&mut client).await.unwrap();
        assert!(cache.invalidate("p-001").await.unwrap());
    })
    .await;
}
