//! Secrets: no `Debug` text, error or trace contains a password or a key, whatever fails.

use std::fmt::Debug;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cache_aside::{Backend, BackendBuilder, Error};
use testkit::server::{Flavor, Server, free_port};
use tracing_subscriber::fmt::MakeWriter;

use crate::support::fixture::{Primary, Product, builder, get, loaf, lookup, products};
use crate::support::tls_server::{Authority, TlsServer};

const PASSWORD: &str = "correct-horse";
/// Characters that a URL has to encode.
const SPECIAL: &str = "/?#@%";
const SPECIAL_IN_URL: &str = "%2F%3F%23%40%25";
const WRONG_PASSWORD: &str = "battery-staple";

/// Everything that was shown, in `Debug` texts, errors and traces.
#[derive(Clone, Default)]
pub(super) struct Shown(Arc<Mutex<String>>);

impl Shown {
    /// Starts to capture all traces of this thread.
    pub(super) fn capture() -> (Self, tracing::subscriber::DefaultGuard) {
        let shown = Self::default();
        let subscriber = tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(shown.clone());
        (shown, tracing::subscriber::set_default(subscriber.finish()))
    }

    fn add(&self, text: &str) {
        self.0.lock().unwrap().push_str(text);
    }

    fn debug(&self, value: &impl Debug) {
        self.add(&format!("{value:?} {value:#?}\n"));
    }

    fn error(&self, error: &Error) {
        self.debug(error);
        let mut next: Option<&dyn std::error::Error> = Some(error);
        while let Some(cause) = next {
            self.add(&format!("{cause} {cause:?}\n"));
            next = cause.source();
        }
    }

    pub(super) async fn connect(&self, builder: BackendBuilder) -> Result<Backend, Error> {
        self.debug(&builder);
        let connected = builder.connect().await;
        match &connected {
            Ok(backend) => self.add(&format!("{backend} {backend:?}\n")),
            Err(error) => self.error(error),
        }
        connected
    }

    pub(super) fn holds(&self, text: &str) -> bool {
        self.0.lock().unwrap().contains(text)
    }

    /// Checks that nothing that was shown contains the secrets.
    pub(super) fn hides(&self, secrets: &[&str]) {
        for secret in secrets {
            assert!(!self.holds(secret), "`{secret}` is shown in:\n{}", self.0.lock().unwrap());
        }
    }
}

