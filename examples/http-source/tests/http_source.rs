//! The program, by what it prints, with the cache in memory and on a server.
#![allow(clippy::unwrap_used, missing_docs)]

use std::process::Command;

use testkit::server::{Flavor, Server};

/// The answers of the service and of the source, each in order.
fn run(cache: &str) -> [Vec<String>; 2] {
    let output = Command::new(env!("CARGO_BIN_EXE_http-source")).env("CACHE_URL", cache).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let output = String::from_utf8(output.stdout).unwrap();
    println!("on {cache}\n{output}");
    ["service: GET ", "source: GET "].map(|who| {
        let lines = output.lines().filter_map(|line| line.trim_start().strip_prefix(who));
        lines.map(str::to_owned).collect()
    })
}

#[tokio::test]
async fn answers_are_kept_as_long_as_the_source_says() {
    let server = Server::start(Flavor::Redis70).await;
    for cache in ["memory://", &server.url()] {
        let [service, source] = run(cache);
        assert_eq!(
            source,
            [
                "/products/7, If-None-Match None: 200",
                "/products/7, If-None-Match Some(\"\\\"stock-42\\\"\"): 304",
                "/products/7, If-None-Match None: 200",
                "/products/404, If-None-Match None: 404",
            ]
        );
        let of_product = service.iter().filter(|line| line.starts_with("/products/7: 200, ")).count();
        let is_stale = |line: &&String| line.contains("no-cache");
        assert!(is_stale(&&service[2]) && !service[..2].iter().any(|line| is_stale(&line)), "{service:?}");
        // After the answer 304 the record lives on, with a new TTL.
        let (renewed, changed) = (&service[of_product - 2], &service[of_product - 1]);
        assert!(renewed.contains("max-age=") && renewed.contains("\"stock\":42"), "{renewed}");
        assert!(changed.contains("max-age=") && changed.contains("\"stock\":41"), "{changed}");
        let missing = &service[of_product..];
        assert!(missing.len() == 2 && missing.iter().all(|line| line.starts_with("/products/404: 404, max-age=")));
    }
}
