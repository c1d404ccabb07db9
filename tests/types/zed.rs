//! Zed's collab: `Model` of the table `users` and `Model` of the table `projects`.
//!
//! zed-industries/zed, `crates/collab/src/db/tables/user.rs`, commit 8db23b79ba60bb592b102191b52a4c7d0bedae41, and
//! `crates/collab/src/db/tables/project.rs`, commit b7ab84be17b1e31e884fc72e5d2772d4471bac9c. Models of sea-orm.

use cache_aside::{CacheId, FieldValue};
use chrono::NaiveDateTime;
use uuid::Uuid;

macro_rules! id_type {
    ($($name:ident)*) => {
        $(
            #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, FieldValue, CacheId)]
            pub(crate) struct $name(i32);
        )*
        sample_newtypes!($($name),*);
    };
}

id_type! { UserId ProjectId RoomId ServerId }

row! {
    struct User {
        #[cacheable(id)]
        id: UserId,
        github_login: String,
        github_user_id: i32,
        github_user_created_at: Option<NaiveDateTime>,
        email_address: Option<String>,
        name: Option<String>,
        admin: bool,
        invite_code: Option<String>,
        invite_count: i32,
        inviter_id: Option<UserId>,
        connected_once: bool,
        metrics_id: Uuid,
        created_at: NaiveDateTime,
        accepted_tos_at: Option<NaiveDateTime>,
        custom_llm_monthly_allowance_in_cents: Option<i32>,
    }
}

row! {
    struct Project {
        #[cacheable(id)]
        id: ProjectId,
        room_id: Option<RoomId>,
        host_user_id: Option<UserId>,
        host_connection_id: Option<i32>,
        host_connection_server_id: Option<ServerId>,
        windows_paths: bool,
    }
}
