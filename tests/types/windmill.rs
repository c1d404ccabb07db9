//! Windmill: `Script<SR>`, with the only `SR` that is a row: `ScriptRunnableSettingsHandle`.
//!
//! windmill-labs/windmill, `backend/windmill-types/src/scripts.rs`, commit f854c447356a93f29f64c94324143c3d6a1810c2. A row of
//! sqlx, and `SR` is flattened into it.

use std::collections::BTreeMap;

use cache_aside::{CacheId, Embeddable, FieldValue};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

row! {
    struct Script {
        #[cacheable(id)]
        workspace_id: String,
        #[cacheable(id)]
        hash: ScriptHash,
        path: String,
        #[cacheable(json)]
        parent_hashes: Option<ScriptHashes>,
        summary: String,
        description: String,
        content: String,
        created_by: String,
        created_at: DateTime<Utc>,
        archived: bool,
        #[cacheable(json)]
        schema: Option<Schema>,
        deleted: bool,
        is_template: Option<bool>,
        extra_perms: serde_json::Value,
        lock: Option<String>,
        lock_error_logs: Option<String>,
        language: ScriptLang,
        kind: ScriptKind,
        tag: Option<String>,
        draft_only: Option<bool>,
        #[cacheable(json)]
        envs: Option<Vec<String>>,
        dedicated_worker: Option<bool>,
        ws_error_handler_muted: Option<bool>,
        priority: Option<i16>,
        cache_ttl: Option<i32>,
        cache_ignore_s3_path: Option<bool>,
        timeout: Option<i32>,
        delete_after_use: Option<bool>,
        restart_unless_cancelled: Option<bool>,
        visible_to_runner_only: Option<bool>,
        no_main_func: Option<bool>,
        codebase: Option<String>,
        has_preprocessor: Option<bool>,
        on_behalf_of_email: Option<String>,
        #[cacheable(json)]
        assets: Option<Vec<AssetWithAltAccessType>>,
        #[cacheable(embed(prefix = ""))]
        runnable_settings: ScriptRunnableSettingsHandle,
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, FieldValue, CacheId)]
pub(crate) struct ScriptHash(i64);

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct ScriptHashes(Vec<i64>);

/// In the `Json` of sqlx there.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Schema(Box<RawValue>);

impl PartialEq for Schema {
    fn eq(&self, other: &Self) -> bool {
        self.0.get() == other.0.get()
    }
}

sample_newtypes!(ScriptHash, ScriptHashes, Schema);

#[derive(Debug, Clone, Copy, PartialEq, FieldValue)]
#[cacheable(rename_all = "lowercase")]
pub(crate) enum ScriptLang {
    Nativets,
    Deno,
    Python3,
    Go,
    Bash,
    Powershell,
    Postgresql,
    Bun,
    Bunnative,
    Mysql,
    Bigquery,
    Snowflake,
    Graphql,
    Mssql,
    OracleDB,
    DuckDb,
    Php,
    Rust,
    Ansible,
    CSharp,
    Nu,
    Java,
    Ruby,
}

#[derive(Debug, Clone, Copy, PartialEq, FieldValue)]
#[cacheable(rename_all = "lowercase")]
pub(crate) enum ScriptKind {
    Trigger,
    Failure,
    Script,
    Approval,
    Preprocessor,
}

part! {
    #[derive(Debug, Clone, PartialEq, Embeddable)]
    struct ScriptRunnableSettingsHandle {
        concurrency_key: Option<String>,
        concurrent_limit: Option<i32>,
        concurrency_time_window_s: Option<i32>,
        debounce_key: Option<String>,
        debounce_delay_s: Option<i32>,
        runnable_settings_handle: Option<i64>,
    }
}

part! {
    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    struct AssetWithAltAccessType {
        path: String,
        kind: AssetKind,
        access_type: Option<AssetUsageAccessType>,
        alt_access_type: Option<AssetUsageAccessType>,
        columns: Option<BTreeMap<String, AssetUsageAccessType>>,
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum AssetKind {
    S3Object,
    Resource,
    Variable,
    Ducklake,
    DataTable,
    Volume,
    Dbt,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum AssetUsageAccessType {
    R,
    W,
    RW,
}

sample_variants!(ScriptLang::OracleDB, ScriptKind::Preprocessor, AssetKind::S3Object, AssetUsageAccessType::RW);
