//! lakekeeper: `WarehouseRecord`.
//!
//! lakekeeper/lakekeeper, `crates/lakekeeper-storage-postgres/src/warehouse.rs`, commit
//! 90892e9cc1b515826fe07d2e2797a5620ec3e613. A row of sqlx.

use cache_aside::FieldValue;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

row! {
    struct WarehouseRecord {
        project_id: String,
        #[cacheable(id)]
        warehouse_id: Uuid,
        warehouse_name: String,
        #[cacheable(json)]
        storage_profile: Json<StorageProfile>,
        storage_secret_id: Option<Uuid>,
        status: WarehouseStatus,
        tabular_delete_mode: DbTabularDeleteProfile,
        tabular_expiration_seconds: Option<i64>,
        protected: bool,
        managed_by: ManagedBy,
        #[cacheable(json)]
        allowed_format_versions: Vec<i16>,
        default_format_version: Option<i16>,
        updated_at: Option<DateTime<Utc>>,
        version: i64,
    }
}

#[derive(Debug, Clone, Copy, PartialEq, FieldValue)]
#[cacheable(rename_all = "kebab-case")]
pub(crate) enum WarehouseStatus {
    Active,
    Inactive,
}

#[derive(Debug, Clone, Copy, PartialEq, FieldValue)]
#[cacheable(rename_all = "kebab-case")]
pub(crate) enum DbTabularDeleteProfile {
    Soft,
    Hard,
}

#[derive(Debug, Clone, Copy, PartialEq, FieldValue)]
#[cacheable(rename_all = "kebab-case")]
pub(crate) enum ManagedBy {
    SelfManaged,
    InstanceAdmin,
}

sample_variants!(WarehouseStatus::Inactive, DbTabularDeleteProfile::Soft, ManagedBy::SelfManaged);

/// That of sqlx.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Json<T>(T);

sample_newtypes!(Json<T>);

/// The profiles are structs of their own there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub(crate) enum StorageProfile {
    #[serde(alias = "azdls")]
    Adls {
        account_name: String,
    },
    S3 {
        bucket: String,
        region: String,
    },
    Gcs {
        bucket: String,
    },
}

impl crate::sample::Sample for StorageProfile {
    fn sample(_: &mut crate::sample::Samples) -> Self {
        Self::S3 { bucket: "ice".into(), region: "local".into() }
    }
}
