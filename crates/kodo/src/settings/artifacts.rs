//! The artifact store's settings.

use std::time::Duration;

use anyhow::{Context, ensure};
use kodo_store::content::{ObjectArtifacts, Place, S3Access};

use super::{DataFolder, Flags, Raw};

/// The default place, in the folder of data.
const FOLDER: &str = "artifacts";

/// Where large artifacts are stored, and how long a step waits for that.
#[derive(Debug, Clone)]
pub(crate) struct ArtifactSettings {
    place: Place,
    /// Whether somebody asked for this place.
    given: bool,
    access: Option<S3Access>,
    /// How long a step waits.
    pub(crate) patience: Duration,
}

impl ArtifactSettings {
    pub(super) fn load(flags: &Flags, data_dir: &DataFolder) -> anyhow::Result<Self> {
        let raw = flags.artifact_store();
        let place = match raw.given {
            true => match Place::parse(&raw.value) {
                Ok(place) => place,
                Err(error) => return raw.refuse(&error.to_string()),
            },
            false => below(data_dir)?,
        };
        let allow_http = flags.artifact_store_allow_http().parse("true or false")?;
        // These variables are other programs' as well: they are looked at where they are needed.
        let access = match &place {
            Place::S3(_) => Some(access(flags, &raw, allow_http)?),
            Place::Folder(_) => None,
        };
        let patience = flags.artifact_store_patience_ms().number(0, u32::MAX)?;
        Ok(Self {
            place,
            given: raw.given,
            access,
            patience: Duration::from_millis(patience.into()),
        })
    }

    /// The default place is in this folder of data.
    ///
    /// # Errors
    /// Where the current folder is gone.
    pub(crate) fn in_data_dir(&mut self, data_dir: &DataFolder) -> anyhow::Result<()> {
        if !self.given {
            self.place = below(data_dir)?;
        }
        Ok(())
    }

    /// A start that is to end as a failed step otherwise: whether the default place can be made.
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

    /// The store. A folder that was asked for is made now; the default one when it is needed.
    ///
    /// # Errors
    /// Where it cannot be used.
    pub(crate) async fn open(&self) -> anyhow::Result<ObjectArtifacts> {
        let place = || format!("ARTIFACT_STORE={} does not work", self.place);
        let store =
            ObjectArtifacts::new(self.place.clone(), self.access.as_ref()).with_context(place)?;
        if self.given {
            store.prepare().await.with_context(place)?;
        }
        Ok(store)
    }
}

/// The default folder.
fn below(data_dir: &DataFolder) -> anyhow::Result<Place> {
    Ok(Place::Folder(data_dir.join(FOLDER)?))
}

fn access(flags: &Flags, place: &Raw, allow_http: bool) -> anyhow::Result<S3Access> {
    let (id, key) = (flags.aws_access_key_id(), flags.aws_secret_access_key());
    ensure!(
        id.given && key.given,
        "{}={} needs credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and AWS_ENDPOINT_URL where the \
         store is not Amazon's",
        place.name(),
        place.value
    );
    let endpoint = flags.aws_endpoint_url();
    let checked = match endpoint.given {
        true => match S3Access::check_endpoint(&endpoint.value, allow_http) {
            Ok(checked) => Some(checked),
            // A password in it is not to be shown.
            Err(error) if endpoint.value.contains('@') => {
                anyhow::bail!("{} is not valid: {error} is accepted", endpoint.name())
            }
            Err(error) => return endpoint.refuse(&error.to_string()),
        },
        false => None,
    };
    let token = flags.aws_session_token();
    Ok(S3Access {
        endpoint: checked,
        region: flags.aws_region().filled("the name of a region")?,
        access_key_id: id.filled("a key's id")?,
        secret_access_key: key.value,
        session_token: token.given.then_some(token.value),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(change: impl FnOnce(&mut Flags)) -> Result<ArtifactSettings, String> {
        let mut flags = Flags::default();
        change(&mut flags);
        let data_dir = DataFolder::load(&flags).unwrap();
        ArtifactSettings::load(&flags, &data_dir).map_err(|error| error.to_string())
    }

    fn bucket(change: impl FnOnce(&mut Flags)) -> Result<ArtifactSettings, String> {
        load(|flags| {
            flags.artifact_store = Some("s3://bucket/prefix".to_owned());
            flags.aws_access_key_id = Some("id".to_owned());
            flags.aws_secret_access_key = Some("canary".to_owned());
            change(flags);
        })
    }

    #[test]
    fn the_default_is_a_folder_of_the_data_folder() {
        let mut settings = load(|_| {}).unwrap();
        assert!(settings.place.to_string().ends_with("/artifacts"));
        let flags = Flags::default();
        let elsewhere = DataFolder::load(&flags).unwrap();
        let elsewhere = elsewhere.or_by_flag(Some("/elsewhere".into())).unwrap();
        settings.in_data_dir(&elsewhere).unwrap();
        assert_eq!(settings.place.to_string(), "/elsewhere/artifacts");
        let mut named = load(|flags| flags.artifact_store = Some("/named".to_owned())).unwrap();
        named.in_data_dir(&elsewhere).unwrap();
        assert_eq!(named.place.to_string(), "/named");
    }

    #[test]
    fn a_place_that_cannot_be_read_says_what_is_accepted() {
        let refused = load(|flags| flags.artifact_store = Some("data".to_owned())).unwrap_err();
        assert_eq!(
            refused,
            "--artifact-store=data is not valid: an absolute path, file:///PATH or s3://BUCKET/PREFIX is accepted"
        );
    }

    #[test]
    fn a_bucket_needs_credentials_and_shows_none() {
        let settings = bucket(|_| {}).unwrap();
        assert!(!format!("{settings:?}").contains("canary"));
        let nobody = bucket(|flags| flags.aws_secret_access_key = None).unwrap_err();
        assert!(nobody.contains("set AWS_ACCESS_KEY_ID and"), "{nobody}");
    }

    #[test]
    fn an_endpoint_in_the_clear_has_to_be_allowed() {
        let endpoint = |url: &str, allow: &str| {
            bucket(|flags| {
                flags.aws_endpoint_url = Some(url.to_owned());
                flags.artifact_store_allow_http = Some(allow.to_owned());
            })
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
        // Of no interest to a folder.
        assert!(load(|flags| flags.aws_endpoint_url = Some("http://x".to_owned())).is_ok());
    }
}
