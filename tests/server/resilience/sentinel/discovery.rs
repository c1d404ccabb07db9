//! Finding the master: which sentinels to believe, passwords and certificates for them, and errors if there is no
//! master.

use std::time::{Duration, Instant};

use cache_aside::{Backend, BackendBuilder, Outcome};
use testkit::access::Access;
use testkit::sentinel::{Group, NAME, Sentinel};
use testkit::server::{Flavor, free_port};
use tokio::net::TcpStream;
use tokio::time::sleep;

use super::{FLAVORS, LIMIT, SOON, connect, stored_at};
use crate::support::fixture::{Primary, get, lives_a_whole_life, loaf, lookup, products, until};
use crate::support::tls_server::{Authority, TlsServer};

/// With deadlines that a busy machine can keep.
fn patient(url: &str) -> BackendBuilder {
    Backend::builder(url).operation_timeout(Duration::from_secs(5)).connect_timeout(Duration::from_secs(5))
}

async fn fails(builder: BackendBuilder, said: &[&str]) {
    let began = Instant::now();
    let error = builder.connect().await.unwrap_err();
    let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
    let text = format!("{error}: {cause}");
    println!("{:?}: {text}", began.elapsed());
    for part in said {
        assert!(text.contains(part), "no `{part}` in: {text}");
    }
}

