//! Rauthy: `User`.
//!
//! sebadob/rauthy, `src/data/src/entity/users.rs`, commit f6223305c1b2183bb8fa9e24e3ed44045a6c26a2. A row of SQLite or PostgreSQL
//! by a derive of the project's own.

use cache_aside::FieldValue;

row! {
    struct User {
        #[cacheable(id)]
        id: String,
        email: String,
        given_name: String,
        family_name: Option<String>,
        password: Option<String>,
        roles: String,
        groups: Option<String>,
        enabled: bool,
        email_verified: bool,
        password_expires: Option<i64>,
        created_at: i64,
        last_login: Option<i64>,
        last_failed_login: Option<i64>,
        failed_login_attempts: Option<i64>,
        language: Language,
        webauthn_user_id: Option<String>,
        user_expires: Option<i64>,
        auth_provider_id: Option<String>,
        federation_uid: Option<String>,
        picture_id: Option<String>,
    }
}

/// Any text that they don't know is `En`.
#[derive(Debug, Clone, Copy, PartialEq, FieldValue)]
#[cacheable(rename_all = "lowercase")]
pub(crate) enum Language {
    #[cacheable(alias = "de-DE")]
    De,
    #[cacheable(alias = "en-US", other)]
    En,
    #[cacheable(alias = "fr-FR")]
    Fr,
    #[cacheable(alias = "ko-KR")]
    Ko,
    #[cacheable(alias = "nb-NO", alias = "no-NO")]
    Nb,
    #[cacheable(alias = "nl-NL")]
    Nl,
    #[cacheable(alias = "ru-RU")]
    Ru,
    #[cacheable(alias = "uk-UA")]
    Uk,
    #[cacheable(alias = "zh", alias = "zh-hans", alias = "zh-Hans")]
    ZhHans,
}

sample_variants!(Language::ZhHans);
