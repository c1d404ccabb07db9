//! The endpoints and their answers, on `memory://` and on a server.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;

use serde_json::{Value, json};
use testkit::http::LIMIT;
use testkit::server::{Flavor, Server};

use crate::running::{Demo, on_every_cache};

fn has_numbers(value: &Value, names: &[&str]) {
    for name in names {
        assert!(value[name].is_number(), "no number {name} in {value:#}");
    }
}

fn stock(demo: &Demo, id: &str) -> Value {
    let products = demo.get("/products").ok();
    let product = products.as_array().unwrap().iter().find(|product| product["id"] == id);
    product.unwrap()["stock"].clone()
}

#[tokio::test]
async fn reads_miss_and_then_hit() {
    on_every_cache(async |demo| {
        let miss = demo.get("/read?id=p-001").ok();
        assert_eq!((&miss["hit"], &miss["outcome"]), (&json!(false), &json!("loaded")));
        assert_eq!(miss["record"], json!({"id": "p-001", "name": "Sourdough Loaf", "price_cents": 650, "stock": 42}));
        let hit = demo.get("/read?id=p-001").ok();
        assert_eq!((&hit["id"], &hit["hit"], &hit["outcome"]), (&json!("p-001"), &json!(true), &json!("hit")));
        assert_eq!(hit["record"], miss["record"]);
        for read in [&miss, &hit] {
            has_numbers(read, &["redis_latency_ms", "total_latency_ms", "ttl_remaining"]);
            let ttl = read["ttl_remaining"].as_f64().unwrap();
            assert!(0.0 < ttl && ttl <= 30.0, "{ttl} s");
        }
        assert!(miss["total_latency_ms"].as_f64().unwrap() >= 150.0);

        let stats = demo.get("/stats").ok();
        has_numbers(&stats, &["stampedes_suppressed", "primary_read_latency_ms"]);
        assert_eq!((&stats["hits"], &stats["misses"]), (&json!(1), &json!(1)));
        assert_eq!((&stats["hit_rate_pct"], &stats["primary_reads_total"]), (&json!(50.0), &json!(1)));
        assert_eq!(hit["stats"]["hits"], 1);

        let stats = demo.post("/reset", "").ok();
        assert_eq!((&stats["hits"], &stats["primary_reads_total"]), (&json!(0), &json!(0)));
    })
    .await;
}

#[tokio::test]
async fn the_catalogue_has_a_few_dozen_products() {
    let demo = Demo::start(&[]);
    let products = demo.get("/products").ok();
    assert!(products.as_array().unwrap().len() >= 24);
    // This is not a read through the cache.
    assert_eq!(demo.get("/stats").ok()["primary_reads_total"], 0);
}

#[tokio::test]
async fn writes_reach_the_primary_and_the_cache() {
    on_every_cache(async |demo| {
        demo.get("/read?id=p-001").ok();
        assert_eq!(demo.post("/update", "id=p-001&field=stock&value=7").ok()["invalidated"], true);
        assert_eq!(demo.get("/inspect?id=p-001").ok()["state"], "missing");
        let read = demo.get("/read?id=p-001").ok();
        assert_eq!((&read["outcome"], &read["record"]["stock"]), (&json!("loaded"), &json!(7)));

        let before = demo.get("/inspect?id=p-001").ok()["ttl_remaining"].as_f64().unwrap();
        for (field, value) in [("stock", "8"), ("price_cents", "-1"), ("name", "Rye & %22Salt%22")] {
            let form = format!("id=p-001&field={field}&value={}", value.replace(" & ", "+%26+"));
            assert_eq!(demo.post("/update-cached", &form).ok()["applied"], true);
        }
        let read = demo.get("/read?id=p-001").ok();
        assert_eq!(read["outcome"], "hit");
        assert_eq!(read["record"], json!({"id": "p-001", "name": "Rye & \"Salt\"", "price_cents": -1, "stock": 8}));
        assert!(read["ttl_remaining"].as_f64().unwrap() <= before, "an update in place keeps the deadline");
        assert_eq!(stock(demo, "p-001"), 8);

        assert_eq!(demo.post("/invalidate", "id=p-001").ok()["invalidated"], true);
        assert_eq!(demo.post("/invalidate", "id=p-001").ok()["invalidated"], false);
        assert_eq!(demo.post("/update-cached", "id=p-001&field=stock&value=9").ok()["applied"], false);
    })
    .await;
}

