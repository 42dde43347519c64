#!/usr/bin/env bash
# llama.cpp's server: JSON Schema keywords that it does not know are dropped without a word, and so are known ones beside them.
#
# Software: PyPI xllamacpp 2026.10.11549 (llama.cpp's server as a Python wheel), with a model of random weights that is
# made here by PyPI gguf 0.19.0 (350 kB): only the grammar decides what comes out.
#
# A chat completion with `response_format: {type: "json_schema", json_schema: {strict: true, schema}}`. Expected: with
# `strict` the reply matches the schema, or the request is refused (OpenAI's Structured Outputs: a schema with a keyword
# that is not supported is an error). JSON Schema 2020-12: keywords beside each other all hold.
#
# Instead: 200, finish_reason "stop", and no warning for each of these; what comes out breaks the schema:
#   - `properties` and `required` beside `oneOf`: the *first* are dropped, so the required member `kind` is
#     not merely optional, it cannot occur at all;
#   - `minimum` and `maximum` of a `number` are dropped, while those of an `integer` are kept to;
#   - `required` naming a member that is not in `properties`, `minProperties`, `dependentRequired`, `uniqueItems`,
#     `multipleOf`.
# Kept to: types, enum, integer bounds, minItems and maxItems, additionalProperties false, required members of `properties`.
# llama.cpp's notes on grammars name some of these limits; neither the reply nor the log does.
#
# Meaning: "the server enforces the schema" is no reason not to validate. A discriminated union written as shared
# `properties` with `oneOf` is the usual way to write it, and comes back without its discriminator each time: put the
# shared members into every branch.
#
# Seen (ten seeds for each schema; random weights, so how many break it may differ, that any does may not):
#   properties beside oneOf: 200, broken: yes; replies with the required member kind: 0
#   bounds of a number: 200, broken: yes
#   required member not in properties: 200, broken: yes
#   minProperties, dependentRequired, uniqueItems, multipleOf: 200, broken: yes
#   kept to: bounds of an integer: 200, broken: no
#   ...
# FINDING_VERBOSE=1 shows the replies, for instance {"v":1}, 198, {} and [2,1,1,2].
set -euo pipefail
# shellcheck source=findings/lib.bash
. "$(dirname "$0")/lib.bash"
work=$(mktemp -d)
chmod 755 "$work"
pip_install py xllamacpp==2026.10.11549 gguf==0.19.0 jsonschema==4.26.0

cat >"$work/model.py" <<'PY'
import sys
import gguf, numpy

