//! A bucket for tests: what an S3-compatible store answers to the few requests that are made of one, over real HTTP.
//! It checks no signature, so what it does not show is that a real store accepts ours.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

/// The only bucket there is.
pub const BUCKET: &str = "bucket";

/// What everything in it was written at.
const WRITTEN_AT: (&str, &str) = ("2026-01-02T03:04:05.000Z", "Fri, 02 Jan 2026 03:04:05 GMT");

/// A bucket behind a port of the loopback interface.
#[derive(Clone, Default)]
pub struct Bucket(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    objects: BTreeMap<String, Bytes>,
    /// The parts of each upload that is under way, by its key.
    parts: BTreeMap<String, BTreeMap<u32, Bytes>>,
    requests: Vec<String>,
    /// What is answered instead, while it is set: status and code.
    status: Option<(u16, String)>,
    /// The only key that is let in, if it is set.
    key_id: Option<String>,
}

impl Bucket {
    /// Serves until the runtime ends; returns its address.
    pub async fn start(&self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let bucket = self.clone();
        tokio::spawn(async move {
            loop {
                let (connection, _) = listener.accept().await.unwrap();
                let bucket = bucket.clone();
                let service = service_fn(move |request| {
                    let bucket = bucket.clone();
                    async move { Ok::<_, Infallible>(bucket.answer(request).await) }
                });
                tokio::spawn(async move {
                    let http = hyper::server::conn::http1::Builder::new();
                    let _ = http
                        .serve_connection(TokioIo::new(connection), service)
                        .await;
                });
            }
        });
        format!("http://{address}")
    }

    /// Answers everything with this status from now on, or no longer.
    pub fn fail(&self, status: Option<u16>) {
        self.0.lock().unwrap().status = status.map(|status| (status, "Scripted".to_owned()));
    }

    /// Answers everything with this status and this code from now on.
    pub fn say(&self, status: u16, code: &str) {
        self.0.lock().unwrap().status = Some((status, code.to_owned()));
    }

    /// Lets in only who has this key, from now on.
    pub fn only(&self, key_id: &str) {
        self.0.lock().unwrap().key_id = Some(key_id.to_owned());
    }

    /// The keys, in order.
    pub fn keys(&self) -> Vec<String> {
        self.0.lock().unwrap().objects.keys().cloned().collect()
    }

    /// Every request so far: method, path and query.
    pub fn requests(&self) -> Vec<String> {
        self.0.lock().unwrap().requests.clone()
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (head, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let mut inner = self.0.lock().unwrap();
        inner.requests.push(format!("{} {}", head.method, head.uri));
        if let Some((status, code)) = &inner.status {
            return answer(*status, format!("<Error><Code>{code}</Code></Error>"));
        }
        let Some(signed) = head.headers.get("authorization") else {
            panic!("a request without a signature");
        };
        if let Some(key_id) = &inner.key_id
            && !signed
                .to_str()
                .unwrap()
                .contains(&format!("Credential={key_id}/"))
        {
            return answer(403, "<Error><Code>InvalidAccessKeyId</Code></Error>");
        }
        let path = head.uri.path().trim_start_matches('/');
        let (bucket, key) = path.split_once('/').unwrap_or((path, ""));
        if bucket != BUCKET {
            return answer(404, "<Error><Code>NoSuchBucket</Code></Error>");
        }
        let query = head.uri.query().unwrap_or_default();
        if query.contains("uploads") || query.contains("uploadId=") {
            return inner.upload(&head.method, key, query, body);
        }
        match head.method {
            Method::PUT => {
                inner.objects.insert(key.to_owned(), body);
                answer(200, "")
            }
            Method::DELETE => {
                inner.objects.remove(key);
                answer(204, "")
            }
            _ if key.is_empty() => answer(200, list(&inner.objects, query)),
            method => {
                let Some(object) = inner.objects.get(key) else {
                    return answer(404, "<Error><Code>NoSuchKey</Code></Error>");
                };
                let range = head.headers.get("range").map(|range| {
                    let text = range.to_str().unwrap().strip_prefix("bytes=").unwrap();
                    let (first, last) = text.split_once('-').unwrap();
                    (
                        first.parse::<usize>().unwrap(),
                        last.parse::<usize>().unwrap(),
                    )
                });
                let mut response = match range {
                    Some((first, last)) => {
                        let mut part = answer(206, object.slice(first..=last));
                        let text = format!("bytes {first}-{last}/{}", object.len());
                        part.headers_mut()
                            .insert("content-range", text.parse().unwrap());
                        part
                    }
                    None => answer(200, object.clone()),
                };
                if method == Method::HEAD {
                    *response.body_mut() = Full::default();
                    let length = object.len().to_string();
                    response
                        .headers_mut()
                        .insert("content-length", length.parse().unwrap());
                }
                response
            }
        }
    }
}

impl Inner {
    /// One request of an upload in parts, of which there is one at a time for each key.
    fn upload(
        &mut self,
        method: &Method,
        key: &str,
        query: &str,
        body: Bytes,
    ) -> Response<Full<Bytes>> {
        let number = query
            .split('&')
            .find_map(|pair| pair.strip_prefix("partNumber="));
        if query.starts_with("uploads") {
            self.parts.insert(key.to_owned(), BTreeMap::new());
            let id = "<UploadId>1</UploadId>";
            return answer(
                200,
                format!("<InitiateMultipartUploadResult>{id}</InitiateMultipartUploadResult>"),
            );
        }
        if let (Some(number), Some(parts)) = (number, self.parts.get_mut(key)) {
            parts.insert(number.parse().unwrap(), body);
            return answer(200, "");
        }
        let Some(parts) = self.parts.remove(key) else {
            return answer(404, "<Error><Code>NoSuchUpload</Code></Error>");
        };
        if method == Method::DELETE {
            return answer(204, "");
        }
        let parts: Vec<Bytes> = parts.into_values().collect();
        // As S3: all but the last have 5 MiB at least.
        let (_, all_but_last) = parts.split_last().unwrap();
        if all_but_last.iter().any(|part| part.len() < 5 << 20) {
            return answer(400, "<Error><Code>EntityTooSmall</Code></Error>");
        }
        self.objects.insert(key.to_owned(), parts.concat().into());
        let etag = "<ETag>x</ETag>";
        answer(
            200,
            format!("<CompleteMultipartUploadResult>{etag}</CompleteMultipartUploadResult>"),
        )
    }
}

fn list(objects: &BTreeMap<String, Bytes>, query: &str) -> String {
    let prefix = query
        .split('&')
        .find_map(|pair| pair.strip_prefix("prefix="))
        .unwrap_or_default()
        .replace("%2F", "/");
    let contents: String = objects
        .iter()
        .filter(|(key, _)| key.starts_with(&prefix))
        .map(|(key, object)| {
            let (written_at, _) = WRITTEN_AT;
            let size = object.len();
            format!(
                "<Contents><Key>{key}</Key><LastModified>{written_at}</LastModified><ETag>\"x\"</ETag>\
                 <Size>{size}</Size></Contents>"
            )
        })
        .collect();
    format!("<ListBucketResult><IsTruncated>false</IsTruncated>{contents}</ListBucketResult>")
}

fn answer(status: u16, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let (_, written_at) = WRITTEN_AT;
    Response::builder()
        .status(status)
        .header("etag", "\"x\"")
        .header("last-modified", written_at)
        .body(Full::new(body.into()))
        .unwrap()
}
