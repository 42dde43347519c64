-- One intent to start runs of: `POST /intents/it_00000000000070008000000000000001/run`.
INSERT INTO app.intents (id, goal, payload)
VALUES (
    'it_00000000000070008000000000000001',
    'demo',
    '{"inputs": {"repo": "sisu-kodo"}, "constraints": {"determinism": true}, "connectors": []}'
)
ON CONFLICT (id) DO NOTHING;