#[tokio::test]
async fn an_entry_lives_its_whole_life_at_the_master() {
    for flavor in Flavor::ALL {
        let group = Group::start(flavor).await;
        let backend = connect(&group.url()).await;
        assert_eq!(backend.to_string(), group.url());
        let cache = products(&backend);
        lives_a_whole_life(&cache).await;
        get(&cache, Primary::of(loaf(1)).loader()).await.unwrap();
        assert!(stored_at(&group.servers[0], "p-001").await);

        let in_db = products(&connect(&format!("{}/1?protocol=resp2", group.url())).await);
        lives_a_whole_life(&in_db).await;
        assert_eq!(
            lookup(&cache, Primary::default().loader()).await.unwrap().outcome,
            Outcome::Hit,
            "another database"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_known_master_is_used_while_all_sentinels_are_down() {
    for flavor in FLAVORS {
        let mut group = Group::start(flavor).await;
        let cache = products(&connect(&group.url()).await);
        let url = group.url();
        group.sentinels.iter_mut().for_each(Sentinel::kill);
        let began = Instant::now();
        while began.elapsed() < SOON {
            lives_a_whole_life(&cache).await;
        }
        let late = Backend::builder(&url).connect_timeout(LIMIT);
        fails(late, &["check that the sentinels are up and the URL right", "refused", &url]).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_sentinel_is_enough_and_connect_lazy_needs_none() {
    for flavor in FLAVORS {
        let mut group = Group::start(flavor).await;
        let url = group.url();
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let silent = silent.local_addr().unwrap();
        for sentinel in &mut group.sentinels[1..] {
            sentinel.kill();
        }
        let began = Instant::now();
        lives_a_whole_life(&products(&connect(&url).await)).await;
        println!("with one of three sentinels: {:?}", began.elapsed());
        let with_a_silent_one = url.replace("://", &format!("://{silent},"));
        let with_a_silent_one = patient(&with_a_silent_one).connect().await.unwrap();
        lives_a_whole_life(&products(&with_a_silent_one)).await;

        let port = free_port();
        let lazy = Backend::connect_lazy(&format!("redis+sentinel://127.0.0.1:{port}/{NAME}")).unwrap();
        let (cache, primary) = (products(&lazy), Primary::of(loaf(1)));
        for _ in 0..10 {
            assert_eq!(lookup(&cache, primary.loader()).await.unwrap().outcome, Outcome::Bypassed);
        }
        cache.invalidate("p-001").await.unwrap_err();
        let _sentinel = group.sentinel_at(flavor, port).await;
        until(LIMIT, "it connects", async || lookup(&cache, primary.loader()).await.unwrap().outcome == Outcome::Hit)
            .await;
        assert!(cache.pending().is_empty());
    }
}

#[tokio::test]
async fn the_majority_of_the_sentinels_decides() {
    let (here, there) = (Group::start(Flavor::Redis70).await, Group::start(Flavor::Valkey91).await);
    let place = |sentinel: &Sentinel| format!("127.0.0.1:{}", sentinel.port());
    let [a, b, c] = [0, 1, 2].map(|number| place(&here.sentinels[number]));
    let [x, y, z] = [0, 1, 2].map(|number| place(&there.sentinels[number]));
    for (places, group) in
        [([&a, &b, &x], &here), ([&x, &a, &c], &here), ([&x, &y, &a], &there), ([&a, &y, &z], &there)]
    {
        let [first, second, third] = places;
        let cache = products(&connect(&format!("redis+sentinel://{first},{second},{third}/{NAME}")).await);
        get(&cache, Primary::of(loaf(1)).loader()).await.unwrap();
        assert!(stored_at(&group.servers[0], "p-001").await);
        let moved = group.servers[0].connections().await;
        sleep(SOON).await;
        assert_eq!(group.servers[0].connections().await, moved, "it stays there");
        assert!(cache.invalidate("p-001").await.unwrap());
    }
}

#[tokio::test]
async fn errors_about_sentinels_say_what_is_wrong() {
    for flavor in FLAVORS {
        let mut group = Group::start(flavor).await;
        let places = group.url();
        let another = Backend::builder(&places.replace(NAME, "yourmaster"));
        fails(another, &["the sentinels know no master `yourmaster`", "as SENTINEL MASTERS shows it"]).await;
        let no_sentinel = format!("redis+sentinel://127.0.0.1:{}/{NAME}", group.servers[0].port());
        fails(Backend::builder(&no_sentinel), &["name the sentinels in the URL: this is a server"]).await;
        let tls = Backend::builder(&places.replace("redis", "rediss")).connect_timeout(Duration::from_secs(5));
        fails(tls, &["rediss+sentinel:// for TLS and redis+sentinel:// without"]).await;

        group.sentinels[1].kill();
        group.sentinels[2].kill();
        group.servers[0].kill().await;
        let port = group.servers[0].port();
        fails(
            Backend::builder(&places),
            &[&format!("127.0.0.1:{port}, the master by the sentinels"), "SENTINEL CKQUORUM"],
        )
        .await;
    }
}

#[tokio::test]
async fn sentinels_and_servers_each_get_their_own_password() {
    let access = Access::documented();
    for flavor in FLAVORS {
        let group = Group::start_with(
            flavor,
            &[],
            "requirepass operators\nsentinel sentinel-pass operators\n\
             user asks on >let%me@in reset on >let%me@in +sentinel|get-master-addr-by-name",
        )
        .await;
        access.grant(&group.servers[0]).await;
        let at_sentinels = |query: &str| patient(&format!("{}{query}", access.url(&group.url())));
        let wanted = ["put the right ?sentinel_user=..&sentinel_password=.. into the URL", "the sentinel 127.0.0.1:"];
        fails(at_sentinels(""), &wanted).await;
        fails(at_sentinels("?sentinel_password=wrong"), &wanted).await;
        fails(at_sentinels("?sentinel_user=asks&sentinel_password=wrong"), &wanted).await;
        at_sentinels("?sentinel_password=operators").connect().await.unwrap();
        let backend = at_sentinels("?sentinel_user=asks&sentinel_password=let%25me%40in").connect().await.unwrap();
        lives_a_whole_life(&products(&backend)).await;

        let right = "?sentinel_password=operators";
        fails(patient(&(group.url_as("billing-service:wrong@") + right)), &["the right user and password"]).await;
        access.without("+role").grant(&group.servers[0]).await;
        // A master that may not tell its role is still used: the sentinels say that it is the master.
        lives_a_whole_life(&products(&at_sentinels(right).connect().await.unwrap())).await;
    }
}

/// The sentinels announce the master's host name, which its certificate contains.
#[tokio::test]
async fn tls_checks_the_certificates_of_sentinels_and_their_master() {
    let authority = Authority::new("own");
    let master = TlsServer::start(&authority, "yes").await;
    let identity = authority.certify("app", &[]);
    let connect_to = |port: u16| {
        let builder = patient(&format!("rediss+sentinel://localhost:{port}/{NAME}"));
        let builder = builder.tls_root_certificates(&*authority.certificate);
        builder.tls_client_certificate(&*identity.certificate, &*identity.key)
    };
    let ports = [free_port(), free_port()];
    let lines = |port: u16| format!("port 0\ntls-port {port}\ntls-replication yes\n{}", master.config());
    let names_it = lines(ports[0]) + "\nsentinel resolve-hostnames yes\nsentinel announce-hostnames yes";
    let _by_name = Sentinel::start(Flavor::Redis70, ports[0], &format!("localhost {}", master.port()), &names_it);
    let _by_address =
        Sentinel::start(Flavor::Redis70, ports[1], &format!("127.0.0.1 {}", master.port()), &lines(ports[1]));
    until(LIMIT, "the sentinel answers", async || connect_to(ports[0]).connect().await.is_ok()).await;
    lives_a_whole_life(&products(&connect_to(ports[0]).connect().await.unwrap())).await;
    let listens = async || TcpStream::connect(("127.0.0.1", ports[1])).await.is_ok();
    until(LIMIT, "the other sentinel listens", listens).await;
    fails(connect_to(ports[1]), &["have the servers announce hosts", "their certificates name", "127.0.0.1"]).await;

    let plain = patient(&format!("redis+sentinel://localhost:{}/{NAME}", ports[0]));
    fails(plain, &["rediss+sentinel:// for TLS and redis+sentinel:// without"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_left_when_the_backend_is_dropped() {
    let group = Group::start(Flavor::Redis70).await;
    let alive = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let open = async || (alive(), group.servers[0].connections().await);
    let mut at_rest = open().await;
    until(LIMIT, "tasks or connections come and go", async || {
        sleep(Duration::from_millis(200)).await;
        let before = std::mem::replace(&mut at_rest, open().await);
        at_rest == before
    })
    .await;
    let (before, connections) = at_rest;
    let cache = products(&connect(&group.url()).await);
    lives_a_whole_life(&cache).await;
    assert!(alive() > before);
    drop(cache);
    until(LIMIT, "a task or a connection is left", async || {
        alive() == before && group.servers[0].connections().await == connections
    })
    .await;
}
