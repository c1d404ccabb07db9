//! `map_address`: clusters and sentinels that announce addresses which can't be reached from here, as behind NAT.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cache_aside::{Backend, Cache, Outcome, TrackerState};
use testkit::cluster::{Cluster, ask};
use testkit::fake::{Answer, Fake};
use testkit::proxy::Proxy;
use testkit::sentinel::{Group, NAME};
use testkit::server::{Flavor, Server};

use crate::near::{near, warm};
use crate::support::fixture::{Primary, Product, get, lives_a_whole_life, loaf, lookup, products, until};

const LIMIT: Duration = Duration::from_secs(20);
const KEY: &str = "cache:billing:product:p-001";

/// A proxy to each server, by the address that the server announces.
struct Nat {
    proxies: BTreeMap<(String, u16), Proxy>,
    asked_for: Arc<Mutex<Vec<(String, u16)>>>,
}

impl Nat {
    async fn of(announced: impl IntoIterator<Item = ((String, u16), &Server)>) -> Self {
        let mut proxies = BTreeMap::new();
        for (place, server) in announced {
            proxies.insert(place, Proxy::to(server.port()).await);
        }
        Self { proxies, asked_for: Arc::default() }
    }

    fn map(&self) -> impl Fn(&str, u16) -> (String, u16) + Send + Sync + 'static {
        let port = |proxy: &Proxy| proxy.url().rsplit_once(':').unwrap().1.parse().unwrap();
        let ports: BTreeMap<_, u16> = self.proxies.iter().map(|(place, proxy)| (place.clone(), port(proxy))).collect();
        let asked_for = self.asked_for.clone();
        move |host, announced| {
            let place = (host.to_owned(), announced);
            let reached = ports.get(&place).map_or_else(|| place.clone(), |port| ("127.0.0.1".to_owned(), *port));
            asked_for.lock().unwrap().push(place);
            reached
        }
    }

    async fn connect(&self, url: &str) -> Backend {
        let limit = Duration::from_secs(5);
        let builder = Backend::builder(url).operation_timeout(limit).heartbeat_timeout(limit).map_address(self.map());
        builder.connect().await.unwrap()
    }
}

/// Has each server announce a name that nobody can resolve.
async fn cluster_behind_nat(flavor: Flavor) -> (Cluster, Nat) {
    let cluster = Cluster::start(flavor).await;
    let mut announced = Vec::new();
    for (number, server) in cluster.servers.iter().enumerate() {
        let host = format!("node-{number}.invalid");
        ask(server, &format!("CONFIG SET cluster-announce-hostname {host}")).await;
        ask(server, "CONFIG SET cluster-preferred-endpoint-type hostname").await;
        announced.push((host, server.port()));
    }
    for server in &cluster.servers {
        until(LIMIT, "the names are not known", async || {
            let slots = ask(server, "CLUSTER SLOTS").await;
            announced.iter().all(|(host, _)| slots.contains(host))
        })
        .await;
    }
    let nat = Nat::of(announced.into_iter().zip(&cluster.servers)).await;
    (cluster, nat)
}

