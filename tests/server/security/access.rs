//! Access control: the documented ACL is sufficient, each part of it is needed, and it doesn't allow more than that.

use std::time::Duration;

use cache_aside::{Backend, BackendBuilder, BoxError, Cache, Error, OnOutage, Outcome};
use redis::aio::MultiplexedConnection;
use testkit::access::Access;
use testkit::cluster::{Cluster, Moves};
use testkit::server::{Flavor, Server};

use crate::near::{near, warm};
use crate::support::fixture::{Primary, Product, builder, connect, get, loaf, lookup, products, until_applied};

const KEY: &str = "cache:billing:product:p-001";
const LEASE: &str = "{cache:billing:product:p-001}:lock";
/// Longer than any step takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// Uses all operations and code paths of the library; returns an error at the first that fails.
async fn work(server: &Server, access: &Access) -> Result<(), BoxError> {
    let backend = Backend::builder(&access.url(&server.url())).max_pending_invalidations(0);
    work_over(backend, LEASE, server, access).await
}

/// `lease`: the key of the product's lease.
async fn work_over(builder: BackendBuilder, lease: &str, server: &Server, access: &Access) -> Result<(), BoxError> {
    let mut operator = server.client().await;
    redis::cmd("FLUSHALL").exec_async(&mut operator).await?;
    redis::cmd("SCRIPT").arg("FLUSH").exec_async(&mut operator).await?;
    redis::cmd("CONFIG").arg("RESETSTAT").exec_async(&mut operator).await?;
    access.grant(server).await;
    let backend = builder.connect_timeout(PATIENCE).operation_timeout(PATIENCE).connect().await?;
    let cache: Cache<Product> = Cache::builder(backend.clone()).update_timeout(PATIENCE).build()?;
    let primary = Primary::of(loaf(1));
    loads_and_stores(&cache, &primary).await?;

    let changes = [Product::FIELDS.stock.set(2), Product::FIELDS.note.set(None)];
    ensure(cache.update_fields("p-001", changes).await?, "update")?;
    ensure(cache.peek("p-001").await?.is_some_and(|product| product.stock == 2), "read what was updated")?;
    ensure(cache.inspect("p-001").await?.ttl.is_some(), "inspect")?;
    ensure(cache.invalidate("p-001").await?, "invalidate")?;

    // A load that fails gives its lease back, and a value at L that is not a lease is removed.
    let failed = cache.get("p-001", |_| async { Err(std::fmt::Error) }).await;
    ensure(matches!(failed, Err(Error::Load { .. })), "load")?;
    ensure(cache.inspect("p-001").await?.lock_ttl.is_none(), "abandon")?;
    redis::cmd("SET").arg(lease).arg("for ever").exec_async(&mut operator).await?;
    loads_and_stores(&cache, &primary).await?;

    // Failed writes are applied later.
    backend.outage(true);
    ensure(cache.invalidate("p-001").await.is_err(), "simulate an outage")?;
    backend.outage(false);
    backend.close().await?;
    ensure(cache.peek("p-001").await?.is_none(), "sweep")?;
    ensure(operator_sees_role(&mut operator).await?, "ask for the role")
}

/// Whether the server was asked for its role, and answered.
async fn operator_sees_role(operator: &mut MultiplexedConnection) -> Result<bool, BoxError> {
    let info: String = redis::cmd("INFO").arg("commandstats").query_async(operator).await?;
    Ok(info.lines().any(|line| line.starts_with("cmdstat_role:") && !line.contains(":calls=0,")))
}

async fn loads_and_stores(cache: &Cache<Product>, primary: &Primary) -> Result<(), BoxError> {
    ensure(lookup(cache, primary.loader()).await?.outcome == Outcome::Loaded, "load")?;
    ensure(cache.peek("p-001").await?.is_some(), "store")
}

