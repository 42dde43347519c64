//! The settings of the artifact store.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::{ArgAction, Args};
use kodo_store::content::{Lent, ObjectArtifacts, Place, S3Access};

use super::given::{Given, Refusal, refusal};
use super::parsers::{boolean, milliseconds};
use super::{DataFolder, SecretText};

/// The default place, in the data folder.
const FOLDER: &str = "artifacts";

/// Where large artifacts are stored, as it was given.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Artifact store")]
pub(super) struct ArtifactFlags {
    /// Where artifacts of 64 KiB and more are stored: an absolute path or s3://BUCKET/PREFIX; if not set, the folder
    /// artifacts in KODO_DATA_DIR
    #[arg(long, env, value_name = "PLACE", value_parser = Place::parse)]
    artifact_store: Option<Place>,
    /// How long a step waits for a store that is unavailable, full or refuses before its run fails, in milliseconds
    #[arg(long = "artifact-store-patience-ms", env = "ARTIFACT_STORE_PATIENCE_MS", value_name = "MS", default_value = "900000", value_parser = milliseconds)]
    artifact_store_patience: Duration,
    /// Whether a store on another machine may be used by http, in the clear
    #[arg(long, env, value_name = "BOOL", action = ArgAction::Set, default_value = "false", value_parser = boolean)]
    artifact_store_allow_http: bool,
    /// Address of the S3-compatible store, if it is not Amazon's
    #[arg(long, env, value_name = "URL")]
    aws_endpoint_url: Option<String>,
    /// Region of the S3 store
    #[arg(long, env, value_name = "REGION", default_value = "us-east-1")]
    aws_region: String,
    /// Id of the access key to the S3 store
    #[arg(long, env, value_name = "ID")]
    aws_access_key_id: Option<String>,
    /// The access key's secret
    #[arg(long, env, value_name = "KEY")]
    aws_secret_access_key: Option<SecretText>,
    /// Session token, if the credentials are temporary
    #[arg(long, env, value_name = "TOKEN")]
    aws_session_token: Option<SecretText>,
    /// File with the credentials, if no key is set, as AWS's own tools have it; read for every request
    #[arg(long, env, value_name = "FILE")]
    aws_shared_credentials_file: Option<PathBuf>,
    /// The section of that file
    #[arg(long, env, value_name = "NAME", default_value = "default")]
    aws_profile: String,
    /// File with a web identity, for which AWS_ROLE_ARN is lent
    #[arg(long, env, value_name = "FILE")]
    aws_web_identity_token_file: Option<String>,
    /// The role that is lent for it
    #[arg(long, env, value_name = "ARN")]
    aws_role_arn: Option<String>,
    /// Where a container asks for credentials, as a whole address
    #[arg(long, env, value_name = "URL")]
    aws_container_credentials_full_uri: Option<String>,
    /// File with what it has to show there
    #[arg(long, env, value_name = "FILE")]
    aws_container_authorization_token_file: Option<String>,
    /// Where a container asks for credentials, as a path
    #[arg(long, env, value_name = "PATH")]
    aws_container_credentials_relative_uri: Option<String>,
}

/// Where large artifacts are stored, and how long a step waits for the store.
#[derive(Debug, Clone)]
pub(crate) struct ArtifactSettings {
    place: Place,
    /// Whether `ARTIFACT_STORE` names the place.
    given: bool,
    access: Option<S3Access>,
    /// How long a step waits.
    pub(crate) patience: Duration,
}

impl ArtifactSettings {
    pub(super) fn of(
        flags: ArtifactFlags,
        given: &Given,
        data_dir: &DataFolder,
    ) -> Result<Self, Refusal> {
        let place = match &flags.artifact_store {
            Some(place) => place.clone(),
            None => Place::Folder(
                data_dir
                    .join(FOLDER)
                    .map_err(|error| refusal("KODO_DATA_DIR", format!("{error:#}")))?,
            ),
        };
        Ok(Self {
            given: flags.artifact_store.is_some(),
            patience: flags.artifact_store_patience,
            // The variables of other programs, too: they are read only if there is a bucket.
            access: match &place {
                Place::S3(_) => Some(access(flags, given)?),
                Place::Folder(_) => None,
            },
            place,
        })
    }

    /// Checks that the default place can be created, so that the start fails instead of a step.
    ///
    /// # Errors
    /// One line that names the folder's setting.
    pub(crate) fn check_data_dir(&self, data_dir: &DataFolder) -> anyhow::Result<()> {
        if self.given {
            return Ok(());
        }
        data_dir.check_writable(
            FOLDER,
            "large artifacts are kept there unless ARTIFACT_STORE names another place",
        )
    }

    /// What an error about the store begins with.
    pub(crate) fn does_not_work(&self) -> String {
        format!("ARTIFACT_STORE={} does not work", self.place)
    }

    /// The store, which is not created.
    ///
    /// # Errors
    /// If it cannot be used.
    pub(crate) fn look(&self) -> anyhow::Result<ObjectArtifacts> {
        ObjectArtifacts::new(self.place.clone(), self.access.as_ref())
            .with_context(|| self.does_not_work())
    }

    /// The store. A folder that `ARTIFACT_STORE` names is created now; the default one when it is needed.
    ///
    /// # Errors
    /// If it cannot be used.
    pub(crate) async fn open(&self) -> anyhow::Result<ObjectArtifacts> {
        let place = || self.does_not_work();
        let store = self.look()?;
        if self.given {
            store.prepare().await.with_context(place)?;
        }
        Ok(store)
    }
}

