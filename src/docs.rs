//! The pages of the repository's folder `docs/`.
//!
//! | page | for |
//! |---|---|
//! | [guide] | those who write a service: from hand-written code to this library, and recipes |
//! | [errors] | those who have an error or a log line in front of them |
//! | [types] | those who put the derives on structs of their own: which types fields can have, and what `redis-cli` shows |
//! | [schema] | those who change a struct while old and new processes share one Redis |
//! | [operations] | those who operate a service: settings, servers, TLS, access control, metrics |
//! | [servers] | those who choose a server, a service or a proxy: what it must answer, and what is known of each |
//! | [protocol] | those who want to know what is promised, why it holds, and what breaks it |
//! | [compare] | those who choose a cache |
//! | [performance] | those who want to know what an operation costs |
//! | [testing] | those who want to see the evidence, or run it |
//! | [architecture] | those who change the library |
// Pages link to each other by reference: `[outages][protocol.md#outages]`. A page defines its references at its end, as an editor
// needs them. Here `links.md` comes before each page and defines them for rustdoc: the first definition counts. Without it a
// failed test names the page and its line. Rustdoc has no place for files: the README's picture is empty there, and other files
// are on the pages as text.

/// Makes a module of each page.
macro_rules! pages {
    ($($page:ident)*) => {$(
        #[cfg_attr(not(doctest), doc = include_str!("docs/links.md"))]
        #[doc = include_str!(concat!("../docs/", stringify!($page), ".md"))]
        pub mod $page {}
    )*};
}

pages! { architecture compare errors guide protocol schema servers testing types }

#[cfg_attr(not(doctest), doc = include_str!("docs/links.md"))]
#[doc = include_str!("../docs/operations.md")]
#[doc = "## The rules for alerts\n\n```yaml"]
#[doc = include_str!("../docs/alerts.yml")]
#[doc = "```\n\n## The dashboard\n\n```json"]
#[doc = include_str!("../docs/grafana.json")]
#[doc = "```"]
pub mod operations {}

#[cfg_attr(not(doctest), doc = include_str!("docs/links.md"))]
#[doc = include_str!("../docs/performance.md")]
#[doc = "<span id=\"picture\"></span>"]
#[doc = ""]
#[doc = include_str!("../docs/performance.svg")]
pub mod performance {}
