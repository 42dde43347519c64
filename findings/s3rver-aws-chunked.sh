#!/usr/bin/env bash
# s3rver: an object uploaded from a stream by today's AWS SDK holds the upload's framing; its size and ETag agree with it.
#
# Software: npm s3rver 3.7.1 (a local S3 for tests), npm @aws-sdk/client-s3 3.1175.0, Node 20.
#
# Expected: PutObject with a body of 5 bytes stores 5 bytes. A body that is a stream is sent as `Content-Encoding:
# aws-chunked` with a checksum in a trailer, since the SDKs of 2025 compute checksums by default (AWS, "Data integrity
# protections"); a server has to take the frames off or to refuse what it does not know (501 NotImplemented).
#
# Instead: s3rver knows only the older signed form of aws-chunked, answers 200 to the newer one (content hash
# STREAMING-UNSIGNED-PAYLOAD-TRAILER) and stores the frames as the content: length in hexadecimal, data, end, checksum
# line. HeadObject and the ETag describe the framed bytes, so nothing disagrees. The same content as a string or Buffer is
# stored as it is, so a test with small literals passes and only what is streamed (files, proxied uploads) is damaged.
#
# Meaning: after an upgrade of the SDK a test suite on s3rver reads other bytes than it wrote, or, if it never compares
# bytes, passes on damaged objects. `requestChecksumCalculation: 'WHEN_REQUIRED'` in the client avoids it (seen below).
#
# Seen:
#   from a string: put 200, get "hello", 5 bytes
#   from a stream: put 200, get "5\r\nhello\r\n0\r\nx-amz-checksum-crc32:NhCmhg==\r\n\r\n", 46 bytes
#   from a stream, checksums only when required: put 200, get "hello", 5 bytes
set -euo pipefail
# shellcheck source=findings/lib.bash
. "$(dirname "$0")/lib.bash"
work=$(mktemp -d)
chmod 755 "$work"
npm_install js s3rver@3.7.1 @aws-sdk/client-s3@3.1175.0

port=$(free_port)
mkdir "$work/data"
node "$work/js/node_modules/s3rver/bin/s3rver.js" -d "$work/data" -a 127.0.0.1 -p "$port" --silent --configure-bucket bucket >"$work/log" 2>&1 &
pids+=($!)
for _ in $(seq 100); do (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null && break; sleep 0.1; done

cat >"$work/js/probe.mjs" <<'JS'
import { createHash } from 'node:crypto'
import { Readable } from 'node:stream'
import { GetObjectCommand, PutObjectCommand, S3Client } from '@aws-sdk/client-s3'

const common = { endpoint: process.argv[2], region: 'us-east-1', forcePathStyle: true,
                 credentials: { accessKeyId: 'S3RVER', secretAccessKey: 'S3RVER' } }
const put = async (name, body, more = {}) => {
  const client = new S3Client({ ...common, ...more })
  const stored = await client.send(new PutObjectCommand({ Bucket: 'bucket', Key: 'key', Body: body, ContentLength: 5 }))
  const got = await client.send(new GetObjectCommand({ Bucket: 'bucket', Key: 'key' }))
  const text = await got.Body.transformToString()
  const etag = `"${createHash('md5').update(text).digest('hex')}"`
  if (got.ETag !== etag || stored.ETag !== etag) throw new Error('the ETag is not that of the stored bytes')
  console.log(`${name}: put ${stored.$metadata.httpStatusCode}, get ${JSON.stringify(text)}, ${got.ContentLength} bytes`)
}
const stream = () => Readable.from([Buffer.from('hello')])
await put('from a string', 'hello')
await put('from a stream', stream())
await put('from a stream, checksums only when required', stream(), { requestChecksumCalculation: 'WHEN_REQUIRED' })
JS
node --no-warnings "$work/js/probe.mjs" "http://127.0.0.1:$port" >"$work/seen"
expect 'from a string: put 200, get "hello", 5 bytes
from a stream: put 200, get "5\r\nhello\r\n0\r\nx-amz-checksum-crc32:NhCmhg==\r\n\r\n", 46 bytes
from a stream, checksums only when required: put 200, get "hello", 5 bytes' <"$work/seen"
