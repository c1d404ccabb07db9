//! Hyperswitch: `MerchantAccount`, `Customer` and `Refund`.
//!
//! juspay/hyperswitch, `crates/diesel_models/src/merchant_account.rs`, commit 95892f3dc9085d44c144174b352bbce542b91330;
//! `crates/diesel_models/src/customers.rs`, commit 2bef460e1209fa9440fbcecf77f2da3c32adc866; `crates/diesel_models/src/refund.rs`,
//! commit 012100b374a4b6621b51a6791343c7ec757a530c. Rows of diesel, with the feature `v1`.

use std::collections::HashSet;
use std::fmt;
use std::marker::PhantomData;

use cache_aside::{CacheId, Embeddable, FieldValue};
use serde::{Deserialize, Serialize};
use time::PrimitiveDateTime;

row! {
    struct MerchantAccount {
        #[cacheable(id)]
        merchant_id: MerchantId,
        return_url: Option<String>,
        enable_payment_response_hash: bool,
        payment_response_hash_key: Option<String>,
        redirect_to_merchant_with_http_post: bool,
        merchant_name: Option<Encryption>,
        merchant_details: Option<Encryption>,
        #[cacheable(json)]
        webhook_details: Option<WebhookDetails>,
        sub_merchants_enabled: Option<bool>,
        parent_merchant_id: Option<MerchantId>,
        publishable_key: Option<String>,
        storage_scheme: MerchantStorageScheme,
        locker_id: Option<String>,
        metadata: Option<SecretSerdeValue>,
        routing_algorithm: Option<serde_json::Value>,
        primary_business_details: serde_json::Value,
        intent_fulfillment_time: Option<i64>,
        created_at: PrimitiveDateTime,
        modified_at: PrimitiveDateTime,
        frm_routing_algorithm: Option<serde_json::Value>,
        payout_routing_algorithm: Option<serde_json::Value>,
        organization_id: OrganizationId,
        is_recon_enabled: bool,
        default_profile: Option<ProfileId>,
        recon_status: ReconStatus,
        payment_link_config: Option<serde_json::Value>,
        pm_collect_link_config: Option<serde_json::Value>,
        version: ApiVersion,
        is_platform_account: bool,
        id: Option<MerchantId>,
        product_type: Option<MerchantProductType>,
        merchant_account_type: Option<MerchantAccountType>,
        network_tokenization_credentials: Option<Encryption>,
    }
}

row! {
    struct Customer {
        #[cacheable(id)]
        customer_id: CustomerId,
        #[cacheable(id)]
        merchant_id: MerchantId,
        name: Option<Encryption>,
        email: Option<Encryption>,
        phone: Option<Encryption>,
        phone_country_code: Option<String>,
        description: Option<Description>,
        created_at: PrimitiveDateTime,
        metadata: Option<SecretSerdeValue>,
        connector_customer: Option<SecretSerdeValue>,
        modified_at: PrimitiveDateTime,
        address_id: Option<String>,
        default_payment_method_id: Option<String>,
        updated_by: Option<String>,
        version: ApiVersion,
    }
}

row! {
    struct Refund {
        internal_reference_id: String,
        #[cacheable(id)]
        refund_id: String,
        payment_id: PaymentId,
        merchant_id: MerchantId,
        #[cacheable(with = "connector_transaction_id")]
        connector_transaction_id: ConnectorTransactionId,
        connector: String,
        #[cacheable(with = "connector_transaction_id")]
        connector_refund_id: Option<ConnectorTransactionId>,
        external_reference_id: Option<String>,
        refund_type: RefundType,
        total_amount: MinorUnit,
        currency: Currency,
        refund_amount: MinorUnit,
        refund_status: RefundStatus,
        sent_to_gateway: bool,
        refund_error_message: Option<String>,
        metadata: Option<SecretSerdeValue>,
        refund_arn: Option<String>,
        created_at: PrimitiveDateTime,
        modified_at: PrimitiveDateTime,
        description: Option<String>,
        attempt_id: String,
        refund_reason: Option<String>,
        refund_error_code: Option<String>,
        profile_id: Option<ProfileId>,
        updated_by: String,
        merchant_connector_id: Option<MerchantConnectorAccountId>,
        #[cacheable(embed)]
        charges: Option<ChargeRefunds>,
        organization_id: OrganizationId,
        connector_refund_data: Option<String>,
        connector_transaction_data: Option<String>,
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, FieldValue, CacheId)]
pub(crate) struct AlphaNumericId(String);

