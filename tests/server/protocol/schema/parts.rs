//! Embedded structs that are added or changed, and fields that are moved into one.

use cache_aside::{Embeddable, EntryState};

use super::{Plain, Row, WithColor, color, loads_in_turns, release, stock, with_processes};

#[derive(Debug, Clone, PartialEq, Embeddable)]
struct Look {
    color: String,
}

#[derive(Debug, Clone, PartialEq, Embeddable)]
struct DetailedLook {
    color: String,
    shape: String,
}

fn look(row: Row) -> Look {
    Look { color: color(row) }
}

release!(WithLook {
    stock: u32 = stock,
    #[cacheable(embed)]
    look: Look = look,
});

release!(WithOptionalLook {
    stock: u32 = stock,
    #[cacheable(embed)]
    look: Option<Look> = |row| Some(look(row)),
});

release!(WithOptionalDetailedLook {
    stock: u32 = stock,
    #[cacheable(embed)]
    look: Option<DetailedLook> = |row| Some(DetailedLook { color: color(row), shape: "round".to_owned() }),
});

release!(WithColorInLook {
    stock: u32 = stock,
    #[cacheable(embed(prefix = ""))]
    look: Look = look,
});

#[tokio::test]
async fn an_embedded_part_is_added_as_its_fields_are() {
    with_processes::<Plain, WithLook>(async |old, new| {
        for _ in 0..2 {
            old.fill().await;
            assert_eq!(loads_in_turns(&old, &new).await, (0, 1));
            assert_eq!((old.read().await, new.read().await), (old.current(), new.current()));
        }
        new.fill().await;
        assert_eq!(loads_in_turns(&old, &new).await, (0, 0));
        assert!(old.update(Plain::FIELDS.stock, 1).await);
        assert_eq!(new.read().await, WithLook { stock: 1, ..new.current() });
    })
    .await;
}

#[tokio::test]
async fn an_optional_part_is_added_as_an_option_is() {
    with_processes::<Plain, WithOptionalLook>(async |old, new| {
        old.fill().await;
        assert_eq!(loads_in_turns(&old, &new).await, (0, 0));
        assert_eq!(new.read().await, WithOptionalLook { look: None, ..new.current() });
        new.fill().await;
        assert_eq!(loads_in_turns(&old, &new).await, (0, 0));
        assert_eq!((old.read().await, new.read().await), (old.current(), new.current()));
    })
    .await;
}

#[tokio::test]
async fn a_field_added_to_an_optional_part_is_missing_only_where_there_is_a_part() {
    with_processes::<WithOptionalLook, WithOptionalDetailedLook>(async |old, new| {
        old.fill().await;
        assert_eq!(loads_in_turns(&old, &new).await, (0, 1));
        assert_eq!((old.read().await, new.read().await), (old.current(), new.current()));
        assert!(old.update(WithOptionalLook::FIELDS.look, None).await, "of the fields that the old process knows");
        assert!(!new.update(WithOptionalDetailedLook::FIELDS.stock, 1).await, "no whole record, to the new process");
        assert_eq!(old.state().await, EntryState::Missing);
    })
    .await;
    with_processes::<Plain, WithOptionalDetailedLook>(async |old, new| {
        old.fill().await;
        assert_eq!(new.read().await.look, None);
    })
    .await;
}

#[tokio::test]
async fn a_field_moved_into_a_part_without_a_prefix_keeps_its_name() {
    with_processes::<WithColor, WithColorInLook>(async |old, new| {
        old.fill().await;
        assert_eq!(loads_in_turns(&old, &new).await, (0, 0));
        new.fill().await;
        assert_eq!(loads_in_turns(&old, &new).await, (0, 0));
        assert_eq!((old.read().await, new.read().await), (old.current(), new.current()));
        assert!(old.update(WithColor::FIELDS.color, "black".to_owned()).await);
        assert_eq!(new.read().await.look.color, "black");
        assert!(new.update(WithColorInLook::FIELDS.look.color, "white".to_owned()).await);
        assert_eq!(old.read().await.color, "white");
    })
    .await;
}

#[tokio::test]
async fn a_field_moved_into_a_part_with_a_prefix_is_loaded_at_every_turn() {
    with_processes::<WithColor, WithLook>(async |old, new| {
        new.fill().await;
        assert_eq!(loads_in_turns(&old, &new).await, (10, 10));
    })
    .await;
}
