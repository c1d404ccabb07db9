//! URLs and connecting: refused URLs with their errors, and the parts of its URL that a backend shows.

use std::time::Instant;

use cache_aside::{Backend, Cache, Error};
use testkit::server::{Flavor, Server, free_port};

use crate::support::fixture::{Primary, Product, loaf, products};

async fn refused(url: &str) -> String {
    let began = Instant::now();
    let error = Backend::connect(url).await.unwrap_err();
    assert!(began.elapsed() < cache_aside::defaults::CONNECT_TIMEOUT * 2, "{:?}", began.elapsed());
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    println!("{text}");
    assert!(!format!("{text} {error:?}").contains("secret"), "{text} {error:?}");
    text
}

#[tokio::test]
async fn a_malformed_url_is_refused() {
    for (url, said) in [
        ("", "no scheme"),
        ("127.0.0.1:6379", "no scheme"),
        ("http://127.0.0.1", "unknown scheme"),
        ("memory://somewhere", "nothing to add"),
        ("redis://", "makes no sense"),
        ("redis://127.0.0.1:99999", "`redis://127.0.0.1:99999` makes no sense"),
        ("redis://127.0.0.1:6379/first", "database number"),
        ("redis:127.0.0.1:6379", "no scheme"),
        ("redis://127.0.0.1:6379?timeout=1", "after the `?`, it may have protocol alone"),
        ("redis://127.0.0.1/0?protocol=resp3&password=secret", "after the `?`, it may have protocol alone"),
        ("redis://127.0.0.1?db=1", "after the `?`, it may have protocol alone"),
        ("redis+cluster://127.0.0.1:1,127.0.0.1:2?read_from_replicas", "after the `?`, it may have protocol alone"),
        ("unix:///run/redis.sock?password=secret", "after the `?`, it may have db, user, pass and protocol"),
        ("redis://:a@secret?b@127.0.0.1", "%3F"),
        ("redis://:secret/b@127.0.0.1", "%2F"),
        ("redis://user:secret@:6379", "makes no sense"),
        ("redis+cluster://", "makes no sense"),
        ("redis+cluster://127.0.0.1:6379,", "makes no sense"),
        ("redis+cluster://user:secret@127.0.0.1:6379,:6380", "makes no sense"),
        (
            "redis+cluster://127.0.0.1:1,127.0.0.1:2/1",
            "`redis+cluster://127.0.0.1:1,127.0.0.1:2/1` makes no sense: a cluster has the database 0",
        ),
        ("redis+cluster://:a/secret@127.0.0.1", "%2F"),
        ("rediss://:a@secret?b@127.0.0.1", "%3F"),
        ("user:secret@127.0.0.1", "no scheme"),
    ] {
        let text = refused(url).await;
        assert!(text.contains(said), "{url}: {text}");
        assert!(matches!(Backend::connect_lazy(url), Err(Error::Config { .. })));
    }
}

#[tokio::test]
async fn a_malformed_sentinel_url_is_refused() {
    for (url, said) in [
        ("redis+sentinel://host:26379", "the name of the master is missing"),
        ("redis+sentinel://host:26379/", "the name of the master is missing"),
        ("redis+sentinel:///mymaster", "a host is missing"),
        ("redis+sentinel://host,/mymaster", "a host is missing"),
        ("redis+sentinel://host:secret/mymaster", "makes no sense"),
        ("redis+sentinel://host/my%20master", "only letters, digits"),
        ("redis+sentinel://host/mymaster/first", "Invalid database number"),
        ("redis+sentinel://host/mymaster/0/1", "Invalid database number"),
        ("redis+sentinel://host/mymaster?sentinel_user=secret", "sentinel_user needs a sentinel_password"),
        ("redis+sentinel://host/mymaster?password=secret", "it may have protocol, sentinel_user and sentinel_password"),
        ("redis+sentinel://host/mymaster?protocol=secret", "makes no sense"),
        ("redis+sentinel://app:a/secret@host/mymaster", "in users and passwords write `/`"),
        ("rediss+sentinel://host/mymaster#insecure", "nothing may follow a `#`"),
    ] {
        let error = Backend::connect_lazy(url).unwrap_err();
        assert!(matches!(error, Error::Config { .. }), "{error:?}");
        assert!(error.to_string().contains(said), "no `{said}` in: {error}");
        assert!(!error.to_string().contains("secret"), "{error}");
    }
    let backend =
        Backend::connect_lazy("redis+sentinel://u:secret@a,[::1],b:5/mymaster?sentinel_password=secret").unwrap();
    assert_eq!(backend.to_string(), "redis+sentinel://a:26379,[::1]:26379,b:5/mymaster");
}

