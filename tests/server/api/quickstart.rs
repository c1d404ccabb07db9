//! The quickstart, run as a new user runs it.

use std::process::Command;

use crate::support::fixture::on_every_server;

fn run(url: Option<&str>) -> String {
    let mut command = Command::new(env!("CARGO"));
    command.args(["run", "--quiet", "--example", "quickstart"]);
    command.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    command.env_remove("CACHE_URL");
    command.envs(url.map(|url| ("CACHE_URL", url)));
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn check(output: &str) {
    for line in
        ["Loaded: p-001", "Hit: p-001", "NotFoundHit: no such product", "1 load of a cold key", "Sourdough Loaf"]
    {
        assert!(output.contains(line), "no {line:?} in\n{output}");
    }
}

#[test]
fn runs_without_a_server() {
    check(&run(None));
}

#[tokio::test]
async fn leaves_a_plain_hash_on_a_real_server() {
    on_every_server(async |server, _| {
        check(&run(Some(&server.url())));
        let mut client = server.client().await;
        let key = "cache:billing:product:p-001";
        let mut fields: Vec<String> = redis::cmd("HKEYS").arg(key).query_async(&mut client).await.unwrap();
        fields.sort();
        assert_eq!(fields, ["id", "name", "price_cents", "stock"]);
    })
    .await;
}
