//! crates.io: `Crate` and `Version`.
//!
//! rust-lang/crates.io, `crates/crates_io_database/src/models/{krate,version}.rs`, commit
//! 57fa000662f511321daa61e6769f190ea0e80771. Rows of diesel.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

row! {
    struct Crate {
        #[cacheable(id)]
        id: i32,
        name: String,
        updated_at: DateTime<Utc>,
        created_at: DateTime<Utc>,
        description: Option<String>,
        homepage: Option<String>,
        documentation: Option<String>,
        repository: Option<String>,
        max_upload_size: Option<i32>,
        max_features: Option<i16>,
        trustpub_only: bool,
    }
}

row! {
    struct Version {
        #[cacheable(id)]
        id: i32,
        crate_id: i32,
        num: String,
        updated_at: DateTime<Utc>,
        created_at: DateTime<Utc>,
        downloads: i32,
        features: serde_json::Value,
        yanked: bool,
        license: Option<String>,
        crate_size: i32,
        published_by: Option<i32>,
        tar_sha256: Vec<u8>,
        links: Option<String>,
        rust_version: Option<String>,
        has_lib: Option<bool>,
        lib_name: Option<String>,
        #[cacheable(json)]
        bin_names: Option<Vec<Option<String>>>,
        yank_message: Option<String>,
        edition: Option<String>,
        description: Option<String>,
        homepage: Option<String>,
        documentation: Option<String>,
        repository: Option<String>,
        #[cacheable(json)]
        trustpub_data: Option<TrustpubData>,
        linecounts: Option<serde_json::Value>,
        zip_sha256: Option<Vec<u8>>,
        zip_json_sha256: Option<Vec<u8>>,
    }
}

/// A column of type jsonb.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum TrustpubData {
    GitHub { repository: String, run_id: String, sha: String },
    GitLab { project_path: String, job_id: String, sha: String },
}

impl crate::sample::Sample for TrustpubData {
    fn sample(_: &mut crate::sample::Samples) -> Self {
        Self::GitHub { repository: "a/b".into(), run_id: "1".into(), sha: "c0ffee".into() }
    }
}
