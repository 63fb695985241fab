"""A token server as `auth.token` of CNCF distribution knows them: whoever sends alice's password may do everything, others
pull what is below public/. Usage: token_server.py PORT KEY CERTIFICATE"""

import base64
import hashlib
import http.server
import json
import subprocess
import sys
import time
import urllib.parse

PORT, KEY, CERTIFICATE = int(sys.argv[1]), sys.argv[2], sys.argv[3]
ALICE = "Basic " + base64.b64encode(b"alice:wonderland").decode()


def openssl(*arguments, data=None):
    return subprocess.run(["openssl", *arguments], input=data, capture_output=True, check=True).stdout


def part(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def fingerprint():
    """libtrust's name of the key: what distribution 2 looks for."""
    public = openssl("pkey", "-pubout", "-outform", "DER", "-in", KEY)
    text = base64.b32encode(hashlib.sha256(public).digest()[:30]).decode()
    return ":".join(text[i : i + 4] for i in range(0, 48, 4))


KID = fingerprint()


def access(scopes, subject):
    granted = []
    for scope in scopes:
        kind, rest = scope.split(":", 1)
        name, actions = rest.rsplit(":", 1)
        actions = actions.split(",")
        if not subject:
            actions = [action for action in actions if action == "pull" and name.startswith("public/")]
        granted.append({"type": kind, "name": name, "actions": actions})
    return granted


def token(subject, service, scopes):
    now = int(time.time())
    header = {"typ": "JWT", "alg": "RS256", "kid": KID}
    claims = {
        "iss": "tokens.test",
        "sub": subject,
        "aud": service,
        "exp": now + 300,
        "nbf": now - 10,
        "iat": now,
        "jti": str(time.monotonic_ns()),
        "access": access(scopes, subject),
    }
    message = f"{part(json.dumps(header).encode())}.{part(json.dumps(claims).encode())}"
    signature = openssl("dgst", "-sha256", "-sign", KEY, data=message.encode())
    return f"{message}.{part(signature)}"


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, status, body):
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def grant(self, query, subject):
        scopes = [scope for value in query.get("scope", []) for scope in value.split()]
        signed = token(subject, query.get("service", [""])[0], scopes)
        self.answer(200, {"token": signed, "access_token": signed, "expires_in": 300})

    def refuse(self):
        self.answer(401, {"errors": [{"code": "UNAUTHORIZED", "message": "incorrect username or password"}]})

    def do_GET(self):
        query = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)
        match self.headers.get("Authorization"):
            case None:
                self.grant(query, "")
            case authorization if authorization == ALICE:
                self.grant(query, "alice")
            case _:
                self.refuse()

    def do_POST(self):
        form = urllib.parse.parse_qs(self.rfile.read(int(self.headers.get("Content-Length", 0))).decode())
        if form.get("username") == ["alice"] and form.get("password") == ["wonderland"]:
            self.grant(form, "alice")
        else:
            self.refuse()


http.server.ThreadingHTTPServer(("127.0.0.1", PORT), Handler).serve_forever()
