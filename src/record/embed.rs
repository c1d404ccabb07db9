//! Structs whose fields are stored among those of the struct that contains them: [`Embeddable`].
//!
//! An embedded struct knows where it is by a [`Place`], a type that the derive makes for each field with `embed`. So the names of
//! its fields, with their prefixes, are made by the compiler, and a hit reads them as it reads any other field.

use std::marker::PhantomData;

use super::{FieldError, RecordReader, RecordWriter};

/// A struct that can be a field with `#[cacheable(embed)]`: its fields are stored as fields of the same hash.
/// `#[derive(Embeddable)]` implements it for a struct with named fields; never implement it by hand.
///
/// In the hash, the fields' names begin with the name of the embedding field and a dot, or with the text in
/// `#[cacheable(embed(prefix = ".."))]`, which may be empty. A field of the embedded struct has a handle of its own,
/// `Customer::FIELDS.home.city`. An `Option` of an embedded struct has a single handle, so that it is set and read as a whole:
/// it is `None` if none of its fields is in the hash. So one of them must always be stored, and not be an `Option` itself.
///
/// The fields take the attributes of [`Cacheable`](crate::Cacheable), except for `id`; the struct takes `rename_all` and
/// `crate`. An embedded struct may embed others. `P` is the place where the struct is embedded; code of yours never names it.
///
/// # Examples
///
/// ```
/// use cache_aside::{Cacheable, Embeddable};
///
/// #[derive(Debug, Clone, PartialEq, Embeddable)]
/// struct Address {
///     street: String,
///     city: Option<String>,
/// }
///
/// #[derive(Debug, Cacheable)]
/// struct Customer {
///     #[cacheable(id)]
///     id: u64,
///     #[cacheable(embed)]
///     home: Address,
///     #[cacheable(embed)]
///     work: Option<Address>,
/// }
///
/// assert_eq!(Customer::SCHEMA.fields, ["id", "home.street", "home.city", "work.street", "work.city"]);
/// assert_eq!(Customer::FIELDS.home.city.name(), "home.city");
/// Customer::FIELDS.work.set(Some(Address { street: "Quay 7".into(), city: None }));
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` can't be embedded",
    label = "no `Embeddable`",
    note = "write `#[derive(Embeddable)]` on the struct `{Self}`, or `#[cacheable(json)]` on the field to store it as one text"
)]
pub trait Embeddable<P>: Sized {
    /// The struct of the field handles.
    #[doc(hidden)]
    type Fields;

    #[doc(hidden)]
    const FIELDS: Self::Fields;

    /// The names of the stored fields, with their prefixes.
    #[doc(hidden)]
    const NAMES: &'static [Name];

    /// The aliases of the fields, with their prefixes.
    #[doc(hidden)]
    const ALIASES: &'static [Name];

    /// Whether there is a field that is never absent.
    #[doc(hidden)]
    const IS_ALWAYS_STORED: bool;

    /// How an `Option` of the struct is stored.
    #[doc(hidden)]
    const OPTIONAL: Part<Option<Self>> = Part::optional::<P>();

    #[doc(hidden)]
    fn encode(&self, record: &mut RecordWriter);

    #[doc(hidden)]
    fn decode(record: &mut RecordReader<'_>) -> Result<Self, FieldError>;

    /// Sets the fields that are not stored to their defaults.
    #[doc(hidden)]
    fn reset_skipped(&mut self) {}
}

/// A place in a record where a struct is embedded.
#[doc(hidden)]
pub trait Place: 'static {
    /// The struct that has the field handles.
    type Record;
    /// The struct that is embedded.
    type Embedded;
    /// What the names of its fields begin with.
    const PREFIX: &'static str;

    fn of(record: &Self::Record) -> &Self::Embedded;
}

/// No place in a record: where the derive checks what is the same in every place.
#[doc(hidden)]
#[derive(Debug)]
pub struct Nowhere<E>(PhantomData<E>);

impl<E: 'static> Place for Nowhere<E> {
    type Record = E;
    type Embedded = E;
    const PREFIX: &'static str = "";

    fn of(record: &E) -> &E {
        record
    }
}