/// How to reach a bucket.
fn access(flags: ArtifactFlags, given: &Given) -> Result<S3Access, Refusal> {
    let id = flags.aws_access_key_id.clone().filter(|id| !id.is_empty());
    let (id, key, lent) = match (id, flags.aws_secret_access_key.clone(), lent(&flags)) {
        (Some(id), Some(key), _) => (id, key, None),
        (None, None, Some(lent)) => (String::new(), SecretText::from(String::new()), Some(lent)),
        _ => {
            let reason = format!(
                "{} needs credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or \
                 AWS_SHARED_CREDENTIALS_FILE, and AWS_ENDPOINT_URL where the store is not Amazon's",
                given.assignment("ARTIFACT_STORE")
            );
            return Err(refusal("ARTIFACT_STORE", reason));
        }
    };
    if flags.aws_region.is_empty() {
        return Err(given.refuse("AWS_REGION", "the name of a region"));
    }
    let check = |url: &String| S3Access::check_endpoint(url, flags.artifact_store_allow_http);
    let endpoint = flags.aws_endpoint_url.as_ref().map(check).transpose();
    Ok(S3Access {
        endpoint: endpoint.map_err(|error| given.refuse("AWS_ENDPOINT_URL", error))?,
        region: flags.aws_region,
        access_key_id: id,
        secret_access_key: key.expose().to_owned(),
        session_token: flags.aws_session_token.map(|it| it.expose().to_owned()),
        lent,
    })
}

/// Credentials that somebody else renews, if the settings name any.
fn lent(flags: &ArtifactFlags) -> Option<Lent> {
    if let Some(path) = &flags.aws_shared_credentials_file {
        return Some(Lent::File {
            path: path.clone(),
            profile: flags.aws_profile.clone(),
        });
    }
    let identity = flags.aws_web_identity_token_file.is_some() && flags.aws_role_arn.is_some();
    let container = flags.aws_container_credentials_relative_uri.is_some()
        || flags.aws_container_credentials_full_uri.is_some()
            && flags.aws_container_authorization_token_file.is_some();
    if !identity && !container {
        return None;
    }
    let offered = [
        (
            "aws_web_identity_token_file",
            &flags.aws_web_identity_token_file,
        ),
        ("aws_role_arn", &flags.aws_role_arn),
        (
            "aws_container_credentials_full_uri",
            &flags.aws_container_credentials_full_uri,
        ),
        (
            "aws_container_authorization_token_file",
            &flags.aws_container_authorization_token_file,
        ),
        (
            "aws_container_credentials_relative_uri",
            &flags.aws_container_credentials_relative_uri,
        ),
    ];
    let offered = offered.into_iter();
    Some(Lent::Offered(
        offered
            .filter_map(|(name, value)| Some((name, value.clone()?)))
            .collect(),
    ))
}

#[cfg(test)]
mod tests {
    use crate::settings::tests::load;

    /// The settings of an artifact store in their debug form, or why they are refused.
    fn shown(given: &[&str]) -> Result<String, String> {
        load(given).map(|settings| format!("{:?}", settings.artifacts))
    }

    fn bucket(more: &[&str]) -> Result<String, String> {
        let mut given = vec![
            "--artifact-store=s3://bucket/prefix",
            "--aws-access-key-id=id",
        ];
        given.extend(more);
        shown(&given)
    }

    const KEY: &str = "--aws-secret-access-key=canary";

    #[test]
    fn the_default_is_a_folder_of_the_data_folder() {
        let elsewhere = shown(&["--data-dir=/elsewhere"]).unwrap();
        assert!(elsewhere.contains("/elsewhere/artifacts"), "{elsewhere}");
        let named = shown(&["--data-dir=/elsewhere", "--artifact-store=/named"]).unwrap();
        assert!(
            named.contains("/named") && !named.contains("elsewhere"),
            "{named}"
        );
    }

    #[test]
    fn a_place_that_cannot_be_read_says_what_is_accepted() {
        assert_eq!(
            shown(&["--artifact-store=data"]).unwrap_err(),
            "--artifact-store=data is not valid: an absolute path, file:///PATH or s3://BUCKET/PREFIX is accepted"
        );
    }

    #[test]
    fn a_bucket_needs_credentials_and_shows_none() {
        assert!(!bucket(&[KEY]).unwrap().contains("canary"));
        let nobody = bucket(&[]).unwrap_err();
        assert!(nobody.contains("set AWS_ACCESS_KEY_ID and"), "{nobody}");
    }

    #[test]
    fn an_endpoint_in_the_clear_has_to_be_allowed() {
        let endpoint = |url: &str, allow: &str| {
            bucket(&[
                KEY,
                &format!("--aws-endpoint-url={url}"),
                &format!("--artifact-store-allow-http={allow}"),
            ])
        };
        let refused = endpoint("http://minio:9000", "false").unwrap_err();
        assert!(
            refused.contains("ARTIFACT_STORE_ALLOW_HTTP=true"),
            "{refused}"
        );
        assert!(endpoint("http://minio:9000", "true").is_ok());
        assert!(endpoint("http://127.0.0.1:9000", "false").is_ok());
        let decorated = endpoint("https://me:hush@minio", "true").unwrap_err();
        assert!(!decorated.contains("hush"), "{decorated}");
        // A folder does not need it.
        assert!(shown(&["--aws-endpoint-url=http://x"]).is_ok());
    }
}