#[derive(Debug, Clone, PartialEq, Eq, Hash, FieldValue)]
pub(crate) struct LengthId<const MAX_LENGTH: u8, const MIN_LENGTH: u8>(AlphaNumericId);

/// The derive takes no parameters.
impl<const MAX_LENGTH: u8, const MIN_LENGTH: u8> CacheId for LengthId<MAX_LENGTH, MIN_LENGTH> {
    fn write_id(&self, out: &mut dyn fmt::Write) -> fmt::Result {
        self.0.write_id(out)
    }
}

impl<const MAX_LENGTH: u8, const MIN_LENGTH: u8> crate::sample::Sample for LengthId<MAX_LENGTH, MIN_LENGTH> {
    fn sample(samples: &mut crate::sample::Samples) -> Self {
        Self(AlphaNumericId::sample(samples))
    }
}

macro_rules! id_type {
    ($($name:ident)*) => {
        $(
            #[derive(Debug, Clone, PartialEq, Eq, Hash, FieldValue, CacheId)]
            pub(crate) struct $name(LengthId<64, 1>);
        )*
        sample_newtypes!($($name),*);
    };
}

id_type! { MerchantId CustomerId PaymentId ProfileId OrganizationId MerchantConnectorAccountId }

#[derive(Debug, Clone, PartialEq, FieldValue)]
pub(crate) struct LengthString<const MAX_LENGTH: u16, const MIN_LENGTH: u16>(String);

#[derive(Debug, Clone, PartialEq, FieldValue)]
pub(crate) struct Description(LengthString<255, 1>);

impl crate::sample::Sample for Description {
    fn sample(samples: &mut crate::sample::Samples) -> Self {
        Self(LengthString(String::sample(samples)))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, FieldValue)]
pub(crate) struct MinorUnit(i64);

sample_newtypes!(AlphaNumericId, MinorUnit);

/// A value that is never printed.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize, FieldValue)]
#[serde(transparent)]
pub(crate) struct Secret<T, S = WithType> {
    inner_secret: T,
    masking_strategy: PhantomData<S>,
}

impl<T, S> fmt::Debug for Secret<T, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl<T: crate::sample::Sample, S> crate::sample::Sample for Secret<T, S> {
    fn sample(samples: &mut crate::sample::Samples) -> Self {
        Self { inner_secret: T::sample(samples), masking_strategy: PhantomData }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum WithType {}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum EncryptionStrategy {}

pub(crate) type SecretSerdeValue = Secret<serde_json::Value>;

part! {
    #[derive(Debug, Clone, PartialEq, FieldValue)]
    struct Encryption {
        inner: Secret<Vec<u8>, EncryptionStrategy>,
    }
}

/// The column has the text of either.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum ConnectorTransactionId {
    TxnId(String),
    HashedData(String),
}

mod connector_transaction_id {
    use super::ConnectorTransactionId;
    use std::str::Utf8Error;

    pub(super) fn encode(id: &ConnectorTransactionId) -> String {
        let (ConnectorTransactionId::TxnId(text) | ConnectorTransactionId::HashedData(text)) = id;
        text.clone()
    }

