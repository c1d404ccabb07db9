//! Lemmy: `Person`, `Community` and `Post`.
//!
//! LemmyNet/lemmy, `crates/db_schema/src/source/{person,community,post}.rs`, commit
//! 439734dd638a2c06a2f907beab7dcf4646e88f86. Rows of diesel.

use cache_aside::{CacheId, FieldValue};
use chrono::{DateTime, Utc};
use serde::Serialize;
use url::Url;

macro_rules! ids {
    ($($name:ident)*) => {
        $(
            #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, FieldValue, CacheId)]
            pub(crate) struct $name(i32);
        )*
        sample_newtypes!($($name),*);
    };
}

ids! { PersonId CommunityId PostId InstanceId LanguageId }

#[derive(Debug, Clone, PartialEq, Serialize, FieldValue)]
pub(crate) struct DbUrl(Box<Url>);

#[derive(Clone, PartialEq, Serialize, FieldValue)]
#[serde(transparent)]
pub(crate) struct SensitiveString(String);

impl std::fmt::Debug for SensitiveString {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("..")
    }
}

sample_newtypes!(DbUrl, SensitiveString);

/// The column has the variants' names.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, FieldValue)]
#[serde(rename_all = "snake_case")]
pub(crate) enum CommunityVisibility {
    Public,
    Unlisted,
    LocalOnlyPublic,
    LocalOnlyPrivate,
    Private,
}

sample_variants!(CommunityVisibility::LocalOnlyPublic);

row! {
    #[derive(Serialize)]
    struct Person {
        #[cacheable(id)]
        id: PersonId,
        name: String,
        display_name: Option<String>,
        avatar: Option<DbUrl>,
        published_at: DateTime<Utc>,
        updated_at: Option<DateTime<Utc>>,
        ap_id: DbUrl,
        bio: Option<String>,
        local: bool,
        #[serde(skip)]
        #[cacheable(skip)]
        private_key: Option<SensitiveString>,
        #[serde(skip)]
        #[cacheable(store)]
        public_key: String,
        last_refreshed_at: DateTime<Utc>,
        banner: Option<DbUrl>,
        deleted: bool,
        #[serde(skip)]
        #[cacheable(store)]
        inbox_url: DbUrl,
        matrix_user_id: Option<String>,
        bot_account: bool,
        instance_id: InstanceId,
        post_count: i32,
        #[serde(skip)]
        #[cacheable(store)]
        post_score: i32,
        comment_count: i32,
        #[serde(skip)]
        #[cacheable(store)]
        comment_score: i32,
    }
}

row! {
    #[derive(Serialize)]
    struct Community {
        #[cacheable(id)]
        id: CommunityId,
        name: String,
        title: Option<String>,
        sidebar: Option<String>,
        removed: bool,
        published_at: DateTime<Utc>,
        updated_at: Option<DateTime<Utc>>,
        deleted: bool,
        nsfw: bool,
        ap_id: DbUrl,
        local: bool,
        #[serde(skip)]
        #[cacheable(skip)]
        private_key: Option<SensitiveString>,
        #[serde(skip)]
        #[cacheable(store)]
        public_key: String,
        last_refreshed_at: DateTime<Utc>,
        icon: Option<DbUrl>,
        banner: Option<DbUrl>,
        #[serde(skip)]
        #[cacheable(store)]
        followers_url: Option<DbUrl>,
        #[serde(skip)]
        #[cacheable(store)]
        inbox_url: DbUrl,
        posting_restricted_to_mods: bool,
        instance_id: InstanceId,
        #[serde(skip)]
        #[cacheable(store)]
        moderators_url: Option<DbUrl>,
        #[serde(skip)]
        #[cacheable(store)]
        featured_url: Option<DbUrl>,
        visibility: CommunityVisibility,
        summary: Option<String>,
        #[serde(skip)]
        #[cacheable(store)]
        random_number: i16,
        subscribers: i32,
        posts: i32,
        comments: i32,
        users_active_day: i32,
        users_active_week: i32,
        users_active_month: i32,
        users_active_half_year: i32,
        #[serde(skip)]
        #[cacheable(store)]
        hot_rank: f32,
        subscribers_local: i32,
        #[serde(skip)]
        #[cacheable(store)]
        interactions_month: i32,
        report_count: i16,
        unresolved_report_count: i16,
        local_removed: bool,
    }
}

row! {
    #[derive(Serialize)]
    struct Post {
        #[cacheable(id)]
        id: PostId,
        name: String,
        url: Option<DbUrl>,
        body: Option<String>,
        creator_id: PersonId,
        community_id: CommunityId,
        removed: bool,
        locked: bool,
        published_at: DateTime<Utc>,
        updated_at: Option<DateTime<Utc>>,
        deleted: bool,
        nsfw: bool,
        embed_title: Option<String>,
        embed_description: Option<String>,
        thumbnail_url: Option<DbUrl>,
        ap_id: DbUrl,
        local: bool,
        embed_video_url: Option<DbUrl>,
        language_id: LanguageId,
        featured_community: bool,
        featured_local: bool,
        url_content_type: Option<String>,
        alt_text: Option<String>,
        scheduled_publish_time_at: Option<DateTime<Utc>>,
        #[serde(skip)]
        #[cacheable(store)]
        newest_comment_time_necro_at: Option<DateTime<Utc>>,
        newest_comment_time_at: Option<DateTime<Utc>>,
        comments: i32,
        score: i32,
        upvotes: i32,
        downvotes: i32,
        #[serde(skip)]
        #[cacheable(store)]
        hot_rank: f32,
        #[serde(skip)]
        #[cacheable(store)]
        hot_rank_active: f32,
        #[serde(skip)]
        #[cacheable(store)]
        controversy_rank: f32,
        #[serde(skip)]
        #[cacheable(store)]
        scaled_rank: f32,
        report_count: i16,
        unresolved_report_count: i16,
        federation_pending: bool,
        embed_video_width: Option<i32>,
        embed_video_height: Option<i32>,
    }
}
