//! Versions, which have keys of their own, and writes that reach the entries of other versions.

use std::sync::{Arc, Mutex};

use cache_aside::{BoxError, EntryState};
use testkit::server::{Flavor, Server};

use super::{
    AFTER, BEFORE, BeforeVersion1, Plain, Process, Release, Renamed, Retyped, Row, Version1, Version2, Version3,
    WithColor, loads_in_turns, with_processes,
};

/// Both read before each write, so that both have every entry that they may keep.
async fn an_invalidation_by_either_reaches_both<Old: Release, New: Release>() {
    with_processes::<Old, New>(async |old, new| {
        for row in [AFTER, BEFORE] {
            old.read().await;
            new.read().await;
            old.commit(row);
            assert!(old.invalidate().await);
            assert!(!new.invalidate().await, "nothing is left");
            assert_eq!((old.read().await, new.read().await), (old.current(), new.current()));
        }
        for row in [AFTER, BEFORE] {
            new.read().await;
            old.read().await;
            new.commit(row);
            assert!(new.invalidate().await);
            assert!(!old.invalidate().await, "nothing is left");
            assert_eq!((new.read().await, old.read().await), (new.current(), old.current()));
        }
    })
    .await;
}

#[tokio::test]
async fn an_invalidation_reaches_every_shape_under_one_key() {
    an_invalidation_by_either_reaches_both::<Plain, WithColor>().await;
    an_invalidation_by_either_reaches_both::<Plain, Renamed>().await;
    an_invalidation_by_either_reaches_both::<Plain, Retyped>().await;
}

#[tokio::test]
async fn an_invalidation_reaches_the_versions_that_are_listed() {
    an_invalidation_by_either_reaches_both::<Version2, Version3>().await;
    an_invalidation_by_either_reaches_both::<BeforeVersion1, Version1>().await;
}

#[tokio::test]
async fn versions_load_once_each() {
    with_processes::<BeforeVersion1, Version1>(async |old, new| {
        assert_eq!(loads_in_turns(&old, &new).await, (1, 1));
        assert_eq!((old.read().await, new.read().await), (old.current(), new.current()));
    })
    .await;
}

#[tokio::test]
async fn every_way_to_invalidate_reaches_the_versions_that_are_listed() {
    with_processes::<Version2, Version3>(async |old, new| {
        old.read().await;
        assert!(new.invalidate().await, "only the older version's entry was there");
        assert_eq!(new.cache.stats().invalidations, 1);

        old.read().await;
        let results = new.cache.invalidate_many(["p-001", "", "p-002"]).await;
        assert!(matches!(results.as_slice(), [Ok(true), Ok(false), Ok(false)]), "{results:?}");
        assert_eq!(old.state().await, EntryState::Missing);

        old.read().await;
        new.commit(AFTER);
        let current = new.current();
        new.cache.refresh("p-001", |_id| async { Ok::<_, BoxError>(Some(current)) }).await.unwrap();
        assert_eq!(old.read().await, old.current());
    })
    .await;
}

#[tokio::test]
async fn an_update_deletes_the_entries_of_the_versions_that_are_listed() {
    with_processes::<Version2, Version3>(async |old, new| {
        old.read().await;
        new.read().await;
        new.commit(AFTER);
        assert!(new.update(Version3::FIELDS.amount, AFTER.stock).await);
        assert_eq!((old.state().await, new.state().await), (EntryState::Missing, EntryState::Record));
        assert_eq!((old.read().await, new.read().await), (old.current(), new.current()));

        new.commit(BEFORE);
        let modified = old.cache.modify("p-001", |product| product.stock = BEFORE.stock).await.unwrap();
        assert_eq!(modified.as_deref(), Some(&old.current()));
        assert_eq!((old.state().await, new.state().await), (EntryState::Record, EntryState::Missing));

        // There is nothing of its own to update, but the others are deleted.
        assert!(!new.update(Version3::FIELDS.amount, BEFORE.stock).await);
        assert_eq!(old.state().await, EntryState::Missing);
    })
    .await;
}

#[tokio::test]
async fn a_load_under_a_version_that_is_listed_is_fenced() {
    with_processes::<Version2, Version3>(async |old, new| {
        let (gate, early) = old.read_at_gate().await;
        new.commit(AFTER);
        assert!(!new.invalidate().await);
        assert_eq!(old.cache.inspect("p-001").await.unwrap().lock_ttl, None, "the lease is revoked");
        gate.open();
        assert_eq!(early.await.unwrap(), Version2::from(BEFORE));
        assert_eq!((old.cache.stats().fenced_fills, old.state().await), (1, EntryState::Missing));
        assert_eq!(old.read().await, old.current());

        old.invalidate().await;
        let (gate, early) = old.read_at_gate().await;
        new.commit(BEFORE);
        assert!(!new.update(Version3::FIELDS.amount, BEFORE.stock).await);
        gate.open();
        assert_eq!(early.await.unwrap(), Version2::from(AFTER));
        assert_eq!((old.cache.stats().fenced_fills, old.state().await), (2, EntryState::Missing));
    })
    .await;
}

/// Shows why a release that lists the coming version has to be first.
#[tokio::test]
async fn a_version_that_is_not_listed_is_not_reached() {
    with_processes::<Plain, Version1>(async |old, new| {
        old.read().await;
        new.read().await;
        old.commit(Row { stock: 0, ..AFTER });
        old.invalidate().await;
        assert_eq!(new.read().await, Version1::from(BEFORE));
        new.invalidate().await;
        assert_eq!((old.read().await, new.read().await), (old.current(), new.current()));
    })
    .await;
}

/// A server that allows a user only the keys of one version.
#[tokio::test]
async fn a_key_that_fails_keeps_no_other_from_being_invalidated() {
    for flavor in Flavor::ALL {
        println!("on {flavor:?}");
        let (server, row) = (Server::start(flavor).await, Arc::new(Mutex::new(BEFORE)));
        let mut admin = server.client().await;
        let (old, new): (Process<Version2>, Process<Version3>) =
            (Process::on(&server.url(), &row).await, Process::on(&server.url(), &row).await);
        for (refused, allowed) in [("@2:", "~*@3:*"), ("@3:", "~*@2:*")] {
            let user = ["SETUSER", "limited", "on", "resetkeys", "resetpass", ">secret", "+@all", allowed];
            redis::cmd("ACL").arg(&user).exec_async(&mut admin).await.unwrap();
            let limited = format!("redis://limited:secret@127.0.0.1:{}", server.port());
            let limited: Process<Version3> = Process::on(&limited, &row).await;
            let remain = || async { (old.state().await, new.state().await) };
            let expected = match refused {
                "@2:" => (EntryState::Record, EntryState::Missing),
                _ => (EntryState::Missing, EntryState::Record),
            };

            old.fill().await;
            new.read().await;
            let error = limited.cache.invalidate("p-001").await.unwrap_err().to_string();
            assert!(error.contains(&format!("cache:billing:product{refused}p-001")), "{error}");
            assert_eq!(remain().await, expected);

            old.fill().await;
            new.read().await;
            let update = limited.cache.update_field("p-001", Version3::FIELDS.amount, 1).await;
            let error = update.unwrap_err().to_string();
            assert!(error.contains(&format!("cache:billing:product{refused}p-001")), "{error}");
            assert_eq!(remain().await.0, expected.0);
        }
    }
}
