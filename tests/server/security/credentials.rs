//! `credentials`: passwords and users that change while the cache is in use, on all kinds of connections.

use std::collections::BTreeMap;
use std::future::{Ready, ready};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cache_aside::{Backend, BackendBuilder, BoxError, Cache, Credentials, Error, Outcome, Stats};
use futures_util::future::join_all;
use redis::aio::MultiplexedConnection;
use testkit::cluster::Cluster;
use testkit::fake::{Answer, Fake};
use testkit::sentinel::Group;
use testkit::server::{Flavor, Server};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::secrets::Shown;
use crate::near::{near, warm};
use crate::support::fixture::{Primary, Product, get, lives_a_whole_life, loaf, lookup, products, settle, until};

const LIMIT: Duration = Duration::from_secs(20);
const USER: &str = "svc";
const SECRETS: [&str; 4] = ["secret-A", "secret-B", "secret-C", "secret-D"];

/// What the provider reads from: a user, a password and its lifetime.
#[derive(Clone)]
struct Vault(Arc<Inner>);

struct Inner {
    held: Mutex<Result<Credentials, &'static str>>,
    asked: AtomicUsize,
}

impl Vault {
    fn of(credentials: Credentials) -> Self {
        Self(Arc::new(Inner { held: Mutex::new(Ok(credentials)), asked: AtomicUsize::new(0) }))
    }

    fn put(&self, credentials: Credentials) {
        *self.0.held.lock().unwrap() = Ok(credentials);
    }

    fn seal(&self, reason: &'static str) {
        *self.0.held.lock().unwrap() = Err(reason);
    }

    fn asked(&self) -> usize {
        self.0.asked.load(Ordering::SeqCst)
    }

    fn provider(&self) -> impl Fn() -> Ready<Result<Credentials, BoxError>> + Send + Sync + 'static {
        let inner = self.0.clone();
        move || {
            inner.asked.fetch_add(1, Ordering::SeqCst);
            ready(inner.held.lock().unwrap().clone().map_err(BoxError::from))
        }
    }

    fn builder(&self, url: &str) -> BackendBuilder {
        let builder = Backend::builder(url).operation_timeout(LIMIT).heartbeat_timeout(LIMIT);
        // New credentials are tried for a quarter of this.
        builder.connect_timeout(LIMIT).credentials(self.provider())
    }

    async fn connect(&self, url: &str) -> Backend {
        self.builder(url).connect().await.unwrap()
    }
}

/// Sets a user's password on each of these servers, in place of the one before.
async fn set_password(servers: &[Server], user: &str, password: &str) {
    for server in servers {
        let rules = ["on", "resetpass", &format!(">{password}"), "~*", "&*", "+@all"];
        let set = redis::cmd("ACL").arg("SETUSER").arg(user).arg(&rules).to_owned();
        set.exec_async(&mut server.client().await).await.unwrap();
    }
}

/// Our connections to a server, by id, each with its user.
async fn clients(operator: &mut MultiplexedConnection) -> BTreeMap<u64, String> {
    let clients: String = redis::cmd("CLIENT").arg("LIST").query_async(operator).await.unwrap();
    let field =
        |client: &str, name: &str| client.split(' ').find_map(|field| field.strip_prefix(name)).map(String::from);
    let ours = clients.lines().filter(|client| client.contains(" name=cache-aside "));
    ours.map(|client| (field(client, "id=").unwrap().parse().unwrap(), field(client, "user=").unwrap())).collect()
}

/// Loads, updates and invalidates, whatever there was before.
async fn all_works(backend: &Backend) {
    let cache = products(backend);
    cache.invalidate("p-001").await.unwrap();
    lives_a_whole_life(&cache).await;
}

/// The error with its causes.
fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}

/// Readers, and writers that invalidate and update, on many records. None of them may fail, but for updates while connections
/// are cut.
struct Load {
    tasks: Vec<JoinHandle<()>>,
    stop: Arc<AtomicBool>,
    are_cut: Arc<AtomicBool>,
    updates: Arc<AtomicUsize>,
    failed_updates: Arc<AtomicUsize>,
}

const RECORDS: usize = 24;
const TASKS: usize = 6;

