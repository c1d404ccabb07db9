//! The code that the derives generate for a struct: its schema, its ids, and the hash of its fields.

#![allow(missing_docs)]

use cache_aside::{Backend, BoxError, Cache, CacheId, CacheKey, Cacheable, EntryState, FieldValue, Outcome};

type TestResult = Result<(), BoxError>;

/// Stores the record, and returns the fields of its hash as text.
async fn stored<T: Cacheable>(cache: &Cache<T>, record: T) -> Result<Vec<(String, String)>, BoxError>
where
    T::Id: CacheKey<T::Id>,
{
    let id = record.id();
    cache.invalidate(id.clone()).await?;
    cache.get(id.clone(), |_| async { Ok::<_, BoxError>(Some(record)) }).await?;
    let fields = cache.inspect(id).await?.fields;
    fields.into_iter().map(|(name, value)| Ok((name, String::from_utf8(value)?))).collect()
}

fn pairs<const N: usize>(pairs: [(&str, &str); N]) -> Vec<(String, String)> {
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec()
}

async fn embedded<T: Cacheable>() -> Result<Cache<T>, BoxError> {
    Ok(Cache::new(Backend::connect("memory://").await?))
}

mod schema {
    use std::time::Duration;

    use cache_aside::Cacheable;

    #[derive(Cacheable)]
    #[cacheable(namespace = "billing", entity = "item", ttl = "30s", not_found_ttl = "250ms", version = 3)]
    struct Complete {
        #[cacheable(id)]
        id: String,
        #[cacheable(rename = "price")]
        price_cents: i64,
        #[cacheable(skip)]
        seen: bool,
        r#type: String,
    }

    #[test]
    fn the_schema_contains_the_attributes() {
        let schema = Complete::SCHEMA;
        assert_eq!(schema.namespace, Some("billing"));
        assert_eq!(schema.entity, "item");
        assert_eq!(schema.ttl, Some(Duration::from_secs(30)));
        assert_eq!(schema.not_found_ttl, Some(Duration::from_millis(250)));
        assert_eq!(schema.version, Some(3));
        assert_eq!(schema.fields, ["id", "price", "type"]);
    }

    #[derive(Cacheable)]
    struct OrderLine {
        #[cacheable(id)]
        number: u64,
    }

    #[test]
    fn the_schema_leaves_settings_without_attributes_open() {
        let schema = OrderLine::SCHEMA;
        assert_eq!((schema.namespace, schema.version), (None, None));
        assert_eq!((schema.ttl, schema.not_found_ttl), (None, None));
        assert_eq!(schema.entity, "order_line");
        assert_eq!(schema.fields, ["number"]);
    }

    /// Attributes may also be spread over several lines.
    #[derive(Cacheable)]
    #[cacheable(ttl = "36500d")]
    #[cacheable(not_found_ttl = "2h", version = 0)]
    struct HTTPRoute {
        #[cacheable(id)]
        #[cacheable(rename = "path")]
        id: String,
    }

    #[derive(Cacheable)]
    #[cacheable(stale_if_error = "5m", stale_retry = "250ms", refresh_ahead)]
    struct Tolerant {
        #[cacheable(id)]
        id: u64,
    }

    #[derive(Cacheable)]
    #[cacheable(refresh_ahead = 2)]
    struct Eager {
        #[cacheable(id)]
        id: u64,
    }

    #[derive(Cacheable)]
    #[cacheable(refresh_ahead = 0.5)]
    struct LessEager {
        #[cacheable(id)]
        id: u64,
    }

    #[test]
    fn the_schema_contains_stale_if_error_and_refresh_ahead() {
        let schema = Tolerant::SCHEMA;
        assert_eq!(schema.stale_if_error, Some(Duration::from_secs(300)));
        assert_eq!(schema.stale_retry, Some(Duration::from_millis(250)));
        assert_eq!(schema.refresh_ahead, Some(cache_aside::defaults::REFRESH_AHEAD));
        assert_eq!((Eager::SCHEMA.refresh_ahead, LessEager::SCHEMA.refresh_ahead), (Some(2.0), Some(0.5)));
        let plain = OrderLine::SCHEMA;
        assert_eq!((plain.stale_if_error, plain.stale_retry, plain.refresh_ahead), (None, None, None));
    }