#[tokio::test]
async fn unknown_ids_are_not_found_until_created() {
    on_every_cache(async |demo| {
        assert!(demo.get("/read?id=p-404").error(404).contains("p-404"));
        let known = demo.get("/read?id=p-404").with(404);
        assert_eq!((&known["outcome"], &known["record"]), (&json!("not_found_hit"), &Value::Null));
        assert!(known["ttl_remaining"].as_f64().unwrap() <= 10.0);
        assert_eq!(demo.get("/inspect?id=p-404").ok()["state"], "not_found");

        demo.post("/update", "id=p-404&field=stock&value=1").error(404);
        demo.post("/update-cached", "id=p-404&field=stock&value=1").error(404);
        demo.post("/stampede", "id=p-404&concurrency=5").error(404);
        demo.post("/race", "id=p-404").error(404);
        demo.post("/invalidate", "id=p-405").error(404);

        for id in ["a%00b", "%0D%0A", &"x".repeat(1024)] {
            demo.get(&format!("/read?id={id}")).error(404);
        }

        demo.get("/read?id=p-404").error(404);
        demo.post("/create", "id=p-404&name=Plum+Cake&price_cents=560&stock=x").error(400);
        let created = demo.post("/create", "id=p-404&name=Plum+Cake&price_cents=560&stock=12").with(201);
        assert_eq!(created["invalidated"], true);
        assert_eq!(demo.get("/read?id=p-404").ok()["record"]["name"], "Plum Cake");
        demo.post("/create", "id=p-404&name=Plum+Cake&price_cents=560&stock=12").error(409);
    })
    .await;
}

#[tokio::test]
async fn bad_parameters_are_refused_and_change_nothing() {
    let demo = Demo::start(&[]);
    let long = "x".repeat(1025);
    for query in ["", "?id=", "?id=%FF", "?id=a&id=b", &format!("?id={long}")] {
        demo.get(&format!("/read{query}")).error(400);
        demo.get(&format!("/inspect{query}")).error(400);
    }
    for value in ["abc", "", "-1", "1.5", "%2B1", "4294967296", "NaN", "%201"] {
        let error = demo.post("/update", &format!("id=p-001&field=stock&value={value}")).error(400);
        assert!(error.contains("stock"), "{error}");
        demo.post("/update-cached", &format!("id=p-001&field=stock&value={value}")).error(400);
    }
    for form in ["", "id=p-001", "id=p-001&field=stock", "field=stock&value=1", "id=p-001&field=id&value=x"] {
        demo.post("/update", form).error(400);
    }
    assert!(demo.post("/update", "id=p-001&field=colour&value=1").error(400).contains("colour"));
    demo.post("/update", "id=p-001&field=name&value=%FF").error(400);
    demo.post("/create", "id=%FF&name=Bun&price_cents=1&stock=1").error(400);
    assert_eq!(stock(&demo, "p-001"), 42);
    for concurrency in ["0", "1001", "-1", "x", "", "1e2", "%2B5", "99999999999999999999"] {
        let error = demo.post("/stampede", &format!("id=p-001&concurrency={concurrency}")).error(400);
        assert!(error.contains("1 to 1000"), "{error}");
    }
    demo.post("/stampede", "id=p-001").error(400);
    demo.post("/create", &format!("id={}&name=Bun&price_cents=1&stock=1", "x".repeat(201))).error(400);
    demo.post("/invalidate", "").error(400);
    demo.post("/race", "").error(400);
    demo.post("/outage", "on=maybe").error(400);
    demo.post("/near-cache", "on=maybe").error(400);
    demo.post("/near-cache", "").error(400);
    demo.post("/latency", "ms=5001").error(400);
    assert_eq!(demo.get("/stats").ok()["primary_reads_total"], 0);
}

#[tokio::test]
async fn a_stampede_reads_the_primary_once() {
    on_every_cache(async |demo| {
        for concurrency in [1, 200, 1000] {
            let form = format!("id=p-002&concurrency={concurrency}");
            let stampede = demo.post("/stampede", &form).ok();
            assert_eq!(stampede["primary_reads"], 1, "{concurrency} readers");
            has_numbers(&stampede, &["elapsed_ms", "slowest_ms"]);
            let results = stampede["results"].as_array().unwrap();
            assert_eq!(results.len(), concurrency);
            assert_eq!(results.iter().filter(|reader| reader["outcome"] == "loaded").count(), 1);
            results.iter().for_each(|reader| has_numbers(reader, &["started_ms", "served_ms", "waited_ms"]));
        }
        assert_eq!(demo.get("/stats").ok()["primary_reads_total"], 3);
    })
    .await;
}

