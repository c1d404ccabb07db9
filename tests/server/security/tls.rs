//! `rediss://`: which servers the library trusts, which certificate it presents, and the whole life of an entry over TLS.
//!
//! The servers are Debian's: the others are built without TLS.

use std::time::{Duration, Instant};

use cache_aside::{Backend, BackendBuilder, Error, Outcome};
use rustls::crypto::{CryptoProvider, ring};
use testkit::server::{Flavor, Server};

use crate::near::{near, warm};
use crate::support::fixture::{Primary, lives_a_whole_life, loaf, lookup, products};
use crate::support::tls_server::{Authority, Identity, TlsServer};

const PATIENCE: Duration = Duration::from_secs(10);
const ADVICE: &str =
    "write the host into the URL as the server's certificate names it, or set tls_server_name to that name";

/// Connecting fails; the error with its cause contains all these texts.
async fn is_refused(builder: BackendBuilder, said: &[&str]) {
    let error = tokio::time::timeout(PATIENCE, builder.connect()).await.expect("an answer in time").unwrap_err();
    let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
    let text = format!("{error}: {cause}");
    println!("{text}");
    for part in said {
        assert!(text.contains(part), "no `{part}` in: {text}");
    }
}

/// The settings are refused; the error contains this text, and nothing of the key.
async fn is_no_setting(builder: BackendBuilder, said: &str) {
    let Err(Error::Config { mistake, .. }) = builder.connect_lazy() else { panic!("accepted, instead of: {said}") };
    println!("{mistake}");
    assert!(mistake.contains(said), "no `{said}` in: {mistake}");
}

#[tokio::test]
async fn trusts_the_servers_of_its_own_authority_and_no_others() {
    let (own, another) = (Authority::new("own"), Authority::new("another"));
    let tls = TlsServer::start(&own, "no").await;
    tls.builder().tls_root_certificates(&*own.certificate).connect().await.unwrap();
    let both = format!("{}\n{}", another.certificate, own.certificate);
    tls.builder().tls_root_certificates(both).connect().await.unwrap();

    let unknown = ["invalid peer certificate: UnknownIssuer", "set tls_root_certificates"];
    is_refused(tls.builder().tls_root_certificates(&*another.certificate), &unknown).await;
    is_refused(tls.builder(), &unknown).await;
}

#[tokio::test]
async fn refuses_a_server_of_another_name() {
    let authority = Authority::new("own");
    let tls = TlsServer::start(&authority, "no").await;
    let elsewhere = Backend::builder(&tls.url().replace("localhost", "127.0.0.1")).operation_timeout(PATIENCE);
    let said = ["rediss://127.0.0.1:", ADVICE, "localhost"];
    let elsewhere = elsewhere.tls_root_certificates(&*authority.certificate);
    is_refused(elsewhere.clone(), &said).await;
    lives_a_whole_life(&products(&elsewhere.clone().tls_server_name("localhost").connect().await.unwrap())).await;
    is_refused(elsewhere.tls_server_name("cache.internal"), &["not valid for name"]).await;
}

/// Its certificate names no address, so that what the cluster announces is no name in a certificate.
#[tokio::test]
async fn a_cluster_that_is_announced_by_address_is_reached_by_the_name_in_its_certificates() {
    let authority = Authority::new("own");
    let tls = TlsServer::start_cluster(&authority).await;
    let url = tls.url().replace("rediss://", "rediss+cluster://");
    let builder = || {
        let builder = Backend::builder(&url).operation_timeout(Duration::from_secs(5));
        builder.tls_root_certificates(&*authority.certificate)
    };
    let backend = builder().connect().await.unwrap();
    let error = products(&backend).peek("p-001").await.unwrap_err();
    assert!(error.to_string().ends_with(ADVICE), "{error}");

    for set in [
        |builder: BackendBuilder| builder.tls_server_name("localhost"),
        |builder: BackendBuilder| builder.map_address(|host, port| (host.replace("127.0.0.1", "localhost"), port)),
    ] {
        let backend = set(builder()).connect().await.unwrap();
        lives_a_whole_life(&products(&backend)).await;
        let cache = near(&backend);
        warm(&cache, &Primary::of(loaf(1))).await;
        cache.invalidate("p-001").await.unwrap();
    }
}

/// The library uses a provider of its own, and an application may install another one at any time.
#[tokio::test]
async fn an_application_can_install_its_own_provider_after_connecting() {
    let authority = Authority::new("own");
    let tls = TlsServer::start(&authority, "no").await;
    let builder = tls.builder().tls_root_certificates(&*authority.certificate);
    let cache = products(&builder.clone().connect().await.unwrap());
    lives_a_whole_life(&cache).await;
    assert!(CryptoProvider::get_default().is_none());
    // Without any cipher: the library would notice if it used this one.
    let provider = CryptoProvider { cipher_suites: Vec::new(), kx_groups: Vec::new(), ..ring::default_provider() };
    provider.install_default().expect("nobody has installed one");
    lives_a_whole_life(&cache).await;
    lives_a_whole_life(&products(&builder.connect().await.unwrap())).await;
}

