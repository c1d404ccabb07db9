//! A headless Chromium for each test, controlled by its driver.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use fantoccini::elements::Element;
use fantoccini::{Client, ClientBuilder, Locator};
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::http::{LIMIT, send, try_send};

use crate::running::Demo;

/// A browser; dropping it ends it.
pub(crate) struct Browser {
    client: Client,
    session: Session,
}

/// The driver's process, and in it the session, whose browser it ends.
struct Session {
    process: Child,
    address: String,
    id: String,
    profile: TempDir,
}

impl Browser {
    pub(crate) async fn start() -> Browser {
        Browser::start_with(json!({})).await
    }

    /// The size of a phone's screen.
    pub(crate) async fn start_on_a_phone() -> Browser {
        let metrics = json!({ "width": 360, "height": 740, "pixelRatio": 2 });
        Browser::start_with(json!({ "mobileEmulation": { "deviceMetrics": metrics } })).await
    }

    async fn start_with(options: Value) -> Browser {
        let mut session = Session::start();
        let client = ClientBuilder::new(HttpConnector::new())
            .capabilities(capabilities(&session, options))
            .connect(&format!("http://{}", session.address))
            .await
            .unwrap_or_else(|error| panic!("chromium does not start: {error}; ./scripts/test installs it"));
        session.id = client.session_id().await.unwrap().unwrap();
        client.persist().await.unwrap();
        Browser { client, session }
    }

    /// Opens the demo's page, and waits until it shows live figures.
    pub(crate) async fn open(&self, demo: &Demo) {
        self.client.goto(&demo.url()).await.unwrap();
        self.until_contains("connection", "two updates a second").await;
    }

    /// Leaves the page before its demo ends: otherwise the broken stream of events would be an error in the console.
    pub(crate) async fn leave(&self) {
        self.client.goto("about:blank").await.unwrap();
    }

    pub(crate) async fn element(&self, id: &str) -> Element {
        self.client.find(Locator::Id(id)).await.unwrap_or_else(|error| panic!("no #{id}: {error}"))
    }

    /// Clicks like a mouse: hidden or covered elements can't be clicked.
    pub(crate) async fn press(&self, id: &str) {
        let button = self.element(id).await;
        button.click().await.unwrap_or_else(|error| panic!("#{id} can't be pressed: {error}"));
    }

    /// Sets the text of a field; the driver's own keys don't support emoji.
    pub(crate) async fn fill(&self, id: &str, text: &str) {
        self.run("document.getElementById(arguments[0]).value = arguments[1]", &[json!(id), json!(text)]).await;
    }

    /// Types into the focused element.
    pub(crate) async fn keys(&self, keys: &str) {
        self.client.active_element().await.unwrap().send_keys(keys).await.unwrap();
    }

    /// The visible text: nothing if the element is hidden.
    pub(crate) async fn text(&self, id: &str) -> String {
        self.element(id).await.text().await.unwrap()
    }

    /// Waits until the visible text satisfies the condition, and returns it.
    pub(crate) async fn until(&self, id: &str, wanted: impl Fn(&str) -> bool) -> String {
        let begun = Instant::now();
        loop {
            let text = self.text(id).await;
            if wanted(&text) {
                return text;
            }
            assert!(begun.elapsed() < LIMIT, "#{id} stays at {text:?}");
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    }

    pub(crate) async fn until_contains(&self, id: &str, part: &str) -> String {
        self.until(id, |text| text.contains(part)).await
    }

    pub(crate) async fn run(&self, script: &str, arguments: &[Value]) -> Value {
        self.client.execute(script, arguments.to_vec()).await.unwrap()
    }

    /// The number of elements that match.
    pub(crate) async fn count(&self, selector: &str) -> usize {
        self.client.find_all(Locator::Css(selector)).await.unwrap().len()
    }

    /// Waits until at least one element matches.
    pub(crate) async fn until_drawn(&self, selector: &str) {
        let begun = Instant::now();
        while self.count(selector).await == 0 {
            assert!(begun.elapsed() < LIMIT, "{selector} is not drawn");
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    }

    /// Sets the colour scheme that the page sees.
    pub(crate) fn prefer(&self, scheme: &str) {
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        let parameters = json!({ "cmd": "Emulation.setEmulatedMedia", "params": { "features": features } });
        self.session.post("goog/cdp/execute", &parameters);
    }

    /// Fails if the browser's console contains an error.
    pub(crate) fn check_console(&self) {
        let log = self.session.post("se/log", &json!({ "type": "browser" }));
        let entries = log.as_array().unwrap_or_else(|| panic!("no log: {log}"));
        let errors: Vec<_> = entries.iter().filter(|entry| entry["level"] == "SEVERE").collect();
        assert!(errors.is_empty(), "errors in the console: {errors:#?}");
    }
}

impl Session {
    /// Starts the driver, without a browser yet.
    fn start() -> Session {
        let profile = tempfile::tempdir().unwrap();
        let started = Command::new("chromedriver")
            .arg("--port=0")
            .env("XDG_CONFIG_HOME", profile.path())
            .env("XDG_CACHE_HOME", profile.path())
            .stdout(Stdio::piped())
            .spawn();
        let process =
            started.unwrap_or_else(|error| panic!("chromedriver does not start: {error}; ./scripts/test installs it"));
        let (address, id) = (String::new(), String::new());
        let mut session = Session { process, address, id, profile };
        let mut output = BufReader::new(session.process.stdout.take().unwrap());
        let mut seen = String::new();
        while session.address.is_empty() {
            assert!(output.read_line(&mut seen).unwrap() > 0, "chromedriver did not start:\n{seen}");
            if let Some((_, port)) = seen.split_once("successfully on port ") {
                session.address = format!("127.0.0.1:{}", port.trim().trim_end_matches('.'));
            }
        }
        // Keep reading: the driver would end if it couldn't write.
        std::thread::spawn(move || std::io::copy(&mut output, &mut std::io::sink()));
        session
    }

    /// Sends a command that the client crate doesn't have.
    fn post(&self, command: &str, parameters: &Value) -> Value {
        let request = format!("POST /session/{}/{command}", self.id);
        let headers = [("Content-Type", "application/json")];
        let answer = send(&self.address, &request, &headers, parameters.to_string().as_bytes());
        assert_eq!(answer.status, 200, "{answer:?}");
        serde_json::from_str::<Value>(&answer.body).unwrap()["value"].take()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // Ends the browser, which the driver would leave behind when it is killed. No panic here: it would hide the one
        // that may be unwinding.
        let _ = try_send(&self.address, &format!("DELETE /session/{}", self.id), &[], b"");
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn capabilities(session: &Session, mut options: Value) -> fantoccini::wd::Capabilities {
    options["args"] = json!([
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--window-size=1280,1000",
        format!("--user-data-dir={}", session.profile.path().display()),
    ]);
    let wanted = json!({
        "browserName": "chrome",
        "goog:chromeOptions": options,
        "goog:loggingPrefs": { "browser": "ALL" },
    });
    serde_json::from_value(wanted).unwrap()
}