#[tokio::test]
async fn a_race_is_fenced() {
    on_every_cache(async |demo| {
        let race = demo.post("/race", "id=p-003").ok();
        assert_eq!(race["fenced"], true, "{race:#}");
        assert_eq!((&race["old_stock"], &race["reader_stock"]), (&json!(96), &json!(96)));
        assert_eq!((&race["new_stock"], &race["later_stock"]), (&json!(97), &json!(97)));
        assert_eq!(demo.get("/read?id=p-003").ok()["record"]["stock"], 97);
        assert_eq!(demo.get("/stats").ok()["fenced_fills"], 1);

        for (stock, then) in [(0_u32, 1), (u32::MAX, u32::MAX - 1)] {
            demo.post("/update", &format!("id=p-003&field=stock&value={stock}")).ok();
            let race = demo.post("/race", "id=p-003").ok();
            assert_eq!(race["fenced"], true, "{race:#}");
            assert_eq!((&race["old_stock"], &race["later_stock"]), (&json!(stock), &json!(then)));
        }
    })
    .await;
}

#[tokio::test]
async fn a_record_past_its_ttl_is_served_while_a_slow_primary_is_asked() {
    on_every_cache(async |demo| {
        demo.post("/expire", "id=p-404").error(404);
        demo.post("/latency", "ms=1500").ok();
        let expired = demo.post("/expire", "id=p-001").ok();
        assert_eq!((&expired["state"], &expired["ttl_remaining"]), (&json!("stale"), &Value::Null));
        let read = demo.get("/read?id=p-001").ok();
        assert_eq!((&read["outcome"], &read["hit"]), (&json!("stale_revalidating"), &json!(false)));
        assert_eq!((&read["record"]["stock"], &read["ttl_remaining"]), (&json!(42), &Value::Null));

        let begun = std::time::Instant::now();
        while demo.get("/inspect?id=p-001").ok()["state"] != "record" {
            assert!(begun.elapsed() < LIMIT, "the load didn't go on");
        }
        let read = demo.get("/read?id=p-001").ok();
        assert_eq!(read["outcome"], "hit");
        assert_eq!((&read["stats"]["stale_served"], &read["stats"]["stale_revalidating"]), (&json!(1), &json!(1)));
    })
    .await;
}

#[tokio::test]
async fn a_record_past_its_ttl_is_served_when_the_primary_fails() {
    on_every_cache(async |demo| {
        demo.post("/latency", "ms=0").ok();
        assert_eq!(demo.post("/primary-fails", "on=true").ok()["primary_fails"], true);
        assert!(demo.get("/read?id=p-002").error(500).contains("the primary was made to fail"));
        demo.post("/expire", "id=p-001").ok();
        // On a busy machine the failure may take longer than the first read waits for it.
        let begun = std::time::Instant::now();
        let read = loop {
            let read = demo.get("/read?id=p-001").ok();
            if read["outcome"] == "stale" {
                break read;
            }
            assert!(begun.elapsed() < LIMIT, "{read:#}");
        };
        assert_eq!((&read["record"]["stock"], &read["hit"]), (&json!(42), &json!(false)));
        assert!(read["stats"]["stale_served"].as_u64() > read["stats"]["stale_revalidating"].as_u64());

        // Never after an invalidation.
        demo.post("/invalidate", "id=p-001").ok();
        demo.get("/read?id=p-001").error(500);
        demo.post("/primary-fails", "on=false").ok();
        assert_eq!(demo.get("/read?id=p-001").ok()["outcome"], "loaded");
    })
    .await;
}

#[tokio::test]
async fn reads_go_around_a_stopped_cache_and_writes_say_so() {
    on_every_cache(async |demo| {
        demo.get("/read?id=p-001").ok();
        assert_eq!(demo.post("/outage", "on=true").ok()["outage"], true);
        let read = demo.get("/read?id=p-001").ok();
        assert_eq!((&read["outcome"], &read["hit"]), (&json!("bypassed"), &json!(false)));
        assert_eq!((&read["record"]["stock"], &read["ttl_remaining"]), (&json!(42), &Value::Null));
        for path in ["/update", "/update-cached"] {
            let answer = demo.post(path, "id=p-001&field=stock&value=41");
            assert!(answer.error(503).contains("the primary was written"), "{answer:?}");
            assert_eq!(answer.json()["primary_written"], true);
        }
        demo.post("/invalidate", "id=p-001").error(503);
        demo.post("/race", "id=p-001").error(503);
        demo.get("/inspect?id=p-001").error(503);
        let stampede = demo.post("/stampede", "id=p-001&concurrency=50").ok();
        assert_eq!(stampede["invalidated"], false);
        // A load around the cache serves only callers that asked before it began.
        assert!(stampede["primary_reads"].as_u64().unwrap() < 50, "{stampede:#}");

        assert_eq!(demo.get("/stats").ok()["pending"], 1);
        demo.post("/outage", "on=false").ok();
        assert_eq!(demo.get("/read?id=p-001").ok()["record"]["stock"], 41);
        let begun = std::time::Instant::now();
        while demo.get("/stats").ok()["pending"] != 0 {
            assert!(begun.elapsed() < LIMIT, "the cache was not told");
        }
        demo.get("/read?id=p-001").ok();
        let read = demo.get("/read?id=p-001").ok();
        assert_eq!((&read["outcome"], &read["record"]["stock"]), (&json!("hit"), &json!(41)));
    })
    .await;
}

