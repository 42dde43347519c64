//! Schema `dbos` belongs to the engine: no migration and no seed touches it, in whatever way it is written.
//!
//! The files are parsed, the bodies of functions and of `DO` included. The rule is a little wider than "no DDL", so
//! that it needs no guess: the schema is never *named*, not even to read it, because the product's schema and the
//! engine's may live in two databases. Comments and strings that are data may say what they like.
//!
//! What cannot be judged is refused: a statement that does not parse, a body in another language, SQL that is put
//! together at run time (`EXECUTE`), escapes in identifiers. What is left after that (a function of an extension that takes SQL as a
//! string, say) is for the integration test that runs the migrations and compares the whole catalogue.

use std::path::Path;

use anyhow::Context;
use squawk_syntax::ast::{self, AstNode};
use squawk_syntax::body::{Body, BodyLanguage};
use squawk_syntax::{SourceFile, SyntaxKind, SyntaxNode, SyntaxToken};

use super::{Finding, Verdict};
use crate::repository::Repository;

/// The engine's schema.
const FORBIDDEN: &str = "dbos";

pub(super) fn check(repository: &Repository) -> anyhow::Result<Verdict> {
    let mut findings = Vec::new();
    let mut looked_at = 0;
    for file in repository.files()? {
        if !(file.starts_with("db") && file.extension().is_some_and(|name| name == "sql")) {
            continue;
        }
        let text = std::fs::read_to_string(repository.root().join(&file))
            .with_context(|| file.display().to_string())?;
        looked_at += 1;
        findings.extend(judge(&file, &text));
    }
    anyhow::ensure!(looked_at > 0, "there is no SQL below db");
    Ok(Verdict {
        looked_at: format!("{looked_at} SQL files below db parsed, none names schema {FORBIDDEN}"),
        findings,
    })
}

/// Everything that is wrong with one file.
fn judge(file: &Path, text: &str) -> Vec<Finding> {
    let parsed = SourceFile::parse(text);
    let mut judge = Judge {
        file,
        findings: Vec::new(),
    };
    let whole = Source {
        text,
        first_line: 1,
    };
    for error in parsed.errors() {
        judge.find(
            whole.line(error.range().start().into()),
            format!("does not parse: {}", error.message()),
        );
    }
    judge.tree(parsed.tree().syntax(), whole);
    judge.findings
}

/// What a syntax tree was made from: a file, or the body of a function in it.
#[derive(Clone, Copy)]
struct Source<'a> {
    text: &'a str,
    first_line: usize,
}

impl Source<'_> {
    /// The line in the file. Exact for files and for `$$` bodies; a body written with `''` or `\n` has its lines
    /// counted as they read after that is undone.
    fn line(self, offset: usize) -> usize {
        let before = self.text.get(..offset).unwrap_or(self.text);
        self.first_line + before.matches('\n').count()
    }

    fn line_of(self, node: &SyntaxNode) -> usize {
        self.line(node.text_range().start().into())
    }
}

struct Judge<'a> {
    file: &'a Path,
    findings: Vec<Finding>,
}

