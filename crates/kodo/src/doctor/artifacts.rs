//! Whether the artifact store can be used, and is the one of the product database.

use kodo_store::Store;
use kodo_store::content::ArtifactStore;

use super::examination::Examination;
use super::finding::Finding;

const CHECK: &str = "artifact store";

/// Reads the store's mark, and compares it with that of the database. Writes nothing.
pub(super) async fn check(exam: &Examination, store: &Store) -> Vec<Finding> {
    let Ok(instance) = store.instance().await else {
        return vec![Finding::skipped(
            CHECK,
            "the product schema is not migrated",
        )];
    };
    let bound = match store.artifact_mark().await {
        Ok(bound) => bound,
        Err(error) => return vec![Finding::skipped(CHECK, error.to_string())],
    };
    let next = "less docs/artifacts.md".to_owned();
    let artifacts = match exam.settings.artifacts.look() {
        Ok(artifacts) => artifacts.of_instance(&instance),
        Err(error) => return vec![Finding::problem(CHECK, format!("{error:#}"), next)],
    };
    let place = artifacts.place();
    vec![match (artifacts.mark().await, bound) {
        (Err(error), _) => {
            let why = exam.settings.artifacts.does_not_work();
            Finding::problem(CHECK, format!("{why}: {error}"), next)
        }
        (Ok(found), Some(bound)) if found.as_ref() != Some(&bound) => Finding::problem(
            CHECK,
            format!(
                "{place} is not the store of this product database, which has the mark {bound}: a service that uses it does \
                 not start",
            ),
            next,
        ),
        (Ok(Some(_)), _) => Finding::ok(CHECK, format!("{place} can be read")),
        (Ok(None), _) => Finding::ok(CHECK, format!("{place} is not used yet")),
    }]
}
