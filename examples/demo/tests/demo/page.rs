//! The page in a real browser, with the cache in memory and on a server.

use std::time::{Duration, Instant};

use fantoccini::key::Key;
use serde_json::json;
use testkit::http::LIMIT;
use testkit::server::{Flavor, Server};

use crate::browser::Browser;
use crate::running::{Demo, on_every_cache};

/// Runs a test on the page, and then checks the browser's console for errors.
async fn on_every_page(test: impl AsyncFn(&Demo, &Browser)) {
    let page = Browser::start().await;
    on_every_cache(async |demo| {
        page.open(demo).await;
        test(demo, &page).await;
        page.check_console();
        page.leave().await;
    })
    .await;
}

/// Reads a product, and waits until the outcome is shown.
async fn read(page: &Browser, id: &str, outcome: &str) {
    page.fill("id", id).await;
    page.press("read").await;
    page.until("outcome", |text| text.eq_ignore_ascii_case(outcome)).await;
    page.until("message", |text| text.starts_with(outcome)).await;
}

fn seconds(shown: &str) -> Option<f64> {
    shown.strip_suffix(" s")?.parse().ok()
}

async fn seconds_left(page: &Browser) -> f64 {
    seconds(&page.until("ttl", |text| seconds(text).is_some()).await).unwrap()
}

#[tokio::test]
async fn reads_twice_and_counts_down() {
    on_every_page(async |_, page| {
        read(page, "p-001", "miss, loaded").await;
        read(page, "p-001", "hit").await;
        assert!(page.text("record").await.contains("Sourdough Loaf"));
        let stored = page.until_contains("stored", "Sourdough Loaf").await;
        assert!(stored.contains("cache:demo:product:p-001"), "{stored}");
        for bar in ["bar-cache", "bar-total", "bar-primary"] {
            assert!(page.text(bar).await.ends_with(" ms"));
        }
        page.until("total-hits", |text| text == "1").await;
        page.until("total-misses", |text| text == "1").await;

        let begun = Instant::now();
        let first = seconds_left(page).await;
        page.until("ttl", |text| seconds(text).is_some_and(|left| left < first - 3.0)).await;
        // The first value may be out of date by up to a second when it is read.
        assert!(first <= 30.0 && begun.elapsed() >= Duration::from_secs(2), "{first} s, {:?}", begun.elapsed());
    })
    .await;
}

#[tokio::test]
async fn updates_and_invalidates() {
    on_every_page(async |demo, page| {
        read(page, "p-001", "miss, loaded").await;
        page.fill("value", "41").await;
        page.press("update").await;
        page.until_contains("message", "the next read loads").await;
        page.until_contains("stored", "Nothing is stored").await;
        read(page, "p-001", "miss, loaded").await;
        assert!(page.text("record").await.contains("41"));

        let before = seconds_left(page).await;
        page.fill("value", "40").await;
        page.press("update-cached").await;
        page.until_contains("message", "set in the entry").await;
        page.until_contains("stored", "40").await;
        assert!(seconds_left(page).await <= before);
        read(page, "p-001", "hit").await;
        assert!(page.text("record").await.contains("40"));

        page.press("invalidate").await;
        page.until_contains("message", "The entry is gone").await;
        page.press("invalidate").await;
        page.until_contains("message", "no entry to invalidate").await;
        read(page, "p-001", "miss, loaded").await;

        page.fill("value", "abc").await;
        page.press("update").await;
        page.until_contains("message", "must be a whole number").await;
        assert!(page.element("message").await.attr("class").await.unwrap().unwrap().contains("bad"));
        page.fill("id", "p-404").await;
        page.press("update").await;
        page.until_contains("message", "must be a whole number").await;
        assert_eq!(demo.get("/read?id=p-001").ok()["record"]["stock"], 40);
    })
    .await;
}

#[tokio::test]
async fn misses_an_unknown_product_and_creates_it() {
    on_every_page(async |_, page| {
        read(page, "p-404", "miss, loaded").await;
        page.until_contains("message", "has no product").await;
        // On a busy machine the entry may expire before all of it is looked at.
        let begun = Instant::now();
        loop {
            page.press("read").await;
            tokio::time::sleep(Duration::from_millis(200)).await;
            let is_hit = page.text("outcome").await.eq_ignore_ascii_case("not-found hit");
            let is_labelled = page.text("ttl-label").await.contains("Not-found entry");
            if is_hit && is_labelled && page.text("stored").await.contains("absent") {
                break;
            }
            assert!(begun.elapsed() < LIMIT, "no not-found entry is shown");
        }
        assert!(seconds_left(page).await <= 10.0);

        page.fill("new-name", "Plum Cake").await;
        page.press("create").await;
        page.until_contains("message", "Created").await;
        read(page, "p-404", "miss, loaded").await;
        assert!(page.text("record").await.contains("Plum Cake"));

        // A stampede on a missing product is one read too.
        page.fill("id", "p-403").await;
        page.press("stampede").await;
        page.until_contains("stampede-message", "200 readers of p-403, one read of the primary. There is no").await;

        // The entry of another missing product expires while the page shows it.
        read(page, "p-405", "miss, loaded").await;
        page.until("ttl", |text| text == "expired").await;
        page.until_contains("stored", "Nothing is stored").await;
    })
    .await;
}

