//! Svix server: `Model` of the table `endpoint`.
//!
//! svix/svix-webhooks, `server/svix-server/src/db/models/endpoint.rs`, commit 4fc0cfb8b426c87ef7e2b937e7d896a71d456a47. A model
//! of sea-orm, whose `DateTimeWithTimeZone` is `DateTime<FixedOffset>`.

use std::collections::{HashMap, HashSet};

use cache_aside::{BoxError, CacheId, FieldValue};
use chrono::{DateTime, FixedOffset, Utc};
use serde::{Deserialize, Serialize};

macro_rules! string_wrapper {
    ($($name:ident)*) => {
        $(
            #[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, FieldValue, CacheId)]
            pub(crate) struct $name(String);
        )*
        sample_newtypes!($($name),*);
    };
}

string_wrapper! { EndpointId ApplicationId EndpointUid EventTypeName EventChannel }

row! {
    struct Endpoint {
        #[cacheable(id)]
        id: EndpointId,
        created_at: DateTime<FixedOffset>,
        updated_at: DateTime<FixedOffset>,
        app_id: ApplicationId,
        #[cacheable(with = "bytes")]
        key: EndpointSecretInternal,
        url: String,
        description: String,
        #[cacheable(json)]
        event_types_ids: Option<EventTypeNameSet>,
        version: i32,
        rate_limit: Option<i32>,
        deleted: bool,
        disabled: bool,
        first_failure_at: Option<DateTime<FixedOffset>>,
        uid: Option<EndpointUid>,
        #[cacheable(json)]
        old_keys: Option<ExpiringSigningKeys>,
        #[cacheable(json)]
        channels: Option<EventChannelSet>,
        #[cacheable(json)]
        headers: Option<EndpointHeaders>,
    }
}

/// The column has the bytes: the type, whether the key is encrypted, and the key.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(into = "Vec<u8>", try_from = "Vec<u8>")]
pub(crate) struct EndpointSecretInternal {
    marker: EndpointSecretMarker,
    key: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct EndpointSecretMarker {
    type_: EndpointSecretType,
    encrypted: bool,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum EndpointSecretType {
    Hmac256 = 1,
    Ed25519 = 2,
}

impl From<EndpointSecretInternal> for Vec<u8> {
    fn from(secret: EndpointSecretInternal) -> Self {
        let EndpointSecretMarker { type_, encrypted } = secret.marker;
        [vec![type_ as u8, encrypted.into()], secret.key].concat()
    }
}

impl TryFrom<Vec<u8>> for EndpointSecretInternal {
    type Error = BoxError;

    fn try_from(bytes: Vec<u8>) -> Result<Self, BoxError> {
        let (type_, encrypted, key) = match bytes.as_slice() {
            [1, encrypted, key @ ..] => (EndpointSecretType::Hmac256, *encrypted != 0, key),
            [2, encrypted, key @ ..] => (EndpointSecretType::Ed25519, *encrypted != 0, key),
            _ => return Err("no secret".into()),
        };
        Ok(Self { marker: EndpointSecretMarker { type_, encrypted }, key: key.to_vec() })
    }
}

impl crate::sample::Sample for EndpointSecretInternal {
    fn sample(samples: &mut crate::sample::Samples) -> Self {
        let marker = EndpointSecretMarker { type_: EndpointSecretType::Ed25519, encrypted: true };
        Self { marker, key: crate::sample::Sample::sample(samples) }
    }
}

mod bytes {
    use super::EndpointSecretInternal;
    use cache_aside::BoxError;

    pub(super) fn encode(secret: &EndpointSecretInternal) -> Vec<u8> {
        secret.clone().into()
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<EndpointSecretInternal, BoxError> {
        bytes.to_vec().try_into()
    }
}

// Columns of type json.

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct EventTypeNameSet(HashSet<EventTypeName>);

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct EventChannelSet(HashSet<EventChannel>);

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct EndpointHeaders(HashMap<String, String>);

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct ExpiringSigningKeys(Vec<ExpiringSigningKey>);

sample_newtypes!(EventTypeNameSet, EventChannelSet, EndpointHeaders, ExpiringSigningKeys);

part! {
    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    struct ExpiringSigningKey {
        #[serde(rename = "signingKey")]
        key: EndpointSecretInternal,
        expiration: DateTime<Utc>,
    }
}