fn records() -> Primary {
    let primary = Primary::of(loaf(1));
    (0..RECORDS).for_each(|number| primary.put(Product { id: format!("p-{number}"), ..loaf(1) }));
    primary
}

impl Load {
    fn start(cache: &Cache<Product>, primary: &Primary) -> Self {
        let mut load = Self {
            tasks: Vec::new(),
            stop: Arc::default(),
            are_cut: Arc::default(),
            updates: Arc::default(),
            failed_updates: Arc::default(),
        };
        for task in 0..TASKS {
            let (cache, primary, stop) = (cache.clone(), primary.clone(), load.stop.clone());
            let (are_cut, updates, failed) = (load.are_cut.clone(), load.updates.clone(), load.failed_updates.clone());
            load.tasks.push(tokio::spawn(async move {
                let mut number = task;
                while !stop.load(Ordering::SeqCst) {
                    number = (number + 1) % RECORDS;
                    let id = format!("p-{number}");
                    cache.get_fresh(&*id, primary.loader()).await.unwrap().unwrap();
                    match task {
                        0 => drop(cache.invalidate(&*id).await.unwrap()),
                        1..=3 => match cache.update_field(&*id, Product::FIELDS.stock, 1).await {
                            Ok(_) => drop(updates.fetch_add(1, Ordering::SeqCst)),
                            Err(error) => {
                                assert!(are_cut.load(Ordering::SeqCst), "{}", chain(&error));
                                failed.fetch_add(1, Ordering::SeqCst);
                            }
                        },
                        _ => {}
                    }
                    sleep(Duration::from_millis(1)).await;
                }
            }));
        }
        load
    }

    /// Waits until so many more updates have succeeded.
    async fn goes_on(&self) {
        const MORE: usize = 50;
        let before = self.updates.load(Ordering::SeqCst);
        until(LIMIT, "updates stand still", async || {
            self.tasks.iter().all(|task| !task.is_finished()) && self.updates.load(Ordering::SeqCst) > before + MORE
        })
        .await;
    }

    async fn stop(self) {
        self.stop.store(true, Ordering::SeqCst);
        for task in self.tasks {
            task.await.unwrap();
        }
    }
}

