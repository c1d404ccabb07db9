//! The minimal access that the library needs, read from `docs/operations.md`, so that the tests use the same text as
//! operators.

use crate::server::Server;

const DOCUMENT: &str = include_str!("../../docs/operations.md");
const COMMAND: &str = "ACL SETUSER ";

/// A user with its rules.
#[derive(Debug, Clone)]
pub struct Access {
    user: String,
    password: String,
    rules: Vec<String>,
}

impl Access {
    /// The user with the permissions for a single server.
    pub fn documented() -> Self {
        let [(user, rules), ..] = lines();
        let password =
            rules.iter().find_map(|rule| rule.strip_prefix('>')).expect("the line has a password").to_owned();
        Self { user, password, rules }
    }

    /// The same, with the permissions for clusters.
    pub fn documented_in_clusters() -> Self {
        let [_, (_, more), _] = lines();
        Self::documented().with(more)
    }

    /// The same, with the permissions for near caches.
    pub fn documented_for_near_caches() -> Self {
        let [.., (_, more)] = lines();
        Self::documented().with(more)
    }

    fn with(mut self, more: Vec<String>) -> Self {
        self.rules.extend(more);
        self
    }

    /// The user with the permissions for a single server, without scripts.
    pub fn without_scripts() -> Self {
        Self::documented().named("scriptless").without("+eval").without("+evalsha")
    }

    /// Another user with the same permissions.
    pub fn named(self, user: &str) -> Self {
        Self { user: user.to_owned(), ..self }
    }

    /// The same user, who may also use the keys of this pattern.
    pub fn with_keys(self, pattern: &str) -> Self {
        self.with(vec![pattern.to_owned()])
    }

    /// The same user, who may use the keys of this pattern and no others.
    pub fn with_keys_alone(mut self, pattern: &str) -> Self {
        self.rules.retain(|rule| !rule.starts_with('~'));
        self.with_keys(pattern)
    }

    /// Creates the user on a server, or replaces one of the same name.
    pub async fn grant(&self, server: &Server) {
        let mut operator = server.client().await;
        let mut command = redis::cmd("ACL");
        command.arg("SETUSER").arg(&self.user).arg(&self.rules);
        command.exec_async(&mut operator).await.expect("the rules are well formed");
    }

    /// A server's URL, with this user and password.
    pub fn url(&self, url: &str) -> String {
        let Self { user, password, .. } = self;
        match url.split_once("://") {
            Some((scheme @ ("redis" | "rediss" | "redis+cluster" | "redis+sentinel"), rest)) => {
                format!("{scheme}://{user}:{password}@{rest}")
            }
            Some(("unix", path)) => format!("unix://{path}?user={user}&pass={password}"),
            _ => url.to_owned(),
        }
    }

    /// The user's permissions: commands and keys.
    pub fn permissions(&self) -> impl Iterator<Item = &str> {
        self.rules.iter().map(String::as_str).filter(|rule| rule.starts_with(['+', '~']))
    }

    /// The same user without one of these permissions.
    pub fn without(&self, permission: &str) -> Self {
        let rules = self.rules.iter().filter(|rule| *rule != permission).cloned().collect();
        Self { rules, ..self.clone() }
    }
}

/// The users and their rules in the page: for any server, in addition for clusters, and in addition for near caches.
fn lines() -> [(String, Vec<String>); 3] {
    let lines = DOCUMENT.lines().filter_map(|line| line.strip_prefix(COMMAND));
    let lines = lines.map(|line| {
        let mut words = line.split_whitespace().map(String::from);
        (words.next().expect("the line names a user"), words.collect())
    });
    lines.collect::<Vec<_>>().try_into().expect("the document has three such lines")
}