async fn works(cache: &Cache<Product>) {
    for number in 0..30 {
        let id = format!("p-{number}");
        let primary = Primary::default();
        primary.put(Product { id: id.clone(), ..loaf(1) });
        assert_eq!(cache.lookup(&*id, primary.loader()).await.unwrap().outcome, Outcome::Loaded);
        assert!(cache.update_field(&*id, Product::FIELDS.stock, 2).await.unwrap());
        assert!(cache.invalidate(&*id).await.unwrap());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_nodes_of_a_cluster_are_reached_where_the_map_says() {
    for flavor in Flavor::OF_CLUSTERS {
        let (cluster, nat) = cluster_behind_nat(flavor).await;
        let unreachable = Backend::builder(&cluster.url()).operation_timeout(LIMIT).connect_timeout(LIMIT);
        let unreachable = unreachable.connect().await.unwrap();
        let error = products(&unreachable).peek("p-001").await.unwrap_err();
        assert!(error.to_string().contains("check that a server runs there and can be reached"), "{error}");

        let backend = nat.connect(&cluster.url()).await;
        let (cache, primary) = (near(&backend), Primary::of(loaf(1)));
        works(&cache).await;
        warm(&cache, &primary).await;
        // Redirections have announced addresses too.
        let way = cluster.open(KEY).await;
        cluster.migrate(KEY, way).await;
        assert!(cache.invalidate("p-001").await.unwrap());
        cluster.close(KEY, way).await;
        cluster.move_slot(KEY).await;
        // What was written lately is invalidated once more at the slot's new server.
        let other = products(&backend);
        until(LIMIT, "the cache is not used", async || {
            lookup(&other, primary.loader()).await.unwrap().outcome != Outcome::Bypassed && other.pending().is_empty()
        })
        .await;
        other.invalidate("p-001").await.unwrap();
        lives_a_whole_life(&other).await;
        until(LIMIT, "no tracker is live", async || cache.stats().tracker == TrackerState::Live).await;
        assert_eq!(cache.stats().bypasses, 0);
        let reached = nat.proxies.values().filter(|proxy| proxy.accepted() > 0).count();
        assert!(reached >= 3, "{reached} nodes were reached through the map");
        let asked_for = nat.asked_for.lock().unwrap();
        assert!(
            asked_for.iter().all(|place| nat.proxies.contains_key(place)),
            "{asked_for:?} is more than was announced"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_master_of_sentinels_is_reached_where_the_map_says_and_so_is_the_next_one() {
    let group = Group::start(Flavor::Valkey91).await;
    let places: Vec<_> = (1..=3).map(|number| (format!("server-{number}.invalid"), 6379)).collect();
    let announces: Vec<&'static str> = places
        .iter()
        .map(|(host, port)| &*format!("*2\r\n${}\r\n{host}\r\n$4\r\n{port}\r\n", host.len()).leak())
        .collect();
    let nat = Nat::of(places.into_iter().zip(&group.servers)).await;
    let master = Arc::new(AtomicUsize::new(0));
    let rule = {
        let master = master.clone();
        move |command: &str| match command {
            "SENTINEL" => Answer::Fake(announces[master.load(Ordering::SeqCst)]),
            _ => Answer::Server,
        }
    };
    let sentinel = Fake::before(group.sentinels[0].port(), rule).await;
    let url = format!("{}/{NAME}", sentinel.url().replace("redis://", "redis+sentinel://"));
    let error = Backend::builder(&url).connect_timeout(LIMIT).connect().await.unwrap_err();
    assert!(std::error::Error::source(&error).unwrap().to_string().contains("server-1.invalid:6379"), "{error:?}");

    let backend = nat.connect(&url).await;
    lives_a_whole_life(&products(&backend)).await;
    let (cache, primary) = (near(&backend), Primary::of(loaf(1)));
    warm(&cache, &primary).await;
    group.fail_over().await;
    let (promoted, _when) = group.promotion_besides(0).await;
    master.store(promoted, Ordering::SeqCst);
    until(LIMIT, "the new master is not used", async || {
        let is_used = lookup(&cache, primary.loader()).await.unwrap().outcome != Outcome::Bypassed;
        is_used && nat.proxies.values().nth(promoted).unwrap().accepted() > 0 && cache.invalidate("p-001").await.is_ok()
    })
    .await;
    get(&cache, primary.loader()).await.unwrap();
    let stored: bool =
        redis::cmd("EXISTS").arg(KEY).query_async(&mut group.servers[promoted].client().await).await.unwrap();
    assert!(stored, "it is not at the new master");
    assert_eq!(nat.proxies.values().filter(|proxy| proxy.accepted() > 0).count(), 2);
}
