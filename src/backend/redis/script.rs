//! The protocol's Lua scripts, and how they are called: by hash, and by text when the server doesn't know the hash.
//!
//! Plain EVAL loads a script as a side effect, in one round trip and on the node that owns the keys.

use std::sync::LazyLock;

use redis::Cmd;

use super::replies::command;

pub(super) static FILL: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/fill.lua"), false));
pub(super) static RENEW: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/renew.lua"), true));
pub(super) static ABANDON: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/abandon.lua"), true));
pub(super) static POSTPONE: LazyLock<Script> =
    LazyLock::new(|| Script::new(include_str!("scripts/postpone.lua"), true));
pub(super) static INVALIDATE: LazyLock<Script> =
    LazyLock::new(|| Script::new(include_str!("scripts/invalidate.lua"), true));
pub(super) static CLEAR_LEASE: LazyLock<Script> =
    LazyLock::new(|| Script::new(include_str!("scripts/clear_lease.lua"), true));

pub(super) struct Script {
    text: &'static str,
    hash: String,
    /// Whether running it twice does what running it once does.
    pub(super) is_idempotent: bool,
}

impl Script {
    fn new(text: &'static str, is_idempotent: bool) -> Self {
        Self { text, hash: redis::Script::new(text).get_hash().to_owned(), is_idempotent }
    }

    pub(super) fn by_hash(&self, keys: &[&str], args: &[&[u8]]) -> Cmd {
        call("EVALSHA", &self.hash, keys, args)
    }

    pub(super) fn by_text(&self, keys: &[&str], args: &[&[u8]]) -> Cmd {
        call("EVAL", self.text, keys, args)
    }
}

fn call(name: &str, script: &str, keys: &[&str], args: &[&[u8]]) -> Cmd {
    const DIGITS: usize = 1;
    let of_keys: usize = keys.iter().map(|key| key.len()).sum();
    let of_args: usize = args.iter().map(|arg| arg.len()).sum();
    let mut call = command(name, 2 + keys.len() + args.len(), script.len() + DIGITS + of_keys + of_args);
    call.arg(script).arg(keys.len()).arg(keys).arg(args);
    call
}
