//! What runs around a loader: its task, and the values of `tokio::task_local!` that don't travel there.

use cache_aside::{BoxError, Error};

use crate::support::fixture::{Product, loaf, on_every_backend, products};

tokio::task_local! {
    static TENANT: u32;
}

/// A loader that reads the task-local value by itself.
async fn of_tenant() -> Result<Option<Product>, BoxError> {
    Ok(Some(loaf(TENANT.get())))
}

fn assert_advises(error: &Error) {
    let Error::LoadPanicked { message, .. } = error else { panic!("{error:?}") };
    assert!(message.contains("cannot access a task-local storage value"), "{message}");
    assert_eq!(message.matches("NAME.scope(value, async move { .. })").count(), 1, "{message}");
}

#[tokio::test]
async fn the_panic_of_a_task_local_in_a_loader_advises_how_to_pass_it() {
    on_every_backend(async |backend| {
        let cache = products(&backend);
        let (one, many, blocking) = TENANT
            .scope(7, async {
                let one = cache.get("p-001", |_| of_tenant()).await;
                let many = cache.get_many(["p-001"], |_| async { of_tenant().await }).await;
                let blocking = cache.with_blocking_loader(|_| Ok::<_, BoxError>(Some(loaf(TENANT.get()))));
                (one, many, blocking.get("p-001").await)
            })
            .await;
        assert_advises(&one.unwrap_err());
        assert_advises(many[0].as_ref().unwrap_err());
        assert_advises(&blocking.unwrap_err());
    })
    .await;
}

#[tokio::test]
async fn other_panics_are_passed_on_as_they_are() {
    on_every_backend(async |backend| {
        let cache = products(&backend);
        let error = cache.get("p-001", |_| async { panic!("on purpose") as Result<_, BoxError> }).await.unwrap_err();
        assert!(matches!(&error, Error::LoadPanicked { message, .. } if message == "on purpose"), "{error:?}");
    })
    .await;
}

#[tokio::test]
async fn a_task_local_value_is_passed_by_a_scope() {
    on_every_backend(async |backend| {
        let cache = products(&backend);
        let get = async {
            let tenant = TENANT.get();
            cache.get("p-001", move |_| TENANT.scope(tenant, of_tenant())).await.unwrap()
        };
        assert_eq!(TENANT.scope(7, get).await.as_deref(), Some(&loaf(7)));
    })
    .await;
}