    pub(super) fn decode(text: &[u8]) -> Result<ConnectorTransactionId, Utf8Error> {
        let text = std::str::from_utf8(text)?.to_owned();
        Ok(match text.starts_with("hs_hash_") {
            true => ConnectorTransactionId::HashedData(text),
            false => ConnectorTransactionId::TxnId(text),
        })
    }
}

impl crate::sample::Sample for ConnectorTransactionId {
    fn sample(samples: &mut crate::sample::Samples) -> Self {
        match bool::sample(samples) {
            true => Self::TxnId(String::sample(samples)),
            false => Self::HashedData("hs_hash_0123".into()),
        }
    }
}

part! {
    #[derive(Debug, Clone, PartialEq, Embeddable)]
    struct ChargeRefunds {
        charge_id: String,
        revert_platform_fee: Option<bool>,
        revert_transfer: Option<bool>,
    }
}

part! {
    // A column of type json. The statuses and events, which are texts here, are enums there.
    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    struct WebhookDetails {
        webhook_version: Option<String>,
        webhook_username: Option<String>,
        webhook_password: Option<Secret<String>>,
        webhook_url: Option<Secret<String>>,
        payment_created_enabled: Option<bool>,
        payment_succeeded_enabled: Option<bool>,
        payment_failed_enabled: Option<bool>,
        payment_statuses_enabled: Option<Vec<String>>,
        refund_statuses_enabled: Option<Vec<String>>,
        payout_statuses_enabled: Option<Vec<String>>,
        multiple_webhooks_list: Option<Vec<MultipleWebhookDetail>>,
    }
}

part! {
    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    struct MultipleWebhookDetail {
        webhook_endpoint_id: String,
        webhook_url: Secret<String>,
        events: HashSet<String>,
        status: String,
    }
}

macro_rules! snake_case_enums {
    ($($name:ident { $($(#[$of_variant:meta])* $variant:ident)* })*) => {$(
        #[allow(clippy::enum_variant_names)]
        #[derive(Debug, Clone, Copy, PartialEq, FieldValue)]
        #[cacheable(rename_all = "snake_case")]
        pub(crate) enum $name {
            $($(#[$of_variant])* $variant,)*
        }
    )*};
}

snake_case_enums! {
    MerchantStorageScheme { PostgresOnly RedisKv }
    ReconStatus { NotRequested Requested Active Disabled }
    ApiVersion { V1 V2 }
    RefundType { InstantRefund RegularRefund RetryRefund }
    RefundStatus {
        #[cacheable(alias = "Failure")]
        Failure
        #[cacheable(alias = "ManualReview")]
        ManualReview
        #[cacheable(alias = "Pending")]
        Pending
        #[cacheable(alias = "Success")]
        Success
        #[cacheable(alias = "TransactionFailure")]
        TransactionFailure
    }
    MerchantProductType { Orchestration Vault Recon Recovery CostObservability DynamicRouting }
    MerchantAccountType { Standard Platform Connected }
}

sample_variants! {
    MerchantStorageScheme::RedisKv,
    ReconStatus::NotRequested,
    ApiVersion::V1,
    RefundType::RetryRefund,
    RefundStatus::TransactionFailure,
    MerchantProductType::CostObservability,
    MerchantAccountType::Connected,
    Currency::EUR,
}

macro_rules! currencies {
    ($($code:ident)*) => {
        #[allow(clippy::upper_case_acronyms)]
        #[derive(Debug, Clone, Copy, PartialEq, FieldValue)]
        pub(crate) enum Currency {
            $($code,)*
        }
    };
}

currencies! {
    AED AFN ALL AMD ANG AOA ARS AUD AWG AZN BAM BBD BDT BGN BHD BIF BMD BND BOB BRL BSD BTN BWP BYN BZD CAD CDF CHF
    CLP CNY COP CRC CUP CVE CZK DJF DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GNF GTQ GYD HKD HNL HRK
    HTG HUF IDR ILS INR IQD IRR ISK JMD JOD JPY KES KGS KHR KMF KPW KRW KWD KYD KZT LAK LBP LKR LRD LSL LYD MAD MDL
    MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MYR MZN NAD NGN NIO NOK NPR NZD OMR PAB PEN PGK PHP PKR PLN PYG QAR RON
    RSD RUB RWF SAR SBD SCR SDG SEK SGD SHP SLE SLL SOS SRD SSP STN SVC SYP SZL THB TJS TMT TND TOP TRY TTD TWD TZS
    UAH UGX USD UYU UZS VES VND VUV WST XAF XCD XOF XPF YER ZAR ZMW ZWL
}