fn ensure(done: bool, what: &str) -> Result<(), BoxError> {
    if done { Ok(()) } else { Err(format!("did not {what}").into()) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_documented_acl_is_enough_and_nothing_in_it_can_be_left_out() {
    let access = Access::documented();
    for flavor in Flavor::ALL {
        let server = Server::start(flavor).await;
        work(&server, &access).await.unwrap();
        // For restarts: see `resilience/takeover/restart.rs`.
        let others = ["+info", "~cache:~swept:*"];
        for permission in access.permissions().filter(|permission| !others.contains(permission)) {
            let failed = work(&server, &access.without(permission)).await;
            if ["+eval", "+evalsha"].contains(&permission) {
                failed.unwrap_or_else(|error| panic!("{flavor:?}: without {permission}: {error}"));
                continue;
            }
            let failed = failed.expect_err(&format!("{flavor:?}: all works without {permission}"));
            println!("{flavor:?}: without {permission}: {failed}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_key_prefix_one_pattern_is_enough() {
    const PREFIXED_LEASE: &str = "team-a:lock:{team-a:cache:billing:product:p-001}";
    let access = Access::documented_for_near_caches().with_keys_alone("~team-a:*");
    for flavor in Flavor::ALL {
        let server = Server::start(flavor).await;
        let builder = || Backend::builder(&access.url(&server.url())).key_prefix("team-a:");
        work_over(builder().max_pending_invalidations(0), PREFIXED_LEASE, &server, &access).await.unwrap();
        let backend = builder().operation_timeout(PATIENCE).connect().await.unwrap();
        let (cache, primary) = (near(&backend), Primary::of(loaf(1)));
        warm(&cache, &primary).await;
        assert_eq!(cache.clear().await.unwrap(), 1);
        work(&server, &access).await.expect_err("keys without the prefix are not allowed");
    }
}

#[tokio::test]
async fn the_documented_acl_allows_no_other_keys() {
    let access = Access::documented();
    for flavor in Flavor::ALL {
        let server = Server::start(flavor).await;
        access.grant(&server).await;
        let backend = connect(&access.url(&server.url())).await;
        let other: Cache<Product> = Cache::builder(backend).namespace("shipping").build().unwrap();
        let primary = Primary::of(loaf(1));
        assert_eq!(lookup(&other, primary.loader()).await.unwrap().outcome, Outcome::Bypassed);
        for error in [
            other.peek("p-001").await.unwrap_err(),
            other.update_field("p-001", Product::FIELDS.stock, 2).await.unwrap_err(),
            other.invalidate("p-001").await.unwrap_err(),
        ] {
            assert!(error.to_string().contains("cache:shipping:product:p-001"), "{error}");
            assert!(
                error.to_string().ends_with("allow the user these commands and keys in the server's ACL"),
                "{error}"
            );
        }
        let mut operator = server.client().await;
        let keys: usize = redis::cmd("DBSIZE").query_async(&mut operator).await.unwrap();
        assert_eq!(keys, 0);
    }
}

#[tokio::test]
async fn a_command_that_a_script_may_not_call_is_named_with_the_acl_as_the_cause() {
    let access = Access::documented().without("+type");
    for flavor in Flavor::ALL {
        let server = Server::start(flavor).await;
        access.grant(&server).await;
        redis::cmd("SET").arg(LEASE).arg("for ever").exec_async(&mut server.client().await).await.unwrap();
        let cache = builder(&connect(&access.url(&server.url())).await).on_outage(OnOutage::Fail).build().unwrap();
        let error = cache.get("p-001", Primary::of(loaf(1)).loader()).await.unwrap_err();
        assert!(error.to_string().ends_with("allow the user these commands and keys in the server's ACL"), "{error}");
    }
}

/// Else its retries would be refused too, and the struct never be cached again.
#[tokio::test]
async fn a_clear_that_the_server_refuses_leaves_nothing_pending() {
    let access = Access::documented();
    for flavor in Flavor::ALL {
        for renamed in [false, true] {
            println!("{flavor:?}, renamed: {renamed}");
            let server =
                Server::start_with(flavor, if renamed { &["--rename-command", "SCAN", ""] } else { &[] }).await;
            let granted = if renamed { access.clone() } else { access.without("+scan") };
            granted.grant(&server).await;
            let (cache, primary) = (products(&connect(&access.url(&server.url())).await), Primary::of(loaf(1)));
            assert_eq!(lookup(&cache, primary.loader()).await.unwrap().outcome, Outcome::Loaded);
            let error = cache.clear().await.unwrap_err();
            assert!(matches!(&error, Error::Backend { action, .. } if action.starts_with("sweep")), "{error:?}");
            assert!(cache.pending().is_empty());
            assert_eq!(lookup(&cache, primary.loader()).await.unwrap().outcome, Outcome::Hit);
            if !renamed {
                access.grant(&server).await;
                assert_eq!(cache.clear().await.unwrap(), 1);
            }
        }
    }
}

#[tokio::test]
async fn a_clear_that_the_acl_forbids_forgets_no_failed_write() {
    let access = Access::documented();
    for flavor in Flavor::ALL {
        let server = Server::start(flavor).await;
        access.without("+scan").grant(&server).await;
        let backend = Backend::builder(&access.url(&server.url())).operation_timeout(Duration::from_secs(5));
        let backend = backend.max_pending_invalidations(0).connect().await.unwrap();
        let (cache, primary) = (products(&backend), Primary::of(loaf(1)));
        lookup(&cache, primary.loader()).await.unwrap();
        backend.outage(true);
        cache.invalidate("p-001").await.unwrap_err();
        backend.outage(false);
        cache.clear().await.unwrap_err();
        assert!(cache.pending().whole_type, "{flavor:?}");
        access.grant(&server).await;
        until_applied(&cache).await;
        assert_eq!(cache.peek("p-001").await.unwrap(), None, "{flavor:?}");
    }
}

/// An operator fixes the ACL while the service runs.
#[tokio::test]
async fn a_permission_that_is_granted_later_takes_effect() {
    let access = Access::documented();
    for flavor in Flavor::ALL {
        let server = Server::start(flavor).await;
        access.without("~cache:billing:*").grant(&server).await;
        let (cache, primary) = (products(&connect(&access.url(&server.url())).await), Primary::of(loaf(1)));
        assert_eq!(lookup(&cache, primary.loader()).await.unwrap().outcome, Outcome::Bypassed);
        access.grant(&server).await;
        assert_eq!(lookup(&cache, primary.loader()).await.unwrap().outcome, Outcome::Loaded);
        assert!(cache.update_field("p-001", Product::FIELDS.stock, 2).await.unwrap());
        assert_eq!(get(&cache, primary.loader()).await.unwrap().as_deref(), Some(&loaf(2)));
    }
}

/// Uses everything that needs more permissions than on a single server.
async fn work_in_cluster(cluster: &Cluster, access: &Access, close_timeout: Duration) -> Result<(), BoxError> {
    for server in &cluster.servers {
        access.grant(server).await;
    }
    let backend = Backend::builder(&access.url(&cluster.url())).max_pending_invalidations(0);
    let backend = backend.operation_timeout(PATIENCE).close_timeout(close_timeout).connect().await?;
    let (cache, primary) = (products(&backend), Primary::of(loaf(1)));
    cache.invalidate("p-001").await?;
    lookup(&cache, primary.loader()).await?;
    let way = cluster.open(KEY).await;
    cluster.migrate(KEY, way).await;
    let seen = cache.peek("p-001").await;
    cluster.close(KEY, way).await;
    seen?.ok_or("no entry")?;
    backend.outage(true);
    cache.invalidate("p-001").await.unwrap_err();
    backend.outage(false);
    Ok(backend.close().await?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_documented_acl_for_clusters_is_enough_and_nothing_in_it_can_be_left_out() {
    let (on_a_server, access) = (Access::documented(), Access::documented_in_clusters());
    for (flavor, moves) in Moves::ON {
        let cluster = Cluster::start_moving(flavor, moves).await;
        work_in_cluster(&cluster, &access, PATIENCE).await.unwrap();
        if moves == Moves::Atomically {
            continue;
        }
        let more =
            access.permissions().filter(|permission| on_a_server.permissions().all(|known| known != *permission));
        let more: Vec<_> = more.collect();
        assert_eq!(more.len(), 3);
        for permission in more {
            let failed = work_in_cluster(&cluster, &access.without(permission), Duration::from_secs(2)).await;
            let failed = failed.expect_err(&format!("{flavor:?}: all works without {permission}"));
            println!("{flavor:?}: without {permission}: {failed}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_documented_acl_for_near_caches_is_enough() {
    for flavor in Flavor::ALL {
        let (server, access) = (Server::start(flavor).await, Access::documented_for_near_caches());
        access.grant(&server).await;
        let cache = near(&connect(&access.url(&server.url())).await);
        warm(&cache, &Primary::of(loaf(1))).await;
    }
}
