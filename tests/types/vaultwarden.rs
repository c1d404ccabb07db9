//! Vaultwarden: `User` and `Cipher`.
//!
//! dani-garcia/vaultwarden, `src/db/models/{user,cipher}.rs`, commit 46d71107f5094460dd5ecbe1dbac6e6c71e5189a. Rows of diesel.

use cache_aside::{CacheId, FieldValue};
use chrono::NaiveDateTime;

#[derive(Debug, Clone, PartialEq, Eq, Hash, FieldValue, CacheId)]
pub(crate) struct UserId(String);

#[derive(Debug, Clone, PartialEq, Eq, Hash, FieldValue, CacheId)]
pub(crate) struct CipherId(String);

#[derive(Debug, Clone, PartialEq, Eq, Hash, FieldValue, CacheId)]
pub(crate) struct OrganizationId(String);

sample_newtypes!(UserId, CipherId, OrganizationId);

row! {
    struct User {
        #[cacheable(id)]
        uuid: UserId,
        enabled: bool,
        created_at: NaiveDateTime,
        updated_at: NaiveDateTime,
        verified_at: Option<NaiveDateTime>,
        last_verifying_at: Option<NaiveDateTime>,
        login_verify_count: i32,
        email: String,
        email_new: Option<String>,
        email_new_token: Option<String>,
        name: String,
        password_hash: Vec<u8>,
        salt: Vec<u8>,
        password_iterations: i32,
        password_hint: Option<String>,
        akey: String,
        private_key: Option<String>,
        public_key: Option<String>,
        #[cacheable(rename = "totp_secret")]
        _totp_secret: Option<String>,
        totp_recover: Option<String>,
        security_stamp: String,
        stamp_exception: Option<String>,
        equivalent_domains: String,
        excluded_globals: String,
        client_kdf_type: i32,
        client_kdf_iter: i32,
        client_kdf_memory: Option<i32>,
        client_kdf_parallelism: Option<i32>,
        api_key: Option<String>,
        avatar_color: Option<String>,
        external_id: Option<String>,
    }
}

row! {
    struct Cipher {
        #[cacheable(id)]
        uuid: CipherId,
        created_at: NaiveDateTime,
        updated_at: NaiveDateTime,
        user_uuid: Option<UserId>,
        organization_uuid: Option<OrganizationId>,
        key: Option<String>,
        atype: i32,
        name: String,
        notes: Option<String>,
        fields: Option<String>,
        data: String,
        password_history: Option<String>,
        deleted_at: Option<NaiveDateTime>,
        reprompt: Option<i32>,
    }
}
