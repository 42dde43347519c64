//! Opens a bucket of an S3-compatible store.

use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::{ObjectStore, RetryConfig};

use super::lent::CredentialsFile;
use super::place::is_on_loopback;
use super::wire::Connector;
use super::{ArtifactError, Lent, S3Access, S3Place};

/// How often a request is retried before the caller gets the error; a step then waits with longer pauses.
const RETRIES: usize = 2;

/// How long a request may take with its retries.
const RETRY_TIMEOUT: Duration = Duration::from_secs(10);

/// A bucket. Does not connect.
pub(crate) fn open(
    place: &S3Place,
    access: &S3Access,
) -> Result<Arc<dyn ObjectStore>, ArtifactError> {
    let mut builder = AmazonS3Builder::new()
        .with_bucket_name(&place.bucket)
        .with_region(&access.region)
        // Not every compatible store has the request that deletes several objects.
        .with_disable_bulk_delete(true)
        // The settings have refused http if it is not allowed.
        .with_allow_http(true)
        .with_retry(RetryConfig {
            max_retries: RETRIES,
            retry_timeout: RETRY_TIMEOUT,
            ..RetryConfig::default()
        })
        .with_http_connector(Connector {
            on_loopback: access.endpoint.as_deref().is_some_and(is_on_loopback),
        });
    match &access.lent {
        None => {
            builder = builder
                .with_access_key_id(&access.access_key_id)
                .with_secret_access_key(&access.secret_access_key);
            if let Some(token) = &access.session_token {
                builder = builder.with_token(token);
            }
        }
        Some(Lent::File { path, profile }) => {
            builder = builder.with_credentials(Arc::new(CredentialsFile {
                path: path.clone(),
                profile: profile.clone(),
            }));
        }
        Some(Lent::Offered(settings)) => {
            for (name, value) in settings {
                let name: AmazonS3ConfigKey =
                    name.parse().map_err(|error: object_store::Error| {
                        ArtifactError::Denied(error.to_string())
                    })?;
                builder = builder.with_config(name, value);
            }
        }
    }
    if let Some(endpoint) = &access.endpoint {
        builder = builder.with_endpoint(endpoint);
    }
    let bucket = builder
        .build()
        .map_err(|error| ArtifactError::Denied(error.to_string()))?;
    Ok(Arc::new(bucket))
}