impl Judge<'_> {
    fn find(&mut self, line: usize, text: impl Into<String>) {
        let finding = Finding::new(format!("{}:{line}", self.file.display()), text);
        if !self.findings.contains(&finding) {
            self.findings.push(finding);
        }
    }

    fn tree(&mut self, root: &SyntaxNode, source: Source<'_>) {
        for node in root.descendants() {
            let line = source.line_of(&node);
            if let Some(why) = refused(node.kind()) {
                self.find(line, why);
            }
            if puts_on_search_path(&node) {
                self.find(line, format!("puts schema {FORBIDDEN} on the search path"));
            }
            self.body_of(&node, source);
        }
        let identifiers = root
            .descendants_with_tokens()
            .filter_map(|element| element.into_token())
            .filter(|token| token.kind() == SyntaxKind::IDENT);
        for token in identifiers {
            let line = source.line(token.text_range().start().into());
            match identifier(token.text()).as_deref() {
                Some(FORBIDDEN) => self.find(
                    line,
                    format!("names schema {FORBIDDEN}, which belongs to the engine"),
                ),
                Some("set_config") => self.find(
                    line,
                    "set_config takes any text for a search path: write SET instead",
                ),
                Some(_) => {}
                None => self.find(
                    line,
                    "an identifier with escapes cannot be judged: write it out",
                ),
            }
        }
    }

    /// The text body of a function, a procedure or a `DO`, where the node is one. What follows `RETURN` or
    /// `BEGIN ATOMIC` is no text, and was parsed with the statement.
    fn body_of(&mut self, node: &SyntaxNode, source: Source<'_>) {
        let body = if let Some(function) = ast::CreateFunction::cast(node.clone()) {
            let sql = function.sql_body().map(|body| Code::of(&body));
            sql.or_else(|| function.plpgsql().map(|body| Code::of(&body)))
        } else if let Some(procedure) = ast::CreateProcedure::cast(node.clone()) {
            let sql = procedure.sql_body().map(|body| Code::of(&body));
            sql.or_else(|| procedure.plpgsql().map(|body| Code::of(&body)))
        } else if let Some(block) = ast::Do::cast(node.clone()) {
            block.plpgsql().map(|body| Code::of(&body))
        } else {
            return;
        };
        let text = node.descendants().find(|node| {
            let parent = node.parent().map(|parent| parent.kind());
            matches!(parent, Some(SyntaxKind::AS_FUNC_OPTION | SyntaxKind::DO))
                && node.kind() != SyntaxKind::DO_LANGUAGE
        });
        let line = text
            .as_ref()
            .map_or(source.line_of(node), |text| source.line_of(text));
        match (body, text) {
            (Some(code), _) => self.code(&code, source, line),
            (None, Some(_)) => self.find(
                line,
                "a body in a language that cannot be judged: use sql or plpgsql",
            ),
            (None, None) => {}
        }
    }

    fn code(&mut self, code: &Code, around: Source<'_>, first_line: usize) {
        let inside = Source {
            text: &code.text,
            first_line,
        };
        // The parser knows SQL to the last clause, but not all of PL/pgSQL (`SELECT … INTO`). There the tokens decide:
        // they are all in the tree, whatever it made of them.
        if !code.plpgsql {
            for (offset, error) in &code.errors {
                self.find(around.line(*offset), format!("does not parse: {error}"));
            }
        }
        if code.root.text() != code.text.as_str() {
            self.find(first_line, "a body that was not read to its end");
        }
        self.tree(&code.root, inside);
        if !code.plpgsql {
            return;
        }
        let tokens: Vec<SyntaxToken> = code
            .root
            .descendants_with_tokens()
            .filter_map(|element| element.into_token())
            .filter(|token| !token.kind().is_trivia())
            .collect();
        let sets_search_path = tokens
            .iter()
            .any(|token| identifier(token.text()).as_deref() == Some("search_path"));
        for (index, token) in tokens.iter().enumerate() {
            let next = tokens.get(index + 1).map(SyntaxToken::kind);
            // A trigger's `EXECUTE FUNCTION` is a statement that can be read.
            let names_a_function = matches!(
                next,
                Some(SyntaxKind::FUNCTION_KW | SyntaxKind::PROCEDURE_KW)
            );
            let line = inside.line(token.text_range().start().into());
            match token.kind() {
                SyntaxKind::EXECUTE_KW | SyntaxKind::DO_KW if !names_a_function => self.find(
                    line,
                    "SQL that is made at run time cannot be judged: write the statement itself",
                ),
                SyntaxKind::ESC_STRING | SyntaxKind::UNICODE_ESC_STRING if sets_search_path => {
                    self.find(
                        line,
                        "escapes beside a search path cannot be judged: write it out",
                    );
                }
                SyntaxKind::STRING | SyntaxKind::DOLLAR_QUOTED_STRING
                    if sets_search_path && names_it(token.text()) =>
                {
                    self.find(line, format!("puts schema {FORBIDDEN} on the search path"));
                }
                _ => {}
            }
        }
    }
}

