//! The page and its parts, compiled into the program.

use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const JS: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

const FILES: [(&str, &str, &str); 12] = [
    ("/", HTML, include_str!("page/index.html")),
    ("/style.css", CSS, include_str!("page/style.css")),
    ("/icon.svg", SVG, include_str!("page/icon.svg")),
    ("/main.js", JS, include_str!("page/main.js")),
    ("/api.js", JS, include_str!("page/api.js")),
    ("/view.js", JS, include_str!("page/view.js")),
    ("/product.js", JS, include_str!("page/product.js")),
    ("/entry.js", JS, include_str!("page/entry.js")),
    ("/stampede.js", JS, include_str!("page/stampede.js")),
    ("/race.js", JS, include_str!("page/race.js")),
    ("/near.js", JS, include_str!("page/near.js")),
    ("/live.js", JS, include_str!("page/live.js")),
];

pub(crate) fn routes() -> Router {
    FILES.into_iter().fold(Router::new(), |router, (path, kind, text)| {
        router.route(path, get(move || async move { ([(CONTENT_TYPE, kind)], text) }))
    })
}
