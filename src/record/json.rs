//! The codec of `#[cacheable(json)]`, which is lossless or refuses the value.
//!
//! The field's own `Option` is an absent field if it is `None`. Every other JSON `null` is stored as `null`.

use std::borrow::Cow;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{Codec, FieldValue, heap};
use crate::error::BoxError;

/// The codec of a field that is no `Option`.
#[doc(hidden)]
pub const fn json<V: Serialize + DeserializeOwned>(name: &'static str) -> Codec<V> {
    Codec::with(name, |value| text_of(value).map(Some), |text| Ok(serde_json::from_slice(&text)?)).heap(heap::of_json)
}

/// The codec of an `Option`.
#[doc(hidden)]
pub const fn optional_json<V: Serialize + DeserializeOwned>(name: &'static str) -> Codec<Option<V>> {
    let encode: fn(&Option<V>) -> _ = |value| value.as_ref().map(text_of).transpose();
    Codec::with(name, encode, |text| Ok(Some(serde_json::from_slice(&text)?))).heap(heap::of_json).optional()
}

/// The JSON text of a value, if the same value comes back from it.
fn text_of<V: Serialize + DeserializeOwned>(value: &V) -> Result<Vec<u8>, BoxError> {
    let text = serde_json::to_vec(value)?;
    // Any other float has digits.
    if text.windows(4).any(|part| part == b"null") && has_odd_float(&ciborium::Value::serialized(value)?) {
        return Err("JSON can't hold a float that is NaN or infinite".into());
    }
    let again: V = serde_json::from_slice(&text).map_err(|cause| format!("its JSON does not decode again: {cause}"))?;
    let text_again = serde_json::to_vec(&again)?;
    // The keys of maps and the elements of sets may come in another order.
    if text != text_again && sorted(serde_json::from_slice(&text)?) != sorted(serde_json::from_slice(&text_again)?) {
        return Err("another value comes back from its JSON".into());
    }
    Ok(text)
}

/// Whether there is a float in it that JSON writes as `null`.
fn has_odd_float(value: &ciborium::Value) -> bool {
    match value {
        ciborium::Value::Float(float) => !float.is_finite(),
        ciborium::Value::Tag(_, value) => has_odd_float(value),
        ciborium::Value::Array(values) => values.iter().any(has_odd_float),
        ciborium::Value::Map(pairs) => pairs.iter().any(|(key, value)| has_odd_float(key) || has_odd_float(value)),
        _ => false,
    }
}

fn sorted(mut value: Value) -> Value {
    match &mut value {
        Value::Array(values) => {
            values.iter_mut().for_each(|value| *value = sorted(value.take()));
            values.sort_by_cached_key(Value::to_string);
        }
        Value::Object(pairs) => {
            pairs.values_mut().for_each(|value| *value = sorted(value.take()));
            // A feature of `serde_json` keeps the order of the text.
            pairs.sort_keys();
        }
        _ => {}
    }
    value
}

#[diagnostic::do_not_recommend]
impl FieldValue for Value {
    fn encode(&self) -> Option<Vec<u8>> {
        let text = self.to_string().into_bytes();
        // What is nested too deeply is written, but not read.
        serde_json::from_slice::<Self>(&text).ok()?;
        Some(text)
    }

    fn decode(bytes: Cow<'_, [u8]>) -> Result<Self, BoxError> {
        Ok(serde_json::from_slice(&bytes)?)
    }

    fn heap(bytes: &[u8]) -> usize {
        heap::of_json_value(bytes)
    }
}
