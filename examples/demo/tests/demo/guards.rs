//! Requests that the demo refuses, and the headers of its answers.

use testkit::http::send;

use crate::running::Demo;

const FORM: (&str, &str) = ("Content-Type", "application/x-www-form-urlencoded");

#[test]
fn every_error_is_json() {
    let demo = Demo::start(&[]);
    demo.get("/nothing-here").error(404);
    let answer = demo.get("/reset");
    answer.error(405);
    assert_eq!(answer.headers["allow"], "POST");
    demo.post("/stats", "").error(405);
    send(&demo.address, "DELETE /read", &[], b"").error(405);
    send(&demo.address, "POST /invalidate", &[("Content-Type", "application/json")], br#"{"id":"p-001"}"#).error(415);
}

#[test]
fn large_bodies_are_refused() {
    let demo = Demo::start(&[]);
    let form = |length: usize| {
        let start = "id=p-001&field=stock&value=41&rest=";
        format!("{start}{}", "x".repeat(length - start.len()))
    };
    demo.post("/update", &form(64 * 1024)).ok();
    let json = [("Content-Type", "application/json")];
    send(&demo.address, "POST /update", &json, form(64 * 1024 + 1).as_bytes()).error(413);
    for length in [64 * 1024 + 1, 1024 * 1024] {
        for path in ["/update", "/invalidate", "/stampede", "/reset"] {
            demo.post(path, &form(length)).error(413);
        }
    }
}

#[test]
fn every_answer_has_the_security_headers() {
    let demo = Demo::start(&[]);
    let paths = ["/", "/main.js", "/style.css", "/stats", "/read", "/nothing-here", "/metrics"];
    let answers = paths.map(|path| demo.get(path));
    for headers in answers.into_iter().chain([send(&demo.address, "HEAD /", &[], b"")]).map(|answer| answer.headers) {
        let policy = &headers["content-security-policy"];
        assert!(policy.contains("default-src 'self'") && policy.contains("frame-ancestors 'none'"), "{policy}");
        assert!(!policy.contains("unsafe"), "{policy}");
        assert_eq!(headers["x-content-type-options"], "nosniff");
        assert_eq!(headers["referrer-policy"], "no-referrer");
        assert_eq!(headers["cache-control"], "no-store");
    }
}

#[test]
fn the_page_asks_for_nothing_elsewhere() {
    let demo = Demo::start(&[]);
    let page = demo.get("/").body;
    assert!(!page.contains("://") && !page.contains("style=") && !page.contains("onclick"), "{page}");
    for part in page.split('"').filter(|part| part.starts_with('/') && part.contains('.')) {
        assert_eq!(demo.get(part).status, 200, "{part}");
    }
}

#[test]
fn other_sites_pages_change_nothing() {
    let demo = Demo::start(&[]);
    let post = |header| send(&demo.address, "POST /outage", &[FORM, header], b"on=false");
    let own = format!("http://{}", demo.address);
    for header in [("Origin", own.as_str()), ("Sec-Fetch-Site", "same-origin"), ("Sec-Fetch-Site", "none")] {
        post(header).ok();
    }
    let foreign = [
        ("Origin", "http://example.com"),
        ("Origin", "http://127.0.0.1:1"),
        ("Origin", "null"),
        ("Sec-Fetch-Site", "cross-site"),
        ("Sec-Fetch-Site", "same-site"),
    ];
    for header in foreign {
        post(header).error(403);
    }
}

#[test]
fn foreign_names_are_refused_on_loopback() {
    let demo = Demo::start(&[]);
    let get = |demo: &Demo, host| send(&demo.address, "GET /stats", &[("Host", host)], b"");
    for host in ["localhost", "LOCALHOST:8080", "127.0.0.1:1", "[::1]:8080"] {
        get(&demo, host).ok();
    }
    for host in ["example.com", "example.com:8080", "localhost.example.com", "10.0.0.1", ""] {
        get(&demo, host).error(403);
    }
    let open = Demo::start(&["--bind", "0.0.0.0"]);
    let port = open.address.rsplit_once(':').unwrap().1;
    send(&format!("127.0.0.1:{port}"), "GET /stats", &[("Host", "shop.example.com")], b"").ok();
}
