//! The demo page and the client module, embedded.

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use rust_embed::{EmbeddedFile, RustEmbed};

#[derive(RustEmbed)]
#[folder = "web/"]
#[allow_missing = true]
struct Pages;

/// Answers `/` with `index.html` and `/NAME` with the file of that name.
pub(crate) async fn page(method: Method, uri: Uri, headers: HeaderMap) -> Response {
    answer::<Pages>(&method, &uri, &headers)
}

fn answer<Files: RustEmbed>(method: &Method, uri: &Uri, headers: &HeaderMap) -> Response {
    if method != Method::GET && method != Method::HEAD {
        return (StatusCode::METHOD_NOT_ALLOWED, [(header::ALLOW, "GET, HEAD")]).into_response();
    }
    let name = match uri.path().trim_start_matches('/') {
        "" => "index.html",
        name => name,
    };
    match Files::get(name) {
        Some(file) => serve(file, name, headers),
        None => (StatusCode::NOT_FOUND, "not found\n").into_response(),
    }
}

fn serve(file: EmbeddedFile, name: &str, request: &HeaderMap) -> Response {
    let is_html = name.ends_with(".html");
    let mime = file.metadata.mimetype().to_owned();
    let mime = if mime.starts_with("text/") { format!("{mime}; charset=utf-8") } else { mime };
    let hash: String =
        file.metadata.sha256_hash().iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    let etag = format!("\"{hash}\"");
    let is_known = request
        .get_all(header::IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .any(|value| value.split(',').any(|tag| tag.trim().trim_start_matches("W/") == etag));
    let mut response = if is_known && !is_html {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        Body::from(file.data.into_owned()).into_response()
    };
    let fixed = [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        // A page is asked for anew each time, a file only whether it has changed.
        (header::CACHE_CONTROL, if is_html { "no-store" } else { "no-cache" }),
        (
            header::HeaderName::from_static("permissions-policy"),
            "camera=(self), microphone=(self), display-capture=(self)",
        ),
    ];
    let headers = response.headers_mut();
    headers.extend(fixed.map(|(name, value)| (name, HeaderValue::from_static(value))));
    let host = request.get(header::HOST).and_then(|host| host.to_str().ok());
    let computed =
        [(header::CONTENT_TYPE, mime), (header::ETAG, etag), (header::CONTENT_SECURITY_POLICY, policy(host))];
    headers.extend(computed.into_iter().filter_map(|(name, value)| Some((name, value.try_into().ok()?))));
    response
}

/// The content security policy. WebSockets to the page's own host are named because not every browser takes them for
/// `'self'`.
fn policy(host: Option<&str>) -> String {
    let is_host = |host: &&str| host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._:[]".contains(&b));
    let sockets = host.filter(is_host).map(|host| format!(" ws://{host} wss://{host}")).unwrap_or_default();
    format!(
        "default-src 'self'; connect-src 'self'{sockets}; img-src 'self' data:; media-src 'self' blob:; \
         object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(RustEmbed)]
    #[folder = "src/http/testdata/"]
    struct Sample;

    fn get(path: &str, headers: &[(header::HeaderName, &str)]) -> Response {
        let headers = headers.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect();
        answer::<Sample>(&Method::GET, &path.parse().unwrap(), &headers)
    }

    fn field(response: &Response, name: header::HeaderName) -> &str {
        response.headers().get(name).unwrap().to_str().unwrap()
    }

    #[test]
    fn the_root_is_the_page_and_is_never_cached() {
        let page = get("/", &[(header::HOST, "call.example:8080")]);
        assert_eq!(page.status(), StatusCode::OK);
        assert_eq!(field(&page, header::CONTENT_TYPE), "text/html; charset=utf-8");
        assert_eq!(field(&page, header::CACHE_CONTROL), "no-store");
        assert_eq!(field(&page, header::X_CONTENT_TYPE_OPTIONS), "nosniff");
        let policy = field(&page, header::CONTENT_SECURITY_POLICY);
        assert!(policy.starts_with("default-src 'self';"));
        assert!(policy.contains("connect-src 'self' ws://call.example:8080 wss://call.example:8080;"));
    }

    #[test]
    fn a_host_header_cannot_widen_the_policy() {
        let page = get("/", &[(header::HOST, "a; script-src *")]);
        assert!(field(&page, header::CONTENT_SECURITY_POLICY).contains("connect-src 'self';"));
    }

    #[test]
    fn a_script_is_revalidated_by_its_tag() {
        let script = get("/sample.js", &[]);
        assert!(field(&script, header::CONTENT_TYPE).contains("javascript"));
        let tag = field(&script, header::ETAG).to_owned();
        assert_eq!(get("/sample.js", &[(header::IF_NONE_MATCH, &tag)]).status(), StatusCode::NOT_MODIFIED);
        assert_eq!(get("/sample.js", &[(header::IF_NONE_MATCH, "\"0\"")]).status(), StatusCode::OK);
    }

    #[test]
    fn nothing_outside_the_folder_is_served() {
        for path in ["/missing.js", "/../Cargo.toml", "/%2e%2e/pages.rs", "//etc/passwd", "/../pages.rs"] {
            assert_eq!(get(path, &[]).status(), StatusCode::NOT_FOUND, "{path}");
        }
        let posted = answer::<Sample>(&Method::POST, &"/".parse().unwrap(), &HeaderMap::new());
        assert_eq!(posted.status(), StatusCode::METHOD_NOT_ALLOWED);
    }
}