width, inner, heads = 64, 128, 4
rng = numpy.random.default_rng(1)
random = lambda *shape: (rng.standard_normal(shape) * 0.02).astype(numpy.float32)
tokens = ["<unk>", "<s>", "</s>"] + [f"<0x{i:02X}>" for i in range(256)] + ["\u2581"] + [chr(i) for i in range(33, 127)]
kinds = [gguf.TokenType.UNKNOWN] + 2 * [gguf.TokenType.CONTROL] + 256 * [gguf.TokenType.BYTE] + 95 * [gguf.TokenType.NORMAL]
w = gguf.GGUFWriter(sys.argv[1], "llama")
w.add_context_length(4096)
w.add_embedding_length(width)
w.add_block_count(1)
w.add_feed_forward_length(inner)
w.add_head_count(heads)
w.add_head_count_kv(heads)
w.add_layer_norm_rms_eps(1e-5)
w.add_rope_dimension_count(width // heads)
w.add_vocab_size(len(tokens))
w.add_file_type(gguf.LlamaFileType.ALL_F32)
w.add_tokenizer_model("llama")
w.add_token_list(tokens)
w.add_token_scores([0.0] * 3 + [-10.0] * 256 + [-1.0] * 95)
w.add_token_types(kinds)
w.add_bos_token_id(1)
w.add_eos_token_id(2)
w.add_unk_token_id(0)
w.add_chat_template("{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:")
w.add_tensor("token_embd.weight", random(len(tokens), width))
w.add_tensor("output_norm.weight", numpy.ones(width, numpy.float32))
w.add_tensor("output.weight", random(len(tokens), width))
for name in ("attn_norm", "ffn_norm"):
    w.add_tensor(f"blk.0.{name}.weight", numpy.ones(width, numpy.float32))
for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
    w.add_tensor(f"blk.0.{name}.weight", random(width, width))
w.add_tensor("blk.0.ffn_gate.weight", random(inner, width))
w.add_tensor("blk.0.ffn_up.weight", random(inner, width))
w.add_tensor("blk.0.ffn_down.weight", random(width, inner))
w.write_header_to_file()
w.write_kv_data_to_file()
w.write_tensors_to_file()
w.close()
PY
"$work/py/bin/python" "$work/model.py" "$work/tiny.gguf" >&2

cat >"$work/probe.py" <<'PY'
import json, sys, urllib.error, urllib.request
import jsonschema, xllamacpp

params = xllamacpp.CommonParams()
params.model.path, params.hostnames, params.port = sys.argv[1], ["127.0.0.1"], int(sys.argv[2])
params.n_ctx, params.n_parallel, params.warmup, params.use_jinja = 4096, 1, False, True
params.cpuparams.n_threads = 1
server = xllamacpp.Server(params)
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

def reply(schema, seed):
    body = {"messages": [{"role": "user", "content": "hi"}], "seed": seed, "temperature": 1.0, "max_tokens": 400,
            "response_format": {"type": "json_schema", "json_schema": {"name": "s", "strict": True, "schema": schema}}}
    request = urllib.request.Request(f"http://127.0.0.1:{sys.argv[2]}/v1/chat/completions", json.dumps(body).encode(),
                                     {"content-type": "application/json"})
    with opener.open(request, timeout=120) as answer:
        choice = json.load(answer)["choices"][0]
    return choice["finish_reason"], choice["message"]["content"]

flag, no = {"type": "boolean"}, False
members = {"a": flag, "b": flag}
branch = lambda name: {"properties": {name: {"const": 1}}, "required": [name]}
SCHEMAS = {
    "properties beside oneOf": {"type": "object", "properties": {"kind": {"const": "x"}}, "required": ["kind"],
                                "oneOf": [branch("v"), branch("w")]},
    "bounds of a number": {"type": "number", "minimum": 5, "maximum": 6},
    "required member not in properties": {"type": "object", "properties": members, "required": ["c"]},
    "minProperties": {"type": "object", "properties": members, "minProperties": 2, "additionalProperties": no},
    "dependentRequired": {"type": "object", "properties": members, "required": ["a"], "dependentRequired": {"a": ["b"]},
                          "additionalProperties": no},
    "uniqueItems": {"type": "array", "items": {"enum": [1, 2, 3, 4]}, "minItems": 4, "maxItems": 4, "uniqueItems": True},
    "multipleOf": {"type": "integer", "minimum": 11, "maximum": 99, "multipleOf": 10},
    "kept to: bounds of an integer": {"type": "integer", "minimum": 5, "maximum": 6},
    "kept to: required, additionalProperties": {"type": "object", "properties": members, "required": ["a", "b"],
                                                "additionalProperties": no},
    "kept to: minItems, maxItems, enum": {"type": "array", "items": {"enum": [1, 2, 3, 4]}, "minItems": 4, "maxItems": 4},
}
for name, schema in SCHEMAS.items():
    validator = jsonschema.Draft202012Validator(schema)
    replies = [reply(schema, seed) for seed in range(10)]
    complete = [json.loads(text) for finish, text in replies if finish == "stop"]
    broken = [value for value in complete if not validator.is_valid(value)]
    print("#", name, replies, file=sys.stderr)
    more = f"; replies with the required member kind: {sum('kind' in value for value in complete)}" if "oneOf" in schema else ""
    print(f"{name}: 200, broken: {'yes' if broken else 'no' if complete else 'no reply was complete'}{more}")
PY
"$work/py/bin/python" "$work/probe.py" "$work/tiny.gguf" "$(free_port)" 2>"$work/log" >"$work/seen" || { tail -20 "$work/log" >&2; exit 1; }
if grep -iE ' W |warn|unsupported|ignor' "$work/log" | grep -v '^#' | grep -iE 'schema|keyword|propert|unique|multiple' >&2; then exit 1; fi
[ -z "${FINDING_VERBOSE:-}" ] || grep '^#' "$work/log" >&2
expect "properties beside oneOf: 200, broken: yes; replies with the required member kind: 0
bounds of a number: 200, broken: yes
required member not in properties: 200, broken: yes
minProperties: 200, broken: yes
dependentRequired: 200, broken: yes
uniqueItems: 200, broken: yes
multipleOf: 200, broken: yes
kept to: bounds of an integer: 200, broken: no
kept to: required, additionalProperties: 200, broken: no
kept to: minItems, maxItems, enum: 200, broken: no" <"$work/seen"
