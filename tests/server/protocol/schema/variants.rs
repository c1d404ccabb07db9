//! Variants of an enum that are added, renamed or removed.

use cache_aside::{BoxError, EntryState, FieldValue};

use super::{BEFORE, Process, Release, Row, loads_in_turns, release, stock, with_processes};

const PREORDERED: Row = Row { status: "preordered", ..BEFORE };

macro_rules! status {
    ($name:ident { $($(#[$of_variant:meta])* $variant:ident),* $(,)? }) => {
        #[derive(Debug, Clone, Copy, PartialEq, FieldValue)]
        #[cacheable(rename_all = "snake_case")]
        enum $name {
            $($(#[$of_variant])* $variant,)*
        }
    };
}

status!(Few { OnSale });

status!(FewOrOther {
    OnSale,
    #[cacheable(other)]
    Unknown,
});

status!(Many { OnSale, Preordered });

status!(ManyOrOther {
    OnSale,
    Preordered,
    #[cacheable(other)]
    Unknown,
});

status!(RenamedBarely { Available });

status!(Renamed {
    #[cacheable(alias = "on_sale")]
    Available,
});

status!(RenamePrepared {
    #[cacheable(rename = "on_sale", alias = "available")]
    Available,
});

status!(Merged {
    #[cacheable(alias = "preordered")]
    OnSale,
});

release!(WithFew { stock: u32 = stock, status: Few = |_row| Few::OnSale });

release!(WithFewOrOther { stock: u32 = stock, status: FewOrOther = status });

release!(WithMany { stock: u32 = stock, status: Many = status });

release!(WithManyOrOther { status: ManyOrOther = status });

release!(WithRenamedBarely { status: RenamedBarely = |_row| RenamedBarely::Available });

release!(WithRenamed { stock: u32 = stock, status: Renamed = status });

release!(WithRenamePrepared { stock: u32 = stock, status: RenamePrepared = status });

release!(WithMerged { status: Merged = status });

/// As the process reads it in the primary.
fn status<S: FieldValue>(row: Row) -> S {
    S::decode(row.status.as_bytes().into()).unwrap()
}

/// What a get returns whose load would fail.
async fn read_without_load<T: Release>(process: &Process<T>) -> Option<T> {
    let load = |_id| async { Err::<_, BoxError>("there is an entry".into()) };
    let found = process.cache.get("p-001", load).await.ok()??;
    Some(T::clone(&found))
}

#[tokio::test]
async fn an_added_variant_is_unreadable_to_a_process_without_other() {
    with_processes::<WithFew, WithMany>(async |old, new| {
        old.fill().await;
        assert_eq!(loads_in_turns(&old, &new).await, (0, 0), "a variant that both know");
        new.fill().await;
        assert_eq!(loads_in_turns(&old, &new).await, (0, 0), "a variant that both know");
        new.commit(PREORDERED);
        new.fill().await;
        assert_eq!(read_without_load(&old).await, None);
        assert_eq!(old.cache.stats().decode_errors, 1);
        assert_eq!(read_without_load(&new).await, Some(new.current()));
        assert!(!old.update(WithFew::FIELDS.stock, 1).await, "no whole record, to the old process");
        assert_eq!(new.state().await, EntryState::Missing);
    })
    .await;
}

#[tokio::test]
async fn an_added_variant_is_other_to_a_process_that_has_it() {
    with_processes::<WithFewOrOther, WithMany>(async |old, new| {
        new.commit(PREORDERED);
        new.fill().await;
        assert_eq!(loads_in_turns(&old, &new).await, (0, 0));
        assert_eq!((old.read().await.status, new.read().await.status), (FewOrOther::Unknown, Many::Preordered));
        assert!(new.update(WithMany::FIELDS.stock, 1).await);
        assert_eq!(old.read().await.stock, 1);

        assert!(!old.update(WithFewOrOther::FIELDS.stock, 2).await, "an unknown text");
        assert_eq!(new.state().await, EntryState::Missing);
        new.read().await;
        assert_eq!(old.cache.modify("p-001", |product| product.stock = 2).await.unwrap(), None);
        assert_eq!(new.state().await, EntryState::Missing);
    })
    .await;
}

#[tokio::test]
async fn a_value_that_an_old_loader_turns_into_other_is_stored_as_that() {
    with_processes::<WithFewOrOther, WithMany>(async |old, new| {
        new.commit(PREORDERED);
        old.fill().await;
        assert_eq!(read_without_load(&new).await, None);
        assert_eq!(new.read().await, new.current());
    })
    .await;
    with_processes::<WithFewOrOther, WithManyOrOther>(async |old, new| {
        new.commit(PREORDERED);
        old.fill().await;
        assert_eq!(new.read().await.status, ManyOrOther::Unknown);
        assert_ne!(new.read().await, new.current());
    })
    .await;
}

#[tokio::test]
async fn a_variant_renamed_without_an_alias_is_loaded_at_every_turn() {
    with_processes::<WithFew, WithRenamedBarely>(async |old, new| {
        new.fill().await;
        assert_eq!(loads_in_turns(&old, &new).await, (10, 10));
    })
    .await;
}

#[tokio::test]
async fn a_variant_renamed_with_an_alias_costs_one_load_for_each_fill_by_a_new_process() {
    with_processes::<WithFew, WithRenamed>(async |old, new| {
        old.fill().await;
        assert_eq!(loads_in_turns(&old, &new).await, (0, 0));
        new.fill().await;
        assert_eq!(loads_in_turns(&old, &new).await, (1, 0));
        // An update of another field leaves the text as it is.
        assert!(new.update(WithRenamed::FIELDS.stock, 1).await);
        assert_eq!(read_without_load(&old).await, Some(WithFew { stock: 1, ..old.current() }));
    })
    .await;
}

#[tokio::test]
async fn a_variant_renamed_in_two_releases_costs_no_load() {
    with_processes::<WithFew, WithRenamePrepared>(async |old, new| {
        old.fill().await;
        assert_eq!(loads_in_turns(&old, &new).await, (0, 0));
        new.fill().await;
        assert_eq!(loads_in_turns(&old, &new).await, (0, 0));
    })
    .await;
    with_processes::<WithRenamePrepared, WithRenamed>(async |old, new| {
        old.fill().await;
        assert_eq!(loads_in_turns(&old, &new).await, (0, 0));
        new.fill().await;
        assert_eq!(loads_in_turns(&old, &new).await, (0, 0));
        assert!(old.update(WithRenamePrepared::FIELDS.stock, 1).await);
        assert!(new.update(WithRenamed::FIELDS.stock, 2).await);
        assert_eq!((old.read().await.stock, new.read().await.stock), (2, 2));
    })
    .await;
}

#[tokio::test]
async fn a_removed_variant_is_a_miss_or_what_has_its_text_as_alias() {
    with_processes::<WithMany, WithFew>(async |old, new| {
        new.fill().await;
        assert_eq!(loads_in_turns(&old, &new).await, (0, 0));
        old.commit(PREORDERED);
        old.fill().await;
        assert_eq!(read_without_load(&new).await, None);
        // The rows no longer have it, and the old process has not invalidated the record.
        old.commit(BEFORE);
        assert_eq!(loads_in_turns(&old, &new).await, (0, 1));
    })
    .await;
    with_processes::<WithMany, WithMerged>(async |old, new| {
        old.commit(PREORDERED);
        old.fill().await;
        assert_eq!(loads_in_turns(&old, &new).await, (0, 0));
        assert_eq!(new.read().await.status, Merged::OnSale);
    })
    .await;
}