#[tokio::test]
async fn reads_go_on_when_the_server_dies_and_comes_back() {
    let mut server = Server::start(Flavor::Redis70).await;
    let port = server.port().to_string();
    let demo = Demo::start(&["--redis-host", "127.0.0.1", "--redis-port", &port]);
    demo.get("/read?id=p-001").ok();
    assert_eq!(demo.get("/read?id=p-001").ok()["outcome"], "hit");
    server.kill().await;
    assert_eq!(demo.get("/read?id=p-001").ok()["outcome"], "bypassed");
    demo.post("/update", "id=p-001&field=stock&value=41").error(503);
    server.restart().await;
    let begun = std::time::Instant::now();
    while demo.get("/read?id=p-001").ok()["outcome"] != "hit" {
        assert!(begun.elapsed() < LIMIT, "no hit after the server is back");
    }
    assert_eq!(demo.get("/read?id=p-001").ok()["record"]["stock"], 41);
}

/// Reads until the near cache has the answer.
fn warm(demo: &Demo, id: &str) -> Value {
    let begun = std::time::Instant::now();
    loop {
        let read = demo.get(&format!("/read?id={id}")).ok();
        if read["outcome"] == "near_hit" {
            return read;
        }
        assert!(begun.elapsed() < LIMIT, "nothing is kept: {read:#}");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

/// Deletes an entry as another client would, and waits until the near cache has received the message.
async fn remove_elsewhere(server: &Server, demo: &Demo, id: &str) {
    let told = || demo.get("/stats").ok()["near_invalidations"].as_u64().unwrap();
    let (before, begun) = (told(), std::time::Instant::now());
    let mut client = server.client().await;
    redis::cmd("DEL").arg(format!("cache:demo:product:{id}")).exec_async(&mut client).await.unwrap();
    while told() == before {
        assert!(begun.elapsed() < LIMIT, "no message came");
    }
}

#[tokio::test]
async fn a_near_cache_answers_while_it_is_on_and_gets_messages_about_changes() {
    let server = Server::start(Flavor::Redis70).await;
    let demo = Demo::start(&["--cache", &server.url()]);
    assert_eq!(demo.get("/stats").ok()["near_cache"], false);
    for _ in 0..3 {
        assert_ne!(demo.get("/read?id=p-001").ok()["outcome"], "near_hit", "it is off");
    }
    assert_eq!(demo.post("/near-cache", "on=true").ok()["near_cache"], true);
    let read = warm(&demo, "p-001");
    assert_eq!((&read["hit"], &read["redis_latency_ms"]), (&json!(true), &json!(0.0)));
    assert_eq!((&read["record"]["stock"], &read["stats"]["tracker"]), (&json!(42), &json!("live")));

    // Own writes, by both methods.
    demo.post("/update-cached", "id=p-001&field=stock&value=41").ok();
    assert_eq!(demo.get("/read?id=p-001").ok()["record"]["stock"], 41);
    warm(&demo, "p-001");
    demo.post("/update", "id=p-001&field=stock&value=40").ok();
    assert_eq!(demo.get("/read?id=p-001").ok()["record"]["stock"], 40);

    warm(&demo, "p-001");
    remove_elsewhere(&server, &demo, "p-001").await;
    assert_eq!(demo.get("/read?id=p-001").ok()["outcome"], "loaded");

    // While it is switched off it still receives messages.
    warm(&demo, "p-001");
    assert_eq!(demo.post("/near-cache", "on=false").ok()["near_cache"], false);
    assert_eq!(demo.get("/read?id=p-001").ok()["outcome"], "hit");
    remove_elsewhere(&server, &demo, "p-001").await;
    demo.post("/near-cache", "on=true").ok();
    assert_eq!(demo.get("/read?id=p-001").ok()["outcome"], "loaded");

    let read = warm(&demo, "p-001");
    let stats = &read["stats"];
    assert!(stats["near_hits"].as_u64().unwrap() >= 5 && stats["hits"].as_u64() > stats["near_hits"].as_u64());
    let counted = |read: &Value| read["stats"]["outcomes"].as_array().unwrap()[2].clone();
    assert_eq!((&counted(&read)["outcome"], &counted(&read)["count"]), (&json!("near_hit"), &stats["near_hits"]));
    let stats = demo.post("/reset", "").ok();
    assert_eq!((&stats["near_hits"], &stats["hits"], &stats["near_cache"]), (&json!(0), &json!(0), &json!(true)));
}

#[tokio::test]
async fn experiments_work_with_a_near_cache_too() {
    let server = Server::start(Flavor::Redis70).await;
    let demo = Demo::start(&["--cache", &server.url()]);
    demo.post("/near-cache", "on=true").ok();
    warm(&demo, "p-003");
    let race = demo.post("/race", "id=p-003").ok();
    assert_eq!((&race["fenced"], &race["later_stock"]), (&json!(true), &json!(97)));
    warm(&demo, "p-003");
    let stampede = demo.post("/stampede", "id=p-003&concurrency=200").ok();
    assert_eq!(stampede["primary_reads"], 1, "{stampede:#}");
}

#[tokio::test]
async fn in_memory_there_is_no_near_cache() {
    let demo = Demo::start(&[]);
    assert!(demo.post("/near-cache", "on=true").error(409).contains("memory:// is in this process already"));
    let stats = demo.post("/near-cache", "on=false").ok();
    assert_eq!((&stats["near_cache"], &stats["tracker"]), (&json!(false), &json!("unused")));
}

#[tokio::test]
async fn entries_are_plain_hashes_on_a_server() {
    let server = Server::start(Flavor::Redis70).await;
    let demo = Demo::start(&["--cache", &server.url()]);
    demo.get("/read?id=p-001").ok();
    let mut client = server.client().await;
    let name: String =
        redis::cmd("HGET").arg("cache:demo:product:p-001").arg("name").query_async(&mut client).await.unwrap();
    assert_eq!(name, "Sourdough Loaf");
    let stored = demo.get("/inspect?id=p-001").ok();
    assert_eq!(stored["key"], "cache:demo:product:p-001");
    assert_eq!(stored["fields"][1], json!(["name", "Sourdough Loaf"]));
}

#[tokio::test]
async fn metrics_are_prometheus_text() {
    let demo = Demo::start(&[]);
    demo.get("/read?id=p-001").ok();
    demo.get("/read?id=p-001").ok();
    let metrics = demo.get("/metrics");
    assert!(metrics.headers["content-type"].starts_with("text/plain; version=0.0.4"), "{metrics:?}");
    let expected = [
        "cache_hits_total 1",
        "cache_near_hits_total 0",
        "cache_stale_served_total 0",
        "cache_stale_revalidating_total 0",
        "cache_read_duration_seconds_count{outcome=\"stale_revalidating\"} 0",
        "primary_reads_total 1",
        "cache_tracker_live 0",
        "cache_read_duration_seconds_count{outcome=\"hit\"} 1",
    ];
    for line in expected {
        assert!(metrics.body.lines().any(|found| found == line), "no {line} in\n{}", metrics.body);
    }
    for line in metrics.body.lines().filter(|line| !line.starts_with("# ")) {
        let (name, value) = line.rsplit_once(' ').unwrap();
        assert!(value.parse::<f64>().is_ok(), "{line}");
        let name = name.split('{').next().unwrap();
        let family = name.trim_end_matches("_sum").trim_end_matches("_count");
        assert!(metrics.body.contains(&format!("# TYPE {family} ")), "{line}");
    }
}

#[tokio::test]
async fn events_contain_the_figures() {
    let demo = Demo::start(&[]);
    let mut stream = TcpStream::connect(&demo.address).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    write!(stream, "GET /events HTTP/1.1\r\nHost: {}\r\n\r\n", demo.address).unwrap();
    let lines = BufReader::new(stream).lines().map(Result::unwrap);
    let mut figures =
        lines.filter_map(|line| Some(serde_json::from_str::<Value>(line.strip_prefix("data: ")?).unwrap()));
    assert_eq!(figures.next().unwrap()["misses"], 0);
    demo.get("/read?id=p-001").ok();
    assert!(figures.take(10).any(|figures| figures["misses"] == 1));
}