/// The text body of a function and what the parser made of it.
struct Code {
    plpgsql: bool,
    root: SyntaxNode,
    text: String,
    /// By their place in the text that holds the body.
    errors: Vec<(usize, String)>,
}

impl Code {
    fn of<T: BodyLanguage>(body: &Body<T>) -> Self {
        let errors = body.errors();
        Self {
            plpgsql: T::LANGUAGE == ast::Plpgsql::LANGUAGE,
            root: body.syntax(),
            text: body.text().to_owned(),
            errors: errors
                .iter()
                .map(|error| (error.range().start().into(), error.message().to_owned()))
                .collect(),
        }
    }
}

/// Statements that reach the engine's schema without naming it.
fn refused(kind: SyntaxKind) -> Option<&'static str> {
    match kind {
        SyntaxKind::DROP_OWNED | SyntaxKind::REASSIGN => {
            Some("reaches every schema of the database: name the objects")
        }
        SyntaxKind::ALTER_DATABASE
        | SyntaxKind::ALTER_SYSTEM
        | SyntaxKind::CREATE_DATABASE
        | SyntaxKind::DROP_DATABASE
        | SyntaxKind::CREATE_EVENT_TRIGGER
        | SyntaxKind::ALTER_EVENT_TRIGGER => {
            Some("reaches beyond schema app: a migration changes nothing else")
        }
        _ => None,
    }
}

/// Whether a setting gives a search path with the schema in a string. An identifier there is found like any other.
fn puts_on_search_path(node: &SyntaxNode) -> bool {
    let sets_it = match node.kind() {
        SyntaxKind::SET_SCHEMA_VALUE => true,
        SyntaxKind::SET_CONFIG | SyntaxKind::SET_CONFIG_PARAM | SyntaxKind::SET_FUNC_OPTION => node
            .descendants_with_tokens()
            .filter_map(|element| element.into_token())
            .filter(|token| token.kind() == SyntaxKind::IDENT)
            .any(|token| identifier(token.text()).as_deref() == Some("search_path")),
        _ => false,
    };
    sets_it
        && node
            .descendants()
            .filter_map(ast::Literal::cast)
            .filter_map(|literal| literal.decoded_value())
            .any(|value| names_it(value.text()))
}

/// An identifier as Postgres reads it; `None` where it is written in escapes.
fn identifier(text: &str) -> Option<String> {
    if text.starts_with("U&") || text.starts_with("u&") {
        return None;
    }
    Some(
        match text
            .strip_prefix('"')
            .and_then(|text| text.strip_suffix('"'))
        {
            Some(quoted) => quoted.replace("\"\"", "\""),
            None => text.to_ascii_lowercase(),
        },
    )
}

