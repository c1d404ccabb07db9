//! The meaning of errors: whether a command is sent again or elsewhere, whose fault an error is, and what to do about it.

use std::error::Error as StdError;
use std::io;
use std::sync::Arc;

use redis::{ErrorKind, RedisError, ServerErrorKind};

use super::{sentinel, tls};
use crate::backend::credentials::ProviderFailed;
use crate::backend::{Forbidden, StoreError};
use crate::error::BoxError;

/// Whether a server says that another has the key, or one of two keys.
pub(super) fn is_elsewhere(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::Moved) || is_migrating(error)
}

/// Whether the keys' slot is migrating, so that each key may be at one of two servers. If a script has deleted a key, only the
/// error's text says so.
pub(super) fn is_migrating(error: &RedisError) -> bool {
    /// Redis has "Script attempted" here, Valkey "Attempted".
    const IN_SCRIPT: &str = "ttempted to access a non local key in a cluster node";
    matches!(error.kind(), ErrorKind::Server(ServerErrorKind::Ask | ServerErrorKind::TryAgain))
        || error.detail().is_some_and(|detail| detail.contains(IN_SCRIPT))
}

pub(super) fn unexpected_reply() -> RedisError {
    (ErrorKind::UnexpectedReturnType, "the server's reply has another shape than expected").into()
}

/// Why a command isn't sent at all.
pub(super) const HANGS_UP: &str = "a proxy in between hangs up on this command";
const WITHOUT_TRANSACTIONS: &str = "a proxy in between lets no client watch a key";

const LOST: &str = "the connection was lost";
const TOO_BUSY: &str = "this process sends more commands than the server can answer";
const RUNTIME_ENDED: &str = "the connection ended with the runtime that it was made on";

/// For commands whose shared connection ended before their replies came.
pub(super) fn connection_lost() -> RedisError {
    (ErrorKind::Io, LOST).into()
}

/// Like [`connection_lost`], but the server isn't to blame.
pub(super) fn runtime_ended() -> RedisError {
    (ErrorKind::Io, RUNTIME_ENDED).into()
}

/// For a command that has waited for too long to be sent.
pub(super) fn too_busy() -> RedisError {
    (ErrorKind::Client, TOO_BUSY).into()
}

/// For an update that needs `WATCH` behind a proxy that has none, or has one without effect.
pub(super) fn without_transactions() -> RedisError {
    (ErrorKind::Client, WITHOUT_TRANSACTIONS).into()
}

pub(super) fn is_without_transactions(error: &RedisError) -> bool {
    says(error, WITHOUT_TRANSACTIONS)
}

/// For keys that can't be found, whatever is tried.
pub(super) fn cannot_scan(cause: &str) -> StoreError {
    let advice = "behind a proxy entries leave one by one: invalidate them, or let them expire";
    StoreError::Failed { advice, cause: Forbidden(cause.to_owned()).into(), answered: Some(true) }
}

/// Whether a shared connection was lost, after the commands may have been sent.
pub(super) fn is_lost(error: &RedisError) -> bool {
    says(error, LOST)
}

/// Whether commands that may be carried out twice can be sent again after this error.
pub(super) fn is_worth_another_attempt(error: &RedisError) -> bool {
    is_lost(error) || says(error, RUNTIME_ENDED)
}

/// Whether this is our own error of this text. A server's error begins with its code.
fn says(error: &RedisError, text: &str) -> bool {
    error.to_string().starts_with(text)
}

pub(super) fn is_wrong_type(error: &RedisError) -> bool {
    error.code() == Some("WRONGTYPE")
}

/// Whether a server takes no more clients. Only the error's text says so.
pub(super) fn is_too_many_clients(error: &RedisError) -> bool {
    error.to_string().contains("max number of clients")
}

/// Whether the server's ACL forbids something. For a command in a script, only the error's text says so.
pub(super) fn is_forbidden(error: &RedisError) -> bool {
    const IN_SCRIPT: [&str; 2] = ["ACL failure in script", "The user executing the script can't"];
    error.code() == Some("NOPERM") || error.detail().is_some_and(|detail| IN_SCRIPT.iter().any(|s| detail.contains(s)))
}

/// Whether a server refuses something until somebody changes it there: the user lacks a permission, or the server or a proxy the
/// command. Proxies and look-alikes do that in many words, so it is what remains of a server's errors: it is not in favour of
/// another server, not because of its state, and not because of what is stored.
pub(super) fn is_refused(error: &RedisError) -> bool {
    const OTHERS: [&str; 21] = [
        "ASK",
        "BUSY",
        "BUSYKEY",
        "CLUSTERDOWN",
        "CROSSSLOT",
        "EXECABORT",
        "LOADING",
        "MASTERDOWN",
        "MISCONF",
        "MOVED",
        "NOAUTH",
        "NOREPLICAS",
        "NOSCRIPT",
        "OOM",
        "READONLY",
        "REDIRECT",
        "TRYAGAIN",
        "UNBLOCKED",
        "UNKILLABLE",
        "WRONGPASS",
        "WRONGTYPE",
    ];
    error.code().is_some_and(|code| !OTHERS.contains(&code)) && !is_migrating(error) && !is_too_many_clients(error)
}

/// Whether the server's ACL forbids a key, and not a command.
pub(super) fn is_about_a_key(error: &RedisError) -> bool {
    error.code() == Some("NOPERM") && error.detail().is_some_and(|detail| detail.contains("permissions to access"))
}

/// Whether a server takes no further connection of this user, though it may go on serving those that are there.
pub(super) fn has_no_connection(error: &RedisError) -> bool {
    error.kind() == ErrorKind::AuthenticationFailed
        || matches!(error.code(), Some("NOAUTH" | "WRONGPASS"))
        || is_too_many_clients(error)
}

