//! The trait of cached structs, [`Cacheable`], with its [`Schema`] and the typed handles of its fields, [`Field`] and
//! [`Change`].

use std::fmt;
use std::hash::Hash;
use std::marker::PhantomData;
use std::time::Duration;

use super::{Changes, Codec, FieldError, IdParts, RecordReader, RecordWriter};

/// A struct that can be cached as a Redis hash. `#[derive(Cacheable)]` implements it; never implement it by hand.
///
/// # Attributes of the struct
///
/// | attribute | default | meaning |
/// |---|---|---|
/// | `namespace = "billing"` | none | second part of every key |
/// | `entity = "product"` | the struct's name in `snake_case` | third part of every key |
/// | `ttl = "30s"` | [`defaults::TTL`](crate::defaults::TTL), 5 minutes | how long a record lives in the cache |
/// | `not_found_ttl = "2s"` | [`defaults::NOT_FOUND_TTL`](crate::defaults::NOT_FOUND_TTL), 5 seconds; half of a `ttl` that is not longer | how long the cache remembers that a record doesn't exist; shorter than `ttl` |
/// | `stale_if_error = "5m"` | none | how long a record is kept past its TTL, to be served if its load fails: see [`CacheBuilder::stale_if_error`](crate::CacheBuilder::stale_if_error) |
/// | `stale_retry = "1s"` | [`defaults::STALE_RETRY`](crate::defaults::STALE_RETRY), 1 second | how long a failed load is not retried while a stale record is served |
/// | `stale_while_revalidate = "10m"` | none | how long a record is kept past its TTL, to be served while it is loaded anew: see [`CacheBuilder::stale_while_revalidate`](crate::CacheBuilder::stale_while_revalidate) |
/// | `soft_timeout = "20ms"` | [`defaults::SOFT_TIMEOUT`](crate::defaults::SOFT_TIMEOUT), zero | how long a get waits for that load first |
/// | `refresh_ahead`, `refresh_ahead = 2.0` | none; without a value [`defaults::REFRESH_AHEAD`](crate::defaults::REFRESH_AHEAD), 1.0 | hits reload a record before it expires, the earlier the larger the number, which is finite and above 0: see [`CacheBuilder::refresh_ahead`](crate::CacheBuilder::refresh_ahead) |
/// | `version = 3` | none | becomes part of the key, so that different versions of a struct never share an entry |
/// | `also_invalidates = [2, none]` | none | other versions, older or newer, whose keys are invalidated in the same call; `none` stands for the keys without a version |
/// | `rename_all = "camelCase"` | none | the names of the fields in the hash, by the rules of serde: `lowercase`, `UPPERCASE`, `PascalCase`, `camelCase`, `snake_case`, `SCREAMING_SNAKE_CASE`, `kebab-case`, `SCREAMING-KEBAB-CASE` |
/// | `singleton` | | there is only one record: no field is the id, which is `()` in calls, and `_` in the key. At least one field must always be stored |
/// | `crate = path` | `::cache_aside` | the path of this crate, for crates that re-export it |
///
/// A duration is an integer followed by `ms`, `s`, `m`, `h` or `d`, from 1 ms to 36,500 days. Namespace and entity consist of
/// `[a-z0-9_-]`.
///
/// # Attributes of a field
///
/// | attribute | meaning |
/// |---|---|
/// | `id` | the field is the id, or one part of it; the id is then the tuple of these fields in declaration order |
/// | `rename = "price"` | the field's name in the hash |
/// | `alias = "cost"` | another name to read the field from if it is missing under its own name; it is only written under its own. Several aliases are tried in order |
/// | `default` | a field that is missing in the hash is `Default::default()`; a malformed one is still an error |
/// | `embed`, `embed(prefix = "home_")` | the fields of a struct that derives [`Embeddable`](crate::Embeddable) are fields of this one, with the field's name and a dot, or the prefix, before their names. Each has a handle; an `Option` of the struct has one, and is set as a whole |
/// | `skip` | the field isn't stored, and every record that the cache returns has `Default::default()` there |
/// | `store` | the field is stored although serde skips it. A field with serde's `skip`, `skip_serializing` or `skip_deserializing` needs this or `skip` |
/// | `json` | any serde type, stored as JSON text (feature `json`). The `None` of the field's own `Option` is left out of the hash; every other `null` is stored. A value that doesn't come back from its JSON, such as `NaN`, makes the record one that is not cached |
/// | `with = "module"` | `module::encode(&V) -> impl Into<Vec<u8>>` and `module::decode(&[u8]) -> Result<V, impl Into<BoxError>>` convert it. For an `Option<V>` they convert the `V`. A text that doesn't decode again is not stored |
///
/// Other attributes of serde mean nothing here: the page [`types`](crate::docs::types) has a table.
///
/// # Changing a struct
///
/// While a new release is rolled out, old and new processes share one Redis. The page [`schema`](crate::docs::schema) says,
/// for each change of a struct, how they read each other's entries, and which steps to take.
///
/// - An update that finds a field under an `alias`, even beside the field's own name, deletes the entry. Otherwise a process
///   that knows only the old name would go on reading the old value.
/// - With `also_invalidates`, [`invalidate`](crate::Cache::invalidate), `invalidate_many`, `clear`, `refresh` and all
///   updates also delete the entries and leases of the versions that it lists.
///
/// # Examples
///
/// ```
/// use cache_aside::Cacheable;
///
/// #[derive(Debug, Clone, PartialEq, Cacheable)]
/// #[cacheable(namespace = "billing", ttl = "30s", not_found_ttl = "2s")]
/// struct Product {
///     #[cacheable(id)]
///     id: String,
///     name: String,
///     #[cacheable(rename = "price")]
///     price_cents: i64,
///     discontinued: Option<bool>,
///     #[cacheable(json)]
///     tags: Vec<String>,
///     #[cacheable(with = "grams")]
///     weight: f64,
/// }
///
/// /// Kilograms in the program, whole grams in Redis.
/// mod grams {
///     pub fn encode(kilograms: &f64) -> String {
///         format!("{:.0}", kilograms * 1000.0)
///     }
///
///     pub fn decode(text: &[u8]) -> Result<f64, Box<dyn std::error::Error + Send + Sync>> {
///         let grams: u32 = std::str::from_utf8(text)?.parse()?;
///         Ok(f64::from(grams) / 1000.0)
///     }
/// }
///
/// assert_eq!(Product::FIELDS.price_cents.name(), "price");
/// assert_eq!(Product::SCHEMA.entity, "product");
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` can't be cached",
    label = "no `Cacheable`",
    note = "write `#[derive(Cacheable)]` on the struct, and `#[cacheable(id)]` on its id field"
)]
pub trait Cacheable: Sized + Send + Sync + 'static {
    /// The type of the id field. If there are several, the tuple of their types.
    type Id: Clone + Eq + Hash + Send + Sync + 'static;

    /// The struct of the field handles.
    type Fields;

    /// One [`Field`] for each stored field that is not part of the id.
    const FIELDS: Self::Fields;

    /// The names and lifetimes that the attributes set.
    const SCHEMA: Schema;

    /// The record's id.
    fn id(&self) -> Self::Id;

    /// Writes each part of the record's id. Not through [`CacheKey`](crate::CacheKey): a bound on `Id` would make the compiler
    /// report an id of a wrong type twice.
    #[doc(hidden)]
    fn write_id(&self, out: &mut dyn IdParts) -> fmt::Result;

    #[doc(hidden)]
    fn encode(&self, record: &mut RecordWriter);

    #[doc(hidden)]
    fn decode(record: &mut RecordReader<'_>) -> Result<Self, FieldError>;

    /// Sets the fields that are not stored to their defaults, as a hit has them.
    #[doc(hidden)]
    fn reset_skipped(&mut self) {}
}