/// Whether the schema is one of the words of a text.
fn names_it(text: &str) -> bool {
    text.split(|sign: char| !(sign.is_alphanumeric() || sign == '_' || sign == '$'))
        .any(|word| word.eq_ignore_ascii_case(FORBIDDEN))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(sql: &str) -> Vec<String> {
        judge(Path::new("m.sql"), sql)
            .iter()
            .map(Finding::to_string)
            .collect()
    }

    #[test]
    fn whatever_changes_schema_dbos_is_found_however_it_is_written() {
        for sql in [
            "CREATE TABLE dbos.x (a int);",
            "CREATE TABLE DBOS . x (a int);",
            "CREATE TABLE \"dbos\".x (a int);",
            "CREATE TABLE/* */dbos/* */./* */x (a int);",
            "CREATE TABLE U&\"d\\0062os\".x (a int);",
            "CREATE SCHEMA dbos;",
            "CREATE SCHEMA IF NOT EXISTS dbos CREATE TABLE x (a int);",
            "ALTER SCHEMA dbos RENAME TO other;",
            "ALTER SCHEMA app RENAME TO dbos;",
            "ALTER TABLE dbos.workflow_status ADD COLUMN mine int;",
            "ALTER TABLE app.runs SET SCHEMA dbos;",
            "DROP SCHEMA app, dbos CASCADE;",
            "DROP TABLE IF EXISTS app.x, dbos.y;",
            "DROP OWNED BY postgres;",
            "TRUNCATE dbos.workflow_status;",
            "CREATE INDEX ON dbos.workflow_status (status);",
            "CREATE TRIGGER t AFTER INSERT ON dbos.workflow_status FOR EACH ROW EXECUTE FUNCTION app.f();",
            "CREATE VIEW dbos.v AS SELECT 1;",
            "CREATE EXTENSION pg_trgm SCHEMA dbos;",
            "CREATE TYPE dbos.t AS ENUM ('a');",
            "COMMENT ON SCHEMA dbos IS 'mine';",
            "COMMENT ON TABLE dbos.workflow_status IS 'mine';",
            "GRANT USAGE ON SCHEMA dbos TO someone;",
            "REVOKE ALL ON ALL TABLES IN SCHEMA dbos FROM someone;",
            "ALTER DEFAULT PRIVILEGES IN SCHEMA dbos GRANT SELECT ON TABLES TO someone;",
            "SET search_path = dbos; CREATE TABLE x (a int);",
            "SET search_path TO app, 'dbos'; CREATE TABLE x (a int);",
            "SET LOCAL search_path = \"dbos\";",
            "SET SCHEMA 'dbos';",
            "SELECT set_config('search_path', 'db' || 'os', false);",
            "ALTER ROLE postgres SET search_path = 'dbos';",
            "DELETE FROM dbos.workflow_status;",
            "WITH gone AS (DELETE FROM dbos.workflow_status RETURNING 1) SELECT * FROM gone;",
        ] {
            let found = findings(sql);
            assert!(
                found.iter().any(|text| !text.contains("does not parse")),
                "{sql}: {found:?}"
            );
        }
    }

    #[test]
    fn bodies_of_functions_are_read_as_well() {
        for sql in [
            "DO $$ BEGIN CREATE TABLE dbos.x (a int); END $$;",
            "DO 'BEGIN DROP SCHEMA \"dbos\" CASCADE; END';",
            "DO E'BEGIN DROP SCHEMA \\x64bos; END';",
            "DO $$ BEGIN EXECUTE 'DROP SCHEMA ' || 'db' || 'os'; END $$;",
            "DO $$ BEGIN IF true THEN PERFORM set_config('search_path', 'x', true); END IF; END $$;",
            "DO $$ DECLARE r record; BEGIN FOR r IN EXECUTE 'x' LOOP END LOOP; END $$;",
            "DO $$ BEGIN SELECT 1 INTO x FROM dbos.y; END $$;",
            "DO $$ BEGIN SELECT 1 INTO x FROM a; SET LOCAL search_path TO 'dbos'; END $$;",
            "DO $$ BEGIN SELECT 1 INTO x FROM a; SET search_path TO E'\\x64bos'; END $$;",
            "DO $$ BEGIN SELECT 1 INTO x FROM a; EXECUTE x; END $$;",
            "DO LANGUAGE plpython3u $$ x $$;",
            "CREATE FUNCTION app.f() RETURNS void LANGUAGE sql AS $$ DELETE FROM dbos.x $$;",
            "CREATE FUNCTION app.f() RETURNS int LANGUAGE sql RETURN (SELECT count(*) FROM dbos.x);",
            "CREATE FUNCTION app.f() RETURNS void AS $$ BEGIN DROP TABLE dbos.x; END $$ LANGUAGE plpgsql;",
            "CREATE PROCEDURE app.p() LANGUAGE plpgsql AS $$ BEGIN TRUNCATE dbos.x; END $$;",
            "CREATE FUNCTION app.f() RETURNS void LANGUAGE c AS 'library', 'symbol';",
            "CREATE FUNCTION app.f() RETURNS int LANGUAGE sql SET search_path = 'dbos' AS $$ SELECT 1 $$;",
        ] {
            assert!(!findings(sql).is_empty(), "{sql}");
        }
    }

    #[test]
    fn what_does_not_parse_does_not_pass() {
        for sql in [
            "CREATE TABEL app.x (a int);",
            "\\i other.sql",
            "CREATE TABLE app.x (a int",
            "SELECT 'never closed",
            "CREATE FUNCTION app.f() RETURNS int LANGUAGE sql AS $$ SELECT FROM WHERE $$;",
        ] {
            let found = findings(sql);
            assert!(
                found.iter().any(|text| text.contains("does not parse")),
                "{sql}: {found:?}"
            );
        }
    }

    #[test]
    fn comments_and_data_may_mention_it() {
        let sql = "
            -- Schema dbos belongs to the engine.
            /* DROP SCHEMA dbos; */
            CREATE TABLE app.notes (id int PRIMARY KEY, text text DEFAULT 'see dbos.workflow_status');
            INSERT INTO app.notes VALUES (1, 'dbos'), (2, 'DROP SCHEMA dbos'), (3, E'a\\'dbos');
            COMMENT ON TABLE app.notes IS 'not of dbos';
            SET LOCAL search_path = app, pg_catalog;
            CREATE TABLE app.dbos_like (mydbos int);
        ";
        assert_eq!(findings(sql), [""; 0]);
    }

    #[test]
    fn views_and_functions_of_the_product_pass() {
        let sql = "
            CREATE VIEW app.stranded WITH (security_invoker = true) AS
                SELECT r.id, count(*) FILTER (WHERE s.phase = 'executing') AS steps
                FROM app.runs r LEFT JOIN LATERAL (SELECT * FROM app.run_steps s WHERE s.run_id = r.id) s ON true
                WHERE r.status IN ('queued', 'running') GROUP BY r.id;
            CREATE OR REPLACE FUNCTION app.touch() RETURNS trigger LANGUAGE plpgsql
                SET search_path = app, pg_temp AS $body$
            DECLARE
                seen integer := 0;  -- nothing of dbos
            BEGIN
                IF NEW.status IS DISTINCT FROM OLD.status THEN
                    SELECT count(*) INTO seen FROM app.runs WHERE id = NEW.id;
                    RAISE NOTICE 'seen % of dbos', seen;
                    RETURN NEW;
                END IF;
                CREATE TRIGGER t BEFORE UPDATE ON app.x FOR EACH ROW EXECUTE FUNCTION app.touch();
                FOR seen IN 1..3 LOOP NULL; END LOOP;
                RETURN QUERY SELECT 1;
            EXCEPTION WHEN unique_violation THEN RETURN NULL;
            END $body$;
            CREATE FUNCTION app.broken(since timestamptz DEFAULT now())
                RETURNS TABLE (run_id text, why text) LANGUAGE sql STABLE AS $$
                SELECT id, 'x'::text FROM app.runs WHERE created_at >= since
            $$;
            CREATE TRIGGER touched BEFORE UPDATE ON app.runs FOR EACH ROW EXECUTE FUNCTION app.touch();
            DO $$ BEGIN RAISE NOTICE 'hello'; END $$;
        ";
        assert_eq!(findings(sql), [""; 0]);
    }

    #[test]
    fn a_finding_names_its_line_also_in_a_body() {
        let sql = "SELECT 1;\n\nCREATE FUNCTION app.f() RETURNS void LANGUAGE plpgsql AS $$\nBEGIN\n  DROP TABLE dbos.x;\nEND $$;\n";
        assert_eq!(
            findings(sql),
            ["m.sql:5: names schema dbos, which belongs to the engine"]
        );
    }
}
