//! Idempotency keys: the first answer to a request, kept in the same transaction as what the request wrote.

use super::group::column;
use crate::{Store, StoreError};

/// A request that carries an idempotency key, with the answer to give if it is the first of its kind.
#[derive(Debug, Clone, Copy)]
pub struct Idempotency<'a> {
    /// The route that the key belongs to: the same key means nothing on another route.
    pub scope: &'a str,
    /// What the client sent, unquoted.
    pub key: &'a str,
    /// Hash of everything that makes the request what it is (path parameters and canonical body).
    pub fingerprint: &'a str,
    /// HTTP status of the first answer.
    pub status: u16,
    /// Body of the first answer.
    pub body: &'a str,
}

/// What became of a write that may carry an idempotency key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// The rows are committed, and the key with them.
    Created,
    /// The same request was answered before: here is that answer. Nothing was written.
    Replayed {
        /// HTTP status of the first answer.
        status: u16,
        /// Body of the first answer.
        body: String,
    },
    /// The key belongs to a different request. Nothing was written.
    KeyReused,
}

/// A key as it is sent with the rows of its request.
#[derive(Debug)]
pub(crate) struct KeyRow {
    scope: String,
    key: String,
    fingerprint: String,
    status: i16,
    body: String,
}

/// A column of keys, of which some requests have none.
type Column<T> = Vec<Option<T>>;

impl KeyRow {
    pub(crate) fn of(request: &Idempotency<'_>) -> Self {
        Self {
            scope: request.scope.to_owned(),
            key: request.key.to_owned(),
            fingerprint: request.fingerprint.to_owned(),
            status: request.status as i16,
            body: request.body.to_owned(),
        }
    }

    pub(crate) fn scopes<'a>(rows: &[Option<&'a Self>]) -> Column<&'a str> {
        column(rows, |it| it.map(|it| it.scope.as_str()))
    }

    pub(crate) fn keys<'a>(rows: &[Option<&'a Self>]) -> Column<&'a str> {
        column(rows, |it| it.map(|it| it.key.as_str()))
    }

    pub(crate) fn fingerprints<'a>(rows: &[Option<&'a Self>]) -> Column<&'a str> {
        column(rows, |it| it.map(|it| it.fingerprint.as_str()))
    }

    pub(crate) fn statuses(rows: &[Option<&Self>]) -> Column<i16> {
        column(rows, |it| it.map(|it| it.status))
    }

    pub(crate) fn bodies<'a>(rows: &[Option<&'a Self>]) -> Column<&'a str> {
        column(rows, |it| it.map(|it| it.body.as_str()))
    }
}

impl Store {
    /// The stored answer for a key that a write found taken.
    ///
    /// Read after the conflicting insert, which waited for the first request's transaction to end. If that transaction
    /// had rolled back, the insert would not have conflicted; so a missing row means that the key was deleted by hand in
    /// between.
    pub(crate) async fn replay(
        &self,
        request: Option<&Idempotency<'_>>,
    ) -> Result<Write, StoreError> {
        let Some(request) = request else {
            let what = "a row without an idempotency key was not written".to_owned();
            return Err(StoreError::Corrupt(what));
        };
        let (fingerprint, status, body): (String, i16, String) = sqlx::query_as(
            "SELECT fingerprint, status, body FROM app.idempotency_keys WHERE scope = $1 AND key = $2",
        )
        .bind(request.scope)
        .bind(request.key)
        .fetch_one(&self.pool)
        .await?;
        if fingerprint != request.fingerprint {
            return Ok(Write::KeyReused);
        }
        let status = u16::try_from(status)
            .map_err(|_| StoreError::Corrupt(format!("idempotency key with status {status}")))?;
        Ok(Write::Replayed { status, body })
    }
}