/// The names and lifetimes that the attributes of a [`Cacheable`] set. `None` for an attribute that the struct doesn't have.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Schema {
    /// The second part of every key.
    pub namespace: Option<&'static str>,
    /// The third part of every key.
    pub entity: &'static str,
    /// A number that is part of every key.
    pub version: Option<u32>,
    /// How long a record lives in the cache.
    pub ttl: Option<Duration>,
    /// How long the cache remembers that a record doesn't exist.
    pub not_found_ttl: Option<Duration>,
    /// How long a record is kept past its TTL, to be served if its load fails.
    pub stale_if_error: Option<Duration>,
    /// How long a failed load is not retried while a stale record is served.
    pub stale_retry: Option<Duration>,
    /// How long a record is kept past its TTL, to be served while it is loaded anew.
    pub stale_while_revalidate: Option<Duration>,
    /// How long a get waits for that load first.
    pub soft_timeout: Option<Duration>,
    /// The beta of `XFetch`, which decides when a hit reloads its record before it expires.
    pub refresh_ahead: Option<f64>,
    /// The names of the stored fields, in declaration order.
    pub fields: &'static [&'static str],
    /// The names of the fields that are the id, or its parts.
    pub ids: &'static [&'static str],
    /// The aliases of all fields.
    pub aliases: &'static [&'static str],
    /// The other versions whose keys are invalidated together with this one's. `None` stands for the keys without a version.
    pub also_invalidates: &'static [Option<u32>],
}

#[doc(hidden)]
impl Schema {
    pub const fn new(entity: &'static str) -> Self {
        Self {
            namespace: None,
            entity,
            version: None,
            ttl: None,
            not_found_ttl: None,
            stale_if_error: None,
            stale_retry: None,
            stale_while_revalidate: None,
            soft_timeout: None,
            refresh_ahead: None,
            fields: &[],
            ids: &[],
            aliases: &[],
            also_invalidates: &[],
        }
    }
}

/// The handle of one field of `T`, whose values are of type `V`: `Product::FIELDS.stock`.
pub struct Field<T, V> {
    pub(super) codec: Codec<V>,
    /// The field of a record.
    pub(super) of: fn(&T) -> &V,
}

impl<T, V> Field<T, V> {
    #[doc(hidden)]
    pub const fn new(codec: Codec<V>, of: fn(&T) -> &V) -> Self {
        Self { codec, of }
    }

    /// The field's name in the hash.
    pub const fn name(&self) -> &'static str {
        self.codec.name
    }

    /// Makes a change that sets the field, for [`update_fields`](crate::Cache::update_fields).
    #[must_use = "it changes nothing until it is passed to `update_fields`"]
    #[allow(clippy::needless_pass_by_value, reason = "by value, the literal `41` takes the field's type")]
    pub fn set(&self, value: V) -> Change<T> {
        let mut record = RecordWriter::default();
        record.put(&self.codec, &value);
        Change { fields: record.finish(), of: PhantomData }
    }
}

impl<T, V> Clone for Field<T, V> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T, V> Copy for Field<T, V> {}

impl<T, V> fmt::Debug for Field<T, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Field").field(&self.name()).finish()
    }
}

/// A new value for one field of `T`, made by [`Field::set`].
pub struct Change<T> {
    /// Several for an embedded struct that is set as a whole.
    pub(crate) fields: Result<Changes, FieldError>,
    of: PhantomData<fn() -> T>,
}

impl<T> fmt::Debug for Change<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.fields.as_ref().map(|fields| fields.iter().map(|(name, _)| *name).collect::<Vec<_>>());
        f.debug_struct("Change").field("fields", &names).finish_non_exhaustive()
    }
}
