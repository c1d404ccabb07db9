//! The documents name exactly the metrics that are emitted.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;

use crate::metered::{names, recorded};

pub(crate) fn document(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// All names of metrics in a text. The series of a histogram count as the histogram.
fn named(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let names = words.filter(|word| word.starts_with("cache_aside_"));
    let histogram = |name: &str| {
        let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
        base.filter(|base| base.ends_with("_seconds") || base.ends_with("_records")).unwrap_or(name).to_owned()
    };
    names.map(histogram).collect()
}

#[test]
fn the_documents_name_what_is_emitted() {
    let emitted = names(&recorded());
    assert_eq!(named(&document("operations.md")), emitted, "docs/operations.md");
    for name in ["grafana.json", "alerts.yml"] {
        let unknown: Vec<_> = named(&document(name)).difference(&emitted).cloned().collect();
        assert!(unknown.is_empty(), "docs/{name} has {unknown:?}");
    }
    assert_eq!(named(&document("grafana.json")), emitted, "the dashboard shows everything");
}

#[test]
fn the_dashboard_is_json_with_a_query_in_each_panel() {
    let dashboard: Value = serde_json::from_str(&document("grafana.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    assert!(panels.len() >= 8);
    for panel in panels {
        let targets = panel["targets"].as_array().unwrap();
        assert!(!targets.is_empty() && targets.iter().all(|target| target["expr"].is_string()), "{panel:#}");
    }
}
