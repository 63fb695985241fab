"""oras-py, one call a run: push|push-chunked HOST NAME FILE, pull HOST NAME DIR, tags HOST NAME, delete-tag HOST NAME."""

import sys

import oras.client

command, host, name, *rest = sys.argv[1:]
client = oras.client.OrasClient(hostname=host, insecure=host.startswith("127."))
target = f"{host}/{name}"
if command in ("push", "push-chunked"):
    chunks = {"do_chunked": True, "chunk_size": 1 << 20} if command == "push-chunked" else {}
    answer = client.push(target=target, files=rest, disable_path_validation=True, **chunks)
    print(answer.status_code)
elif command == "pull":
    print(client.pull(target=target, outdir=rest[0]))
elif command == "tags":
    print(" ".join(client.get_tags(target)))
elif command == "delete-tag":
    print(client.delete_tags(target.rsplit(":", 1)[0], [target.rsplit(":", 1)[1]]))
else:
    sys.exit(f"no command {command}")
