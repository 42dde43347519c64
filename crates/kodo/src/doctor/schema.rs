//! Schema `app` and its migrations.

use kodo_store::{Part, SchemaError, StoreError, Trouble, known_migrations};

use super::examination::Examination;
use super::finding::Finding;
use crate::trouble;

/// Looks at schema `app`; schema `dbos` is the engine's business.
pub(crate) async fn check(exam: &Examination) -> Vec<Finding> {
    let app = &exam.settings.app;
    let errors = match app.schema_errors().await {
        Ok(errors) => errors,
        Err(error) => {
            let trouble = trouble::of(&exam.settings, Part::Product, &error).await;
            return vec![exam.problem("schema", Part::Product, &trouble)];
        }
    };
    let mut findings = Vec::new();
    if !matches!(errors.as_slice(), [SchemaError::Never { .. }]) {
        let what = format!("database {} has schema app", app.database);
        findings.push(Finding::ok("schema", what));
    }
    if errors.is_empty() {
        let what = format!("all {} are applied", known_migrations());
        findings.push(Finding::ok("migrations", what));
    }
    for error in errors {
        let check = match error {
            SchemaError::Never { .. } => "schema",
            _ => "migrations",
        };
        let trouble = Trouble::told_by(&StoreError::Schema(error), Part::Product, app);
        findings.push(exam.problem(check, Part::Product, &trouble));
    }
    findings
}
