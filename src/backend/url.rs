//! The cache's URL: its parts, the schemes it may have, and how it is shown without secrets.
//!
//! A URL is taken apart here and nowhere else. The servers behind a `redis` scheme are read from the parts by
//! `redis/address.rs`.

use std::fmt;

use crate::error::Error;

/// A URL in parts. Its `Display` leaves out everything that could be a user, a password or a query.
pub(super) struct Url<'a> {
    pub(super) text: &'a str,
    /// Empty if there is none.
    pub(super) scheme: &'a str,
    /// With the `@` after it, if there is one.
    pub(super) user: &'a str,
    pub(super) hosts: &'a str,
    /// Path, query and fragment.
    pub(super) settings: &'a str,
}

impl<'a> Url<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        let (scheme, rest) = text.split_once("://").unwrap_or(("", text));
        let (authority, settings) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        let (user, hosts) = authority.split_at(authority.rfind('@').map_or(0, |at| at + 1));
        Self { text, scheme, user, hosts, settings }
    }

    /// Fails for a scheme that no store has.
    pub(super) fn check_scheme(&self) -> Result<(), Error> {
        const KNOWN: &str = "write memory://, redis[s]://host:6379, unix:///path/to/redis.sock, \
                             redis[s]+cluster://host:6379,host:6379 or redis[s]+sentinel://host:26379,host:26379/name";
        let mistake = match self.scheme {
            "memory" if self.text != "memory://" => "more than `memory://`: there is nothing to add to it".to_owned(),
            "memory" | "unix" | "redis" | "rediss" => return Ok(()),
            "redis+cluster" | "rediss+cluster" | "redis+sentinel" | "rediss+sentinel" => return Ok(()),
            _ if self.text.contains("://") => format!("an unknown scheme: {KNOWN}"),
            _ => format!("no scheme: {KNOWN}"),
        };
        Err(Error::config(format!("the cache URL `{self}` has {mistake}")))
    }

    pub(super) fn mistake(&self, mistake: &str) -> Error {
        Error::config(format!(
            "the cache URL `{self}` makes no sense: {mistake}; write redis[s]://host:6379/0, unix:///path, \
             redis[s]+cluster://host:6379,host:6379 or redis[s]+sentinel://host:26379,host:26379/name"
        ))
    }
}

impl fmt::Display for Url<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // In a URL without an `@`, the text after a `:` may be a password in place of a port.
        let ends_in_port =
            |host: &str| host.rsplit_once(':').is_none_or(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit()));
        let (hosts, text) = (self.hosts, self.text);
        if ends_in_port(hosts) && hosts.split(',').all(ends_in_port) && !text.contains(['@', '?', '#']) {
            return f.write_str(text);
        }
        // In a URL without a scheme a `://` may come later, and the text before it may be secret.
        let is_scheme = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
        match text.split_once("://") {
            Some((scheme, _)) if is_scheme(scheme) => write!(f, "{scheme}://.."),
            _ => f.write_str(".."),
        }
    }
}
