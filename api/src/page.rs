//! The page at `/`: our own files from `web/page`, the chart library and the fonts from where `build.rs` put them. All of
//! it is in the binary; nothing is fetched from elsewhere.

use std::borrow::Cow;

use axum::extract::Path;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use rust_embed::{Embed, EmbeddedFile};

use crate::access::Need;
use crate::error::Problem;
use crate::routes::{Doc, Routes};

/// Our own part of the page.
#[derive(Embed)]
#[folder = "web/page"]
struct Own;

/// Only this server's own files run, and nobody frames them. The chart library sets styles on its elements.
const POLICY: &str = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'";

/// The third-party part: name, content type, bytes.
const THIRD_PARTY: &[(&str, &str, &[u8])] = &[
    ("echarts.min.js", "text/javascript; charset=utf-8", include_bytes!(concat!(env!("OUT_DIR"), "/echarts.min.js"))),
    ("sans.woff2", "font/woff2", include_bytes!(concat!(env!("OUT_DIR"), "/sans.woff2"))),
    ("sans-ext.woff2", "font/woff2", include_bytes!(concat!(env!("OUT_DIR"), "/sans-ext.woff2"))),
    ("mono.woff2", "font/woff2", include_bytes!(concat!(env!("OUT_DIR"), "/mono.woff2"))),
    ("licenses.txt", "text/plain; charset=utf-8", include_bytes!(concat!(env!("OUT_DIR"), "/licenses.txt"))),
];

/// The addresses of the page; what is shown there is decided in the browser, by `web/page/app.js`.
const PLACES: &[&str] = &[
    "/",
    "/d/{name}",
    "/topics",
    "/pipelines",
    "/lake",
    "/sources",
    "/jobs",
    "/alerts",
    "/quality",
    "/catalog",
    "/sql",
    "/system",
];

/// Adds this file's routes.
pub fn routes(routes: Routes) -> Routes {
    let page = Doc::new("A page of the browser's").answers(&["text/html"]).need(Need::Nothing);
    let routes = PLACES.iter().fold(routes, |routes, place| routes.get(place, page.clone(), index));
    routes.get("/assets/{file}", Doc::new("Parts of the page").answers(&["*/*"]).need(Need::Nothing), asset).get(
        "/favicon.ico",
        Doc::new("The page's icon").answers(&["image/svg+xml"]).need(Need::Nothing),
        icon,
    )
}

async fn index(headers: HeaderMap) -> Response {
    own("index.html", &headers)
}

async fn icon(headers: HeaderMap) -> Response {
    own("icon.svg", &headers)
}

async fn asset(Path(file): Path<String>, headers: HeaderMap) -> Response {
    match THIRD_PARTY.iter().find(|(name, ..)| *name == file) {
        // The tag is the size: these bytes change only with the version that package-lock.json pins.
        Some((_, kind, bytes)) => {
            send(Cow::Borrowed(bytes), kind, &format!("\"{}-{}\"", env!("CARGO_PKG_VERSION"), bytes.len()), &headers)
        }
        None => own(&file, &headers),
    }
}

fn own(name: &str, headers: &HeaderMap) -> Response {
    let Some(EmbeddedFile { data, metadata, .. }) = Own::get(name) else {
        return Problem::not_found(format!("the page has no part {name}: reload the page at /")).into_response();
    };
    let hash: String = metadata.sha256_hash().iter().take(12).map(|byte| format!("{byte:02x}")).collect();
    send(data, kind_of(name), &format!("\"{hash}\""), headers)
}

fn send(data: Cow<'static, [u8]>, kind: &'static str, tag: &str, headers: &HeaderMap) -> Response {
    let known = headers
        .get(header::IF_NONE_MATCH)
        .is_some_and(|known| known.as_bytes().windows(tag.len()).any(|t| t == tag.as_bytes()));
    let mut response = if known { StatusCode::NOT_MODIFIED.into_response() } else { data.into_response() };
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    if let Ok(tag) = HeaderValue::from_str(tag) {
        headers.insert(header::ETAG, tag);
    }
    response
}

fn kind_of(name: &str) -> &'static str {
    match name.rsplit_once('.').map(|(_, end)| end) {
        Some("html") => "text/html; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("svg") => "image/svg+xml",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_names_only_parts_that_are_embedded_and_no_other_host() {
        for name in Own::iter() {
            let text = String::from_utf8_lossy(&Own::get(&name).unwrap().data).into_owned();
            assert!(!text.contains("https://") || name.ends_with(".svg"), "{name} names another host");
            for part in text.split("/assets/").skip(1) {
                let part: String =
                    part.chars().take_while(|c| c.is_ascii_alphanumeric() || "-_.".contains(*c)).collect();
                let third_party = THIRD_PARTY.iter().any(|(name, ..)| *name == part);
                assert!(third_party || Own::get(&part).is_some(), "{name} needs /assets/{part}");
            }
        }
    }

    #[test]
    fn an_unchanged_part_is_not_sent_again() {
        let first = own("index.html", &HeaderMap::new());
        assert_eq!(first.status(), 200);
        let mut headers = HeaderMap::new();
        headers.insert(header::IF_NONE_MATCH, first.headers()[header::ETAG].clone());
        assert_eq!(own("index.html", &headers).status(), 304);
        assert_eq!(own("absent.js", &HeaderMap::new()).status(), 404);
    }
}
