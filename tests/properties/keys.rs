//! Keys: different ids have different keys, no id leaves its prefix or chooses its cluster slot, and any value that can
//! be passed as an id has the key of that id.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use arbitrary::Arbitrary;
use cache_aside::proof::{keys, keys_under, parts_of_key};
use cache_aside::{CacheId, CacheKey, Cacheable, Error, FieldValue};
use redis::cluster_routing::Slot;

const MAX_ID_BYTES: usize = 1024;

#[derive(Debug, Cacheable)]
#[cacheable(namespace = "fuzz", entity = "text")]
struct ByText {
    #[cacheable(id)]
    id: String,
}

#[derive(Debug, Cacheable)]
#[cacheable(entity = "number", version = 3)]
struct ByNumber {
    #[cacheable(id)]
    id: u64,
}

/// Its namespace is what follows a key prefix.
#[derive(Debug, Cacheable)]
#[cacheable(namespace = "cache", entity = "number")]
struct InCache {
    #[cacheable(id)]
    id: u64,
}

#[derive(Debug, Cacheable)]
struct Number {
    #[cacheable(id)]
    id: u64,
}

#[derive(Debug, Cacheable)]
#[cacheable(entity = "text_and_number")]
struct ByTextAndNumber {
    #[cacheable(id)]
    text: String,
    #[cacheable(id)]
    number: u64,
}

#[derive(Debug, Cacheable)]
#[cacheable(namespace = "fuzz", entity = "texts")]
struct ByTexts {
    #[cacheable(id)]
    left: String,
    #[cacheable(id)]
    right: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, FieldValue, CacheId)]
struct Tenant(String);

#[derive(Debug, Clone, PartialEq, Eq, Hash, FieldValue, CacheId)]
#[cacheable(rename_all = "snake_case")]
enum Region {
    #[cacheable(rename = "a:b/c")]
    Odd,
    NorthSea,
}

#[derive(Debug, Cacheable)]
#[cacheable(namespace = "fuzz", entity = "domain")]
struct ByDomain {
    #[cacheable(id)]
    region: Region,
    #[cacheable(id)]
    tenant: Tenant,
    #[cacheable(id)]
    digest: [u8; 8],
}

#[test]
fn keys_follow_the_grammar() {
    fn key<T: Cacheable>(id: &impl CacheKey<T::Id>) -> String {
        keys::<T>(id).unwrap().0
    }
    assert_eq!(
        keys::<ByText>(&"a{b}c").unwrap(),
        ("cache:fuzz:text:a%7Bb%7Dc".into(), "{cache:fuzz:text:a%7Bb%7Dc}:lock".into())
    );
    assert_eq!(key::<ByText>(&"a:b/c%d e\n\0\u{7F}-_.~@*"), "cache:fuzz:text:a%3Ab%2Fc%25d%20e%0A%00%7F-_.~@*");
    assert_eq!(key::<ByText>(&"Käse"), "cache:fuzz:text:Käse");
    assert_eq!(key::<ByNumber>(&1), "cache:number@3:1");
    assert_eq!(key::<ByTextAndNumber>(&("acme", 42)), "cache:text_and_number:acme/42");
    assert_eq!(
        keys_under::<ByText>("team-a:", &"a{b}c").unwrap(),
        ("team-a:cache:fuzz:text:a%7Bb%7Dc".into(), "team-a:lock:{team-a:cache:fuzz:text:a%7Bb%7Dc}".into())
    );
    let longest = "x".repeat(MAX_ID_BYTES);
    assert!(keys::<ByText>(&longest).is_ok() && keys::<ByText>(&(longest + "x")).is_err());
}

/// Texts and numbers from which ids are made.
#[derive(Debug, Arbitrary)]
pub(crate) struct Input {
    texts: [Vec<Piece>; 3],
    numbers: [u64; 2],
    cut: u16,
    key_prefixes: [Vec<u8>; 2],
}

#[derive(Debug, Arbitrary)]
enum Piece {
    Text(String),
    Char(char),
    /// Characters with a meaning in keys, patterns or hash tags, and texts that look as if they were escaped already.
    Special(u8),
    Repeated(char, u16),
}

const SPECIAL: [&str; 16] =
    [":", "/", "{", "}", "%", "%2F", "%252F", "%3a", "@", "~", "*", ":lock", "{}", "}{", "\0", "cache:fuzz:text:"];

fn text(pieces: &[Piece]) -> String {
    let mut text = String::new();
    for piece in pieces {
        match piece {
            Piece::Text(part) => text.push_str(part),
            Piece::Char(char) => text.push(*char),
            Piece::Special(which) => text.push_str(SPECIAL[usize::from(*which) % SPECIAL.len()]),
            Piece::Repeated(char, times) => text.extend((0..*times % 1100).map(|_| *char)),
        }
    }
    text
}

/// A key prefix from parts that keys have too.
fn key_prefix(parts: &[u8]) -> String {
    const PARTS: [&str; 12] = [":", "cache", "cache:", "lock:", "a", "team-a:", "-", ".", "_", "fuzz", "text:", "X9"];
    parts.iter().take(8).map(|part| PARTS[usize::from(*part) % PARTS.len()]).collect()
}

