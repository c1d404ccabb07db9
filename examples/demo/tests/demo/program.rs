//! The program: its options, and how it ends.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};

use testkit::http::send;

use crate::running::{Demo, command};

#[test]
fn stops_cleanly_on_ctrl_c() {
    for signal in ["INT", "TERM"] {
        let mut demo = Demo::start(&[]);
        demo.get("/read?id=p-001").ok();
        assert!(demo.database.exists());
        // An open page has one stream of events and one persistent connection.
        let open = |path: &str| {
            let mut stream = TcpStream::connect(&demo.address).unwrap();
            write!(stream, "GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", demo.address).unwrap();
            stream.read_exact(&mut [0; 12]).unwrap();
            stream
        };
        let _page = (open("/events"), open("/stats"));
        demo.signal(signal);
        let (status, output) = demo.end();
        assert!(status.success(), "{status} after {signal}");
        assert!(output.contains("Stopped."), "{output}");
        assert!(!demo.database.exists(), "the temporary database is left");
    }
}

#[test]
fn a_given_database_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("shop.sqlite");
    let options = ["--database", file.to_str().unwrap(), "--read-latency-ms", "0"];
    let first = Demo::start(&options);
    first.post("/update", "id=p-001&field=stock&value=7").ok();
    drop(first);
    let second = Demo::start(&options).get("/read?id=p-001").ok();
    assert_eq!(second["record"]["stock"], 7);
    assert_eq!(second["stats"]["read_latency_ms"], 0.0);
}

#[test]
fn mistakes_in_the_options_are_errors() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let cases: [(&[&str], &str); 6] = [
        (&["--port", &port], "--port"),
        (&["--port", "70000"], "--port"),
        (&["--cache", "http://localhost"], "unknown scheme"),
        (&["--cache", "memory://", "--redis-port", "1"], "cannot be used with"),
        (&["--read-latency-ms", "5001"], "--read-latency-ms"),
        (&["--colour"], "--colour"),
    ];
    for (options, told) in cases {
        let output = command().args(options).output().unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && error.contains(told), "{options:?}: {error}");
    }
}

#[test]
fn the_address_may_be_a_name() {
    let demo = Demo::start(&["--bind", "localhost"]);
    demo.get("/read?id=p-001").ok();
    send(&demo.address, "GET /stats", &[("Host", "example.com")], b"").error(403);
}

#[test]
fn starts_without_its_server() {
    // Nothing listens on port 1.
    let demo = Demo::start(&["--redis-port", "1"]);
    assert_eq!(demo.get("/read?id=p-001").ok()["outcome"], "bypassed");
}