#[tokio::test]
async fn shows_a_stampede() {
    on_every_page(async |_, page| {
        page.fill("concurrency", "200").await;
        page.press("stampede").await;
        page.until_contains("stampede-message", "200 readers of p-001, one read of the primary").await;
        assert_eq!(page.text("stampede-reads").await, "1");
        assert!(page.text("stampede-slowest").await.ends_with(" ms"));
        assert_eq!(page.count("#timeline .reader").await, 200);
        assert_eq!(page.count("#timeline .reader.loaded").await, 1);
        assert_eq!(page.count("#timeline .load").await, 1);
        let legend = page.text("timeline").await;
        assert!(legend.contains("miss, loaded: 1"), "{legend}");
        let told = page.run("return document.querySelector('#timeline svg').getAttribute('aria-label')", &[]).await;
        assert!(told.as_str().unwrap().starts_with("200 readers, 1 read of the primary."), "{told}");

        page.fill("concurrency", "1000").await;
        page.press("stampede").await;
        page.until_contains("stampede-message", "1000 readers of p-001, one read").await;
        assert_eq!(page.count("#timeline .reader").await, 1000);
        page.until("total-primary", |text| text == "2").await;
    })
    .await;
}

#[tokio::test]
async fn shows_how_a_race_is_fenced() {
    on_every_page(async |_, page| {
        page.press("race").await;
        page.until_contains("race-verdict", "Fenced: stock 42 did not get into the cache").await;
        let steps = page.text("race-steps").await;
        assert!(steps.contains("refuses the fill") && steps.contains("later reader gets stock 43"), "{steps}");
        page.until("total-fenced", |text| text == "1").await;
        read(page, "p-001", "hit").await;
        assert!(page.text("record").await.contains("43"));
    })
    .await;
}

#[tokio::test]
async fn stops_and_restarts_the_cache() {
    on_every_page(async |_, page| {
        read(page, "p-001", "miss, loaded").await;
        page.press("power").await;
        page.until_contains("banner", "The cache is stopped").await;
        read(page, "p-001", "bypassed").await;
        assert!(page.text("record").await.contains("Sourdough Loaf"));
        page.press("update").await;
        page.until_contains("message", "the primary was written, but the cache could not be updated").await;
        page.until_contains("banner", "will be applied when it is back: 1.").await;
        page.press("race").await;
        page.until_contains("race-message", "an outage is simulated").await;
        assert_eq!(page.text("power-state").await, "is off");

        page.press("power").await;
        page.until_contains("tools-message", "The cache is back").await;
        assert_eq!(page.text("banner").await, "");
        // The failed write has been applied by now, or the read goes around the cache.
        page.press("read").await;
        page.until("outcome", |text| !text.is_empty()).await;
        page.until_contains("record", "41").await;
    })
    .await;
}

/// Lets an entry expire and reads it, until the outcome is this.
async fn read_expired(page: &Browser, id: &str, outcome: &str) {
    let begun = Instant::now();
    page.fill("id", id).await;
    page.press("expire").await;
    page.until_contains("message", "Loaded with a short TTL").await;
    page.until_contains("stored", "Past its TTL").await;
    page.until("ttl", |text| text == "past its TTL").await;
    loop {
        page.press("read").await;
        if page.until("message", |text| text.ends_with(" ms")).await.starts_with(outcome) {
            return;
        }
        assert!(begun.elapsed() < LIMIT, "never {outcome}");
    }
}

