//! The status page: files that are part of the program, and need nothing from elsewhere.

use axum::Router;
use axum::http::HeaderValue;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;

use super::Context;

const HTML: &str = "text/html; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const PICTURE: &str = "image/svg+xml";

/// Each with its path, its type and its content.
const FILES: [(&str, &str, &str); 11] = [
    ("/", HTML, include_str!("page/index.html")),
    ("/page/page.css", STYLE, include_str!("page/page.css")),
    ("/page/icon.svg", PICTURE, include_str!("page/icon.svg")),
    ("/page/main.js", SCRIPT, include_str!("page/main.js")),
    ("/page/dom.js", SCRIPT, include_str!("page/dom.js")),
    ("/page/words.js", SCRIPT, include_str!("page/words.js")),
    ("/page/verdict.js", SCRIPT, include_str!("page/verdict.js")),
    ("/page/drawing.js", SCRIPT, include_str!("page/drawing.js")),
    ("/page/table.js", SCRIPT, include_str!("page/table.js")),
    ("/page/log.js", SCRIPT, include_str!("page/log.js")),
    ("/page/charts.js", SCRIPT, include_str!("page/charts.js")),
];

/// A route for each file.
pub(super) fn routes() -> Router<Context> {
    FILES.into_iter().fold(Router::new(), |routes, (path, content_type, content)| {
        routes.route(
            path,
            get(move || async move { ([(CONTENT_TYPE, HeaderValue::from_static(content_type))], content) }),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The policy refuses what the page would need from elsewhere, and a browser says so: this says which file asks.
    #[test]
    fn nothing_is_needed_from_elsewhere() {
        let icon = "xmlns=\"http://www.w3.org/2000/svg\"";
        let name = "\"http://www.w3.org/2000/svg\"";
        for (path, _, content) in FILES {
            let content = content.replace(icon, "").replace(name, "");
            for foreign in ["://", "innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "style="]
            {
                assert!(!content.contains(foreign), "{path} has {foreign}");
            }
        }
    }

    #[test]
    fn every_script_that_is_imported_is_there() {
        for (path, content_type, content) in FILES {
            if content_type != SCRIPT {
                continue;
            }
            for import in content.lines().filter_map(|line| line.split_once(" from \"./")) {
                let name = import.1.trim_end_matches("\";");
                assert!(FILES.iter().any(|(other, ..)| *other == format!("/page/{name}")), "{path} imports {name}");
            }
        }
    }
}
