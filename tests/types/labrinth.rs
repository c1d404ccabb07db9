//! Modrinth's labrinth: `DBUser`, `DBProject` and `DBVersion`.
//!
//! modrinth/code, `apps/labrinth/src/database/models/{user_item,project_item,version_item}.rs`, commit
//! fe9ae94a5d9ac1e9d37c3088c9cdca1f55b5a61f. Built from the rows of `sqlx::query!`; the project itself keeps them in Redis, as JSON.

use cache_aside::{CacheId, Embeddable, FieldValue};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

macro_rules! db_id_interface {
    ($($name:ident)*) => {
        $(
            #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, FieldValue, CacheId)]
            pub(crate) struct $name(i64);
        )*
        sample_newtypes!($($name),*);
    };
}

db_id_interface! { DBUserId DBProjectId DBTeamId DBOrganizationId DBVersionId }

row! {
    #[cacheable(entity = "user")]
    struct DBUser {
        #[cacheable(id)]
        id: DBUserId,
        github_id: Option<i64>,
        discord_id: Option<i64>,
        gitlab_id: Option<i64>,
        google_id: Option<String>,
        steam_id: Option<i64>,
        microsoft_id: Option<String>,
        password: Option<String>,
        paypal_id: Option<String>,
        paypal_country: Option<String>,
        paypal_email: Option<String>,
        venmo_handle: Option<String>,
        stripe_customer_id: Option<String>,
        totp_secret: Option<String>,
        username: String,
        email: Option<String>,
        email_verified: bool,
        avatar_url: Option<String>,
        raw_avatar_url: Option<String>,
        bio: Option<String>,
        created: DateTime<Utc>,
        role: String,
        #[cacheable(with = "bits")]
        badges: Badges,
        #[cacheable(embed)]
        campaign_pride_26: Option<Pride26CampaignDonation>,
        allow_friend_requests: bool,
        is_subscribed_to_newsletter: bool,
        eligibility_verified_at: Option<DateTime<Utc>>,
    }
}

row! {
    #[cacheable(entity = "project")]
    struct DBProject {
        #[cacheable(id)]
        id: DBProjectId,
        team_id: DBTeamId,
        organization_id: Option<DBOrganizationId>,
        name: String,
        summary: String,
        description: String,
        published: DateTime<Utc>,
        updated: DateTime<Utc>,
        approved: Option<DateTime<Utc>>,
        queued: Option<DateTime<Utc>>,
        status: ProjectStatus,
        requested_status: Option<ProjectStatus>,
        downloads: i32,
        follows: i32,
        icon_url: Option<String>,
        raw_icon_url: Option<String>,
        license_url: Option<String>,
        license: String,
        slug: Option<String>,
        moderation_message: Option<String>,
        moderation_message_body: Option<String>,
        webhook_sent: bool,
        color: Option<u32>,
        monetization_status: MonetizationStatus,
        side_types_migration_review_status: SideTypesMigrationReviewStatus,
        #[cacheable(json)]
        loaders: Vec<String>,
        #[cacheable(json)]
        components: ProjectSerial,
    }
}

row! {
    #[cacheable(entity = "version")]
    struct DBVersion {
        #[cacheable(id)]
        id: DBVersionId,
        project_id: DBProjectId,
        author_id: DBUserId,
        name: String,
        version_number: String,
        changelog: String,
        date_published: DateTime<Utc>,
        downloads: i32,
        version_type: String,
        featured: bool,
        status: VersionStatus,
        requested_status: Option<VersionStatus>,
        ordering: Option<i32>,
        #[cacheable(json)]
        components: VersionSerial,
    }
}

/// Made by `bitflags!` there. The column is a bigint.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Badges {
    bits: u64,
}

impl Badges {
    const ALL: u64 = 0xFF;

    fn from_bits_truncate(bits: u64) -> Self {
        Self { bits: bits & Self::ALL }
    }
}

impl crate::sample::Sample for Badges {
    fn sample(_: &mut crate::sample::Samples) -> Self {
        Self::from_bits_truncate(0b1010)
    }
}

mod bits {
    use super::Badges;
    use cache_aside::BoxError;

    pub(super) fn encode(badges: &Badges) -> String {
        badges.bits.to_string()
    }

    pub(super) fn decode(text: &[u8]) -> Result<Badges, BoxError> {
        Ok(Badges::from_bits_truncate(std::str::from_utf8(text)?.parse()?))
    }
}

part! {
    #[derive(Debug, Clone, PartialEq, Embeddable)]
    struct Pride26CampaignDonation {
        last_donated_at: DateTime<Utc>,
        has_badge: bool,
        has_midas: bool,
    }
}

/// Their `from_string` reads any other text as `Unknown`.
#[derive(Debug, Clone, Copy, PartialEq, FieldValue)]
#[cacheable(rename_all = "lowercase")]
pub(crate) enum ProjectStatus {
    Approved,
    Archived,
    Rejected,
    Draft,
    Unlisted,
    Processing,
    Withheld,
    Scheduled,
    Private,
    #[cacheable(other)]
    Unknown,
}

#[derive(Debug, Clone, Copy, PartialEq, FieldValue)]
#[cacheable(rename_all = "lowercase")]
pub(crate) enum VersionStatus {
    Listed,
    Archived,
    Draft,
    Unlisted,
    Scheduled,
    #[cacheable(other)]
    Unknown,
}

#[derive(Debug, Clone, Copy, PartialEq, FieldValue)]
#[cacheable(rename_all = "kebab-case")]
pub(crate) enum MonetizationStatus {
    ForceDemonetized,
    Demonetized,
    #[cacheable(other)]
    Monetized,
}

#[derive(Debug, Clone, Copy, PartialEq, FieldValue)]
#[cacheable(rename_all = "kebab-case")]
pub(crate) enum SideTypesMigrationReviewStatus {
    #[cacheable(other)]
    Reviewed,
    Pending,
}

sample_variants! {
    ProjectStatus::Withheld,
    VersionStatus::Listed,
    MonetizationStatus::ForceDemonetized,
    SideTypesMigrationReviewStatus::Pending,
}

part! {
    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    struct ProjectSerial {
        minecraft_mod: Option<ModProject>,
        minecraft_server: Option<ServerProject>,
        minecraft_java_server: Option<JavaServerProject>,
        minecraft_bedrock_server: Option<BedrockServerProject>,
    }
}

part! {
    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    struct ModProject {}
}

part! {
    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    struct ServerProject {
        max_players: Option<u32>,
        country: Option<String>,
        region: Option<ServerRegion>,
        // An enum of two-letter codes there.
        languages: Vec<String>,
        active_version: Option<DBVersionId>,
    }
}

part! {
    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    struct JavaServerProject {
        address: String,
        content: ServerContent,
    }
}

part! {
    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    struct BedrockServerProject {
        address: String,
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ServerRegion {
    UsEast,
    UsWest,
    Europe,
    Asia,
    Australia,
    SouthAmerica,
    MiddleEast,
    Russia,
}

sample_variants!(ServerRegion::SouthAmerica);

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum ServerContent {
    Modpack { version_id: DBVersionId },
    Vanilla { supported_game_versions: Vec<String>, recommended_game_version: Option<String> },
}

impl crate::sample::Sample for ServerContent {
    fn sample(samples: &mut crate::sample::Samples) -> Self {
        Self::Modpack { version_id: crate::sample::Sample::sample(samples) }
    }
}

part! {
    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    struct VersionSerial {
        minecraft_java_server: Option<JavaServerVersion>,
    }
}

part! {
    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    struct JavaServerVersion {}
}
