//! Schema `dbos` belongs to the engine: no migration and no seed names it, not even to read it, because the product's
//! schema and the engine's may live in two databases. Only comments may name it.
//!
//! A lexer is enough for that: it knows comments, strings, dollar quotes and quoted identifiers. The body of a function
//! is code, whichever way it is quoted, so strings are looked into as well. What builds a name that the lexer cannot see
//! (`EXECUTE`, `set_config`, escapes) or reaches the schema without naming it (`DROP OWNED`) is refused. The integration
//! test that migrates as a role without rights on the schema has the last word.

use super::{assert_clean, texts};

/// The engine's schema.
const FORBIDDEN: &str = "dbos";

/// A piece of SQL that is neither blank nor comment.
#[derive(Debug, Clone, PartialEq)]
enum Token {
    /// An identifier or keyword, in lower case unless it was quoted.
    Word(String),
    /// The content of a string; `true` if backslashes are escapes in it.
    Text(String, bool),
    /// The content of a dollar quote.
    Body(String),
    /// Any other sign.
    Sign(char),
}

/// The tokens of some SQL, each with the number of its line.
///
/// # Errors
/// The line of a string, comment or quote that does not end.
fn lex(sql: &str) -> Result<Vec<(usize, Token)>, usize> {
    let mut tokens = Vec::new();
    let mut rest = sql;
    let word = |sign: char| sign.is_alphanumeric() || sign == '_' || sign == '$';
    while let Some(sign) = rest.chars().next() {
        let line = 1 + sql[..sql.len() - rest.len()].matches('\n').count();
        let tag = rest.strip_prefix('$').and_then(|tail| {
            let (tag, _) = tail.split_once('$')?;
            let named = tag.chars().all(|sign| word(sign) && sign != '$');
            (named && !tag.starts_with(|sign: char| sign.is_ascii_digit()))
                .then(|| format!("${tag}$"))
        });
        if rest.starts_with("--") {
            rest = rest.find('\n').map_or("", |end| &rest[end..]);
        } else if rest.starts_with("/*") {
            rest = &rest[comment(rest).ok_or(line)?..];
        } else if let Some(tag) = tag {
            let body = &rest[tag.len()..];
            let end = body.find(&tag).ok_or(line)?;
            tokens.push((line, Token::Body(body[..end].to_owned())));
            rest = &body[end + tag.len()..];
        } else if sign == '\'' || sign == '"' {
            let before = tokens.last().map(|(_, token)| token);
            // `E'…'` and `U&'…'`: the prefix was read as a word, or as a word and a sign.
            let adjacent = sql[..sql.len() - rest.len()].ends_with(['e', 'E', '&']);
            let escapes = adjacent
                && (before == Some(&Token::Word("e".to_owned()))
                    || before == Some(&Token::Sign('&')));
            let (content, length) = quoted(rest, sign, escapes && sign == '\'').ok_or(line)?;
            tokens.push((
                line,
                match sign {
                    '"' if !escapes => Token::Word(content),
                    _ => Token::Text(content, escapes),
                },
            ));
            rest = &rest[length..];
        } else if word(sign) {
            let end = rest.find(|sign| !word(sign)).unwrap_or(rest.len());
            tokens.push((line, Token::Word(rest[..end].to_lowercase())));
            rest = &rest[end..];
        } else {
            if !sign.is_whitespace() {
                tokens.push((line, Token::Sign(sign)));
            }
            rest = &rest[sign.len_utf8()..];
        }
    }
    Ok(tokens)
}

/// The length of a comment, those inside it included.
fn comment(text: &str) -> Option<usize> {
    let (mut depth, mut at) = (0, 0);
    loop {
        match text.get(at..at + 2)? {
            "/*" => (depth, at) = (depth + 1, at + 2),
            "*/" if depth == 1 => return Some(at + 2),
            "*/" => (depth, at) = (depth - 1, at + 2),
            _ => at += text[at..].chars().next()?.len_utf8(),
        }
    }
}

/// The content of a quoted text, doubled quotes undone, and the length of all of it.
fn quoted(text: &str, quote: char, escapes: bool) -> Option<(String, usize)> {
    let mut content = String::new();
    let mut signs = text.char_indices().skip(1).peekable();
    while let Some((at, sign)) = signs.next() {
        if escapes && sign == '\\' {
            content.push(sign);
            content.push(signs.next()?.1);
        } else if sign != quote {
            content.push(sign);
        } else if signs.next_if(|(_, next)| *next == quote).is_some() {
            content.push(quote);
        } else {
            return Some((content, at + 1));
        }
    }
    None
}