impl io::Write for Shown {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.add(&String::from_utf8_lossy(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Shown {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

#[tokio::test]
async fn passwords_show_nowhere() {
    const PATIENCE: Duration = Duration::from_secs(20);
    let (shown, _capturing) = Shown::capture();
    for flavor in Flavor::ALL {
        let mut server =
            Server::start_with(flavor, &["--user", "app", "on", &format!(">{PASSWORD}{SPECIAL}"), "~*", "+@all"]).await;
        for protocol in ["resp2", "resp3"] {
            let with = |password: &str| {
                let url = format!("redis://app:{password}@127.0.0.1:{}?protocol={protocol}", server.port());
                Backend::builder(&url).connect_timeout(PATIENCE).operation_timeout(PATIENCE)
            };
            assert!(shown.connect(with(WRONG_PASSWORD)).await.is_err());
            let backend = shown.connect(with(&format!("{PASSWORD}{SPECIAL_IN_URL}"))).await.unwrap();
            let cache = builder(&backend).update_timeout(PATIENCE).build().unwrap();
            let primary = Primary::of(loaf(1));
            shown.debug(&cache);
            get(&cache, primary.loader()).await.unwrap();
            cache.update_field("p-001", Product::FIELDS.stock, 2).await.unwrap();
            cache.invalidate("p-001").await.unwrap();
            server.kill().await;
            lookup(&cache, primary.loader()).await.unwrap();
            shown.error(&cache.invalidate("p-001").await.unwrap_err());
            shown.error(&cache.update_field("p-001", Product::FIELDS.stock, 2).await.unwrap_err());
            server.restart().await;
        }
    }
    assert!(shown.holds("a step on the cache failed"), "the traces are captured");
    shown.hides(&[PASSWORD, WRONG_PASSWORD]);
}

/// Some servers and proxies quote the arguments of an unknown command.
#[tokio::test]
async fn a_server_that_refuses_the_user_has_no_password_repeated() {
    let (shown, _capturing) = Shown::capture();
    for flavor in Flavor::ALL {
        let server = Server::start(flavor).await;
        for scheme in ["redis", "redis+cluster"] {
            let url = format!("{scheme}://app:{PASSWORD}@127.0.0.1:{}", server.port());
            let error = shown.connect(Backend::builder(&url)).await.unwrap_err();
            assert!(error.to_string().contains("the right user and password"), "{error}");
        }
    }
    shown.hides(&[PASSWORD]);
}

#[tokio::test]
async fn urls_that_cannot_work_show_no_password() {
    let (shown, _capturing) = Shown::capture();
    let port = free_port();
    for url in [
        format!("redis://app:{PASSWORD}@127.0.0.1:{port}"),
        format!("rediss://app:{PASSWORD}@127.0.0.1:{port}"),
        format!("rediss://app:{PASSWORD}@127.0.0.1:{port}/#insecure"),
        format!("rediss://app:{PASSWORD}@127.0.0.1:{port}/first"),
        format!("rediss://app:a/{PASSWORD}@127.0.0.1:{port}"),
        format!("rediss://app:a#{PASSWORD}@127.0.0.1:{port}"),
        format!("rediss://app:{PASSWORD}"),
        format!("redis+cluster://app:{PASSWORD}@127.0.0.1:{port},127.0.0.1:{port}"),
        format!("redis+cluster://app:{PASSWORD},127.0.0.1:{port}"),
        format!("redis+sentinel://app:{PASSWORD}@127.0.0.1:{port}/mymaster?sentinel_password={PASSWORD}"),
        format!("rediss+sentinel://app:{PASSWORD}@127.0.0.1:{port}/mymaster?sentinel_user={PASSWORD}"),
        format!("redis+sentinel://app:a/{PASSWORD}@127.0.0.1:{port}/mymaster"),
        format!("redis+sentinel://app:{PASSWORD},127.0.0.1:{port}/mymaster"),
        format!("redis+sentinel://127.0.0.1:{port}/mymaster/{PASSWORD}?protocol={PASSWORD}"),
        format!("rediss+cluster://app:{PASSWORD}@127.0.0.1:{port}"),
        format!("unix:///nowhere/redis.sock?user=app&pass={PASSWORD}"),
        format!("app:{PASSWORD}@127.0.0.1"),
    ] {
        let builder = Backend::builder(&url).connect_timeout(Duration::from_millis(500));
        assert!(shown.connect(builder).await.is_err(), "{url}");
    }
    shown.hides(&[PASSWORD]);
}

#[tokio::test]
async fn keys_show_nowhere() {
    let (shown, _capturing) = Shown::capture();
    let authority = Authority::new("own");
    let tls = TlsServer::start(&authority, "yes").await;
    let identity = authority.certify("app", &[]);
    let foreign = Authority::new("another").certify("app", &[]);
    let builder = || tls.builder().tls_root_certificates(&*authority.certificate);
    let (certificate, key) = (&*identity.certificate, &*identity.key);

    let backend = shown.connect(builder().tls_client_certificate(certificate, key)).await.unwrap();
    get(&products(&backend), Primary::of(loaf(1)).loader()).await.unwrap();
    for mistaken in [
        builder().tls_client_certificate(&*foreign.certificate, &*foreign.key),
        builder().tls_client_certificate(&*foreign.certificate, key),
        builder().tls_client_certificate(key, certificate),
        builder().tls_client_certificate(certificate, key.replace('\n', "")),
        builder().tls_client_certificate(certificate, key.replace("END", "AND")),
        builder().tls_client_certificate(certificate, key.replace('M', "(")),
        builder().tls_root_certificates(key),
        builder().tls_root_certificates(key.replace('\n', "")),
        builder().tls_root_certificates(key.replace("PRIVATE KEY", "CERTIFICATE")),
        Backend::builder("redis://127.0.0.1").tls_client_certificate(certificate, key),
    ] {
        assert!(shown.connect(mistaken).await.is_err());
    }
    let lines = [key, &foreign.key].into_iter().flat_map(str::lines).filter(|line| !line.starts_with('-'));
    shown.hides(&lines.collect::<Vec<_>>());
}