#[tokio::test]
async fn shows_its_certificate_to_a_server_that_asks_for_one() {
    let (own, another) = (Authority::new("own"), Authority::new("another"));
    let tls = TlsServer::start(&own, "yes").await;
    let builder = || tls.builder().tls_root_certificates(&*own.certificate);
    is_refused(builder(), &["CertificateRequired", "set tls_client_certificate"]).await;
    let foreign = another.certify("app", &[]);
    let foreign = builder().tls_client_certificate(foreign.certificate, foreign.key);
    is_refused(foreign, &["UnknownCA", "set tls_client_certificate"]).await;
    let known = own.certify("app", &[]);
    let backend = builder().tls_client_certificate(known.certificate, known.key).connect().await.unwrap();
    lives_a_whole_life(&products(&backend)).await;
}

#[tokio::test]
async fn an_entry_lives_its_whole_life_over_tls_and_again_after_a_restart() {
    let authority = Authority::new("own");
    let mut tls = TlsServer::start(&authority, "yes").await;
    let identity = authority.certify("app", &[]);
    let builder = tls.builder().tls_root_certificates(&*authority.certificate);
    let backend = builder.tls_client_certificate(identity.certificate, identity.key).connect().await.unwrap();
    assert_eq!(backend.to_string(), tls.url());
    let (cache, primary) = (products(&backend), Primary::of(loaf(1)));
    lives_a_whole_life(&cache).await;

    tls.server.kill().await;
    assert_eq!(lookup(&cache, primary.loader()).await.unwrap().outcome, Outcome::Bypassed);
    tls.server.restart().await;
    let began = Instant::now();
    while lookup(&cache, primary.loader()).await.unwrap().outcome == Outcome::Bypassed {
        assert!(began.elapsed() < PATIENCE, "not back after {:?}", began.elapsed());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    cache.invalidate("p-001").await.unwrap();
    lives_a_whole_life(&cache).await;
}

#[tokio::test]
async fn a_url_that_is_wrong_about_tls_is_an_error_in_time() {
    let authority = Authority::new("own");
    let tls = TlsServer::start(&authority, "no").await;
    let said = ["rediss:// for TLS and redis:// without"];
    let plain_url = tls.url().replace("rediss://", "redis://");
    is_refused(Backend::builder(&plain_url), &said).await;
    is_refused(Backend::builder(&format!("{plain_url}?protocol=resp2")), &said).await;

    for flavor in Flavor::ALL {
        let server = Server::start(flavor).await;
        let url = server.url().replace("redis://", "rediss://");
        is_refused(Backend::builder(&url), &said).await;
    }
}

#[tokio::test]
async fn certificates_that_cannot_be_used_are_refused_at_once() {
    let authority = Authority::new("own");
    let Identity { certificate, key } = authority.certify("app", &[]);
    let another = authority.certify("another", &[]);
    let builder = || Backend::builder("rediss://localhost:6379");
    let no_base64 = "-----BEGIN CERTIFICATE-----\n(%)\n-----END CERTIFICATE-----\n";
    let no_certificate = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    for (roots, said) in [
        ("", "tls_root_certificates is no PEM text with a certificate in it"),
        ("/etc/redis/ca.pem", "no PEM text"),
        (&*key, "no PEM text with a certificate in it"),
        (no_base64, "base64"),
        (no_certificate, "tls_root_certificates holds a certificate that is damaged"),
        (&certificate[..certificate.len() / 2], "no END line"),
        (&certificate.replace('\n', ""), "no END line"),
        ("-----BEGIN CERTIFICATE", "begins a section"),
    ] {
        is_no_setting(builder().tls_root_certificates(roots), said).await;
    }
    for (certificate, key, said) in [
        ("", &*key, "tls_client_certificate is no PEM text with a certificate in it"),
        (&*key, &*certificate, "no PEM text with a certificate in it"),
        (&*certificate, "", "the key of tls_client_certificate is no PEM text"),
        (&*certificate, &*certificate, "unencrypted private key"),
        (&*certificate, &key.replace("PRIVATE", "ENCRYPTED PRIVATE"), "unencrypted private key"),
        (&*certificate, &key[..key.len() / 2], "no END line"),
        (&*certificate, &another.key, "belongs to another certificate"),
        (no_certificate, &*key, "can't be used"),
    ] {
        is_no_setting(builder().tls_client_certificate(certificate, key), said).await;
    }
}

#[tokio::test]
async fn certificates_are_for_urls_that_encrypt() {
    let authority = Authority::new("own");
    let identity = authority.certify("app", &[]);
    for url in ["redis://localhost", "redis+sentinel://localhost/mymaster", "unix:///run/redis.sock", "memory://"] {
        let builder = Backend::builder(url).tls_root_certificates(&*authority.certificate);
        is_no_setting(builder, "tls_root_certificates is set").await;
        let builder = Backend::builder(url).tls_client_certificate(&*identity.certificate, &*identity.key);
        is_no_setting(builder, "tls_client_certificate is set").await;
        let builder = Backend::builder(url).tls_server_name("cache.internal");
        is_no_setting(builder, "tls_server_name is set").await;
    }
    let impossible = Backend::builder("rediss://localhost:6379").tls_server_name("a..b");
    is_no_setting(impossible, "tls_server_name is `a..b`, which can't be the name in a certificate").await;
}

#[tokio::test]
async fn no_url_switches_the_check_of_certificates_off() {
    is_no_setting(Backend::builder("rediss://localhost:6379/#insecure"), "tls_root_certificates").await;
    is_no_setting(Backend::builder("rediss://localhost:6379/#anything"), "nothing may follow a `#`").await;
    is_no_setting(Backend::builder("rediss://a..b:6379"), "a..b").await;
}
