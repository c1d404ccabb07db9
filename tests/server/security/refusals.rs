//! Commands that a server refuses: by its ACL, because they were renamed, or because a proxy doesn't have them.

use std::error::Error as _;
use std::time::Duration;

use cache_aside::{Backend, Cache, Error, Outcome};
use testkit::access::Access;
use testkit::fake::{Answer, Fake};
use testkit::proxy::{Lost, Proxy};
use testkit::server::{Flavor, Server};

use crate::support::fixture::{
    Primary, Product, builder, connect, lives_a_whole_life, load_at_gate, loaf, lookup, on_every_server, products,
    until,
};

const LIMIT: Duration = Duration::from_secs(20);
const KEY: &str = "cache:billing:product:p-001";
/// The words of servers and proxies.
const WORDS: [&str; 4] = [
    "-ERR unknown command 'it', with args beginning with: 'secret' \r\n",
    "-ERR unsupported command\r\n",
    "-invalid request\r\n",
    "-NOTSUPPORTED\r\n",
];

/// A server that is asked by a user without these permissions.
async fn without(flavor: Flavor, permissions: &[&str]) -> (Server, String) {
    let server = Server::start(flavor).await;
    let granted = |access: Access, permission: &&str| access.without(permission);
    let access = permissions.iter().fold(Access::documented(), granted);
    access.grant(&server).await;
    let url = access.url(&server.url());
    (server, url)
}

/// A proxy that refuses some commands.
async fn refusing(server: &Server, refused: &'static [&'static str], words: &'static str) -> Fake {
    let rule = move |command: &str| if refused.contains(&command) { Answer::Fake(words) } else { Answer::Server };
    Fake::before(server.port(), rule).await
}

async fn exists(server: &Server, key: &str) -> bool {
    redis::cmd("EXISTS").arg(key).query_async(&mut server.client().await).await.unwrap()
}

/// Whoever waits for a lease here waits for longer than the test takes.
fn with_long_leases(backend: &Backend) -> Cache<Product> {
    builder(backend).lock_ttl(Duration::from_secs(300)).build().unwrap()
}

/// Also after loads that fail, that find nothing, and that are overtaken by an invalidation.
async fn works_without_scripts(backend: &Backend, what: &str) {
    println!("{what}");
    let cache = with_long_leases(backend);
    lives_a_whole_life(&cache).await;
    let primary = Primary::of(loaf(1));
    for _ in 0..3 {
        primary.down(true);
        assert!(matches!(cache.get("p-001", primary.loader()).await, Err(Error::Load { .. })), "{what}");
        primary.down(false);
        assert_eq!(lookup(&cache, primary.loader()).await.unwrap().outcome, Outcome::Loaded, "{what}");
        assert_eq!(lookup(&cache, primary.loader()).await.unwrap().outcome, Outcome::Hit, "{what}");
        assert!(cache.invalidate("p-001").await.unwrap(), "{what}");
    }
    assert_eq!(cache.inspect("p-001").await.unwrap().lock_ttl, None, "{what}");
    assert_eq!(cache.stats().bypasses, 0, "{what}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_scripts_is_used() {
    for flavor in Flavor::ALL {
        for permissions in [&["+eval", "+evalsha"][..], &["+eval"], &["+evalsha"]] {
            let (_server, url) = without(flavor, permissions).await;
            works_without_scripts(&connect(&url).await, &format!("{flavor:?} without {permissions:?}")).await;
        }
        let renamed = ["--rename-command", "EVAL", "", "--rename-command", "EVALSHA", ""];
        let server = Server::start_with(flavor, &renamed).await;
        works_without_scripts(&connect(&server.url()).await, &format!("{flavor:?}, renamed")).await;
    }
    let server = Server::start(Flavor::Redis70).await;
    for words in WORDS {
        let fake = refusing(&server, &["EVAL", "EVALSHA"], words).await;
        works_without_scripts(&connect(&fake.url()).await, words).await;
    }
}

/// `connect_lazy` asks for nothing, so the first step finds out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn that_a_server_has_no_scripts_is_noticed_by_the_first_step() {
    for flavor in Flavor::ALL {
        let (_server, url) = without(flavor, &["+eval", "+evalsha"]).await;
        let backend = Backend::builder(&url).operation_timeout(Duration::from_secs(5)).connect_lazy().unwrap();
        works_without_scripts(&backend, &format!("{flavor:?}")).await;
    }
}