/// The properties.
pub(crate) fn check(input: &Input) {
    let [one, other, third] = input.texts.each_ref().map(|pieces| text(pieces));
    let [number, other_number] = input.numbers;
    // The same text with its boundary at another place.
    let joined = format!("{one}{other}");
    let cut = (0..=usize::from(input.cut)).rev().find(|at| joined.is_char_boundary(*at));
    let (head, tail) = joined.split_at(cut.unwrap_or_default());

    let ids = [&one, &other, &third, &format!("{one}/{other}"), &joined, &number.to_string()];
    check_pairs::<ByText>(&ids.map(|id| id.to_owned()), |id| vec![id.clone()]);
    check_pairs::<ByNumber>(&[number, other_number], |id| vec![id.to_string()]);
    let ids = [(&one, number), (&one, other_number), (&other, number), (&format!("{one}/{number}"), other_number)];
    check_pairs::<ByTextAndNumber>(&ids.map(|(text, number)| (text.clone(), number)), |(text, number)| {
        vec![text.clone(), number.to_string()]
    });
    let ids = [(&*one, &*other), (&other, &one), (head, tail), (&one, &third), (&joined, "x"), ("x", &joined)];
    check_pairs::<ByTexts>(&ids.map(|(left, right)| (left.to_owned(), right.to_owned())), |(left, right)| {
        vec![left.clone(), right.clone()]
    });
    let ids = [(Region::Odd, &one, number), (Region::NorthSea, &one, number), (Region::Odd, &other, other_number)];
    let ids = ids.map(|(region, tenant, number)| (region, Tenant(tenant.clone()), number.to_be_bytes()));
    check_pairs::<ByDomain>(&ids, |(region, Tenant(tenant), digest)| {
        let region = if *region == Region::Odd { "a:b/c" } else { "north_sea" };
        vec![region.to_owned(), tenant.clone(), format!("{:016x}", u64::from_be_bytes(*digest))]
    });
    check_stand_ins(&one, &other, number);
    check_key_prefixes(input.key_prefixes.each_ref().map(|parts| key_prefix(parts)), &one, number);
}

/// Keys with and without key prefixes, of types with and without a namespace, are different, in one slot, and can be read back.
fn check_key_prefixes([one, other]: [String; 2], text: &str, number: u64) {
    let mut seen = HashMap::new();
    for key_prefix in ["", &one, &other] {
        let of_text = under::<ByText>(key_prefix, &text);
        let of_number = under::<ByNumber>(key_prefix, &number);
        let of_cache = under::<InCache>(key_prefix, &number);
        let without = under::<Number>(key_prefix, &number);
        let made = [
            (of_text, ["fuzz", "text"]),
            (of_number, ["", "number@3"]),
            (of_cache, ["cache", "number"]),
            (without, ["", "number"]),
        ];
        for (keys, [namespace, entity]) in made {
            let Some((key, lock)) = keys else { continue };
            let expected =
                if key_prefix.is_empty() { format!("{{{key}}}:lock") } else { format!("{key_prefix}lock:{{{key}}}") };
            assert_eq!(lock, expected);
            assert_eq!(Slot::for_key(&lock), Slot::for_key(&key), "{key}");
            assert_eq!(parts_of_key(&key)[..3], [key_prefix, namespace, entity], "{key}");
            for name in [key, lock] {
                let type_of_key = (key_prefix.to_owned(), namespace, entity);
                let before = seen.insert(name.clone(), type_of_key.clone());
                assert!(before.is_none_or(|before| before == type_of_key), "{name}");
            }
        }
    }
}

/// The keys, unless the id or the key prefix is refused.
fn under<T: Cacheable>(key_prefix: &str, id: &impl CacheKey<T::Id>) -> Option<(String, String)> {
    let plain = keys::<T>(id);
    if key_prefix.is_empty() {
        return plain.ok();
    }
    match keys_under::<T>(key_prefix, id) {
        Ok((key, lock)) => {
            assert_eq!(key, format!("{key_prefix}{}", plain.unwrap().0));
            Some((key, lock))
        }
        Err(Error::Config { .. }) => {
            assert!(key_prefix.rsplit_once(':').is_some_and(|(before, _)| before.ends_with("cache")), "{key_prefix}");
            None
        }
        Err(error) => {
            assert!(matches!(error, Error::InvalidId { .. }) && plain.is_err(), "{error:?}");
            None
        }
    }
}

/// Each id's key follows the grammar, and no two ids have the same.
fn check_pairs<T: Cacheable>(ids: &[T::Id], parts: impl Fn(&T::Id) -> Vec<String>)
where
    T::Id: CacheKey<T::Id>,
    for<'a> &'a T::Id: CacheKey<T::Id>,
{
    let keys: Vec<_> = ids.iter().map(|id| check_one::<T>(&id, &parts(id))).collect();
    for (at, one) in ids.iter().enumerate() {
        for (other_at, other) in ids.iter().enumerate() {
            if let (Some(key), Some(other_key)) = (&keys[at], &keys[other_at]) {
                assert_eq!(key == other_key, one == other, "{key:?}, {other_key:?}");
            }
        }
    }
}

