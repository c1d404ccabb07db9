//! The test suite of the contract `Store`, on the embedded backend, on three real servers, and on clusters. On servers
//! it runs as the user with the minimal ACL in `docs/operations.md`, so everything that the library sends is covered by
//! that. It also runs there as a user without scripts.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use testkit::access::Access;
use testkit::cluster::{self, Cluster, Moves};
use testkit::server::{Flavor, Server};

use super::{Attempt, Backend, Decision, Filled, Mark, Token, Touched};
use crate::record::entry::named;
use crate::record::{ALL, Entry, Found, Key, KeySpace, META, Meta, Schema, Selection, StoredField};

const LEASE: Duration = Duration::from_secs(10);
const TTL: Duration = Duration::from_secs(20);

/// A test that runs on each of these, with a key of its own.
macro_rules! test_on {
    ($places:ident, $name:ident, $test:expr) => {
        #[tokio::test]
        async fn $name() {
            $places($test).await;
        }
    };
}

/// Runs a test on every backend; or, once more, on a cluster.
async fn every_backend(test: impl AsyncFn(Backend, Key)) {
    if let Some(url) = cluster::once_more_on().await {
        return test(connect(&url, &Access::documented()).await, key("any")).await;
    }
    test(connect("memory://", &access()).await, key("any")).await;
    test(connect("memory://", &access()).await, key_under("team-a:", "any")).await;
    for flavor in Flavor::ALL {
        let server = Server::start(flavor).await;
        for (access, id) in [(access(), "any"), (without_scripts(), "scriptless")] {
            println!("on {flavor:?}, {id}");
            access.grant(&server).await;
            test(connect(&server.url(), &access).await, key(id)).await;
        }
        test(connect(&server.unix_url(), &access()).await, key_under("team-a:", "other")).await;
    }
}

/// Runs a test on every server, which the test can interfere with.
async fn every_server(test: impl AsyncFn(Server, Backend, Key)) {
    for flavor in Flavor::ALL {
        for access in [Access::documented(), Access::without_scripts()] {
            let server = Server::start(flavor).await;
            access.grant(&server).await;
            let backend = connect(&server.url(), &access).await;
            test(server, backend, key("any")).await;
        }
    }
}

/// The user with the minimal permissions, for keys with a prefix too.
fn access() -> Access {
    Access::documented().with_keys("~team-a:*")
}

/// The same without scripts.
fn without_scripts() -> Access {
    Access::without_scripts().with_keys("~team-a:*")
}

/// Connects as this user, with a deadline that a busy machine can keep.
async fn connect(url: &str, access: &Access) -> Backend {
    let url = access.url(url);
    Backend::builder(&url).operation_timeout(Duration::from_secs(5)).connect().await.unwrap()
}

fn key(id: &str) -> Key {
    key_under("", id)
}

fn key_under(key_prefix: &str, id: &str) -> Key {
    KeySpace::new(key_prefix, Some("billing"), &Schema::new("thing")).key::<String>(&id).unwrap()
}

