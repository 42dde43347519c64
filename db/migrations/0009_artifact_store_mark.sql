-- Which artifact store the product database's rows name content in. Two workers with stores of their own, which is what two
-- machines have by default, would each miss what the other one stored.

-- The mark in the store (INSTANCE/mark); NULL until a service has started.
ALTER TABLE app.instance ADD COLUMN artifact_store text;