/// A name in the hash, or the names of an embedded struct.
#[doc(hidden)]
#[derive(Debug, Clone, Copy)]
pub enum Name {
    Field(&'static str),
    Embedded(&'static [Name]),
}

impl Name {
    fn each(names: &[Self], use_name: &mut dyn FnMut(&'static str)) {
        for name in names {
            match name {
                Self::Field(name) => use_name(name),
                Self::Embedded(names) => Self::each(names, use_name),
            }
        }
    }
}

/// The number of fields.
#[doc(hidden)]
pub const fn count(names: &[Name]) -> usize {
    let (mut at, mut count) = (0, 0);
    while at < names.len() {
        count += match names[at] {
            Name::Field(_) => 1,
            Name::Embedded(names) => self::count(names),
        };
        at += 1;
    }
    count
}

/// All names in order. `N` is their [`count`].
#[doc(hidden)]
pub const fn flatten<const N: usize>(names: &[Name]) -> [&'static str; N] {
    let mut flat = [""; N];
    write_names(names, &mut flat, 0);
    flat
}

const fn write_names(names: &[Name], flat: &mut [&'static str], mut next: usize) -> usize {
    let mut at = 0;
    while at < names.len() {
        match names[at] {
            Name::Field(name) => {
                flat[next] = name;
                next += 1;
            }
            Name::Embedded(names) => next = write_names(names, flat, next),
        }
        at += 1;
    }
    next
}

/// The mistake if two fields have one name, or one has no name. The derive can't find it, since it doesn't see the fields of embedded
/// structs.
#[doc(hidden)]
pub const fn mistake_in_names(fields: &[&str], aliases: &[&str]) -> Option<Text> {
    let mut at = 0;
    while at < fields.len() + aliases.len() {
        let name = if at < fields.len() { fields[at] } else { aliases[at - fields.len()] };
        if name.is_empty() {
            return Some(join("the name of an embedded field has more than 255 bytes with its prefixes", ""));
        }
        let mut before = 0;
        while before < at {
            let other = if before < fields.len() { fields[before] } else { aliases[before - fields.len()] };
            if is_same(name.as_bytes(), other.as_bytes()) {
                return Some(join("two fields have one name, choose another `prefix`, `rename` or `alias`: ", name));
            }
            before += 1;
        }
        at += 1;
    }
    None
}

const fn is_same(one: &[u8], other: &[u8]) -> bool {
    let mut at = 0;
    while at < one.len() && at < other.len() && one[at] == other[at] {
        at += 1;
    }
    at == one.len() && at == other.len()
}

/// The longest name of a field with its prefixes, in bytes.
const MAX_NAME_BYTES: usize = 255;

/// A text that was made at compile time.
#[doc(hidden)]
#[derive(Debug)]
pub struct Text {
    bytes: [u8; MAX_NAME_BYTES],
    length: usize,
}

/// A name after a prefix. Empty if it is too long, which [`mistake_in_names`] reports.
#[doc(hidden)]
pub const fn join(prefix: &str, name: &str) -> Text {
    let (prefix, name) = (prefix.as_bytes(), name.as_bytes());
    let length = prefix.len() + name.len();
    let mut bytes = [0; MAX_NAME_BYTES];
    if length > MAX_NAME_BYTES {
        return Text { bytes, length: 0 };
    }
    let mut at = 0;
    while at < length {
        bytes[at] = if at < prefix.len() { prefix[at] } else { name[at - prefix.len()] };
        at += 1;
    }
    Text { bytes, length }
}

impl Text {
    pub const fn as_str(&self) -> &str {
        match std::str::from_utf8(self.bytes.split_at(self.length).0) {
            Ok(text) => text,
            // Two texts, one after the other, are a text.
            Err(_) => "",
        }
    }
}

/// How a value of several fields is written and read as a whole.
#[doc(hidden)]
#[derive(Debug)]
pub struct Part<V> {
    names: &'static [Name],
    aliases: &'static [Name],
    /// The number of values of which no field is stored.
    pub(super) absent_values: u8,
    pub(super) encode: fn(&V, &mut RecordWriter),
    pub(super) decode: fn(&mut RecordReader<'_>) -> Result<V, FieldError>,
}

impl<V> Part<V> {
    pub(super) fn for_each_name(&self, use_name: &mut dyn FnMut(&'static str)) {
        Name::each(self.names, use_name);
        Name::each(self.aliases, use_name);
    }
}

impl<V> Part<Option<V>> {
    /// An embedded struct that may be absent as a whole.
    const fn optional<P>() -> Self
    where
        V: Embeddable<P>,
    {
        Self {
            names: V::NAMES,
            aliases: V::ALIASES,
            absent_values: if V::IS_ALWAYS_STORED { 1 } else { 2 },
            encode: |value, record| match value {
                Some(value) => value.encode(record),
                None => Name::each(V::NAMES, &mut |name| record.leave_out(name)),
            },
            decode: |record| {
                let mut is_there = false;
                let mut look = |name: &'static str| is_there = is_there || record.has(name);
                Name::each(V::NAMES, &mut look);
                Name::each(V::ALIASES, &mut look);
                if is_there { V::decode(record).map(Some) } else { Ok(None) }
            },
        }
    }
}

impl<V> Clone for Part<V> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<V> Copy for Part<V> {}
