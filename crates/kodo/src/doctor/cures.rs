//! The command to go on with for what is wrong with a database.

use kodo_store::{Cause, Part, Trouble};

use super::examination::Examination;
use super::finding::Finding;

impl Examination {
    /// A problem of a database, with what mends it and the next command.
    pub(super) fn problem(&self, check: &'static str, part: Part, trouble: &Trouble) -> Finding {
        Finding::problem(check, trouble.to_string(), self.next_for(part, trouble))
    }

    /// The next command.
    pub(super) fn next_for(&self, part: Part, trouble: &Trouble) -> String {
        let next = &self.next;
        let (name, database) = match part {
            Part::Product => ("APP_DB_NAME", &self.settings.app.database),
            Part::System => ("SYS_DB_NAME", &self.settings.system.database),
        };
        // What a start does of itself: the product's part alone, or all of it.
        let start = match part {
            Part::Product => "db:migrate",
            Part::System => "start",
        };
        let elsewhere =
            |suffix: &str| next.task_with(&[(name, format!("{database}_{suffix}"))], start);
        let sql = |statement: &str| next.sql("postgres", &[statement.to_owned()]);
        match trouble.cause {
            Cause::Unreachable => next.task("db:up"),
            Cause::Login => "read -rsp 'password: ' DB_PASSWORD && export DB_PASSWORD".to_owned(),
            Cause::NoDatabase | Cause::NoSchema | Cause::Pending => next.task(start),
            Cause::Damaged => match trouble.cure.split_once("UPDATE ") {
                Some((_, update)) => next.sql(database, &[format!("UPDATE {update}")]),
                None => match part {
                    Part::Product => next.task("db:reset"),
                    Part::System => next.task("db:sys:reset"),
                },
            },
            Cause::Newer => elsewhere("2"),
            Cause::Encoding => elsewhere("utf8"),
            Cause::ReadOnly | Cause::Standby => next.sql(
                database,
                &[
                    "SELECT pg_is_in_recovery(), current_setting('default_transaction_read_only')"
                        .to_owned(),
                ],
            ),
            Cause::Connections => sql(
                "SELECT rolname, rolconnlimit, count(pid) FROM pg_roles LEFT JOIN pg_stat_activity ON usename = rolname \
                 GROUP BY 1, 2 HAVING count(pid) > 0",
            ),
            Cause::Denied => {
                sql("SELECT datname, pg_get_userbyid(datdba) AS owner FROM pg_database")
            }
            Cause::Busy => sql(
                "SELECT pid, application_name, state, wait_event_type, query FROM pg_stat_activity WHERE state <> 'idle'",
            ),
            Cause::Encryption | Cause::Pooler | Cause::OtherSystem => {
                "less docs/operations.md".to_owned()
            }
            Cause::Starting | Cause::LoginRemembered | Cause::Resources | Cause::Other => {
                next.kodo("db status")
            }
        }
    }
}