#[tokio::test]
async fn errors_about_a_malformed_url_show_no_password() {
    let text = refused("redis://127.0.0.1?protocol=resp9;pass=secret").await;
    assert!(text.contains("Invalid protocol version"), "{text}");
    for url in [
        "secret@host",
        "user:secret",
        "user:secret@127.0.0.1?next=x://y",
        "x://a#secret",
        "redis://user:secret",
        "redis://:secret/1",
        "redis+cluster://user:secret,host:6379",
        "redis+sentinel://user:secret,host:26379/mymaster",
    ] {
        refused(url).await;
    }
}

#[tokio::test]
async fn a_backend_displays_its_url_without_user_and_password() {
    for (url, shown) in [
        ("redis://user:secret@localhost/1", "redis://localhost:6379"),
        ("redis://[::1]:7000", "redis://[::1]:7000"),
        ("rediss://:secret@[::1]", "rediss://[::1]:6379"),
        ("redis://localhost/1?protocol=resp2", "redis://localhost:6379"),
        ("unix:///run/redis.sock?pass=secret", "unix:///run/redis.sock"),
        ("unix:///run/redis.sock?db=1&user=me&pass=secret&protocol=resp3", "unix:///run/redis.sock"),
        ("redis+cluster://:secret@a:1,[::1]:2", "redis+cluster://a:1,[::1]:2"),
        ("rediss+cluster://a", "rediss+cluster://a:6379"),
        ("rediss+sentinel://a,[::1]:2/mymaster/1", "rediss+sentinel://a:26379,[::1]:2/mymaster"),
    ] {
        assert_eq!(Backend::connect_lazy(url).unwrap().to_string(), shown);
    }
}

#[tokio::test]
async fn a_failed_connect_names_the_address_and_what_to_do() {
    let port = free_port();
    let text = refused(&format!("redis://user:secret@127.0.0.1:{port}")).await;
    assert!(text.contains(&format!("127.0.0.1:{port}")) && text.contains("check that a server runs there"), "{text}");
    let text = refused("unix:///nowhere/redis.sock?pass=secret").await;
    assert!(text.contains("/nowhere/redis.sock"), "{text}");
    let text = refused("redis://no-such-host.invalid:6379").await;
    assert!(text.contains("no-such-host.invalid:6379"), "{text}");
}

#[tokio::test]
async fn a_database_that_the_server_does_not_have_is_refused() {
    let server = Server::start(Flavor::Redis70).await;
    let text = refused(&format!("{}/99", server.url())).await;
    assert!(text.contains("DB index is out of range"), "{text}");
}

#[tokio::test]
async fn connecting_to_a_port_that_never_answers_times_out() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap().to_string();
    let text = refused(&format!("redis://:secret@{address}")).await;
    assert!(text.contains(&address), "{text}");
}

#[tokio::test]
async fn connecting_without_the_password_says_what_is_missing() {
    for flavor in Flavor::ALL {
        let server = Server::start_with(flavor, &["--requirepass", "the-right-secret"]).await;
        let address = format!("127.0.0.1:{}", server.port());
        for user in ["", ":the-wrong-secret@", "somebody:the-right-secret@"] {
            let text = refused(&format!("redis://{user}{address}")).await;
            assert!(text.contains(&address) && text.contains("password"), "{text}");
        }
        let backend = Backend::connect(&format!("redis://:the-right-secret@{address}")).await.unwrap();
        assert!(!format!("{backend:?}").contains("secret"));
        let cache: Cache<Product> = products(&backend);
        assert!(cache.get("p-001", Primary::of(loaf(1)).loader()).await.unwrap().is_some());
        assert!(cache.update_field("p-001", Product::FIELDS.stock, 2).await.unwrap());
        assert!(!format!("{cache:?} {:?}", Backend::builder("redis://:secret@x")).contains("secret"));
    }
}
