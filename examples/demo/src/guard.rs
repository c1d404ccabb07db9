//! Protection against foreign pages: checks where a request comes from, and sets the headers of every answer.

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::failure::Failure;

/// Whether the server listens only on this machine's own address.
#[derive(Clone, Copy)]
pub(crate) struct Loopback(pub(crate) bool);

/// The page may load only resources from here, and no other page may frame it.
const HEADERS: [(header::HeaderName, &str); 6] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'self'; base-uri 'none'; object-src 'none'; form-action 'self'; frame-ancestors 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::CACHE_CONTROL, "no-store"),
    (header::HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

pub(crate) async fn headers(request: Request, next: Next) -> Response {
    // Browsers report each answer of 400 and above as an error in their console, although a missing product isn't one.
    // So the page asks for status 200, and finds the real status in the body.
    let status_in_body = request.headers().contains_key("x-status-in-body");
    let mut response = next.run(request).await;
    for (name, value) in HEADERS {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    if status_in_body && !response.status().is_success() {
        *response.status_mut() = StatusCode::OK;
    }
    response
}

pub(crate) async fn known_host(State(loopback): State<Loopback>, request: Request, next: Next) -> Response {
    if loopback.0 && !names_this_machine(request.headers(), request.uri()) {
        let advice = "open it as localhost or 127.0.0.1: another name in `Host` may be an attack by DNS rebinding; \
                      --bind lets other machines in";
        return Failure::new(StatusCode::FORBIDDEN, advice).into_response();
    }
    next.run(request).await
}

pub(crate) async fn same_site(request: Request, next: Next) -> Response {
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    if !reads && foreign(request.headers()) {
        return Failure::new(StatusCode::FORBIDDEN, "another site's page may not change anything here").into_response();
    }
    next.run(request).await
}

fn names_this_machine(headers: &HeaderMap, uri: &Uri) -> bool {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let host = host.or_else(|| uri.authority().map(|authority| authority.as_str()));
    let Some(host) = host.and_then(|host| host.parse::<axum::http::uri::Authority>().ok()) else {
        return false;
    };
    let name = host.host().trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
    name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Browsers say where a request comes from; programs that don't are run by their own users.
fn foreign(headers: &HeaderMap) -> bool {
    let text = |name: header::HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    let elsewhere = text(header::HeaderName::from_static("sec-fetch-site"))
        .is_some_and(|site| !matches!(site, "same-origin" | "none"));
    let other_origin = text(header::ORIGIN).is_some_and(|origin| {
        let authority = origin.split_once("://").map(|(_, authority)| authority);
        authority.is_none() || authority != text(header::HOST)
    });
    elsewhere || other_origin
}