/// What is wrong with a file, each with its line.
fn judge(name: &str, sql: &str) -> Vec<String> {
    let found = code(sql, 1);
    found
        .into_iter()
        .map(|(line, what)| format!("{name}:{line}: {what}"))
        .collect()
}

fn code(sql: &str, first_line: usize) -> Vec<(usize, String)> {
    let mut findings = Vec::new();
    let tokens = match lex(sql) {
        Ok(tokens) => tokens,
        Err(line) => {
            return vec![(
                first_line + line - 1,
                "a quote that does not end".to_owned(),
            )];
        }
    };
    let word = |index: usize| match tokens.get(index) {
        Some((_, Token::Word(word))) => word.as_str(),
        _ => "",
    };
    for (index, (line, token)) in tokens.iter().enumerate() {
        let line = first_line + line - 1;
        let mut find = |what: &str| findings.push((line, what.to_owned()));
        match token {
            Token::Word(name) if name == FORBIDDEN => {
                find("names schema dbos, which belongs to the engine");
            }
            Token::Word(_) => {
                let next = word(index + 1);
                match word(index) {
                    "execute" if !matches!(next, "function" | "procedure") => {
                        find("SQL that is made at run time: write the statement itself");
                    }
                    "set_config" => find("set_config takes any text: write SET instead"),
                    "owned" if matches!(next, "by") && word(index.wrapping_sub(1)) == "drop" => {
                        find("reaches every schema: name the objects");
                    }
                    "reassign" => find("reaches every schema: name the objects"),
                    "alter" | "create" | "drop"
                        if matches!(next, "database" | "system" | "event") =>
                    {
                        find("reaches beyond schema app");
                    }
                    "language" if !matches!(next, "sql" | "plpgsql") => {
                        find("a language that cannot be judged: use sql or plpgsql");
                    }
                    _ => {}
                }
            }
            Token::Text(text, escapes) => {
                if *escapes && text.contains('\\') {
                    find("escapes cannot be judged: write it out");
                }
                let mut words = text.split(|sign: char| !sign.is_alphanumeric() && sign != '_');
                if words.any(|word| word.eq_ignore_ascii_case(FORBIDDEN)) {
                    find("names schema dbos in a string, which could be executed");
                }
                // The body of `DO '…'`. As text it is harmless.
                if word(index.wrapping_sub(1)) == "do" || word(index.wrapping_sub(1)) == "as" {
                    findings.extend(code(text, line));
                }
            }
            Token::Body(body) => findings.extend(code(body, line)),
            Token::Sign('\\') => find("a command of psql"),
            Token::Sign(_) => {}
        }
    }
    findings
}

#[test]
fn no_migration_and_no_seed_names_the_schema_of_the_engine() {
    let files = texts(|name| name.starts_with("db/") && name.ends_with(".sql"));
    let findings: Vec<String> = files
        .iter()
        .flat_map(|(name, sql)| judge(name, sql))
        .collect();
    assert_clean(&findings);
}

#[test]
fn whatever_names_or_reaches_the_schema_is_found_however_it_is_written() {
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
        "SELECT 'dbos';",
        "/* /* */ DROP SCHEMA dbos; */ DROP SCHEMA dbos;",
        "\\i other.sql",
        "SELECT 'never closed",
        "DO $a$ BEGIN DROP SCHEMA dbos; END $b$;",
    ] {
        assert!(!judge("m.sql", sql).is_empty(), "{sql}");
    }
}

#[test]
fn comments_and_other_names_pass_and_so_do_views_and_functions_of_the_product() {
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
                RAISE NOTICE 'seen %', seen;
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
        -- Schema dbos belongs to the engine.
        /* DROP SCHEMA dbos; /* dbos */ dbos */
        CREATE TABLE app.dbos_like (mydbos int, text text DEFAULT 'it''s /* $$ -- mydbos');
        SET LOCAL search_path = app, pg_catalog;
        SELECT a[1], '$1', 1.5e3, \"select\".\"DBOS\" FROM x WHERE a <> $1 AND b LIKE 'x\\_%';
    ";
    assert_clean(&judge("m.sql", sql));
}

#[test]
fn a_finding_names_its_line_also_in_a_body() {
    let sql = "SELECT 1;\n\nCREATE FUNCTION app.f() RETURNS void LANGUAGE plpgsql AS $$\nBEGIN\n  DROP TABLE dbos.x;\nEND $$;\n";
    let found = judge("m.sql", sql);
    assert_eq!(
        found,
        ["m.sql:5: names schema dbos, which belongs to the engine"]
    );
}
