//! Builds without a feature: the error message if the user needs it, and types of the user's own that have the name of its types.
#![allow(clippy::unwrap_used, missing_docs)]

#[cfg(not(feature = "tls"))]
#[tokio::test]
async fn without_the_feature_tls_its_urls_are_refused_with_its_name() {
    let error = cache_aside::Backend::connect("rediss://user:secret@127.0.0.1").await.unwrap_err();
    assert!(matches!(error, cache_aside::Error::Config { .. }), "{error:?}");
    assert_eq!(error.to_string(), "rediss:// needs TLS: switch on the feature `tls` of cache-aside");
}

mod own_types {
    use cache_aside::{CacheId, Cacheable, Embeddable, FieldValue};

    #[derive(Debug, Clone, PartialEq, Eq, Hash, FieldValue, CacheId)]
    struct Ulid(u64);

    #[derive(Debug, Clone, PartialEq, FieldValue)]
    struct Url(String);

    #[derive(Debug, Clone, PartialEq, FieldValue)]
    enum Time {
        Day,
        Night,
    }

    #[derive(Debug, Clone, PartialEq, Eq, Hash, FieldValue, CacheId)]
    struct ShopId(Ulid);

    #[derive(Debug, Clone, PartialEq, Embeddable)]
    struct Decimal {
        digits: u64,
        date: Option<Time>,
    }

    #[derive(Debug, Clone, PartialEq, Cacheable)]
    struct Shop {
        #[cacheable(id)]
        owner: Ulid,
        #[cacheable(id)]
        id: ShopId,
        page: Url,
        manual: Option<Box<Url>>,
        opens: Time,
        #[cacheable(embed)]
        price: Decimal,
    }

    #[tokio::test]
    async fn may_have_the_names_of_types_of_features() {
        let shop = Shop {
            owner: Ulid(1),
            id: ShopId(Ulid(2)),
            page: Url("/".into()),
            manual: Some(Box::new(Url("/manual".into()))),
            opens: Time::Day,
            price: Decimal { digits: 7, date: Some(Time::Night) },
        };
        let backend = cache_aside::Backend::connect("memory://").await.unwrap();
        let cache = cache_aside::Cache::<Shop>::new(backend);
        let loaded = shop.clone();
        cache.get(shop.id(), |_| async { Ok::<_, cache_aside::BoxError>(Some(loaded)) }).await.unwrap();
        assert_eq!(cache.peek((1, Ulid(2))).await.unwrap().as_deref(), Some(&shop));
    }
}
