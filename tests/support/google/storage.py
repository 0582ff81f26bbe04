"""Google Cloud Storage in memory, as far as a lake and its readers ask for it: the XML API that object_store speaks, and of the
JSON API what pyarrow reads by. Emulators that can be had serve neither XML uploads in parts nor preconditions on XML requests.

    storage.py PORT CREDENTIALS    makes a service account, writes its file, and serves on 127.0.0.1:PORT

It takes tokens that the account has signed, and READER from who reads beside the lake. As Google documents it:

- `x-goog-if-generation-match: 0` creates only, another number replaces that generation only; else 412 PreconditionFailed.
- An upload in parts is seen when it is completed; each part but the last has 5 MiB or more; what was completed or aborted is
  gone (404 NoSuchUpload).
- A list gives its names in pages. Here they are short, so that readers must ask for the next.

`POST /_test/nobody?0` has it take no token of the account's any more, `?1` any again.
"""
import base64
import hashlib
import itertools
import json
import re
import sys
import threading
import time
import urllib.parse
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from xml.sax.saxutils import escape

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

READER = "reader"
EMAIL = "lake@tests.iam.gserviceaccount.com"
SCOPE = "https://www.googleapis.com/auth/cloud-platform"
PAGE_KEYS = 50
PART_BYTES_MIN = 5 << 20


class Refused(Exception):
    def __init__(self, status, code, message):
        super().__init__(code)
        self.status, self.code, self.message = status, code, message


class Object:
    def __init__(self, data, e_tag, generation):
        self.data, self.e_tag, self.generation = data, e_tag, generation
        self.made = time.time()


class Storage:
    """Buckets of objects, and uploads that are not ended. One request changes them at a time."""

    def __init__(self):
        self.lock = threading.Lock()
        self.buckets = {}
        self.uploads = {}
        self.generations = itertools.count(1_700_000_000_000_000)

    def bucket(self, name):
        if name not in self.buckets:
            raise Refused(404, "NoSuchBucket", "The specified bucket does not exist.")
        return self.buckets[name]

    def object(self, bucket, key):
        found = self.bucket(bucket).get(key)
        if found is None:
            raise Refused(404, "NoSuchKey", "The specified key does not exist.")
        return found

    def put(self, bucket, key, data, wanted):
        objects = self.bucket(bucket)
        there = objects[key].generation if key in objects else 0
        if wanted is not None and int(wanted) != there:
            raise Refused(412, "PreconditionFailed", "At least one of the pre-conditions you specified did not hold.")
        objects[key] = Object(data, f'"{hashlib.md5(data).hexdigest()}"', next(self.generations))
        return objects[key]

    def delete(self, bucket, key):
        self.object(bucket, key)
        del self.bucket(bucket)[key]

    def begin(self, bucket, key):
        self.bucket(bucket)
        upload = f"upload-{next(self.generations)}"
        self.uploads[upload] = (bucket, key, {})
        return upload

    def parts(self, bucket, key, upload):
        found = self.uploads.get(upload)
        if found is None or found[:2] != (bucket, key):
            raise Refused(404, "NoSuchUpload", "The requested upload was not found.")
        return found[2]

    def complete(self, bucket, key, upload, told):
        parts = self.parts(bucket, key, upload)
        named = re.findall(r"<Part>(.*?)</Part>", told, re.DOTALL)
        numbers = [int(re.search(r"<PartNumber>(\d+)<", part)[1]) for part in named]
        tags = [re.search(r"<ETag>(.*?)</ETag>", part)[1].replace("&quot;", '"') for part in named]
        if not numbers or numbers != sorted(set(numbers)):
            raise Refused(400, "InvalidPartOrder", "The list of parts was not in ascending order.")
        if any(number not in parts or parts[number].e_tag != tag for number, tag in zip(numbers, tags)):
            raise Refused(400, "InvalidPart", "One or more of the specified parts could not be found.")
        if any(len(parts[number].data) < PART_BYTES_MIN for number in numbers[:-1]):
            raise Refused(400, "EntityTooSmall", "A part is smaller than the minimum allowed size.")
        whole = self.put(bucket, key, b"".join(parts[number].data for number in numbers), None)
        whole.e_tag = f'"{hashlib.md5(whole.data).hexdigest()}-{len(numbers)}"'
        del self.uploads[upload]
        return whole

    def list(self, bucket, prefix, delimiter, after):
        """A page of names and of prefixes that end with the delimiter, and where the next page begins."""
        found, prefixes = [], []
        for key in sorted(self.bucket(bucket)):
            if not key.startswith(prefix) or key <= after:
                continue
            cut = key.find(delimiter, len(prefix)) if delimiter else -1
            name = key if cut < 0 else key[: cut + len(delimiter)]
            if cut >= 0 and (name <= after or name in prefixes):
                continue
            if len(found) + len(prefixes) == PAGE_KEYS:
                return found, prefixes, max(found + prefixes)
            (found if cut < 0 else prefixes).append(name)
        return found, prefixes, None