/// The permission is withdrawn, with a load under way, and granted again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fence_holds_while_scripts_come_and_go() {
    for flavor in Flavor::ALL {
        let (server, access) = (Server::start(flavor).await, Access::documented());
        access.grant(&server).await;
        let cache = with_long_leases(&connect(&access.url(&server.url())).await);
        let primary = Primary::of(loaf(1));
        let (gate, load) = load_at_gate(&cache, &primary).await;
        access.without("+eval").without("+evalsha").grant(&server).await;
        primary.put(loaf(2));
        assert!(!cache.invalidate("p-001").await.unwrap());
        gate.open();
        load.await.unwrap().unwrap();
        assert!(!exists(&server, KEY).await, "the old row was stored");
        assert_eq!(cache.stats().fenced_fills, 1);
        lives_a_whole_life(&cache).await;
        access.grant(&server).await;
        lives_a_whole_life(&cache).await;
    }
}

/// The lease is revoked between the look of a fill and its EXEC.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_scripts_a_fill_is_fenced_up_to_its_last_command() {
    for flavor in Flavor::ALL {
        let (server, access) = (Server::start(flavor).await, Access::without_scripts());
        access.grant(&server).await;
        let proxy = Proxy::to(server.port()).await;
        let cache = with_long_leases(&connect(&access.url(&proxy.url())).await);
        let primary = Primary::of(loaf(1));
        let (gate, load) = load_at_gate(&cache, &primary).await;
        // The gate opens once the proxy waits for the fill.
        tokio::join!(proxy.lose("WATCH", Lost::ReplyForNow), async { gate.open() });
        let mut operator = server.client().await;
        until(LIMIT, "no fill has looked", async || {
            let clients: String = redis::cmd("CLIENT").arg("LIST").query_async(&mut operator).await.unwrap();
            clients.contains(" multi=0 ")
        })
        .await;
        redis::cmd("DEL").arg(format!("{{{KEY}}}:lock")).exec_async(&mut operator).await.unwrap();
        proxy.release();
        load.await.unwrap().unwrap();
        assert!(!exists(&server, KEY).await, "{flavor:?}: an old row was stored");
        assert_eq!(cache.stats().fenced_fills, 1);
    }
}

/// Nothing can be stored, and no reader waits for a lease that nobody gives back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_scripts_and_transactions_no_lease_stays() {
    for flavor in Flavor::ALL {
        let (server, url) = without(flavor, &["+eval", "+evalsha", "+watch"]).await;
        let backend = Backend::builder(&url).operation_timeout(Duration::from_secs(5)).connect_lazy().unwrap();
        let (cache, primary) = (with_long_leases(&backend), Primary::of(loaf(1)));
        let is_free = async || !exists(&server, &format!("{{{KEY}}}:lock")).await;
        for _ in 0..3 {
            assert_eq!(lookup(&cache, primary.loader()).await.unwrap().outcome, Outcome::Loaded);
            until(LIMIT, "a lease stays after a fill", is_free).await;
        }
        primary.down(true);
        assert!(matches!(cache.get("p-001", primary.loader()).await, Err(Error::Load { .. })));
        until(LIMIT, "a lease stays after a load that failed", is_free).await;
        primary.down(false);
        redis::cmd("SET")
            .arg(format!("{{{KEY}}}:lock"))
            .arg("for ever")
            .exec_async(&mut server.client().await)
            .await
            .unwrap();
        assert_eq!(lookup(&cache, primary.loader()).await.unwrap().outcome, Outcome::Loaded);
        assert!(!cache.update_field("p-001", Product::FIELDS.stock, 2).await.unwrap());
        assert!(!cache.invalidate("p-001").await.unwrap() && cache.pending().is_empty());
    }
}

/// Returns the text of the only cause.
async fn refused(url: &str) -> String {
    let error = Backend::connect(url).await.unwrap_err();
    assert!(matches!(&error, Error::Backend { action, .. } if action == "connect to the cache"), "{error:?}");
    assert!(error.to_string().contains("allow the user these commands in the server's ACL"), "{error}");
    error.source().unwrap().to_string()
}

#[tokio::test]
async fn connect_lists_all_that_a_server_refuses() {
    for flavor in Flavor::ALL {
        let missing = ["+ping", "+hgetall", "+del", "+eval", "+evalsha", "+watch"];
        let (_server, url) = without(flavor, &missing).await;
        let cause = refused(&url).await;
        println!("{flavor:?}: {cause}");
        assert!(cause.starts_with("the server refuses PING (NOPERM "), "{cause}");
        for part in ["HGETALL (NOPERM ", "DEL (NOPERM ", ", and both EVAL (NOPERM ", ") and WATCH (NOPERM "] {
            assert!(cause.contains(part), "{cause}");
        }
        assert!(cause.ends_with("), of which one is needed") && !cause.contains("HMGET"), "{cause}");

        for (permission, name) in [
            ("+hmget", "HMGET"),
            ("+hgetall", "HGETALL"),
            ("+exists", "EXISTS"),
            ("+pttl", "PTTL"),
            ("+get", "GET"),
            ("+set", "SET"),
            ("+del", "DEL"),
            ("+ping", "PING"),
        ] {
            let (_server, url) = without(flavor, &[permission]).await;
            assert!(refused(&url).await.starts_with(&format!("the server refuses {name} (NOPERM ")));
        }
        for permission in ["+multi", "+exec"] {
            let (_server, url) = without(flavor, &["+eval", permission]).await;
            assert!(refused(&url).await.starts_with("the server refuses both EVAL (NOPERM "));
        }
    }
    let server = Server::start(Flavor::Redis70).await;
    for words in WORDS {
        let fake = refusing(&server, &["EXISTS", "EVAL", "WATCH"], words).await;
        let cause = refused(&fake.url()).await;
        assert!(cause.starts_with("the server refuses EXISTS (") && !cause.contains("secret"), "{cause}");
    }
}

