//! The entry is a plain hash: another client, in another language, reads it and writes it.

use std::path::Path;
use std::process::Command;

use crate::fixture::{Primary, loaf, on_every_server, products};

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

#[tokio::test]
async fn python_reads_the_hash_and_sets_a_field() {
    on_every_server(async |server, backend| {
        let (cache, primary) = (products(&backend), Primary::of(loaf(42)));
        cache.get("p-001", primary.loader()).await.unwrap();
        let packages = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/python");
        assert!(packages.exists(), "{} not found: run ./scripts/install-servers", packages.display());
        let python = Command::new("python3")
            .args(["-c", SCRIPT, &server.port().to_string()])
            .env("PYTHONPATH", packages)
            .output()
            .unwrap();
        assert!(python.status.success(), "{}", String::from_utf8_lossy(&python.stderr));
        let read = cache.get("p-001", primary.loader()).await.unwrap().unwrap();
        assert_eq!((read.stock, read.price_cents, primary.loads()), (17, 655, 1));
    })
    .await;
}
