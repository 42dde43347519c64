//! Credentials in a file that somebody else rewrites.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use object_store::CredentialProvider;
use object_store::aws::AwsCredential;

use super::refused::Refused;

/// A file as AWS's own tools have it. Read for every request, which costs less than the request by far.
#[derive(Debug)]
pub(crate) struct CredentialsFile {
    pub(crate) path: PathBuf,
    pub(crate) profile: String,
}

#[async_trait]
impl CredentialProvider for CredentialsFile {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        let place = || format!("AWS_SHARED_CREDENTIALS_FILE={}", self.path.display());
        let text = std::fs::read_to_string(&self.path)
            .map_err(|error| refused(format!("cannot be read: {error}"), place()))?;
        let found = read(&text, &self.profile);
        let found = found.ok_or_else(|| {
            let said = format!(
                "has no aws_access_key_id and aws_secret_access_key in section [{}]",
                self.profile
            );
            refused(said, place())
        })?;
        Ok(Arc::new(found))
    }
}

fn refused(said: String, place: String) -> object_store::Error {
    object_store::Error::Generic {
        store: "S3",
        source: Box::new(Refused::new(said, place)),
    }
}

/// The credentials in a section of the file; `None` if there are none.
fn read(text: &str, profile: &str) -> Option<AwsCredential> {
    let mut inside = false;
    let (mut key_id, mut secret_key, mut token) = (None, None, None);
    for line in text.lines().map(str::trim) {
        if let Some(section) = line.strip_prefix('[').and_then(|it| it.strip_suffix(']')) {
            inside = section.trim() == profile;
        } else if inside
            && !line.starts_with(['#', ';'])
            && let Some((name, value)) = line.split_once('=')
        {
            let value = Some(value.trim().to_owned()).filter(|value| !value.is_empty());
            match name.trim() {
                "aws_access_key_id" => key_id = value,
                "aws_secret_access_key" => secret_key = value,
                "aws_session_token" => token = value,
                _ => {}
            }
        }
    }
    Some(AwsCredential {
        key_id: key_id?,
        secret_key: secret_key?,
        token,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_of_a_file_has_credentials_of_its_own() {
        let text = "# keys\n[default]\naws_access_key_id = a\naws_secret_access_key=b=c\nregion = x\n\n\
                    [ other ]\r\naws_access_key_id=d\r\naws_secret_access_key = e\r\naws_session_token=f\r\n\
                    [half]\naws_access_key_id=g\naws_secret_access_key=\n";
        let shown = |profile| {
            read(text, profile).map(|found| (found.key_id, found.secret_key, found.token))
        };
        let whole = |id: &str, key: &str, token: Option<&str>| {
            Some((id.to_owned(), key.to_owned(), token.map(str::to_owned)))
        };
        assert_eq!(shown("default"), whole("a", "b=c", None));
        assert_eq!(shown("other"), whole("d", "e", Some("f")));
        assert_eq!(shown("half"), None);
        assert_eq!(shown("none"), None);
    }

    #[tokio::test]
    async fn a_file_is_read_anew_each_time_and_one_that_is_gone_refuses() {
        let folder = tempfile::tempdir().unwrap();
        let file = CredentialsFile {
            path: folder.path().join("credentials"),
            profile: "default".to_owned(),
        };
        let error = crate::content::ArtifactError::from(file.get_credential().await.unwrap_err());
        assert_eq!(error.code(), "artifact_store_denied", "{error}");
        for id in ["first", "second"] {
            let text = format!("[default]\naws_access_key_id={id}\naws_secret_access_key=s\n");
            std::fs::write(&file.path, text).unwrap();
            assert_eq!(file.get_credential().await.unwrap().key_id, id);
        }
    }
}