fn fields(pairs: &[(&'static str, &str)]) -> Vec<StoredField> {
    pairs.iter().map(|(name, value)| (name.as_bytes().into(), value.as_bytes().to_vec())).collect()
}

/// The stored hash, ordered by name.
async fn stored(backend: &Backend, key: &Key) -> Option<Vec<StoredField>> {
    backend.read(key, &ALL, false).await.unwrap().map(|found| hash(&found))
}

fn hash(found: &Found) -> Vec<StoredField> {
    seen(&found.entry, &ALL)
}

/// The fields that a read shows, ordered by name.
fn seen(entry: &Entry, selection: &Selection) -> Vec<StoredField> {
    let Entry::Hash(hash) = entry else { panic!("not a hash") };
    let fields = named(hash, selection.names().unwrap_or_default());
    let mut fields: Vec<StoredField> =
        fields.into_iter().map(|(name, value)| (name.to_vec().into(), value.into())).collect();
    fields.sort();
    fields
}

/// The fields among these that every backend shows.
fn seen_of_selected(entry: &Entry, selection: &Selection) -> Vec<StoredField> {
    let names = selection.names().unwrap();
    let mut fields = seen(entry, selection);
    fields.retain(|(name, _)| **name == *META || names.iter().any(|selected| selected.as_bytes() == &**name));
    fields
}

fn left(found: Option<&Found>) -> Duration {
    found.unwrap().left.unwrap()
}

async fn granted(backend: &Backend, key: &Key, lease: Duration) -> Token {
    let mut token = Token::new();
    assert!(backend.acquire(key, &mut token, lease).await.unwrap().granted);
    token
}

async fn fill(backend: &Backend, key: &Key, pairs: &[(&'static str, &str)]) {
    let token = granted(backend, key, LEASE).await;
    assert_eq!(backend.fill(key, &token, fields(pairs), TTL).await.unwrap(), Filled::Accepted);
}

/// Updates an entry as the cache does, and returns whether changes were applied.
async fn update(
    backend: &Backend,
    key: &Key,
    selection: &Selection,
    mut decide: impl FnMut(Option<&Found>) -> Decision,
) -> bool {
    let mut update = backend.update(key, selection);
    loop {
        if let Attempt::Done(shown) = update.watch().await.unwrap()
            && let Attempt::Done(applied) = update.commit(decide(shown.as_ref())).await.unwrap()
        {
            return applied;
        }
        tokio::task::yield_now().await;
    }
}

fn set(field: &'static str, value: &str) -> Decision {
    Decision::Apply { changes: vec![(field, Some(value.as_bytes().to_vec()))], ttl: None }
}

async fn is_fenced(backend: &Backend, key: &Key, token: &Token) -> bool {
    let before = stored(backend, key).await;
    let filled = backend.fill(key, token, fields(&[("v", "late")]), TTL).await.unwrap();
    filled == Filled::Fenced && stored(backend, key).await == before
}

test_on!(every_backend, grants_one_lease_at_a_time, async |backend, key| {
    let first = granted(&backend, &key, LEASE).await;
    let second = backend.acquire(&key, &mut Token::new(), LEASE).await.unwrap();
    assert!(!second.granted && second.found.is_none());
    let left = second.held.unwrap().left;
    assert!(left <= LEASE && left > LEASE / 2, "{left:?}");
    backend.abandon(&key, &Token::new()).await.unwrap();
    assert!(!backend.acquire(&key, &mut Token::new(), LEASE).await.unwrap().granted, "abandoned by a stranger");
    backend.abandon(&key, &first).await.unwrap();
    granted(&backend, &key, LEASE).await;
});

test_on!(every_backend, returns_the_entry_with_every_acquire, async |backend, key| {
    fill(&backend, &key, &[("v", "1")]).await;
    let acquired = backend.acquire(&key, &mut Token::new(), LEASE).await.unwrap();
    assert!(acquired.granted);
    assert_eq!(acquired.found.as_ref().map(hash), Some(fields(&[("v", "1")])));
    let refused = backend.acquire(&key, &mut Token::new(), LEASE).await.unwrap();
    assert!(!refused.granted);
    assert_eq!(refused.found.as_ref().map(hash), Some(fields(&[("v", "1")])));
});

test_on!(every_backend, fills_whole_with_a_lifetime_and_uses_up_the_lease, async |backend, key| {
    fill(&backend, &key, &[("old", "1"), ("v", "1")]).await;
    let token = granted(&backend, &key, LEASE).await;
    let filled = backend.fill(&key, &token, fields(&[("v", "2"), ("empty", "")]), TTL).await.unwrap();
    assert_eq!(filled, Filled::Accepted);
    let look = backend.look(&key).await.unwrap();
    let found = look.found.unwrap();
    assert!(found.left.unwrap() <= TTL && found.left.unwrap() > TTL / 2);
    assert_eq!(hash(&found), fields(&[("empty", ""), ("v", "2")]));
    assert_eq!(look.lease_ttl, None);
    assert!(is_fenced(&backend, &key, &token).await, "a lease fills once");
});

test_on!(every_backend, returns_the_lifetime_with_every_read_of_an_entry, async |backend, key| {
    assert!(backend.read(&key, &ALL, true).await.unwrap().is_none());
    fill(&backend, &key, &[("v", "1")]).await;
    let mut shown = Vec::new();
    let mut decide = |found: Option<&Found>| {
        shown.push(left(found));
        Decision::Apply { changes: Vec::new(), ttl: None }
    };
    assert!(update(&backend, &key, &ALL, &mut decide).await);
    for _ in ["granted", "refused"] {
        shown.push(left(backend.acquire(&key, &mut Token::new(), LEASE).await.unwrap().found.as_ref()));
    }
    shown.push(left(backend.look(&key).await.unwrap().found.as_ref()));
    let read = backend.read(&key, &ALL, true).await.unwrap();
    shown.push(left(read.as_ref()));
    assert_eq!(read.as_ref().map(hash), Some(fields(&[("v", "1")])));
    assert!(shown[0] <= TTL && shown.is_sorted_by(|one, next| one >= next), "{shown:?}");
    assert!(*shown.last().unwrap() > TTL / 2, "{shown:?}");
});

test_on!(every_backend, sets_a_mark_only_for_the_holder_and_only_for_its_time, async |backend, key| {
    const PAUSE: Duration = Duration::from_secs(30);
    fill(&backend, &key, &[("v", "1")]).await;
    for mark in [Mark::Failed, Mark::Unstored] {
        let token = granted(&backend, &key, LEASE).await;
        backend.mark(&key, &Token::new(), mark, PAUSE).await.unwrap();
        let held = backend.acquire(&key, &mut Token::new(), LEASE).await.unwrap();
        assert!(!held.granted && held.mark().is_none(), "by a stranger");

        backend.mark(&key, &token, mark, PAUSE).await.unwrap();
        let lease_ttl = backend.look(&key).await.unwrap().lease_ttl;
        assert_eq!(lease_ttl.is_some(), mark == Mark::Failed, "who sees the other loads at once");
        let marked = backend.acquire(&key, &mut Token::new(), LEASE).await.unwrap();
        let left = marked.held.as_ref().unwrap().left;
        assert!(!marked.granted && marked.mark() == Some(mark) && left > LEASE && left <= PAUSE);
        assert_eq!(marked.found.as_ref().map(hash), Some(fields(&[("v", "1")])));
        assert!(is_fenced(&backend, &key, &token).await);
        assert!(!backend.renew(&key, &token, LEASE).await.unwrap());
        backend.abandon(&key, &token).await.unwrap();
        let marked = backend.acquire(&key, &mut Token::new(), LEASE).await.unwrap();
        assert_eq!(marked.mark(), Some(mark), "no longer the holder's");
        backend.abandon(&key, &Token::of(mark)).await.unwrap();

        let token = granted(&backend, &key, LEASE).await;
        backend.mark(&key, &token, mark, Duration::from_millis(50)).await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
        let token = granted(&backend, &key, LEASE).await;
        backend.invalidate(key.clone()).await.unwrap();
        backend.mark(&key, &token, mark, LEASE).await.unwrap();
        assert_eq!(backend.look(&key).await.unwrap().lease_ttl, None, "a mark never takes the place of a lost lease");

        let token = granted(&backend, &key, LEASE).await;
        backend.mark(&key, &token, mark, LEASE).await.unwrap();
        backend.invalidate(key.clone()).await.unwrap();
        fill(&backend, &key, &[("v", "1")]).await;
    }
});

test_on!(every_backend, takes_a_lease_over_from_its_mark_alone, async |backend, key| {
    for (mark, other) in [(Mark::Failed, Mark::Unstored), (Mark::Unstored, Mark::Failed)] {
        let token = granted(&backend, &key, LEASE).await;
        let own = Token::new().after_mark();
        assert!(own.is_after_mark() && !token.is_after_mark());
        assert!(!backend.take_over(&key, mark, &own, LEASE).await.unwrap().granted, "from a lease");
        backend.mark(&key, &token, mark, LEASE).await.unwrap();
        assert!(!backend.take_over(&key, other, &own, LEASE).await.unwrap().granted, "from another mark");
        assert!(backend.take_over(&key, mark, &own, LEASE).await.unwrap().granted);
        let second = backend.take_over(&key, mark, &Token::new().after_mark(), LEASE).await.unwrap();
        assert!(!second.granted, "only once");
        let held = backend.acquire(&key, &mut Token::new(), LEASE).await.unwrap().held.unwrap();
        assert_eq!(held.by, own);
        let filled = backend.fill(&key, &own, vec![(b"v".as_slice().into(), b"1".to_vec())], TTL).await.unwrap();
        assert_eq!(filled, Filled::Accepted);
        // With the entry that is there after the grant.
        let token = granted(&backend, &key, LEASE).await;
        backend.mark(&key, &token, mark, LEASE).await.unwrap();
        let taken = backend.take_over(&key, mark, &own, LEASE).await.unwrap();
        assert_eq!(taken.found.as_ref().map(hash), Some(fields(&[("v", "1")])));
        backend.invalidate(key.clone()).await.unwrap();
    }
});

test_on!(every_backend, leaves_a_mark_if_there_is_nothing_to_store, async |backend, key| {
    fill(&backend, &key, &[("v", "1")]).await;
    let token = granted(&backend, &key, LEASE).await;
    assert_eq!(backend.fill(&key, &Token::new(), Vec::new(), LEASE).await.unwrap(), Filled::Fenced);
    assert_eq!(stored(&backend, &key).await, Some(fields(&[("v", "1")])));
    assert_eq!(backend.fill(&key, &token, Vec::new(), LEASE).await.unwrap(), Filled::Accepted);
    let acquired = backend.acquire(&key, &mut Token::new(), LEASE).await.unwrap();
    assert!(acquired.mark() == Some(Mark::Unstored) && acquired.found.is_none());
});

test_on!(every_backend, touches_an_entry_only_for_the_holder, async |backend, key| {
    const LONGER: Duration = Duration::from_secs(200);
    let meta = Meta { stale: Some(Duration::from_secs(100)), load: None };
    let noted = || fields(&[("v", "1"), ("~meta", "stale=100000")]);
    fill(&backend, &key, &[("v", "1")]).await;
    let token = granted(&backend, &key, LEASE).await;
    let stranger = backend.touch(&key, &Token::new(), Some(meta), LONGER).await.unwrap();
    assert_eq!(stranger, Touched::Fenced);
    assert_eq!(stored(&backend, &key).await, Some(fields(&[("v", "1")])));
    assert!(left(backend.read(&key, &ALL, true).await.unwrap().as_ref()) <= TTL);

    assert_eq!(backend.touch(&key, &token, Some(meta), LONGER).await.unwrap(), Touched::Accepted);
    let look = backend.look(&key).await.unwrap();
    assert!(look.lease_ttl.is_none() && left(look.found.as_ref()) > TTL * 2);
    assert_eq!(stored(&backend, &key).await, Some(noted()));

    let token = granted(&backend, &key, LEASE).await;
    assert_eq!(backend.touch(&key, &token, None, TTL).await.unwrap(), Touched::Accepted);
    assert_eq!(stored(&backend, &key).await, Some(noted()), "the notes stay");
    assert!(left(backend.read(&key, &ALL, true).await.unwrap().as_ref()) <= TTL);
    let token = granted(&backend, &key, LEASE).await;
    assert_eq!(backend.touch(&key, &token, Some(Meta::default()), TTL).await.unwrap(), Touched::Accepted);
    assert_eq!(stored(&backend, &key).await, Some(fields(&[("v", "1")])), "there is nothing to note");

    let token = granted(&backend, &key, LEASE).await;
    backend.invalidate(key.clone()).await.unwrap();
    assert_eq!(backend.touch(&key, &token, None, TTL).await.unwrap(), Touched::Fenced);
    let token = granted(&backend, &key, LEASE).await;
    assert_eq!(backend.touch(&key, &token, None, TTL).await.unwrap(), Touched::Gone);
    assert_eq!(backend.look(&key).await.unwrap().lease_ttl.map(|left| left > LEASE / 2), Some(true), "the lease stays");
});

test_on!(every_backend, keeps_any_bytes, async |backend, key| {
    let bytes: Vec<u8> = (0..=255).collect();
    let token = granted(&backend, &key, LEASE).await;
    let field: StoredField = (b"f\0\xFF".as_slice().into(), bytes);
    backend.fill(&key, &token, vec![field.clone()], TTL).await.unwrap();
    assert_eq!(stored(&backend, &key).await, Some(vec![field]));
});

test_on!(
    every_backend,
    fences_a_fill_whose_lease_was_revoked_or_ran_out_or_was_given_to_another,
    async |backend, key| {
        let token = granted(&backend, &key, LEASE).await;
        assert!(!backend.invalidate(key.clone()).await.unwrap());
        assert!(is_fenced(&backend, &key, &token).await, "revoked");

        let token = granted(&backend, &key, Duration::from_millis(20)).await;
        tokio::time::sleep(Duration::from_millis(60)).await;
        assert!(is_fenced(&backend, &key, &token).await, "run out");

        let another = granted(&backend, &key, LEASE).await;
        assert!(is_fenced(&backend, &key, &token).await, "another's");
        assert!(!is_fenced(&backend, &key, &another).await);
    }
);

test_on!(every_backend, renews_only_the_holders_lease, async |backend, key| {
    let token = granted(&backend, &key, LEASE).await;
    assert!(backend.renew(&key, &token, LEASE * 2).await.unwrap());
    assert!(!backend.renew(&key, &Token::new(), Duration::from_millis(1)).await.unwrap());
    assert!(backend.look(&key).await.unwrap().lease_ttl.unwrap() > LEASE);
    backend.invalidate(key.clone()).await.unwrap();
    assert!(!backend.renew(&key, &token, LEASE).await.unwrap());
    assert_eq!(backend.look(&key).await.unwrap().lease_ttl, None, "a renewal never brings a lease back");
});

test_on!(every_backend, invalidates_the_entry_and_the_lease, async |backend, key| {
    fill(&backend, &key, &[("v", "1")]).await;
    granted(&backend, &key, LEASE).await;
    let was_there = backend.invalidate(key.clone()).await.unwrap();
    // Where the slot has just moved, both commands are sent again, and the second time there is nothing.
    assert!(was_there || backend.to_string().starts_with("redis+cluster://"));
    let look = backend.look(&key).await.unwrap();
    assert!(look.found.is_none() && look.lease_ttl.is_none());
    assert!(!backend.invalidate(key.clone()).await.unwrap());
});

test_on!(every_backend, deletes_one_type_and_no_other, async |backend, of_place| {
    // The first has the name of the second's namespace.
    let spaces = [("", None, "billing"), ("", Some("billing"), "thing")];
    deletes_one_type(
        &backend,
        spaces.map(|(key_prefix, namespace, entity)| KeySpace::new(key_prefix, namespace, &Schema::new(entity))),
    )
    .await;
    if of_place.as_str().starts_with("team-a:") {
        // The second prefix begins like the first's keys.
        let spaces = ["team-a:", "team-a:cache:billing:thing:"];
        deletes_one_type(
            &backend,
            spaces.map(|key_prefix| KeySpace::new(key_prefix, Some("billing"), &Schema::new("thing"))),
        )
        .await;
    }
});

/// Deletes the keys of the first type.
async fn deletes_one_type(backend: &Backend, types: [KeySpace; 2]) {
    let [first, second] = types.map(|keys| ["1", "a:b", "2", "3"].map(|id| keys.key::<String>(&id).unwrap()));
    let mut held = Vec::new();
    for keys in [&first, &second] {
        for key in &keys[..2] {
            fill(backend, key, &[("v", "1")]).await;
        }
        held.push(granted(backend, &keys[2], LEASE).await);
    }
    let token = granted(backend, &first[3], LEASE).await;
    backend.fill(&first[3], &token, fields(&[("v", "1")]), Duration::from_millis(30)).await.unwrap();
    tokio::time::sleep(Duration::from_millis(80)).await;
    let prefix = first[0].prefix();
    assert_eq!(backend.delete_prefix(prefix).await.unwrap(), 2, "no leases, and no entry whose time is over");
    assert_eq!(backend.delete_prefix(prefix).await.unwrap(), 0);
    for key in &first[..2] {
        assert_eq!(stored(backend, key).await, None);
    }
    assert!(is_fenced(backend, &first[2], &held[0]).await);
    for key in &second[..2] {
        assert!(stored(backend, key).await.is_some());
    }
    assert!(!is_fenced(backend, &second[2], &held[1]).await);
}

test_on!(every_backend, forgets_an_entry_when_its_time_is_over, async |backend, key| {
    let token = granted(&backend, &key, LEASE).await;
    backend.fill(&key, &token, fields(&[("v", "1")]), Duration::from_millis(30)).await.unwrap();
    tokio::time::sleep(Duration::from_millis(80)).await;
    assert_eq!(stored(&backend, &key).await, None);
    assert!(!backend.invalidate(key.clone()).await.unwrap());
});

test_on!(every_backend, applies_the_decision_and_keeps_the_lifetime, async |backend, key| {
    fill(&backend, &key, &[("a", "1"), ("b", "1"), ("c", "1")]).await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    let before = left(backend.look(&key).await.unwrap().found.as_ref());
    let changes = vec![("a", Some(b"2".to_vec())), ("b", None), ("d", Some(b"2".to_vec()))];
    let mut decide = |shown: Option<&Found>| {
        assert_eq!(shown.map(hash), Some(fields(&[("a", "1"), ("b", "1"), ("c", "1")])));
        Decision::Apply { changes: changes.clone(), ttl: None }
    };
    assert!(update(&backend, &key, &ALL, &mut decide).await);
    let look = backend.look(&key).await.unwrap();
    assert_eq!(look.found.as_ref().map(hash), Some(fields(&[("a", "2"), ("c", "1"), ("d", "2")])));
    assert!(left(look.found.as_ref()) <= before);

    let mut renewing = |_: Option<&Found>| Decision::Apply { changes: Vec::new(), ttl: Some(TTL * 2) };
    assert!(update(&backend, &key, &ALL, &mut renewing).await);
    assert!(left(backend.look(&key).await.unwrap().found.as_ref()) > TTL);
});

test_on!(every_backend, an_update_sees_at_least_the_selected_fields_and_keeps_the_rest, async |backend, key| {
    let selection = Selection::of(&Schema { fields: &["b", "none", "a"], ..Schema::new("thing") });
    fill(&backend, &key, &[("a", "1"), ("more", "2"), ("b", ""), ("~meta", "stale=1")]).await;
    let mut decide = |shown: Option<&Found>| {
        let shown = shown.unwrap();
        assert!(shown.left.is_some_and(|left| left <= TTL), "{shown:?}");
        let expected = fields(&[("a", "1"), ("b", ""), ("~meta", "stale=1")]);
        assert_eq!(seen_of_selected(&shown.entry, &selection), expected);
        Decision::Apply { changes: vec![("a", None), ("none", Some(b"3".to_vec()))], ttl: None }
    };
    assert!(update(&backend, &key, &selection, &mut decide).await);
    let kept = fields(&[("b", ""), ("more", "2"), ("none", "3"), ("~meta", "stale=1")]);
    assert_eq!(stored(&backend, &key).await, Some(kept));

    fill(&backend, &key, &[("more", "2")]).await;
    let mut drop_it = |shown: Option<&Found>| {
        assert!(shown.is_none_or(|shown| selection.overlooks(&shown.entry)));
        Decision::Delete
    };
    assert!(!update(&backend, &key, &selection, &mut drop_it).await);
    assert_eq!(stored(&backend, &key).await, None, "what it overlooks is dropped too");
});

test_on!(every_backend, revokes_the_lease_with_every_update, async |backend, key| {
    let token = granted(&backend, &key, LEASE).await;
    let mut drop_it = |_: Option<&Found>| Decision::Delete;
    assert!(!update(&backend, &key, &ALL, &mut drop_it).await);
    assert!(is_fenced(&backend, &key, &token).await, "nothing was there to update");

    fill(&backend, &key, &[("v", "1")]).await;
    let token = granted(&backend, &key, LEASE).await;
    let mut apply = |_: Option<&Found>| set("v", "2");
    assert!(update(&backend, &key, &ALL, &mut apply).await);
    assert!(is_fenced(&backend, &key, &token).await, "updated");

    let token = granted(&backend, &key, LEASE).await;
    assert!(!update(&backend, &key, &ALL, &mut drop_it).await);
    assert_eq!(stored(&backend, &key).await, None);
    assert!(is_fenced(&backend, &key, &token).await, "dropped");
});

test_on!(every_backend, reads_at_least_the_selected_fields, async |backend, key| {
    let selection = Selection::of(&Schema { fields: &["b", "none", "a"], ..Schema::new("thing") });
    let read = async || {
        let found = backend.read(&key, &selection, false).await.unwrap();
        let with_ttl = backend.read(&key, &selection, true).await.unwrap();
        assert_eq!(found.is_some(), with_ttl.is_some());
        assert!(with_ttl.is_none_or(|found| found.left.is_some_and(|left| left <= TTL)));
        found
    };
    let seen = |found: Option<Found>| seen_of_selected(&found.unwrap().entry, &selection);
    assert!(read().await.is_none());
    fill(&backend, &key, &[("a", "1"), ("more", "2"), ("b", ""), ("~meta", "stale=1")]).await;
    assert_eq!(seen(read().await), fields(&[("a", "1"), ("b", ""), ("~meta", "stale=1")]));
    fill(&backend, &key, &[("~meta", "absent")]).await;
    assert_eq!(seen(read().await), fields(&[("~meta", "absent")]));
    fill(&backend, &key, &[("more", "2")]).await;
    assert!(read().await.is_none_or(|found| selection.overlooks(&found.entry)));
});

test_on!(every_backend, writes_nothing_when_an_update_is_cancelled, async |backend, key| {
    fill(&backend, &key, &[("v", "1")]).await;
    let mut update = backend.update(&key, &ALL);
    // Again if the slot has just moved.
    while let Attempt::Again = update.watch().await.unwrap() {}
    update.cancel();
    assert!(!backend.is_pending(&key));
    assert_eq!(stored(&backend, &key).await, Some(fields(&[("v", "1")])));
});

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn loses_no_update_of_many() {
    const TASKS: u32 = 32;
    const EACH: u32 = 10;
    every_backend(async |backend, key| {
        fill(&backend, &key, &[("v", "0")]).await;
        let decisions = Arc::new(AtomicU32::new(0));
        let tasks: Vec<_> = (0..TASKS)
            .map(|_| {
                let (backend, key, decisions) = (backend.clone(), key.clone(), decisions.clone());
                tokio::spawn(async move {
                    for _ in 0..EACH {
                        let mut increment = |shown: Option<&Found>| {
                            decisions.fetch_add(1, Ordering::Relaxed);
                            let [(_, value)] = &hash(shown.unwrap())[..] else { panic!("one field") };
                            let next = std::str::from_utf8(value).unwrap().parse::<u32>().unwrap() + 1;
                            let changes = vec![("v", Some(next.to_string().into_bytes()))];
                            Decision::Apply { changes, ttl: None }
                        };
                        assert!(update(&backend, &key, &ALL, &mut increment).await);
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(stored(&backend, &key).await, Some(fields(&[("v", &(TASKS * EACH).to_string())])));
        assert!(decisions.load(Ordering::Relaxed) >= TASKS * EACH);
    })
    .await;
}

test_on!(every_server, decides_again_when_the_entry_changes_under_an_update, async |server, backend, key| {
    fill(&backend, &key, &[("v", "1"), ("w", "1")]).await;
    // Another client writes between the look and the transaction.
    let mut interloper = redis::Client::open(server.url()).unwrap().get_connection().unwrap();
    let mut shown = Vec::new();
    let mut decide = |found: Option<&Found>| {
        shown.push(hash(found.unwrap()));
        if shown.len() == 1 {
            redis::cmd("HSET").arg(key.as_str()).arg("w").arg("2").exec(&mut interloper).unwrap();
        }
        set("v", "2")
    };
    assert!(update(&backend, &key, &ALL, &mut decide).await);
    assert_eq!(shown, [fields(&[("v", "1"), ("w", "1")]), fields(&[("v", "1"), ("w", "2")])]);
    assert_eq!(stored(&backend, &key).await, Some(fields(&[("v", "2"), ("w", "2")])));
});

test_on!(every_server, replaces_a_value_that_is_no_proper_lease, async |server, backend, key| {
    let mut client = server.client().await;
    redis::cmd("SET").arg(key.lock()).arg("for ever").exec_async(&mut client).await.unwrap();
    let token = granted(&backend, &key, LEASE).await;
    backend.abandon(&key, &token).await.unwrap();
    redis::cmd("RPUSH").arg(key.lock()).arg("a list").exec_async(&mut client).await.unwrap();
    assert!(is_fenced(&backend, &key, &token).await);
    assert!(!backend.renew(&key, &token, LEASE).await.unwrap());
    redis::cmd("EXPIRE").arg(key.lock()).arg(600).exec_async(&mut client).await.unwrap();
    fill(&backend, &key, &[("v", "1")]).await;
    redis::cmd("SADD").arg(key.lock()).arg("a set").exec_async(&mut client).await.unwrap();
    assert!(backend.invalidate(key.clone()).await.unwrap());
});

test_on!(every_server, replaces_an_entry_of_another_type, async |server, backend, key| {
    let mut client = server.client().await;
    redis::cmd("RPUSH").arg(key.as_str()).arg("a list").exec_async(&mut client).await.unwrap();
    assert!(matches!(backend.read(&key, &ALL, false).await.unwrap(), Some(Found { entry: Entry::WrongType, .. })));
    assert!(matches!(backend.look(&key).await.unwrap().found, Some(Found { entry: Entry::WrongType, .. })));
    let mut token = Token::new();
    let acquired = backend.acquire(&key, &mut token, LEASE).await.unwrap();
    assert!(acquired.granted && matches!(acquired.found, Some(Found { entry: Entry::WrongType, .. })));
    backend.fill(&key, &token, fields(&[("v", "1")]), TTL).await.unwrap();
    assert_eq!(stored(&backend, &key).await, Some(fields(&[("v", "1")])));

    redis::cmd("SET").arg(key.as_str()).arg("a string").exec_async(&mut client).await.unwrap();
    let mut drop_it = |shown: Option<&Found>| {
        assert!(matches!(shown, Some(Found { entry: Entry::WrongType, .. })));
        Decision::Delete
    };
    assert!(!update(&backend, &key, &ALL, &mut drop_it).await);
    assert_eq!(stored(&backend, &key).await, None);
});

test_on!(every_server, still_invalidates_when_the_server_is_out_of_memory, async |server, backend, key| {
    let mut client = server.client().await;
    fill(&backend, &key, &[("v", "1")]).await;
    redis::cmd("CONFIG").arg(&["SET", "maxmemory", "1"]).exec_async(&mut client).await.unwrap();
    let mut apply = |_: Option<&Found>| set("v", "2");
    assert!(!update(&backend, &key, &ALL, &mut apply).await);
    assert_eq!(stored(&backend, &key).await, None);
    assert!(!backend.invalidate(key.clone()).await.unwrap());
    let refused = backend.acquire(&key, &mut Token::new(), LEASE).await.unwrap_err();
    assert!(refused.to_string().contains("maxmemory"), "{refused}");
});

test_on!(every_server, survives_the_loss_of_its_scripts_and_connections, async |server, backend, key| {
    let mut client = server.client().await;
    for loss in [&["SCRIPT", "FLUSH"][..], &["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]] {
        fill(&backend, &key, &[("v", "1")]).await;
        let mut apply = |_: Option<&Found>| set("v", "2");
        assert!(update(&backend, &key, &ALL, &mut apply).await);
        redis::cmd(loss[0]).arg(&loss[1..]).exec_async(&mut client).await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!(stored(&backend, &key).await, Some(fields(&[("v", "2")])));
        assert!(update(&backend, &key, &ALL, &mut apply).await);
        assert!(backend.invalidate(key.clone()).await.unwrap());
    }
});

#[tokio::test]
async fn keeps_the_embedded_backend_within_its_bound() {
    for max_entries in [1, 10, 3000] {
        let backend = Backend::builder("memory://").max_entries(max_entries).connect().await.unwrap();
        let keys: Vec<_> = (0..max_entries * 3).map(|id| key(&id.to_string())).collect();
        for key in &keys {
            fill(&backend, key, &[("v", "1")]).await;
        }
        let mut kept = 0;
        for key in &keys {
            kept += usize::from(stored(&backend, key).await.is_some());
        }
        assert_eq!(kept, max_entries);
        assert!(stored(&backend, keys.last().unwrap()).await.is_some(), "the newest is kept");
    }
}

#[tokio::test(start_paused = true)]
async fn removes_the_leases_of_lost_loads() {
    let memory = super::memory::Memory::new(std::num::NonZeroUsize::MIN);
    for id in 0..5000 {
        let acquired = super::Store::acquire(&memory, &key(&id.to_string()), &mut Token::new(), LEASE).await.unwrap();
        assert!(acquired.granted);
        tokio::time::advance(LEASE / 500).await;
    }
    assert!(memory.leases() <= 1024, "{}", memory.leases());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn holds_on_a_cluster_while_slots_move_and_after_a_failover() {
    let any = key("any");
    for (flavor, moves) in Moves::ON {
        println!("on a cluster of {flavor:?}, whose slots move {moves:?}");
        let mut cluster = Cluster::start_moving(flavor, moves).await;
        let suite = ["backend::contract::", "--skip", "holds_on_a_cluster", "--skip", "a_slot_that_has_left"];
        // Deletion by prefix waits until no slot moves.
        let without_deletion = [&suite[..], &["--skip", "deletes_one_type"]].concat();
        // One way of moving is enough for a user without scripts.
        let documented = Access::documented_in_clusters();
        let scriptless = documented.without("+eval").without("+evalsha");
        let users = if flavor == Flavor::Redis70 { vec![scriptless, documented] } else { vec![documented] };
        for access in users {
            for server in &cluster.servers {
                access.grant(server).await;
            }
            cluster.while_moving(any.as_str(), cluster.run_tests(&without_deletion)).await;
        }
        cluster.fail_over(any.as_str()).await;
        cluster.run_tests(&suite).await;
    }
}

/// Its keys may have been missed by a scan that was under way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_that_has_left_and_come_back_is_noticed() {
    let any = key("any");
    for (flavor, moves) in Moves::ON {
        let cluster = Cluster::start_moving(flavor, moves).await;
        let backend =
            Backend::builder(&cluster.url()).operation_timeout(Duration::from_secs(5)).connect().await.unwrap();
        let redis = backend.inner.store.redis().unwrap();
        let changes = redis.changes().load(Ordering::Relaxed);
        let settled = redis.settled_since(changes).await.unwrap();
        assert_eq!(redis.settled_since(changes).await.unwrap(), settled);
        let way = cluster.open(any.as_str()).await;
        cluster.close(any.as_str(), way).await;
        let back = cluster.open_to(any.as_str(), way.0).await;
        cluster.close(any.as_str(), back).await;
        // An error if the server that is asked has not heard of the way back yet.
        assert_ne!(redis.settled_since(changes).await.ok(), Some(settled), "{flavor:?}, {moves:?}");
    }
}