class Account:
    """A service account, and whether its tokens are taken."""

    def __init__(self, file):
        self.key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.known = True
        pem = self.key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        account = {
            "type": "service_account",
            "project_id": "tests",
            "private_key_id": "1",
            "private_key": pem.decode(),
            "client_email": EMAIL,
            "client_id": "1",
        }
        with open(file, "w") as written:
            json.dump(account, written)

    def check(self, header):
        token = (header or "").removeprefix("Bearer ")
        if token == READER:
            return
        if not self.known or not self.signed(token):
            raise Refused(401, "AuthenticationRequired", "Authentication required.")

    def signed(self, token):
        try:
            message, signature = token.rsplit(".", 1)
            decode = lambda text: base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
            self.key.public_key().verify(decode(signature), message.encode(), padding.PKCS1v15(), hashes.SHA256())
            claims = json.loads(decode(message.split(".")[1]))
        except (ValueError, InvalidSignature):
            return False
        return claims["iss"] == claims["sub"] == EMAIL and claims["scope"] == SCOPE and claims["iat"] - 60 < time.time() < claims["exp"]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    storage = Storage()
    account = None

    def log_message(self, *said):
        pass

    def answer(self, status, body=b"", kind="application/xml", headers=()):
        body = body.encode() if isinstance(body, str) else body
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        if "Content-Length" not in dict(headers):
            self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Type", kind)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def handle_request(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path, _, query = self.path.partition("?")
        asked = dict(urllib.parse.parse_qsl(query, keep_blank_values=True))
        try:
            if path == "/_test/nobody":
                self.account.known = "1" in asked
                return self.answer(200)
            self.account.check(self.headers.get("Authorization"))
            with self.storage.lock:
                if path.startswith("/storage/v1/b/"):
                    told = self.json(path, asked)
                else:
                    bucket, _, key = (urllib.parse.unquote(part) for part in path[1:].partition("/"))
                    told = self.of_object(bucket, key, asked, body) if key else self.of_bucket(bucket, asked)
        except Refused as refused:
            said = f"<Error><Code>{refused.code}</Code><Message>{refused.message}</Message></Error>"
            told = (refused.status, f"<?xml version='1.0' encoding='UTF-8'?>{said}")
        self.answer(*told)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = handle_request

    def of_bucket(self, bucket, asked):
        if self.command == "PUT":
            self.storage.buckets.setdefault(bucket, {})
            return (200,)
        if "uploads" in asked:
            ids = [id for id, upload in self.storage.uploads.items() if upload[0] == bucket]
            uploads = "".join(f"<Upload><UploadId>{id}</UploadId></Upload>" for id in ids)
            return 200, f"<ListMultipartUploadsResult>{uploads}</ListMultipartUploadsResult>"
        if asked.get("list-type") != "2":
            raise Refused(400, "InvalidArgument", "Only the second version of lists is served.")
        after = asked.get("continuation-token") or asked.get("start-after") or ""
        found, prefixes, more = self.storage.list(bucket, asked.get("prefix", ""), asked.get("delimiter", ""), after)
        objects = [(key, self.storage.object(bucket, key)) for key in found]
        contents = "".join(
            f"<Contents><Key>{escape(key)}</Key><Generation>{object.generation}</Generation><LastModified>{instant(object.made)}"
            f"</LastModified><ETag>{object.e_tag}</ETag><Size>{len(object.data)}</Size></Contents>"
            for key, object in objects
        )
        contents += "".join(f"<CommonPrefixes><Prefix>{escape(prefix)}</Prefix></CommonPrefixes>" for prefix in prefixes)
        if more:
            contents += f"<NextContinuationToken>{escape(more)}</NextContinuationToken>"
        return 200, f"<ListBucketResult><IsTruncated>{str(bool(more)).lower()}</IsTruncated>{contents}</ListBucketResult>"

    def of_object(self, bucket, key, asked, body):
        storage, upload = self.storage, asked.get("uploadId")
        if self.command in ("GET", "HEAD"):
            return self.given(storage.object(bucket, key))
        if self.command == "DELETE":
            if upload:
                storage.parts(bucket, key, upload)
                del storage.uploads[upload]
            else:
                storage.delete(bucket, key)
            return (204,)
        if self.command == "POST" and "uploads" in asked:
            return 200, f"<InitiateMultipartUploadResult><UploadId>{storage.begin(bucket, key)}</UploadId></InitiateMultipartUploadResult>"
        if self.command == "POST":
            whole = storage.complete(bucket, key, upload, body.decode())
            told = f"<CompleteMultipartUploadResult><ETag>{escape(whole.e_tag)}</ETag></CompleteMultipartUploadResult>"
            return 200, told, "application/xml", [("x-goog-generation", str(whole.generation))]
        if upload:
            part = Object(body, f'"{hashlib.md5(body).hexdigest()}"', 0)
            storage.parts(bucket, key, upload)[int(asked["partNumber"])] = part
            return 200, b"", "application/xml", [("ETag", part.e_tag)]
        source = self.headers.get("x-goog-copy-source")
        if source:
            body = storage.object(*map(urllib.parse.unquote, source.split("/", 1))).data
        made = storage.put(bucket, key, body, self.headers.get("x-goog-if-generation-match"))
        return 200, b"", "application/xml", [("ETag", made.e_tag), ("x-goog-generation", str(made.generation))]

    def given(self, object):
        headers = [("ETag", object.e_tag), ("x-goog-generation", str(object.generation)), ("Last-Modified", formatdate(object.made, usegmt=True))]
        size, asked = len(object.data), re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if not asked:
            return 200, object.data, "application/octet-stream", headers + [("Content-Length", str(size))]
        first, last = int(asked[1]), min(int(asked[2] or size), size - 1)
        if first >= size:
            raise Refused(416, "InvalidRange", "The requested range cannot be satisfied.")
        return 206, object.data[first : last + 1], "application/octet-stream", headers + [("Content-Range", f"bytes {first}-{last}/{size}")]

    def json(self, path, asked):
        """Lists and reads; uploads are XML's."""
        bucket, _, rest = path.removeprefix("/storage/v1/b/").partition("/o")
        key = urllib.parse.unquote(rest[1:])
        try:
            if key and asked.get("alt") == "media":
                return self.given(self.storage.object(bucket, key))
            if key:
                told = resource(bucket, key, self.storage.object(bucket, key))
            elif not path.endswith("/o"):
                self.storage.bucket(bucket)
                told = {"kind": "storage#bucket", "name": bucket, "id": bucket}
            else:
                found, prefixes, more = self.storage.list(bucket, asked.get("prefix", ""), asked.get("delimiter", ""), asked.get("pageToken", ""))
                items = [resource(bucket, key, self.storage.object(bucket, key)) for key in found]
                told = {"kind": "storage#objects", "items": items, "prefixes": prefixes} | ({"nextPageToken": more} if more else {})
        except Refused as refused:
            return refused.status, json.dumps({"error": {"code": refused.status, "message": refused.message}}), "application/json"
        return 200, json.dumps(told), "application/json"


def instant(seconds):
    return time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(seconds))


def resource(bucket, key, object):
    made = instant(object.made)
    return {
        "kind": "storage#object",
        "bucket": bucket,
        "name": key,
        "generation": str(object.generation),
        "metageneration": "1",
        "size": str(len(object.data)),
        "etag": object.e_tag,
        "timeCreated": made,
        "updated": made,
    }


Handler.account = Account(sys.argv[2])
ThreadingHTTPServer.request_queue_size = 64
ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
