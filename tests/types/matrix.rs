//! Matrix Authentication Service: `SessionLookup`.
//!
//! element-hq/matrix-authentication-service, `crates/storage-pg/src/user/session.rs`, commit
//! 682b8d26d3b3666b6652490f66618ab3d640fa5d. A row of sqlx.

use std::net::IpAddr;

use chrono::{DateTime, Utc};
use uuid::Uuid;

row! {
    struct SessionLookup {
        #[cacheable(id)]
        user_session_id: Uuid,
        user_session_created_at: DateTime<Utc>,
        user_session_finished_at: Option<DateTime<Utc>>,
        user_session_user_agent: Option<String>,
        user_session_last_active_at: Option<DateTime<Utc>>,
        user_session_last_active_ip: Option<IpAddr>,
        user_id: Uuid,
        user_username: String,
        user_created_at: DateTime<Utc>,
        user_locked_at: Option<DateTime<Utc>>,
        user_deactivated_at: Option<DateTime<Utc>>,
        user_can_request_admin: bool,
        user_is_guest: bool,
    }
}
