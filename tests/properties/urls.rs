//! URLs: any text gives a backend or an error with advice, never a panic; no password is shown; and a dropped backend
//! leaves nothing behind.

use std::error::Error as _;
use std::fmt::Write as _;

use arbitrary::Arbitrary;
use cache_aside::{Backend, Error};
use tokio::runtime::Runtime;

const PASSWORD: &str = "hunter2";
/// The number of scheduler turns within which the tasks of a dropped backend must end.
const TURNS_TO_END_IN: u32 = 8;

#[derive(Debug, Arbitrary)]
pub(crate) enum Input {
    Text(String),
    Url(Box<Url>),
}

/// A URL that is well-formed, or nearly.
#[derive(Debug, Arbitrary)]
pub(crate) struct Url {
    scheme: Scheme,
    userinfo: Option<Userinfo>,
    host: Host,
    port: Option<Port>,
    path: Path,
    query: Option<Query>,
    fragment: Option<String>,
}

#[derive(Debug, Arbitrary)]
enum Scheme {
    Memory,
    Redis,
    Rediss,
    Unix,
    Cluster,
    Sentinel,
    Http,
    Missing,
    Other(String),
}

/// A password between arbitrary texts, as in `redis://user:password@host`.
#[derive(Debug, Arbitrary)]
struct Userinfo {
    user: String,
    before: String,
    after: String,
}

#[derive(Debug, Arbitrary)]
enum Host {
    Missing,
    Local,
    V4([u8; 4]),
    V6([u16; 8]),
    Other(String),
}

#[derive(Debug, Arbitrary)]
enum Port {
    Number(u32),
    Other(String),
}

#[derive(Debug, Arbitrary)]
enum Path {
    Missing,
    Database(i64),
    Socket,
    Master,
    Other(String),
}

#[derive(Debug, Arbitrary)]
struct Query {
    before: String,
    protocol: Option<u8>,
    database: Option<i64>,
    has_password: bool,
    after: String,
}

impl Url {
    fn has_password(&self) -> bool {
        self.userinfo.is_some() || self.query.as_ref().is_some_and(|query| query.has_password)
    }

    /// The text with the password in its place, and nowhere else.
    fn text(&self) -> String {
        let clean = |text: &str| text.replace(PASSWORD, "");
        // A slash would end the userinfo: the text after it is a path, and is shown as one.
        let without_slash = |text: &str| clean(text).replace(['/', '\\'], "");
        let mut url = match &self.scheme {
            Scheme::Memory => "memory://".to_owned(),
            Scheme::Redis => "redis://".to_owned(),
            Scheme::Rediss => "rediss://".to_owned(),
            Scheme::Unix => "unix://".to_owned(),
            Scheme::Cluster => "redis+cluster://".to_owned(),
            Scheme::Sentinel => "redis+sentinel://".to_owned(),
            Scheme::Http => "http://".to_owned(),
            Scheme::Missing => String::new(),
            Scheme::Other(scheme) => without_slash(scheme),
        };
        if let Some(Userinfo { user, before, after }) = &self.userinfo {
            let [user, before, after] = [user, before, after].map(|text| without_slash(text));
            let _ = write!(url, "{user}:{before}{PASSWORD}{after}@");
        }
        match &self.host {
            Host::Missing => {}
            Host::Local => url.push_str("127.0.0.1"),
            Host::V4([a, b, c, d]) => _ = write!(url, "{a}.{b}.{c}.{d}"),
            Host::V6(parts) => _ = write!(url, "[{}]", std::net::Ipv6Addr::from(*parts)),
            Host::Other(host) => url.push_str(&clean(host)),
        }
        match &self.port {
            None => {}
            Some(Port::Number(port)) => _ = write!(url, ":{port}"),
            Some(Port::Other(port)) => _ = write!(url, ":{}", clean(port)),
        }
        match &self.path {
            Path::Missing => {}
            Path::Database(database) => _ = write!(url, "/{database}"),
            Path::Master => url.push_str("/mymaster"),
            Path::Socket => url.push_str("/run/redis.sock"),
            Path::Other(path) => _ = write!(url, "/{}", clean(path)),
        }
        if let Some(query) = &self.query {
            let _ = write!(url, "?{}", clean(&query.before));
            if let Some(protocol) = query.protocol {
                let _ = write!(url, "&protocol=resp{protocol}");
            }
            if let Some(database) = query.database {
                let _ = write!(url, "&db={database}");
            }
            if query.has_password {
                let name = if let Scheme::Sentinel = self.scheme { "sentinel_password" } else { "user=me&pass" };
                let _ = write!(url, "&{name}={PASSWORD}");
            }
            let _ = write!(url, "{}", clean(&query.after));
        }
        if let Some(fragment) = &self.fragment {
            let _ = write!(url, "#{}", clean(fragment));
        }
        url
    }
}

/// The properties.
pub(crate) fn check(input: &Input) {
    thread_local! {
        static RUNTIME: Runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime can be built");
    }

    let (url, has_password) = match input {
        Input::Text(text) => (text.clone(), false),
        Input::Url(url) => (url.text(), url.has_password()),
    };
    let shown = RUNTIME.with(|runtime| runtime.block_on(connect(&url)));
    assert!(!has_password || !shown.contains(PASSWORD), "{url:?} is shown as {shown}");
}

/// Makes a backend and drops it; returns everything that was shown.
async fn connect(url: &str) -> String {
    let builder = Backend::builder(url);
    let mut shown = format!("{builder:?}");
    match builder.connect_lazy() {
        Ok(backend) => {
            let _ = write!(shown, " {backend:?}");
        }
        Err(error) => {
            assert!(matches!(error, Error::Config { .. }), "{error:?}");
            assert!(error.to_string().contains("://"), "no advice: {error}");
            let _ = write!(shown, " {error:?} {error}");
            let mut source = error.source();
            while let Some(cause) = source {
                let _ = write!(shown, " {cause:?} {cause}");
                source = cause.source();
            }
        }
    }
    let metrics = tokio::runtime::Handle::current().metrics();
    for _ in 0..TURNS_TO_END_IN {
        if metrics.num_alive_tasks() == 0 {
            return shown;
        }
        tokio::task::yield_now().await;
    }
    panic!("{url:?} left {} tasks behind", metrics.num_alive_tasks());
}
