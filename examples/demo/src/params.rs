//! A request's parameters, from the query of a GET and the form of a POST, and their checks.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;

use axum::body::Body;
use axum::extract::{FromRequest, Request};
use axum::http::{Method, StatusCode, header};
use futures_util::StreamExt;

use crate::failure::Failure;
use crate::primary::Edit;

const MAX_ID_BYTES: usize = 1_024;
const MAX_BODY_BYTES: usize = 64 * 1024;
const MAX_TEXT_BYTES: usize = 200;

#[derive(Debug)]
pub(crate) struct Params(Vec<(String, String)>);

impl Params {
    /// An id of a product: any text, but no longer than the cache would keep.
    pub(crate) fn id(&self) -> Result<&str, Failure> {
        match self.one("id")? {
            "" => Err(Failure::bad_request("the parameter `id` is empty")),
            id if id.len() > MAX_ID_BYTES => Err(Failure::bad_request("`id` has more than 1,024 bytes")),
            id => Ok(id),
        }
    }

    /// A text that is neither empty nor long.
    pub(crate) fn short_text(&self, name: &str) -> Result<&str, Failure> {
        match self.one(name)? {
            "" => Err(Failure::bad_request(format!("the parameter `{name}` is empty"))),
            text if text.len() > MAX_TEXT_BYTES => {
                Err(Failure::bad_request(format!("`{name}` is longer than {MAX_TEXT_BYTES} bytes")))
            }
            text => Ok(text),
        }
    }

    /// A whole number of this type.
    pub(crate) fn number<N: FromStr>(&self, name: &str) -> Result<N, Failure> {
        number(name, self.one(name)?)
    }

    pub(crate) fn number_in<N>(&self, name: &str, range: RangeInclusive<N>) -> Result<N, Failure>
    where
        N: FromStr + PartialOrd + Display,
    {
        let outside = || {
            let (first, last) = (range.start(), range.end());
            Failure::bad_request(format!("`{name}` must be a whole number from {first} to {last}"))
        };
        plain(self.one(name)?).filter(|number| range.contains(number)).ok_or_else(outside)
    }

    pub(crate) fn switch(&self, name: &str) -> Result<bool, Failure> {
        match self.one(name)? {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => Err(Failure::bad_request(format!("`{name}` must be true or false"))),
        }
    }

    /// A field and its new value, which must be of the field's type.
    pub(crate) fn edit(&self) -> Result<Edit, Failure> {
        match self.one("field")? {
            "name" => Ok(Edit::Name(self.short_text("value")?.to_owned())),
            "price_cents" => Ok(Edit::PriceCents(number("price_cents", self.one("value")?)?)),
            "stock" => Ok(Edit::Stock(number("stock", self.one("value")?)?)),
            other => {
                let error = format!("a product has no field `{other}` to set: name, price_cents or stock");
                Err(Failure::bad_request(error))
            }
        }
    }

    fn one(&self, name: &str) -> Result<&str, Failure> {
        let mut values = self.0.iter().filter(|(known, _)| known == name).map(|(_, value)| value.as_str());
        match (values.next(), values.next()) {
            // Bytes that aren't UTF-8 have been replaced by this character.
            (Some(value), None) if value.contains(char::REPLACEMENT_CHARACTER) => {
                Err(Failure::bad_request(format!("`{name}` is not UTF-8, or has the character U+FFFD")))
            }
            (Some(value), None) => Ok(value),
            (None, _) => Err(Failure::bad_request(format!("the parameter `{name}` is missing"))),
            (Some(_), Some(_)) => Err(Failure::bad_request(format!("the parameter `{name}` is given twice"))),
        }
    }
}

impl<S: Sync> FromRequest<S> for Params {
    type Rejection = Failure;

    async fn from_request(request: Request, _: &S) -> Result<Self, Failure> {
        let pairs = if request.method() == Method::POST {
            let kind = request.headers().get(header::CONTENT_TYPE).map(|kind| kind.as_bytes().to_ascii_lowercase());
            let form = limited(request.into_body()).await?;
            if kind.is_some_and(|kind| !kind.starts_with(b"application/x-www-form-urlencoded")) {
                let error = "send the parameters as application/x-www-form-urlencoded";
                return Err(Failure::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, error));
            }
            serde_urlencoded::from_bytes(&form)
        } else {
            serde_urlencoded::from_str(request.uri().query().unwrap_or_default())
        };
        pairs.map(Self).map_err(|error| Failure::bad_request(format!("the parameters are malformed: {error}")))
    }
}

/// A whole number in plain digits, without a `+`.
fn plain<N: FromStr>(text: &str) -> Option<N> {
    Some(text).filter(|text| !text.starts_with('+')).and_then(|text| text.parse().ok())
}

fn number<N: FromStr>(name: &str, text: &str) -> Result<N, Failure> {
    plain(text).ok_or_else(|| {
        let shown: String = text.chars().take(40).collect();
        Failure::bad_request(format!("`{name}` must be a whole number in its range, not `{shown}`"))
    })
}

/// A body within the limit. If it is larger, some more of it is read, so that the sender gets to read the answer.
async fn limited(body: Body) -> Result<Vec<u8>, Failure> {
    const MAX_DISCARDED_BYTES: usize = 16 * 1024 * 1024;
    let (mut chunks, mut bytes, mut total) = (body.into_data_stream(), Vec::new(), 0);
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|error| Failure::bad_request(format!("the body can't be read: {error}")))?;
        total += chunk.len();
        if total <= MAX_BODY_BYTES {
            bytes.extend_from_slice(&chunk);
        } else if total > MAX_DISCARDED_BYTES {
            break;
        }
    }
    if total > MAX_BODY_BYTES {
        let error = format!("the body is larger than {MAX_BODY_BYTES} bytes");
        return Err(Failure::new(StatusCode::PAYLOAD_TOO_LARGE, error));
    }
    Ok(bytes)
}