/// What the user may do with which keys isn't known before there is a cache; and a server's state may change.
#[tokio::test]
async fn connect_does_not_mind_keys_and_passing_states() {
    on_every_server(async |server, _| {
        let access = Access::documented();
        for keys in ["~cache:billing:*", "~{cache:billing:*"] {
            access.without(keys).grant(server).await;
            connect(&access.url(&server.url())).await;
        }
        let keys: usize = redis::cmd("DBSIZE").query_async(&mut server.client().await).await.unwrap();
        assert_eq!(keys, 0, "it has left nothing");
        redis::cmd("CONFIG").arg(&["SET", "maxmemory", "1"]).exec_async(&mut server.client().await).await.unwrap();
        connect(&server.url()).await;
    })
    .await;
    let server = Server::start(Flavor::Redis70).await;
    for words in ["-LOADING it\r\n", "-BUSY it\r\n", "-MISCONF it\r\n"] {
        let fake = refusing(&server, &["EXISTS", "EVAL", "HGETALL"], words).await;
        connect(&fake.url()).await;
    }
}

/// An update that is refused is an invalidation, and nothing is left to make up for.
async fn updates_invalidate(server: &Server, backend: &Backend, what: &str) {
    println!("{what}");
    let (cache, primary) = (products(backend), Primary::of(loaf(1)));
    for _ in 0..3 {
        assert_eq!(lookup(&cache, primary.loader()).await.unwrap().outcome, Outcome::Loaded, "{what}");
        assert!(!cache.update_field("p-001", Product::FIELDS.stock, 2).await.unwrap(), "{what}");
        assert!(!exists(server, KEY).await && cache.pending().is_empty(), "{what}");
        assert_eq!(lookup(&cache, primary.loader()).await.unwrap().outcome, Outcome::Loaded, "{what}");
        assert_eq!(cache.modify("p-001", |product| product.stock = 3).await.unwrap(), None, "{what}");
        assert!(!exists(server, KEY).await && cache.pending().is_empty(), "{what}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_update_that_the_server_refuses_is_an_invalidation() {
    for flavor in Flavor::ALL {
        for permission in ["+watch", "+multi", "+exec"] {
            let (server, url) = without(flavor, &[permission]).await;
            updates_invalidate(&server, &connect(&url).await, &format!("{flavor:?} without {permission}")).await;
        }
    }
    let server = Server::start(Flavor::Redis70).await;
    for words in WORDS {
        for command in [&["WATCH"][..], &["MULTI"], &["EXEC"], &["WATCH", "MULTI", "EXEC"]] {
            let fake = refusing(&server, command, words).await;
            updates_invalidate(&server, &connect(&fake.url()).await, &format!("{command:?} {words}")).await;
        }
    }
}

/// The connections that are there go on working, and no other is made.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn updates_become_invalidations_once_the_password_is_another() {
    for flavor in Flavor::ALL {
        let (server, access) = (Server::start(flavor).await, Access::documented());
        access.grant(&server).await;
        let backend = connect(&access.url(&server.url())).await;
        lookup(&products(&backend), Primary::of(loaf(1)).loader()).await.unwrap();
        let another = ["ACL", "SETUSER", "billing-service", "resetpass", ">another"];
        redis::cmd(another[0]).arg(&another[1..]).exec_async(&mut server.client().await).await.unwrap();
        redis::cmd("DEL").arg(KEY).exec_async(&mut server.client().await).await.unwrap();
        updates_invalidate(&server, &backend, &format!("{flavor:?}")).await;
    }
}

/// Some proxies hang up on what they don't know.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_update_on_which_the_server_hangs_up_is_an_invalidation() {
    let server = Server::start(Flavor::Redis70).await;
    let rule = |command: &str| if command == "WATCH" { Answer::HangUp } else { Answer::Server };
    let fake = Fake::before(server.port(), rule).await;
    let cache = builder(&connect(&fake.url()).await).update_timeout(LIMIT).build().unwrap();
    lookup(&cache, Primary::of(loaf(1)).loader()).await.unwrap();
    assert!(!cache.update_field("p-001", Product::FIELDS.stock, 2).await.unwrap());
    assert!(!exists(&server, KEY).await && cache.pending().is_empty());
}
