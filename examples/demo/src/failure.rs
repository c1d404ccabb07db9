//! Errors as answers: a status, and JSON with an `error` that says what to do.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use cache_aside::{BoxError, Error};
use serde::Serialize;
use serde_json::{Value, json};

#[derive(Debug)]
pub(crate) struct Failure {
    status: StatusCode,
    body: Value,
}

impl Failure {
    pub(crate) fn new(status: StatusCode, error: impl Into<String>) -> Self {
        Self { status, body: json!({ "error": error.into(), "status": status.as_u16() }) }
    }

    pub(crate) fn bad_request(error: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, error)
    }

    pub(crate) fn unknown(id: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, format!("the primary has no product `{id}`"))
    }

    /// Adds the fields of `details` to the answer.
    pub(crate) fn with(mut self, details: &impl Serialize) -> Self {
        if let (Value::Object(body), Ok(Value::Object(details))) = (&mut self.body, serde_json::to_value(details)) {
            body.extend(details);
        }
        self
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        (self.status, Json(self.body)).into_response()
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let status = match error {
            Error::InvalidId { .. } => StatusCode::BAD_REQUEST,
            Error::Backend { .. } | Error::Timeout { .. } => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::new(status, chain(&error))
    }
}

impl From<BoxError> for Failure {
    fn from(error: BoxError) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, format!("the primary failed: {}", chain(&*error)))
    }
}

/// An error with all its causes, on one line.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
