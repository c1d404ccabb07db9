//! The protocol's Lua scripts, and how they are called: by hash, and by text if the server doesn't know the hash.
//!
//! EVAL with the text loads the script for later calls, in the same round trip and on the server that has the keys.

use std::sync::LazyLock;

use super::resp::encode;

pub(super) static FILL: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/fill.lua"), false));
pub(super) static RENEW: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/renew.lua"), true));
pub(super) static ABANDON: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/abandon.lua"), true));
pub(super) static REPLACE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/replace.lua"), false));
pub(super) static TOUCH: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/touch.lua"), false));
pub(super) static CLEAR_LEASE: LazyLock<Script> =
    LazyLock::new(|| Script::new(include_str!("scripts/clear_lease.lua"), true));

pub(super) struct Script {
    pub(super) text: &'static str,
    pub(super) hash: String,
    /// Whether it may run twice: with the same effect, and the same reply, as once.
    pub(super) is_idempotent: bool,
}

impl Script {
    fn new(text: &'static str, is_idempotent: bool) -> Self {
        Self { text, hash: redis::Script::new(text).get_hash().to_owned(), is_idempotent }
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
