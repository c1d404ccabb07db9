//! Fields that are added, removed, renamed or changed in type, under one key.

use cache_aside::EntryState;

use super::{
    AFTER, BEFORE, BothNames, DefaultStock, Plain, RenamePrepared, Renamed, RenamedBarely, Retyped, WithColor,
    WithDefaultColor, loads_in_turns, with_processes,
};

#[tokio::test]
async fn a_field_added_with_a_default_is_the_default_in_old_entries() {
    with_processes::<Plain, WithDefaultColor>(async |old, new| {
        old.fill().await;
        assert_eq!(loads_in_turns(&old, &new).await, (0, 0));
        assert_eq!(new.read().await, WithDefaultColor { color: String::new(), ..new.current() });
        new.fill().await;
        assert_eq!(loads_in_turns(&old, &new).await, (0, 0));
        assert_eq!((old.read().await, new.read().await), (old.current(), new.current()));
        // Each updates the fields that it knows, and leaves the others.
        assert!(old.update(Plain::FIELDS.stock, 1).await);
        assert!(new.update(WithDefaultColor::FIELDS.color, "black".to_owned()).await);
        assert_eq!(old.read().await.stock, 1);
        assert_eq!(new.read().await, WithDefaultColor { stock: 1, color: "black".to_owned(), ..new.current() });
    })
    .await;
}

#[tokio::test]
async fn a_field_added_without_a_default_costs_one_load_for_each_fill_by_an_old_process() {
    with_processes::<Plain, WithColor>(async |old, new| {
        for _ in 0..2 {
            old.fill().await;
            assert_eq!(loads_in_turns(&old, &new).await, (0, 1));
            assert_eq!((old.read().await, new.read().await), (old.current(), new.current()));
        }
        new.fill().await;
        assert_eq!(loads_in_turns(&old, &new).await, (0, 0));
        old.fill().await;
        assert!(!new.update(WithColor::FIELDS.stock, 1).await, "no whole record, to the new process");
        assert_eq!(old.state().await, EntryState::Missing);
    })
    .await;
}

#[tokio::test]
async fn a_removed_field_costs_one_load_for_each_fill_by_a_new_process() {
    with_processes::<WithColor, Plain>(async |old, new| {
        new.fill().await;
        assert_eq!(loads_in_turns(&old, &new).await, (1, 0));
        assert_eq!((old.read().await, new.read().await), (old.current(), new.current()));
    })
    .await;
}

#[tokio::test]
async fn a_field_that_had_a_default_is_removed_without_a_load() {
    with_processes::<WithDefaultColor, Plain>(async |old, new| {
        new.fill().await;
        assert_eq!(loads_in_turns(&old, &new).await, (0, 0));
        old.fill().await;
        assert_eq!(loads_in_turns(&old, &new).await, (0, 0));
    })
    .await;
}

#[tokio::test]
async fn a_field_renamed_without_an_alias_is_loaded_at_every_turn() {
    with_processes::<Plain, RenamedBarely>(async |old, new| {
        new.fill().await;
        assert_eq!(loads_in_turns(&old, &new).await, (10, 10));
        assert_eq!((old.read().await, new.read().await), (old.current(), new.current()));
    })
    .await;
}

#[tokio::test]
async fn a_field_renamed_with_an_alias_costs_one_load_for_each_fill_by_a_new_process() {
    with_processes::<Plain, Renamed>(async |old, new| {
        old.fill().await;
        assert_eq!(loads_in_turns(&old, &new).await, (0, 0));
        new.fill().await;
        assert_eq!(loads_in_turns(&old, &new).await, (1, 0));
        assert_eq!((old.read().await, new.read().await), (old.current(), new.current()));
    })
    .await;
}

#[tokio::test]
async fn a_field_renamed_in_two_releases_costs_no_load() {
    with_processes::<Plain, RenamePrepared>(async |old, new| {
        old.fill().await;
        assert_eq!(loads_in_turns(&old, &new).await, (0, 0));
        new.fill().await;
        assert_eq!(loads_in_turns(&old, &new).await, (0, 0));
        assert!(new.update(RenamePrepared::FIELDS.amount, 1).await);
        assert_eq!(old.read().await.stock, 1);
    })
    .await;
    with_processes::<RenamePrepared, Renamed>(async |old, new| {
        old.fill().await;
        assert_eq!(loads_in_turns(&old, &new).await, (0, 0));
        new.fill().await;
        assert_eq!(loads_in_turns(&old, &new).await, (0, 0));
        // The other's entry is deleted, and loaded again.
        new.commit(AFTER);
        assert!(!old.update(RenamePrepared::FIELDS.amount, AFTER.stock).await);
        assert_eq!((old.read().await, new.read().await), (old.current(), new.current()));
        new.commit(BEFORE);
        assert!(!new.update(Renamed::FIELDS.amount, BEFORE.stock).await);
        assert_eq!((old.read().await, new.read().await), (old.current(), new.current()));
    })
    .await;
}

#[tokio::test]
async fn an_update_that_finds_an_alias_deletes_the_entry() {
    with_processes::<Plain, Renamed>(async |old, new| {
        old.fill().await;
        new.commit(AFTER);
        assert!(!new.update(Renamed::FIELDS.amount, AFTER.stock).await);
        assert_eq!(old.state().await, EntryState::Missing);
        assert_eq!((old.read().await, new.read().await), (old.current(), new.current()));
        assert_eq!(new.cache.modify("p-001", |product| product.amount -= 1).await.unwrap(), None);
        assert_eq!(new.state().await, EntryState::Missing);
        assert_eq!(new.cache.stats().updates, 0);

        new.fill().await;
        assert!(new.update(Renamed::FIELDS.amount, 1).await, "under its own name");
        assert_eq!(new.cache.modify("p-001", |product| product.amount += 1).await.unwrap().unwrap().amount, 2);
        assert!(!old.update(Plain::FIELDS.stock, 1).await, "no whole record, to the old process");
        assert_eq!(new.state().await, EntryState::Missing);
    })
    .await;
}

#[tokio::test]
async fn an_update_that_finds_both_names_deletes_the_entry() {
    with_processes::<BothNames, Renamed>(async |old, new| {
        old.fill().await;
        assert_eq!(loads_in_turns(&old, &new).await, (0, 0));
        assert!(!new.update(Renamed::FIELDS.amount, 1).await);
        assert_eq!(old.state().await, EntryState::Missing);
    })
    .await;
}

/// Shows why such a field has to be renamed in two releases.
#[tokio::test]
async fn an_old_field_with_a_default_hides_its_new_name() {
    with_processes::<DefaultStock, Renamed>(async |old, new| {
        new.fill().await;
        assert_eq!(old.read().await.stock, 0);
        // Its update is set beside the new name, which takes precedence.
        assert!(old.update(DefaultStock::FIELDS.stock, 1).await);
        assert_eq!((old.read().await.stock, new.read().await.amount), (1, BEFORE.stock));
    })
    .await;
    with_processes::<DefaultStock, RenamePrepared>(async |old, new| {
        new.fill().await;
        assert_eq!(old.read().await, old.current());
    })
    .await;
}

#[tokio::test]
async fn a_field_of_another_type_is_loaded_at_every_turn() {
    with_processes::<Plain, Retyped>(async |old, new| {
        new.fill().await;
        assert_eq!(loads_in_turns(&old, &new).await, (10, 10));
        assert_eq!(old.cache.stats().decode_errors, 10);
        assert_eq!((old.read().await, new.read().await), (old.current(), new.current()));
    })
    .await;
}