#[tokio::test]
async fn shows_what_is_served_past_its_ttl() {
    on_every_page(async |demo, page| {
        demo.post("/latency", "ms=1000").ok();
        read_expired(page, "p-001", "stale, loading").await;
        assert!(page.text("record").await.contains("Sourdough Loaf"));
        page.until_drawn("#latency-chart .stale_revalidating circle").await;
        page.until("outcomes", |text| text.lines().any(|row| row.starts_with("stale, loading 1 "))).await;

        demo.post("/latency", "ms=0").ok();
        page.press("fail").await;
        page.until("fail", |text| text == "Repair the primary").await;
        read_expired(page, "p-002", "stale, load failed").await;
        page.until_drawn("#latency-chart .stale circle").await;
        let some = |row: &str| row.starts_with("stale, load failed ") && !row.starts_with("stale, load failed 0");
        page.until("outcomes", |text| text.lines().any(some)).await;
        page.until("total-stale", |text| text.parse().is_ok_and(|served: u64| served >= 2)).await;

        page.press("fail").await;
        page.until("fail", |text| text == "Break the primary").await;
        page.press("invalidate").await;
        page.until_contains("message", "the next read loads").await;
        read(page, "p-002", "miss, loaded").await;
    })
    .await;
}

async fn number(page: &Browser, id: &str) -> u64 {
    page.until(id, |text| text.parse::<u64>().is_ok()).await.parse().unwrap()
}

/// Reads until the near cache has the answer.
async fn read_near(page: &Browser, id: &str) {
    let begun = Instant::now();
    page.fill("id", id).await;
    loop {
        page.press("read").await;
        if page.until("message", |text| !text.is_empty()).await.starts_with("near hit") {
            return;
        }
        assert!(begun.elapsed() < LIMIT, "nothing is kept");
    }
}

#[tokio::test]
async fn puts_the_near_cache_before_redis_and_takes_it_away() {
    let server = Server::start(Flavor::Redis70).await;
    let demo = Demo::start(&["--cache", &server.url()]);
    let page = Browser::start().await;
    page.open(&demo).await;
    page.until("tracker", |text| text == "live").await;
    assert_eq!((page.text("near-state").await, number(&page, "near-hits").await), ("is off".to_owned(), 0));

    page.press("near").await;
    page.until("near-state", |text| text == "is on").await;
    page.until_contains("near-message", "the third is a near hit").await;
    read_near(&page, "p-020").await;
    assert!(page.text("outcome-text").await.contains("no round trip"));
    page.press("traffic").await;
    page.until("near-hits", |text| text.parse().is_ok_and(|hits: u64| hits >= 5)).await;
    page.until("near-invalidations", |text| text.parse().is_ok_and(|told: u64| told > 0)).await;
    for drawn in ["#latency-chart .near_hit circle", "#latency-chart .told"] {
        page.until_drawn(drawn).await;
    }
    page.press("traffic").await;
    page.until("traffic", |text| text == "Keep reading").await;

    read_near(&page, "p-020").await;
    let told = number(&page, "near-invalidations").await;
    page.press("invalidate").await;
    page.until_contains("message", "The entry is gone").await;
    page.until("near-invalidations", |text| text.parse().is_ok_and(|now: u64| now > told)).await;
    read(&page, "p-020", "miss, loaded").await;

    // While the cache is stopped the server sends no messages.
    read_near(&page, "p-020").await;
    page.press("power").await;
    page.until("tracker", |text| text == "connecting").await;
    page.until_contains("stored", "an outage is simulated").await;
    page.press("power").await;
    page.until_contains("tools-message", "The cache is back").await;

    page.press("near").await;
    page.until("near-state", |text| text == "is off").await;
    read(&page, "p-020", "hit").await;
    page.check_console();
    page.leave().await;
}

#[tokio::test]
async fn says_that_in_memory_a_near_cache_is_not_used() {
    let demo = Demo::start(&[]);
    let page = Browser::start().await;
    page.open(&demo).await;
    page.until("tracker", |text| text == "unused").await;
    page.until_contains("tracker-text", "needs no messages there, and is not used").await;
    assert!(!page.element("near").await.is_enabled().await.unwrap());
    page.check_console();
    page.leave().await;
}

#[tokio::test]
async fn charts_are_live_and_counters_reset() {
    on_every_page(async |demo, page| {
        page.press("traffic").await;
        page.until("total-hits", |text| text.parse().is_ok_and(|hits: u64| hits >= 5)).await;
        page.until("traffic", |text| text == "Stop reading").await;
        page.press("traffic").await;
        let some_hits = |line: &str| line.starts_with("hit ") && !line.starts_with("hit 0");
        page.until("outcomes", |text| text.lines().any(some_hits)).await;
        for drawn in ["#rate-chart polyline.recent", "#latency-chart .hit circle", "#latency-chart .loaded circle"] {
            page.until_drawn(drawn).await;
        }
        page.until("hit-rate", |text| text.ends_with(" %")).await;

        page.press("reset").await;
        page.until("total-hits", |text| text == "0").await;
        page.until("total-primary", |text| text == "0").await;
        page.until("hit-rate", |text| text == "–").await;
        // Reads by other clients are shown too.
        demo.get("/read?id=p-020").ok();
        page.until("total-misses", |text| text != "0").await;
    })
    .await;
}