fn check_one<T: Cacheable>(id: &impl CacheKey<T::Id>, parts: &[String]) -> Option<String> {
    let is_valid = parts.iter().all(|part| !part.is_empty()) && escaped_bytes(parts) <= MAX_ID_BYTES;
    let (key, lock) = match keys::<T>(id) {
        Ok(keys) => keys,
        Err(error) => {
            assert!(matches!(error, Error::InvalidId { .. }), "{error:?}");
            assert!(error.to_string().chars().count() < 250, "{error}");
            assert!(!is_valid, "{parts:?} is refused: {error}");
            return None;
        }
    };
    assert!(is_valid, "{parts:?} is not refused");
    let escaped = key.strip_prefix(&prefix::<T>()).expect("the key begins with the prefix");
    assert!(!escaped.contains([':', '{', '}']), "{key}");
    assert!(!escaped.bytes().any(|byte| byte <= b' ' || byte == 0x7F), "{key:?}");
    assert_eq!(escaped.split('/').map(unescaped).collect::<Vec<_>>(), parts);
    assert_eq!(lock, format!("{{{key}}}:lock"));
    assert_eq!(Slot::for_key(&lock), Slot::for_key(&key), "{key}");
    Some(key)
}

fn prefix<T: Cacheable>() -> String {
    let namespace = T::SCHEMA.namespace.map(|namespace| format!("{namespace}:")).unwrap_or_default();
    let version = T::SCHEMA.version.map(|version| format!("@{version}")).unwrap_or_default();
    format!("cache:{namespace}{}{version}:", T::SCHEMA.entity)
}

fn escaped_bytes(parts: &[String]) -> usize {
    let is_escaped = |byte: u8| byte <= 0x20 || byte == 0x7F || b"%:/{}".contains(&byte);
    let bytes = parts.iter().flat_map(|part| part.bytes());
    bytes.map(|byte| if is_escaped(byte) { 3 } else { 1 }).sum::<usize>() + parts.len() - 1
}

fn unescaped(part: &str) -> String {
    let mut pieces = part.split('%');
    let mut bytes = pieces.next().unwrap_or_default().as_bytes().to_vec();
    for piece in pieces {
        let (digits, rest) = piece.split_at(2);
        assert!(!digits.contains(|digit: char| digit.is_ascii_lowercase()), "{part}");
        bytes.push(u8::from_str_radix(digits, 16).expect("two digits follow `%`"));
        bytes.extend_from_slice(rest.as_bytes());
    }
    String::from_utf8(bytes).expect("an escape is one ASCII byte")
}

/// Each value that can be passed as an id has its key, and can be converted to it.
fn check_stand_ins(one: &str, other: &str, number: u64) {
    fn check<T: Cacheable>(key: impl CacheKey<T::Id>, id: &T::Id, wanted: Option<&String>)
    where
        T::Id: std::fmt::Debug,
    {
        assert_eq!(keys::<T>(&key).ok().map(|(key, _)| key).as_ref(), wanted);
        assert_eq!(&key.into_id(), id);
    }

    let id = one.to_owned();
    let wanted = keys::<ByText>(&id).ok().map(|(key, _)| key);
    let wanted = wanted.as_ref();
    check::<ByText>(one, &id, wanted);
    check::<ByText>(&one, &id, wanted);
    check::<ByText>(&id, &id, wanted);
    check::<ByText>(Cow::Borrowed(one), &id, wanted);
    check::<ByText>(&Cow::<str>::Owned(id.clone()), &id, wanted);
    check::<ByText>(Arc::<str>::from(one), &id, wanted);
    check::<ByText>(&Box::<str>::from(one), &id, wanted);
    check::<ByText>(id.clone(), &id, wanted);

    let wanted = keys::<ByNumber>(&number).ok().map(|(key, _)| key);
    check::<ByNumber>(&number, &number, wanted.as_ref());

    let id = (one.to_owned(), number);
    let wanted = keys::<ByTextAndNumber>(&id).ok().map(|(key, _)| key);
    let wanted = wanted.as_ref();
    check::<ByTextAndNumber>((one, number), &id, wanted);
    check::<ByTextAndNumber>(&(one, number), &id, wanted);
    check::<ByTextAndNumber>((Cow::Borrowed(one), &number), &id, wanted);

    let id = (Region::NorthSea, Tenant(one.to_owned()), number.to_be_bytes());
    let wanted = keys::<ByDomain>(&id).ok().map(|(key, _)| key);
    let wanted = wanted.as_ref();
    check::<ByDomain>((Region::NorthSea, one, number.to_be_bytes()), &id, wanted);
    check::<ByDomain>((&id.0, &one.to_owned(), &id.2), &id, wanted);

    let id = (one.to_owned(), other.to_owned());
    let wanted = keys::<ByTexts>(&id).ok().map(|(key, _)| key);
    let wanted = wanted.as_ref();
    check::<ByTexts>((one, other), &id, wanted);
    check::<ByTexts>(&id, &id, wanted);
    check::<ByTexts>((&id.0, Arc::<str>::from(other)), &id, wanted);
}
