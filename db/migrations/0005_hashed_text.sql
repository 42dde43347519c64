-- The row of an artifact keeps the text that was hashed, so that whoever has only a psql can check the hash.

-- Canonical JSON (RFC 8785, numbers exact) of `inline`, whose sha256 is column `sha256`. NULL where the content is in the
-- artifact store, and in rows of before this migration: their text is made anew from `inline` when it is checked.
ALTER TABLE app.artifacts ADD COLUMN canonical text;