#[tokio::test]
async fn hostile_texts_are_texts() {
    on_every_page(async |_, page| {
        let hostile =
            ["<script>hacked=1</script>", "<img src=x onerror=hacked=1>", "\"'`&amp;", "🥐 ünïcode", "a/b:{c}%0A"];
        for text in hostile {
            read(page, text, "miss, loaded").await;
            page.until("message", |message| message.contains(text)).await;
            page.fill("new-name", text).await;
            page.press("create").await;
            page.until_contains("message", "Created").await;
            read(page, text, "miss, loaded").await;
            let record = page.text("record").await;
            assert_eq!(record.matches(text).count(), 2, "id and name of {record}");
            let is_text = |line: &&str| *line == text;
            page.until("stored", |stored| stored.lines().filter(is_text).count() == 2).await;
            page.press("stampede").await;
            page.until("stampede-message", |message| message.contains(&format!("readers of {text},"))).await;
        }
        assert_eq!(page.run("return typeof hacked", &[]).await, "undefined");
        assert_eq!(page.count("main script, main img").await, 0);
    })
    .await;
}

#[tokio::test]
async fn errors_are_shown() {
    let demo = Demo::start(&[]);
    let page = Browser::start().await;
    page.open(&demo).await;
    page.fill("id", &"x".repeat(1025)).await;
    page.press("read").await;
    page.until_contains("message", "more than 1,024 bytes").await;
    page.fill("id", "p-404").await;
    page.run("document.getElementById('concurrency').type = 'text'", &[]).await;
    page.fill("concurrency", "1001").await;
    page.press("stampede").await;
    page.until_contains("stampede-message", "from 1 to 1000").await;
    page.press("race").await;
    page.until_contains("race-message", "has no product").await;
    // The result that was shown before an error is removed.
    page.fill("id", "p-001").await;
    page.press("race").await;
    page.until_contains("race-verdict", "Fenced").await;
    page.fill("id", "p-404").await;
    page.press("race").await;
    page.until_contains("race-message", "has no product").await;
    assert_eq!((page.text("race-verdict").await, page.text("race-steps").await), (String::new(), String::new()));
    page.check_console();

    drop(demo);
    page.press("read").await;
    page.until_contains("message", "The demo does not answer").await;
    page.until_contains("connection", "does not answer").await;
}

#[tokio::test]
async fn works_by_keyboard_on_a_phone_and_in_the_dark() {
    let demo = Demo::start(&[]);
    let page = Browser::start_on_a_phone().await;
    page.open(&demo).await;
    // Every control can be reached by keyboard, and has a name.
    let reached = "return [...document.querySelectorAll('button, input, select, summary, a')]
        .filter((e) => e.tabIndex < 0 || !(e.labels?.length || e.textContent.trim())).map((e) => e.outerHTML)";
    assert_eq!(page.run(reached, &[]).await, json!([]));
    // From the top: Tab to the link to the product and Enter; then to the field and Enter.
    page.run("document.body.focus()", &[]).await;
    page.keys(&Key::Tab.to_string()).await;
    page.keys(&Key::Enter.to_string()).await;
    assert_eq!(page.run("return document.activeElement.id", &[]).await, "id");
    page.keys(&Key::Enter.to_string()).await;
    page.until_contains("message", "miss, loaded").await;
    page.keys(&Key::Tab.to_string()).await;
    assert_eq!(page.run("return document.activeElement.id", &[]).await, "read");
    let outline = "return getComputedStyle(document.activeElement).outlineStyle";
    assert_eq!(page.run(outline, &[]).await, "solid");
    page.keys(" ").await;
    page.until("message", |text| text.starts_with("hit")).await;

    page.press("stampede").await;
    page.until_contains("stampede-message", "200 readers").await;
    page.press("race").await;
    page.until_contains("race-verdict", "Fenced").await;
    let wider = "return document.documentElement.scrollWidth - document.documentElement.clientWidth";
    assert_eq!(page.run(wider, &[]).await, 0, "the page is wider than a phone");
    let cut = "return [...document.querySelectorAll('.tile dt, button')]
        .filter((e) => e.scrollWidth > e.clientWidth + 1).map((e) => e.textContent)";
    assert_eq!(page.run(cut, &[]).await, json!([]));

    let background = "return getComputedStyle(document.body).backgroundColor";
    page.prefer("light");
    let light = page.run(background, &[]).await;
    page.prefer("dark");
    assert_ne!(page.run(background, &[]).await, light);
    page.check_console();
}