    #[test]
    fn gathers_all_attributes() {
        let schema = HTTPRoute::SCHEMA;
        assert_eq!(schema.entity, "http_route");
        assert_eq!(schema.ttl, Some(Duration::from_secs(36_500 * 24 * 60 * 60)));
        assert_eq!(schema.not_found_ttl, Some(Duration::from_secs(2 * 60 * 60)));
        assert_eq!(schema.version, Some(0));
        assert_eq!(schema.fields, ["path"]);
    }

    /// Lists may contain newer versions, older ones, and the keys without a version.
    #[derive(Cacheable)]
    #[cacheable(version = 2, also_invalidates = [3, 1, none])]
    struct Versioned {
        #[cacheable(id, alias = "number")]
        id: u64,
        #[cacheable(alias = "cost", alias = "price_cents")]
        #[cacheable(rename = "price", alias = "amount")]
        price: i64,
        #[cacheable(json, default, alias = "labels")]
        tags: Vec<String>,
    }

    #[test]
    fn holds_older_names_and_other_versions() {
        let schema = Versioned::SCHEMA;
        assert_eq!(schema.also_invalidates, [Some(3), Some(1), None]);
        assert_eq!(schema.fields, ["id", "price", "tags"]);
        assert_eq!(schema.aliases, ["number", "cost", "price_cents", "amount", "labels"]);
        assert_eq!(Versioned::FIELDS.price.name(), "price");
        let plain = Complete::SCHEMA;
        assert!(plain.aliases.is_empty() && plain.also_invalidates.is_empty());
    }

