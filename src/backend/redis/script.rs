//! The protocol's Lua scripts, and how they are called: by hash, and by text if the server doesn't know the hash.
//!
//! EVAL with the text loads the script for later calls, in the same round trip and on the server that has the keys. A server
//! without scripts gets the same steps as transactions: see `without_scripts`.

use std::sync::LazyLock;

use futures_util::FutureExt;
use redis::RedisResult;
use tokio::time::Instant;

use super::errors::{is_migrating, is_refused};
use super::resp::encode;
use super::shared::{Encode, Request};
use super::{MIGRATION_PAUSE, Redis};
use crate::record::Key;

macro_rules! scripts {
    ($($name:ident = $step:ident, $file:literal, $is_idempotent:literal;)*) => {
        $(pub(super) static $name: LazyLock<Script> =
            LazyLock::new(|| Script::new(Step::$step, include_str!(concat!("scripts/", $file)), $is_idempotent));)*
    };
}

scripts! {
    FILL = Fill, "fill.lua", false;
    RENEW = Renew, "renew.lua", true;
    ABANDON = Abandon, "abandon.lua", true;
    REPLACE = Replace, "replace.lua", false;
    TOUCH = Touch, "touch.lua", false;
    CLEAR_LEASE = ClearLease, "clear_lease.lua", true;
}

/// What a script does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Fill,
    Renew,
    Abandon,
    Replace,
    Touch,
    ClearLease,
}

pub(super) struct Script {
    pub(super) step: Step,
    pub(super) text: &'static str,
    hash: String,
    /// Whether it may run twice: with the same effect, and the same reply, as once.
    pub(super) is_idempotent: bool,
}

impl Script {
    fn new(step: Step, text: &'static str, is_idempotent: bool) -> Self {
        Self { step, text, hash: redis::Script::new(text).get_hash().to_owned(), is_idempotent }
    }
}

/// Appends a call of a script: EVALSHA with its hash, or EVAL with its text.
pub(super) fn encode_call(out: &mut Vec<u8>, name: &[u8], script: &str, keys: &[&str], args: &[&[u8]]) {
    let count = keys.len().to_string();
    let mut command = vec![name, script.as_bytes(), count.as_bytes()];
    command.extend(keys.iter().map(|key| key.as_bytes()));
    command.extend(args);
    encode(out, &command);
}

impl Redis {
    /// Runs a script, or on a server without scripts the same step as a transaction.
    pub(super) async fn run_script(
        &self,
        script: &Script,
        key: &Key,
        keys: &[&str],
        args: &[&[u8]],
    ) -> RedisResult<i64> {
        if self.scripts.are_missing() {
            return self.transact(script, key, keys, args).boxed().await;
        }
        let send = async |encode: &Encode<'_>| {
            let request = self.request(encode);
            let attempts = if script.is_idempotent { request.attempts } else { 1 };
            let [reply] = self.send(key, &Request { attempts, ..request }).await?;
            reply
        };
        let reply = match send(&|_, out| encode_call(out, b"EVALSHA", &script.hash, keys, args)).await {
            Err(error) if error.code() == Some("NOSCRIPT") => {
                Box::pin(send(&|_, out| encode_call(out, b"EVAL", script.text, keys, args))).await
            }
            reply => reply,
        };
        match reply {
            Err(error) if is_refused(&error) && self.has_no_scripts(key).boxed().await => {
                self.transact(script, key, keys, args).boxed().await
            }
            reply => reply?.integer(),
        }
    }

    /// Runs a script that writes K. While the slot moves it is refused, and sent again.
    pub(super) async fn run_on_entry(&self, script: &Script, key: &Key, args: &[&[u8]]) -> RedisResult<i64> {
        let given_up = Instant::now() + self.operation_timeout / 2;
        loop {
            match self.run_script(script, key, &[key.as_str(), key.lock()], args).await {
                Err(error) if is_migrating(&error) && Instant::now() < given_up => {
                    tokio::time::sleep(MIGRATION_PAUSE).boxed().await;
                }
                reply => return reply,
            }
        }
    }
}
