#!/usr/bin/env bash
# moto: an upload with a checksum that does not match its bytes is stored, and the object has no checksum to check later.
#
# Software: PyPI moto[server] 5.2.5, boto3 1.44.8.
#
# Expected: S3 recomputes a checksum that the client sends (x-amz-checksum-sha256, -crc32, Content-MD5) and answers 400
# BadDigest if it does not match; the object is not stored. It keeps a matching one and gives it back to HeadObject and
# GetObject with `ChecksumMode: ENABLED`, which is how a reader verifies what it got (S3 User Guide, "Checking object
# integrity").
#
# Instead: moto's server answers 200 to each of the three, stores the bytes, and forgets a value that the client brought:
# HEAD with ChecksumMode has no checksum at all, neither the wrong one nor (third line) a right one. It keeps one only if
# the client names an algorithm (ChecksumAlgorithm) and computes nothing itself. A conditional *copy* (IfNoneMatch on
# CopyObject, in S3 since 2025) overwrites what is there, although moto 5.2.5 does refuse a conditional PutObject.
#
# Meaning: a test on moto cannot prove that corrupted uploads are refused or that a reader checks what it reads: such a test
# passes with the check taken out, and a reader that insists on a checksum fails on moto but not on S3.
#
# Seen:
#   wrong sha256: 200; HEAD: no checksum
#   wrong md5: 200
#   right sha256: 200; HEAD: no checksum
#   algorithm named: 200; HEAD: sha256 right
#   conditional put on an existing key: 412; content b'first'
#   conditional copy on an existing key: 200; content b'other'
set -euo pipefail
# shellcheck source=findings/lib.bash
. "$(dirname "$0")/lib.bash"
work=$(mktemp -d)
chmod 755 "$work"
pip_install py 'moto[server]==5.2.5' boto3==1.44.8

cat >"$work/probe.py" <<'PY'
import base64, hashlib, logging, os
import boto3
from botocore.config import Config
from botocore.exceptions import ClientError
from moto.server import ThreadedMotoServer

logging.getLogger("werkzeug").setLevel(logging.ERROR)
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
host, port = server.get_host_and_port()
s3 = boto3.client("s3", endpoint_url=f"http://{host}:{port}", region_name="us-east-1", aws_access_key_id="a",
                  aws_secret_access_key="b", config=Config(proxies={}))
s3.create_bucket(Bucket="bucket")

def status(call, **arguments):
    try:
        return call(Bucket="bucket", **arguments)["ResponseMetadata"]["HTTPStatusCode"]
    except ClientError as error:
        return error.response["ResponseMetadata"]["HTTPStatusCode"]

def digest(algorithm, content):
    return base64.b64encode(hashlib.new(algorithm, content).digest()).decode()

def head(key):
    found = {k: v for k, v in s3.head_object(Bucket="bucket", Key=key, ChecksumMode="ENABLED").items()
             if k.startswith("Checksum") and k != "ChecksumType"}
    if not found:
        return "no checksum"
    return "sha256 right" if found == {"ChecksumSHA256": digest("sha256", b"hello")} else str(found)

put = s3.put_object
print("wrong sha256:", f"{status(put, Key='a', Body=b'hello', ChecksumSHA256=digest('sha256', b'other'))}; HEAD: {head('a')}")
print("wrong md5:", status(put, Key="b", Body=b"hello", ContentMD5=digest("md5", b"other")))
print("right sha256:", f"{status(put, Key='c', Body=b'hello', ChecksumSHA256=digest('sha256', b'hello'))}; HEAD: {head('c')}")
print("algorithm named:", f"{status(put, Key='d', Body=b'hello', ChecksumAlgorithm='SHA256')}; HEAD: {head('d')}")
put(Bucket="bucket", Key="e", Body=b"first")
put(Bucket="bucket", Key="f", Body=b"other")
content = lambda: s3.get_object(Bucket="bucket", Key="e")["Body"].read()
print("conditional put on an existing key:", f"{status(put, Key='e', Body=b'other', IfNoneMatch='*')}; content {content()}")
copied = status(s3.copy_object, Key="e", CopySource="bucket/f", IfNoneMatch="*")
print("conditional copy on an existing key:", f"{copied}; content {content()}")
server.stop()
PY
NO_PROXY='*' "$work/py/bin/python" "$work/probe.py" 2>"$work/log" >"$work/seen" || { tail "$work/log" >&2; exit 1; }
expect "wrong sha256: 200; HEAD: no checksum
wrong md5: 200
right sha256: 200; HEAD: no checksum
algorithm named: 200; HEAD: sha256 right
conditional put on an existing key: 412; content b'first'
conditional copy on an existing key: 200; content b'other'" <"$work/seen"