    #[test]
    fn handles_know_their_names() {
        assert_eq!(Complete::FIELDS.price_cents.name(), "price");
        assert_eq!(Complete::FIELDS.r#type.name(), "type");
        assert_eq!(<Complete as Cacheable>::FIELDS.price_cents.name(), "price");
        assert_eq!(format!("{:?}", Complete::FIELDS.r#type), r#"Field("type")"#);
    }
}

mod ids {
    use super::*;

    #[derive(Debug, Clone, PartialEq, Eq, Hash, FieldValue, CacheId)]
    struct Sku(String);

    #[derive(Debug, Clone, PartialEq, Cacheable)]
    struct Product {
        name: String,
        #[cacheable(id)]
        sku: Sku,
    }

    #[derive(Debug, Clone, PartialEq, Cacheable)]
    struct OrderLine {
        #[cacheable(id)]
        order: u64,
        count: u32,
        #[cacheable(id, rename = "product")]
        sku: Sku,
    }

    #[test]
    fn are_the_field_or_the_tuple_of_several() {
        let sku = Sku("p-001".to_owned());
        assert_eq!(Product { name: String::new(), sku: sku.clone() }.id(), sku);
        assert_eq!(OrderLine { order: 7, count: 1, sku: sku.clone() }.id(), (7, sku));
    }

    #[tokio::test]
    async fn newtypes_are_stored_as_the_value_that_they_wrap() -> TestResult {
        let sku = Sku("p/001".to_owned());
        let cache = embedded().await?;
        let line = OrderLine { order: 7, count: 1, sku: sku.clone() };
        let fields = stored(&cache, line.clone()).await?;
        assert_eq!(fields, pairs([("order", "7"), ("count", "1"), ("product", "p/001")]));
        assert_eq!(cache.peek((7, &sku)).await?.as_deref(), Some(&line));
        assert_eq!(cache.inspect(&(7, sku)).await?.key, "cache:order_line:7/p%2F001");
        Ok(())
    }

    async fn read_and_invalidate<T>(cache: &Cache<T>, record: T) -> TestResult
    where
        T: Cacheable + Clone + PartialEq + std::fmt::Debug,
        T::Id: CacheKey<T::Id>,
        for<'a> &'a T::Id: CacheKey<T::Id>,
    {
        let (id, loaded) = (record.id(), record.clone());
        cache.get(id.clone(), |_| async { Ok::<_, BoxError>(Some(loaded)) }).await?;
        let hits = cache.get_many([&id], |_| async { Err::<Vec<T>, _>("it is in the cache") }).await;
        assert_eq!(hits.into_iter().next().transpose()?.flatten().as_deref(), Some(&record));
        assert!(cache.invalidate(&id).await?);
        assert_eq!(cache.peek(id).await?, None);
        Ok(())
    }

    #[tokio::test]
    async fn can_be_passed_by_generic_code() -> TestResult {
        let sku = Sku("p-001".to_owned());
        read_and_invalidate(&embedded().await?, Product { name: String::new(), sku: sku.clone() }).await?;
        read_and_invalidate(&embedded().await?, OrderLine { order: 7, count: 1, sku }).await
    }

    #[derive(Cacheable)]
    struct Cell {
        #[cacheable(id)]
        a: u8,
        #[cacheable(id)]
        b: u16,
        #[cacheable(id)]
        c: u32,
        #[cacheable(id)]
        d: u64,
        #[cacheable(id)]
        e: i8,
        #[cacheable(id)]
        f: bool,
        #[cacheable(id)]
        g: char,
        #[cacheable(id)]
        h: String,
    }

    #[tokio::test]
    async fn can_have_eight_parts() -> TestResult {
        let cell = Cell { a: 1, b: 2, c: 3, d: 4, e: -5, f: true, g: 'g', h: "h".to_owned() };
        assert_eq!(cell.id(), (1, 2, 3, 4, -5, true, 'g', "h".to_owned()));
        let cache = embedded::<Cell>().await?;
        assert_eq!(cache.inspect((1, 2, 3, 4, -5, true, 'g', "h")).await?.key, "cache:cell:1/2/3/4/-5/true/g/h");
        Ok(())
    }
}

mod fields {
    use super::*;

    #[derive(Debug, Clone, PartialEq, Cacheable)]
    struct Product {
        #[cacheable(id)]
        id: String,
        #[cacheable(rename = "price")]
        price_cents: i64,
        r#type: Option<String>,
        #[cacheable(default)]
        stock: u32,
        #[cacheable(skip)]
        seen: u32,
        #[cacheable(json)]
        tags: Vec<Tag>,
        #[cacheable(json)]
        note: Option<Tag>,
        #[cacheable(with = "self::grams")]
        kilograms: f64,
    }

    #[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
    struct Tag {
        label: String,
    }

    mod grams {
        pub(super) fn encode(kilograms: &f64) -> String {
            format!("{:.0}", kilograms * 1000.0)
        }

        pub(super) fn decode(text: &[u8]) -> Result<f64, Box<dyn std::error::Error + Send + Sync>> {
            Ok(std::str::from_utf8(text)?.parse::<f64>()? / 1000.0)
        }
    }

    fn loaf() -> Product {
        Product {
            id: "p-001".to_owned(),
            price_cents: 650,
            r#type: Some("bread".to_owned()),
            stock: 42,
            seen: 0,
            tags: vec![Tag { label: "new".to_owned() }],
            note: None,
            kilograms: 0.75,
        }
    }

    #[tokio::test]
    async fn are_stored_by_name_in_the_chosen_form() -> TestResult {
        let cache = embedded().await?;
        let expected = [
            ("id", "p-001"),
            ("price", "650"),
            ("type", "bread"),
            ("stock", "42"),
            ("tags", r#"[{"label":"new"}]"#),
            ("kilograms", "750"),
        ];
        assert_eq!(stored(&cache, loaf()).await?, pairs(expected));
        assert_eq!(cache.peek("p-001").await?.as_deref(), Some(&loaf()));
        Ok(())
    }

    #[tokio::test]
    async fn floats_in_json_come_back_to_the_last_digit() -> TestResult {
        #[derive(Debug, PartialEq, Cacheable)]
        struct Sample {
            #[cacheable(id)]
            id: u32,
            #[cacheable(json)]
            values: Vec<f64>,
        }

        let cache = embedded().await?;
        // A fast but inexact parser returns another number for the first.
        let values = vec![-7.934020422277099e275, 0.1];
        stored(&cache, Sample { id: 1, values: values.clone() }).await?;
        assert_eq!(cache.peek(1).await?.as_deref(), Some(&Sample { id: 1, values }));
        Ok(())
    }

    #[tokio::test]
    async fn skipped_ones_are_read_back_as_their_default() -> TestResult {
        let cache = embedded().await?;
        stored(&cache, Product { seen: 7, ..loaf() }).await?;
        assert_eq!(cache.peek("p-001").await?.as_deref(), Some(&loaf()));
        Ok(())
    }

    #[tokio::test]
    async fn handles_encode_as_the_record_does() -> TestResult {
        let cache = embedded().await?;
        stored(&cache, loaf()).await?;
        let changed = Product {
            price_cents: 700,
            r#type: None,
            tags: Vec::new(),
            note: Some(Tag { label: "half price".to_owned() }),
            kilograms: 0.5,
            ..loaf()
        };
        let fields = Product::FIELDS;
        let changes = [
            fields.price_cents.set(changed.price_cents),
            fields.r#type.set(changed.r#type.clone()),
            fields.tags.set(changed.tags.clone()),
            fields.note.set(changed.note.clone()),
            fields.kilograms.set(changed.kilograms),
        ];
        assert!(cache.update_fields("p-001", changes).await?);
        assert_eq!(cache.peek("p-001").await?.as_deref(), Some(&changed));
        let mut updated = cache.inspect("p-001").await?.fields;
        stored(&cache, changed).await?;
        let mut filled = cache.inspect("p-001").await?.fields;
        updated.sort();
        filled.sort();
        assert_eq!(updated, filled);
        Ok(())
    }

    /// Another struct for the same entries, with texts that a [`Product`] may or may not be able to read.
    #[derive(Cacheable)]
    #[cacheable(entity = "product")]
    struct OldProduct {
        #[cacheable(id)]
        id: String,
        price: Option<String>,
        stock: Option<String>,
        tags: Option<String>,
        kilograms: Option<String>,
    }

    fn old() -> OldProduct {
        OldProduct {
            id: "p-001".to_owned(),
            price: Some("650".to_owned()),
            stock: Some("42".to_owned()),
            tags: Some("[]".to_owned()),
            kilograms: Some("750".to_owned()),
        }
    }

    /// Stores one struct, reads it as the other, and returns whether it could be read.
    async fn reread(old: OldProduct) -> Result<Option<Product>, BoxError> {
        let backend = Backend::connect("memory://").await?;
        stored(&Cache::new(backend.clone()), old).await?;
        let cache: Cache<Product> = Cache::new(backend);
        let state = cache.inspect("p-001").await?.state;
        let product = cache.peek("p-001").await?;
        assert_eq!(state == EntryState::Record, product.is_some());
        Ok(product.map(|product| Product::clone(&product)))
    }

    #[tokio::test]
    async fn missing_ones_need_a_default() -> TestResult {
        let readable = Product { r#type: None, tags: Vec::new(), ..loaf() };
        assert_eq!(reread(old()).await?, Some(readable.clone()));
        let without_stock = reread(OldProduct { stock: None, ..old() }).await?;
        assert_eq!(without_stock, Some(Product { stock: 0, ..readable }));
        assert_eq!(reread(OldProduct { price: None, ..old() }).await?, None);
        assert_eq!(reread(OldProduct { tags: None, ..old() }).await?, None);
        assert_eq!(reread(OldProduct { kilograms: None, ..old() }).await?, None);
        Ok(())
    }

    /// Its default is not the value that is stored as an absent field.
    #[derive(Debug, Clone, PartialEq, FieldValue)]
    struct Limit(Option<u32>);

    impl Default for Limit {
        fn default() -> Self {
            Self(Some(100))
        }
    }

    #[derive(Debug, Clone, PartialEq, Cacheable)]
    struct Quota {
        #[cacheable(id)]
        id: u64,
        #[cacheable(default)]
        limit: Limit,
    }

    #[tokio::test]
    async fn an_absent_one_is_what_was_stored_and_not_its_default() -> TestResult {
        let cache = embedded().await?;
        let unlimited = Quota { id: 1, limit: Limit(None) };
        assert_eq!(stored(&cache, unlimited.clone()).await?, pairs([("id", "1")]));
        assert_eq!(cache.peek(1).await?.as_deref(), Some(&unlimited));
        Ok(())
    }

    #[tokio::test]
    async fn malformed_ones_are_never_replaced_by_a_default() -> TestResult {
        let malformed = || Some("many".to_owned());
        assert_eq!(reread(OldProduct { stock: malformed(), ..old() }).await?, None);
        assert_eq!(reread(OldProduct { price: malformed(), ..old() }).await?, None);
        assert_eq!(reread(OldProduct { tags: malformed(), ..old() }).await?, None);
        assert_eq!(reread(OldProduct { kilograms: malformed(), ..old() }).await?, None);
        Ok(())
    }

    /// Every field of [`Product`] except its id, under other names.
    #[derive(Debug, Clone, PartialEq, Cacheable)]
    #[cacheable(entity = "product")]
    struct Renamed {
        #[cacheable(id, alias = "id")]
        sku: String,
        #[cacheable(alias = "cost", alias = "price")]
        cents: i64,
        #[cacheable(alias = "type")]
        kind: Option<String>,
        #[cacheable(default, alias = "stock")]
        count: u32,
        #[cacheable(json, alias = "tags")]
        labels: Vec<Tag>,
        #[cacheable(json, alias = "note")]
        remark: Option<Tag>,
        #[cacheable(with = "grams", alias = "kilograms")]
        weight: f64,
    }

    fn renamed() -> Renamed {
        let Product { id, price_cents, r#type, stock, seen: _, tags, note, kilograms } = loaf();
        Renamed {
            sku: id,
            cents: price_cents,
            kind: r#type,
            count: stock,
            labels: tags,
            remark: note,
            weight: kilograms,
        }
    }

    #[tokio::test]
    async fn are_read_from_an_alias_and_written_by_their_own_name() -> TestResult {
        let backend = Backend::connect("memory://").await?;
        let cache: Cache<Renamed> = Cache::new(backend.clone());
        let remark = Some(Tag { label: "half price".to_owned() });
        stored(&Cache::new(backend), Product { note: remark.clone(), ..loaf() }).await?;
        assert_eq!(cache.peek("p-001").await?.as_deref(), Some(&Renamed { remark, ..renamed() }));
        let expected = [
            ("sku", "p-001"),
            ("cents", "650"),
            ("kind", "bread"),
            ("count", "42"),
            ("labels", r#"[{"label":"new"}]"#),
            ("weight", "750"),
        ];
        assert_eq!(stored(&cache, renamed()).await?, pairs(expected));
        assert_eq!(cache.peek("p-001").await?.as_deref(), Some(&renamed()));
        Ok(())
    }

    #[derive(Debug, PartialEq, Cacheable)]
    #[cacheable(entity = "shelf")]
    struct Names {
        #[cacheable(id)]
        id: u64,
        own: Option<String>,
        first: Option<String>,
        second: Option<String>,
    }

    #[derive(Debug, PartialEq, Cacheable)]
    #[cacheable(entity = "shelf")]
    struct Aliased {
        #[cacheable(id)]
        id: u64,
        #[cacheable(alias = "first", alias = "second")]
        own: Option<u32>,
    }

    /// The value of the aliased field, or why it can't be read.
    async fn read_as(
        own: Option<&str>,
        first: Option<&str>,
        second: Option<&str>,
    ) -> Result<Option<Aliased>, BoxError> {
        let backend = Backend::connect("memory://").await?;
        let [own, first, second] = [own, first, second].map(|text| text.map(str::to_owned));
        stored(&Cache::new(backend.clone()), Names { id: 7, own, first, second }).await?;
        let aliased = Cache::<Aliased>::new(backend).peek(7).await?;
        Ok(aliased.map(|aliased| Aliased { ..*aliased }))
    }

    #[tokio::test]
    async fn own_names_win_over_aliases_and_earlier_ones_over_later() -> TestResult {
        let is = |own| Some(Aliased { id: 7, own });
        assert_eq!(read_as(Some("1"), Some("2"), Some("3")).await?, is(Some(1)));
        assert_eq!(read_as(None, Some("2"), Some("3")).await?, is(Some(2)));
        assert_eq!(read_as(None, None, Some("3")).await?, is(Some(3)));
        assert_eq!(read_as(None, None, None).await?, is(None));
        assert_eq!(read_as(Some("many"), Some("2"), None).await?, None, "a malformed one is never passed over");
        assert_eq!(read_as(None, Some("many"), Some("3")).await?, None);
        Ok(())
    }

    #[derive(Debug, PartialEq, Cacheable)]
    struct OnlyOptional {
        #[cacheable(id)]
        id: u64,
        name: Option<String>,
        #[cacheable(json)]
        tags: Option<Vec<String>>,
    }

    #[tokio::test]
    async fn a_record_of_nothing_but_none_is_one() -> TestResult {
        let cache = embedded().await?;
        assert_eq!(stored(&cache, OnlyOptional { id: 7, name: None, tags: None }).await?, pairs([("id", "7")]));
        let lookup = cache.lookup(7, |_| async { Err::<Option<_>, BoxError>("not to be called".into()) }).await?;
        assert_eq!(lookup.outcome, Outcome::Hit);
        assert_eq!(lookup.value.as_deref(), Some(&OnlyOptional { id: 7, name: None, tags: None }));
        Ok(())
    }

    #[derive(Debug, Clone, PartialEq, Cacheable)]
    struct Blob {
        #[cacheable(id)]
        id: u64,
        #[cacheable(with = "reversed", rename = "txet", default)]
        text: Vec<u8>,
    }

    mod reversed {
        use std::convert::Infallible;

        pub(super) fn encode(text: &[u8]) -> Vec<u8> {
            text.iter().rev().copied().collect()
        }

        pub(super) fn decode(text: &[u8]) -> Result<Vec<u8>, Infallible> {
            Ok(encode(text))
        }
    }

    #[tokio::test]
    async fn functions_may_take_slices_and_choose_their_error() -> TestResult {
        let cache = embedded().await?;
        let blob = Blob { id: 7, text: b"abc".to_vec() };
        assert_eq!(stored(&cache, blob.clone()).await?, pairs([("id", "7"), ("txet", "cba")]));
        assert_eq!(cache.peek(7).await?.as_deref(), Some(&blob));
        Ok(())
    }
}

/// The library under another path, as in a crate that re-exports it.
mod elsewhere {
    use super::*;

    mod vendored {
        pub(super) mod cache {
            pub(in super::super) use ::cache_aside::*;
        }
    }

    #[derive(Clone, PartialEq, Eq, Hash, FieldValue, CacheId)]
    #[cacheable(crate = vendored::cache)]
    struct Sku(u64);

    #[derive(Cacheable)]
    #[cacheable(crate = self::vendored::cache, not_found_ttl = "1s")]
    struct Product {
        #[cacheable(id)]
        sku: Sku,
    }

    #[derive(Cacheable)]
    #[cacheable(crate = "crate::elsewhere::vendored::cache")]
    struct Order {
        #[cacheable(id)]
        id: u64,
    }

    #[test]
    fn is_found() {
        assert!(Product { sku: Sku(7) }.id() == Sku(7));
        assert_eq!(Order { id: 7 }.id(), 7);
    }
}