/// Whether the server doesn't know a command: it may have been renamed, or a proxy may not have it.
pub(super) fn is_unknown_command(error: &RedisError) -> bool {
    error.detail().is_some_and(|detail| detail.starts_with("unknown command"))
}

/// Whether a server hung up, or sent something that isn't RESP. Both may mean that one side expects TLS and the other doesn't.
pub(super) fn is_cut_off(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Parse || is_dropped(error)
}

/// The server's message without the arguments of an unknown command: the arguments of AUTH are user and password.
pub(super) fn without_arguments(error: &RedisError) -> String {
    let mut text = error.to_string();
    if let Some(end) = text.find(", with args beginning with") {
        text.truncate(end);
    }
    text
}

/// Whether a server answers every command with an error for now.
pub(super) fn is_not_ready(error: &RedisError) -> bool {
    matches!(error.code(), Some("NOAUTH" | "LOADING" | "MASTERDOWN")) || is_too_many_clients(error)
}

/// Whether a server has logged a connection off: its token has ended.
pub(super) fn is_logged_off(error: &RedisError) -> bool {
    error.code() == Some("NOAUTH")
}

const REFUSED: &str = "Password authentication failed";
const PROVIDED_REFUSED: &str = "the server refuses what the credentials provider returned";

/// For a server that has refused a user or a password, of the URL or of a provider.
pub(super) fn authentication_failed(is_provided: bool) -> RedisError {
    (ErrorKind::AuthenticationFailed, if is_provided { PROVIDED_REFUSED } else { REFUSED }).into()
}

/// Whether a server has refused a user or a password at a connect.
pub(super) fn is_login_refused(error: &RedisError) -> bool {
    error.kind() == ErrorKind::AuthenticationFailed || is_logged_off(error)
}

impl From<ProviderFailed> for RedisError {
    fn from(failed: ProviderFailed) -> Self {
        io::Error::other(failed).into()
    }
}

/// The failure of a credentials provider inside of an error.
pub(super) fn provider_failed(error: &RedisError) -> Option<&ProviderFailed> {
    let source: &Arc<dyn StdError + Send + Sync> = error.source()?.downcast_ref()?;
    source.downcast_ref::<io::Error>()?.get_ref()?.downcast_ref()
}

/// Whether a server is a replica: by its own words, or by [`is_replica`].
pub(super) fn is_of_replica(error: &RedisError) -> bool {
    error.code() == Some("READONLY")
}

pub(super) fn is_replica() -> RedisError {
    (ErrorKind::Server(ServerErrorKind::ReadOnly), "the server is a replica").into()
}

/// Whether a connection ended while it was used.
pub(super) fn is_dropped(error: &RedisError) -> bool {
    error.is_connection_dropped() && !error.is_connection_refusal()
}

/// For a command that the server did not answer in time.
pub(super) fn not_answered() -> RedisError {
    std::io::Error::from(std::io::ErrorKind::TimedOut).into()
}

impl From<RedisError> for StoreError {
    fn from(error: RedisError) -> Self {
        if error.is_timeout() {
            return Self::TimedOut;
        }
        if let Some(failed) = provider_failed(&error) {
            let advice = "see why the credentials provider failed";
            return Self::Failed { advice, cause: Box::new(failed.clone()), answered: Some(false) };
        }
        let answered = !matches!(error.kind(), ErrorKind::Io | ErrorKind::AuthenticationFailed)
            && !matches!(error.code(), Some("WRONGPASS" | "CLUSTERDOWN"))
            && !is_not_ready(&error);
        // The server isn't to blame for a runtime that ended or for a busy process.
        let is_own_doing = says(&error, RUNTIME_ENDED) || says(&error, TOO_BUSY);
        let answered = (!is_own_doing).then_some(answered);
        let advice = tls::advice(&error).or_else(|| sentinel::advice(&error)).unwrap_or_else(|| advice_on(&error));
        let text = without_arguments(&error);
        let cause: BoxError = if is_refused(&error) { Forbidden(text).into() } else { text.into() };
        Self::Failed { advice, cause, answered }
    }
}

/// The advice for an error of a server.
pub(super) fn advice_on(error: &RedisError) -> &'static str {
    match (error.kind(), error.code()) {
        (ErrorKind::AuthenticationFailed, _) if says(error, PROVIDED_REFUSED) => {
            "have the credentials provider return the user and the password that the server has now"
        }
        (ErrorKind::AuthenticationFailed, _) | (_, Some("NOAUTH" | "WRONGPASS")) => {
            "put the right user and password into the URL, redis://user:password@host"
        }
        _ if is_forbidden(error) => "allow the user these commands and keys in the server's ACL",
        (_, Some("READONLY")) => {
            "this is a replica: name the primary, or what knows it, with redis+sentinel:// or redis+cluster://"
        }
        (_, Some("OOM")) => "raise the server's maxmemory, or set an eviction policy such as allkeys-lru",
        (_, Some("TRYAGAIN")) => "wait until the cluster has moved the key's hash slot",
        (_, Some("CLUSTERDOWN")) => "see `CLUSTER INFO`: the cluster has lost a primary, or hash slots",
        (_, Some("MOVED" | "ASK" | "CROSSSLOT")) => "this is a server of a cluster: write redis+cluster://",
        _ if error.detail().is_some_and(|detail| detail.contains("cluster support disabled")) => {
            "this is a single server: write redis://"
        }
        (_, Some("LOADING")) => "wait until the server has loaded its data",
        _ if is_cut_off(error) => {
            "check that the server is up and the URL right, rediss:// for TLS and redis:// without"
        }
        (ErrorKind::Io, _) => "check that a server runs there and can be reached",
        _ => "see the cause",
    }
}
