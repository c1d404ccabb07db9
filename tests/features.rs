//! The error messages of a build without a feature that the user needs.
#![allow(clippy::unwrap_used, missing_docs)]

#[cfg(not(feature = "tls"))]
#[tokio::test]
async fn without_the_feature_tls_its_urls_are_refused_with_its_name() {
    let error = cache_aside::Backend::connect("rediss://user:secret@127.0.0.1").await.unwrap_err();
    assert!(matches!(error, cache_aside::Error::Config { .. }), "{error:?}");
    assert_eq!(error.to_string(), "rediss:// needs TLS: switch on the feature `tls` of cache-aside");
}