/// Changes the password again and again, and then also cuts all connections.
async fn a_password_changes_under_load(servers: &[Server], url: &str) {
    set_password(servers, USER, SECRETS[0]).await;
    let vault = Vault::of(Credentials::new(USER, SECRETS[0]));
    // Two connections for three tasks that update: they are made and used again all the time.
    let backend = vault.builder(url).update_connections(2).connect().await.unwrap();
    let (cache, primary) = (near(&backend), records());
    warm(&cache, &primary).await;
    let before = cache.stats();
    let load = Load::start(&cache, &primary);
    load.goes_on().await;
    for secret in &SECRETS[1..] {
        // The old password is revoked a little before the provider knows the new one. Another process starts between the two.
        set_password(servers, USER, secret).await;
        let another = tokio::spawn(vault.builder(url).connect());
        settle().await;
        vault.put(Credentials::new(USER, *secret));
        all_works(&another.await.unwrap().unwrap()).await;
        load.goes_on().await;
    }
    let flushed = |stats: &Stats| stats.near_flushes;
    assert_eq!(flushed(&cache.stats()), flushed(&before), "near caches were emptied");
    assert_eq!(cache.stats().bypasses, before.bypasses, "reads went around the cache");

    load.are_cut.store(true, Ordering::SeqCst);
    let asked = vault.asked();
    for secret in SECRETS {
        set_password(servers, USER, secret).await;
        for server in servers {
            let kill = redis::cmd("CLIENT").arg(&["KILL", "TYPE", "normal"]).to_owned();
            kill.exec_async(&mut server.client().await).await.unwrap();
        }
        settle().await;
        vault.put(Credentials::new(USER, secret));
        load.goes_on().await;
    }
    assert!(vault.asked() > asked);
    println!("  {} updates failed while connections were cut", load.failed_updates.load(Ordering::SeqCst));
    load.stop().await;
    // Until then, records whose update has failed are read around the cache.
    until(LIMIT, "invalidations still wait", async || cache.pending().is_empty()).await;
    warm(&cache, &primary).await;
    for server in servers {
        let users = clients(&mut server.client().await).await;
        assert!(users.values().all(|user| user == USER), "{users:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_changes_under_load_on_a_server() {
    for flavor in Flavor::ALL {
        println!("on {flavor:?}");
        let server = Server::start(flavor).await;
        let url = server.url();
        a_password_changes_under_load(&[server], &url).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_changes_under_load_in_a_cluster() {
    for flavor in Flavor::OF_CLUSTERS {
        println!("on {flavor:?}");
        let cluster = Cluster::start(flavor).await;
        a_password_changes_under_load(&cluster.servers, &cluster.url()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_changes_under_load_with_sentinels() {
    let lines = "requirepass of-the-sentinels";
    let group = Group::start_with(Flavor::Redis70, &[], lines).await;
    let url = format!("{}?sentinel_password=of-the-sentinels", group.url());
    // Of the servers, the sentinels' own connections are cut too: they must not give up the master for that.
    group.be_patient(LIMIT).await;
    a_password_changes_under_load(&group.servers, &url).await;
}

/// Users change each time, so that the server's list of clients shows who has authenticated anew.
async fn live_connections_authenticate_anew(servers: &[Server], url: &str) {
    const LIFETIME: Duration = Duration::from_secs(1);
    let users = ["first", "second"];
    for user in users {
        set_password(servers, user, SECRETS[0]).await;
    }
    let credentials = |user: &str| Credentials::new(user, SECRETS[0]).valid_for(LIFETIME);
    let vault = Vault::of(credentials(users[0]));
    let backend = vault.connect(url).await;
    let (cache, primary) = (near(&backend), Primary::of(loaf(1)));
    warm(&cache, &primary).await;
    cache.update_field("p-001", Product::FIELDS.stock, 1).await.unwrap();
    let (flushes, mut operators) = (cache.stats().near_flushes, Vec::new());
    for server in servers {
        operators.push(server.client().await);
    }
    let mut before = Vec::new();
    for operator in &mut operators {
        before.push(clients(operator).await);
    }
    for user in [users[1], users[0], users[1]] {
        vault.put(credentials(user));
        // The idle connection of an update is not renewed but replaced.
        let began = Instant::now();
        until(LIMIT, "the live connections keep their user", async || {
            cache.update_field("p-001", Product::FIELDS.stock, 1).await.unwrap();
            let mut all = true;
            for operator in &mut operators {
                all &= clients(operator).await.values().all(|of_client| of_client == user);
            }
            all
        })
        .await;
        println!("  {user} after {:?}", began.elapsed());
    }
    for (operator, before) in operators.iter_mut().zip(&before) {
        let now = clients(operator).await;
        // But for that of the update, all are the same.
        let kept = before.keys().filter(|id| now.contains_key(id)).count();
        assert!(kept + 1 >= before.len() && now.len() <= before.len() + 1, "{before:?} became {now:?}");
    }
    assert_eq!(cache.stats().near_flushes, flushes, "near caches were emptied");
    assert_eq!(cache.stats().bypasses, 0);
    all_works(&backend).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn live_connections_authenticate_anew_before_their_credentials_end() {
    for flavor in Flavor::ALL {
        println!("on {flavor:?}");
        let server = Server::start(flavor).await;
        let url = server.url();
        live_connections_authenticate_anew(&[server], &url).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn live_connections_to_a_cluster_authenticate_anew_before_their_credentials_end() {
    let cluster = Cluster::start(Flavor::Valkey91).await;
    live_connections_authenticate_anew(&cluster.servers, &cluster.url()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn live_connections_by_way_of_sentinels_authenticate_anew_before_their_credentials_end() {
    let group = Group::start(Flavor::Redis70).await;
    group.be_patient(LIMIT).await;
    live_connections_authenticate_anew(&group.servers, &group.url()).await;
}

/// Neither does an idle connection wait for its heartbeat, nor is the provider asked again and again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credentials_are_renewed_once_in_each_lifetime() {
    const LIFETIME: Duration = Duration::from_millis(1500);
    let server = Server::start(Flavor::Redis70).await;
    set_password(std::slice::from_ref(&server), USER, SECRETS[0]).await;
    let vault = Vault::of(Credentials::new(USER, SECRETS[0]).valid_for(LIFETIME));
    let began = Instant::now();
    let cache = products(&vault.connect(&server.url()).await);
    assert_eq!(vault.asked(), 1);
    until(LIMIT, "nothing is renewed", async || vault.asked() == 4).await;
    assert!(began.elapsed() >= LIFETIME / 5 * 4 * 3, "after {:?} for three", began.elapsed());
    lives_a_whole_life(&cache).await;
}

#[tokio::test]
async fn a_connection_goes_on_while_its_credentials_can_not_be_renewed() {
    let (shown, _capturing) = Shown::capture();
    let server = Server::start(Flavor::Redis82).await;
    let servers = std::slice::from_ref(&server);
    set_password(servers, USER, SECRETS[0]).await;
    let credentials = |secret: &str| Credentials::new(USER, secret).valid_for(Duration::from_millis(200));
    let vault = Vault::of(credentials(SECRETS[0]));
    let backend = vault.connect(&server.url()).await;
    let (cache, primary) = (near(&backend), Primary::of(loaf(1)));
    warm(&cache, &primary).await;
    let flushes = cache.stats().near_flushes;
    let mut operator = server.client().await;
    let before = clients(&mut operator).await;

    vault.seal("the vault is sealed");
    let asked = vault.asked();
    until(LIMIT, "the provider is not asked again", async || vault.asked() > asked + 4).await;
    assert!(cache.invalidate("p-001").await.is_ok());
    vault.put(credentials("wrong"));
    let asked = vault.asked();
    until(LIMIT, "the provider is not asked again", async || vault.asked() > asked + 4).await;
    assert!(shown.holds("new credentials are refused") && shown.holds("WRONGPASS"));
    assert!(shown.holds("the credentials provider failed") && shown.holds("the vault is sealed"));
    warm(&cache, &primary).await;
    assert_eq!(clients(&mut operator).await, before);
    assert_eq!((cache.stats().near_flushes, cache.stats().bypasses), (flushes, 0));

    vault.put(credentials(SECRETS[0]));
    all_works(&backend).await;
    shown.hides(&SECRETS);
}

async fn panics() -> Result<Credentials, BoxError> {
    panic!("in a test")
}

/// Connects with providers that fail.
async fn fails_with_the_providers_error(shown: &Shown, url: &str) {
    let builder = || Backend::builder(url).connect_timeout(Duration::from_secs(5));
    let fails = async |builder: BackendBuilder, said: &str| {
        let error = shown.connect(builder).await.unwrap_err();
        let text = chain(&error);
        println!("{text}");
        assert!(matches!(error, Error::Backend { .. }), "{error:?}");
        assert!(text.contains("the credentials provider failed") && text.contains(said), "{text}");
        error
    };
    let failed = builder().credentials(|| async { Err::<Credentials, _>(std::io::Error::other("sealed")) });
    let error = fails(failed, "sealed").await;
    assert!(error.downcast_ref::<std::io::Error>().is_some(), "{error:?}");
    fails(builder().credentials(std::future::pending::<Result<Credentials, BoxError>>), "did not answer").await;
    fails(builder().credentials(panics), "it panicked").await;

    let wrong = builder().credentials(Vault::of(Credentials::new(USER, SECRETS[0])).provider());
    let text = chain(&shown.connect(wrong).await.unwrap_err());
    assert!(text.contains("the server refuses what the credentials provider returned"), "{text}");
    assert!(text.contains("have the credentials provider return the user and the password"), "{text}");
}

#[tokio::test]
async fn a_provider_that_fails_is_named_with_its_own_error() {
    let (shown, _capturing) = Shown::capture();
    let group = Group::start(Flavor::Redis70).await;
    let cluster = Cluster::start(Flavor::Redis70).await;
    let urls = [group.servers[0].url(), group.servers[0].unix_url(), group.url(), cluster.url()];
    join_all(urls.iter().map(|url| fails_with_the_providers_error(&shown, url))).await;
    shown.hides(&SECRETS);
}

/// Reads go around the cache as in any outage, and later without any help through it again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_that_fails_for_a_while_is_an_outage() {
    let server = Server::start(Flavor::Valkey91).await;
    set_password(std::slice::from_ref(&server), USER, SECRETS[0]).await;
    let vault = Vault::of(Credentials::new(USER, SECRETS[0]));
    let (cache, primary) = (products(&vault.connect(&server.url()).await), Primary::of(loaf(1)));
    lives_a_whole_life(&cache).await;
    vault.seal("the vault is sealed");
    let kill = redis::cmd("CLIENT").arg(&["KILL", "TYPE", "normal"]).to_owned();
    kill.exec_async(&mut server.client().await).await.unwrap();
    until(LIMIT, "the cache is used", async || {
        lookup(&cache, primary.loader()).await.unwrap().outcome == Outcome::Bypassed
    })
    .await;
    assert!(chain(&cache.invalidate("p-001").await.unwrap_err()).contains("the vault is sealed"));
    vault.put(Credentials::new(USER, SECRETS[0]));
    until(LIMIT, "invalidations still wait", async || cache.pending().is_empty()).await;
    assert_ne!(lookup(&cache, primary.loader()).await.unwrap().outcome, Outcome::Bypassed);
}

#[tokio::test]
async fn credentials_in_the_url_too_are_a_mistake() {
    let set = |url: &str| Backend::builder(url).credentials(Vault::of(Credentials::new(USER, SECRETS[0])).provider());
    for url in [
        "redis://app:secret-URL@127.0.0.1",
        "redis://:secret-URL@127.0.0.1",
        "redis://app@127.0.0.1",
        "redis+cluster://app:secret-URL@127.0.0.1,127.0.0.1:7001",
        "redis+sentinel://app:secret-URL@127.0.0.1/mymaster",
        "rediss://app:secret-URL@localhost",
        "unix:///run/redis.sock?user=app&pass=secret-URL",
    ] {
        let error = set(url).connect_lazy().unwrap_err();
        assert!(matches!(error, Error::Config { .. }), "{error:?}");
        let text = error.to_string();
        assert!(text.contains("credentials is set") && text.contains("take them out of the URL"), "{text}");
        assert!(!text.contains("secret-URL") && !text.contains(SECRETS[0]), "{text}");
    }
    set("redis+sentinel://127.0.0.1/mymaster?sentinel_user=app&sentinel_password=secret").connect_lazy().unwrap();
    lives_a_whole_life(&products(&set("memory://").connect().await.unwrap())).await;
}

/// Some servers log a client off when its token ends. The commands that they refuse then are sent again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_the_server_has_logged_off_is_replaced() {
    let server = Server::start(Flavor::Redis70).await;
    for refused in ["HMGET", "DEL", "WATCH"] {
        let logs_off = Arc::new(AtomicBool::new(false));
        let rule = {
            let logs_off = logs_off.clone();
            move |command: &str| match command {
                _ if command == refused && logs_off.swap(false, Ordering::SeqCst) => {
                    Answer::Fake("-NOAUTH Authentication required.\r\n")
                }
                _ => Answer::Server,
            }
        };
        let fake = Fake::before(server.port(), rule).await;
        let backend = Backend::builder(&fake.url()).operation_timeout(Duration::from_secs(5)).connect().await.unwrap();
        let (cache, primary) = (products(&backend), Primary::of(loaf(1)));
        get(&cache, primary.loader()).await.unwrap();
        assert!(cache.update_field("p-001", Product::FIELDS.stock, 2).await.unwrap());
        // A young connection isn't replaced.
        sleep(Duration::from_millis(300)).await;
        let accepted = fake.accepted();
        logs_off.store(true, Ordering::SeqCst);
        match refused {
            "HMGET" => assert_eq!(lookup(&cache, primary.loader()).await.unwrap().outcome, Outcome::Hit),
            "WATCH" => assert!(cache.update_field("p-001", Product::FIELDS.stock, 3).await.unwrap()),
            _ => drop(cache.invalidate("p-001").await.unwrap()),
        }
        assert!(!logs_off.load(Ordering::SeqCst) && fake.accepted() > accepted, "{refused}");
        cache.invalidate("p-001").await.unwrap();
        lives_a_whole_life(&cache).await;
        assert_eq!(cache.stats().bypasses, 0, "{refused}");
    }
}
